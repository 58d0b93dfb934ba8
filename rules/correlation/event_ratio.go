package correlation

import (
	"errors"
	"fmt"
	"slices"
)

// eventRatio is the share, from 0 to 1, of other rules' events that match.
type eventRatio struct{}

func (eventRatio) Name() string { return "event_ratio" }

func (eventRatio) Traits() Traits {
	return Traits{Keys: []string{"among", "min"}, Value: ValueMatches, Fraction: true, BySource: true}
}

func (eventRatio) Check(s *Spec) error {
	if slices.ContainsFunc(s.Bounds, func(b Bound) bool { return b.Than < 0 || b.Than > 1 }) {
		return errors.New("a ratio is from 0 to 1")
	}
	return nil
}

func (eventRatio) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	window := all[begin : end+1]
	value = float64(window.matches()) / float64(len(window))
	enough = len(window) >= s.Least
	return value, enough && s.Holds(value), enough
}

func (eventRatio) Keep(*Spec, float64) int { return keepExact }

func (eventRatio) Describe(s *Spec, words Words) string {
	return fmt.Sprintf("%s of the events, of %d at least", words.Bounds, s.Least)
}

func (eventRatio) SQL(s *Spec, query *SQL) {
	query.Columns = []string{"count() OVER w AS events"}
	query.Holds = []string{fmt.Sprintf("events >= %d", s.Least)}
	query.Value = "(countIf(" + s.anySource() + ") OVER w) / events"
}

// matches returns the number of occurrences that match. See countMatches.
func (w Window) matches() uint64 {
	count := w[len(w)-1].Value - w[0].Value
	if w[0].Seen != 0 {
		count++
	}
	return count
}
