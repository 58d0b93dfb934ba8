package scanner

// Status describes the state of an Engine and its losses.
type Status struct {
	Groups   int
	Open     int
	Evicted  map[string]uint64 // groups evicted at MaxGroups, by rule id
	Late     uint64            // events later than Config.Lateness
	Timeouts uint64            // regular expressions that exceeded their time limit
	Broken   map[string]string // rules disabled by a panic: its message, by rule id
}

// Status returns the engine's current state.
func (e *Engine) Status() Status {
	status := Status{
		Groups:   e.groups,
		Open:     e.open,
		Evicted:  map[string]uint64{},
		Late:     e.late,
		Timeouts: e.matcher.Timeouts(),
	}
	for _, state := range e.rules {
		if state.evicted > 0 {
			status.Evicted[state.rule.ID] += state.evicted
		}
		if state.broken != "" {
			status.addBroken(state.rule.ID, state.broken)
		}
	}

	// The matcher disables detections by itself.
	for i, failure := range e.matcher.Broken() {
		status.addBroken(e.set.Rules()[i].ID, failure)
	}
	return status
}

func (s *Status) addBroken(id, failure string) {
	if s.Broken == nil {
		s.Broken = map[string]string{}
	}
	s.Broken[id] = failure
}
