package correlation

// The number of occurrences that a group keeps.
const (
	KeepLeast = 1024     // for any rule
	keepDays  = 1 << 20  // of a type that compares a group with other days
	keepExact = 16 << 10 // of a type whose value depends on each occurrence
)

// keepCount returns the number of occurrences that decide a count.
func (s *Spec) keepCount(highest float64) int {
	for _, bound := range s.Bounds {
		highest = max(highest, bound.Than)
	}
	return max(KeepLeast, 4*int(min(highest, 1<<20)))
}
