package pace

import "time"

// recentCalls counts calls by second.
type recentCalls struct {
	counts [11]int // by second, the current one included
	second int64   // the last second that has a count
}

func (r *recentCalls) add(now time.Time) {
	r.turn(now)
	r.counts[r.second%int64(len(r.counts))]++
}

// rate returns the calls a second over the ten seconds before the current one.
func (r *recentCalls) rate(now time.Time) float64 {
	r.turn(now)
	sum := -r.counts[r.second%int64(len(r.counts))]
	for _, n := range r.counts {
		sum += n
	}
	return float64(sum) / float64(len(r.counts)-1)
}

// turn removes the counts that are too old.
func (r *recentCalls) turn(now time.Time) {
	// After a pause, no count is left.
	current := now.Unix()
	if current-r.second >= int64(len(r.counts)) {
		r.counts = [11]int{}
		r.second = current
	}
	for r.second < current {
		r.second++
		r.counts[r.second%int64(len(r.counts))] = 0
	}
}
