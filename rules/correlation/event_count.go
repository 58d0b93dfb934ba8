package correlation

// eventCount is the number of events in the window.
type eventCount struct{}

func (eventCount) Name() string { return "event_count" }

func (eventCount) Traits() Traits { return Traits{Count: true} }

func (eventCount) Check(*Spec) error { return nil }

func (eventCount) Evaluate(s *Spec, _ Window, begin, end int) (value float64, holds, enough bool) {
	value = float64(end + 1 - begin)
	return value, s.Holds(value), true
}

func (eventCount) Keep(s *Spec, highest float64) int { return s.keepCount(highest) }

func (eventCount) Describe(_ *Spec, words Words) string { return words.Bounds + " events" }

func (eventCount) SQL(_ *Spec, query *SQL) { query.Value = "count() OVER w" }
