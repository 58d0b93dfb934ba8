package correlation

import "fmt"

// lastEvents is the number of matches among the last events of another rule.
type lastEvents struct{}

func (lastEvents) Name() string { return "last_events" }

func (lastEvents) Traits() Traits { return Traits{Keys: []string{"among", "last"}, BySource: true} }

func (lastEvents) Check(s *Spec) error {
	if !s.canHold(s.Last) {
		return fmt.Errorf("it can never hold for the last %d events", s.Last)
	}
	return nil
}

func (lastEvents) Evaluate(s *Spec, all Window, _, end int) (value float64, holds, enough bool) {
	value = float64(all[:end+1].lastMatches(s.Last, s.span()))
	return value, s.Holds(value), true
}

// Keep has spare room, so that a late event can be sorted in.
func (lastEvents) Keep(s *Spec, _ float64) int { return s.Last + 64 }

func (lastEvents) Describe(s *Spec, words Words) string {
	return fmt.Sprintf("%s of the last %d", words.Bounds, s.Last)
}

func (lastEvents) SQL(s *Spec, query *SQL) {
	query.Frame = fmt.Sprintf("ORDER BY at, log_id ROWS BETWEEN %d PRECEDING AND CURRENT ROW", s.Last-1)
	query.Value = fmt.Sprintf("arrayCount(x -> x > %s - %d, groupArrayIf(%s, %s) OVER w)",
		sqlTime("at"), s.Timespan.Milliseconds(), sqlTime("at"), s.anySource())
}

// lastMatches returns how many of the last n occurrences match and are within span.
func (w Window) lastMatches(n int, span int64) (count uint64) {
	newest := w[len(w)-1].At
	for i := max(len(w)-n, 0); i < len(w); i++ {
		if w[i].Seen != 0 && w[i].At > newest-span {
			count++
		}
	}
	return count
}
