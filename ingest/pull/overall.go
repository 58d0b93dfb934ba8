package pull

// Overall is the state of several pullers together.
type Overall struct {
	Backfill    bool    // one is in progress
	Rounds      int     // finished backfills
	Events      uint64  // acknowledged by Kafka since the start
	Done        uint64  // events of the backfill
	Share       float64 // finished part of the backfill, from 0 to 1
	Expected    float64 // events that the backfill has yet to pull
	Calls, Rate float64 // calls a second: made, and allowed
}

// Sum returns the state of pullers together.
func Sum(pullers []*Puller) Overall {
	var all Overall
	var shares, tenants float64
	for _, puller := range pullers {
		s := puller.Status()
		all.Backfill = all.Backfill || s.Backfill
		all.Events += s.Events
		all.Rounds += s.Slices.Rounds + s.Serial
		all.Calls += s.Use.Calls
		all.Rate += s.Use.Rate

		// A tenant is backfilled in slices or, if it rejects synthetic ids, by one serial chain.
		all.Done += s.Slices.Events
		if s.Slices.Rounds == 0 && s.Slices.Chains == 0 {
			all.Done += s.Total
		}
		switch {
		case s.Slices.Chains > 0:
			all.Expected += s.Slices.Expected
			shares += s.Slices.Share
		case s.Backfill:
			shares += serialShare(s)
		default:
			shares++
		}
		tenants++
	}

	if tenants > 0 {
		all.Share = shares / tenants
	}
	return all
}

// serialShare returns the part of the time from the oldest event to the first start that a serial chain has
// pulled.
func serialShare(s Status) float64 {
	whole := s.LiveFrom.Sub(s.Oldest)
	if s.Oldest.IsZero() || whole <= 0 {
		return 0
	}
	return min(max(float64(s.Position.Sub(s.Oldest))/float64(whole), 0), 1)
}
