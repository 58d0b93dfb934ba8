package correlation

import "slices"

// valueCount is the number of distinct values of a field, or of combinations of several.
type valueCount struct{}

func (valueCount) Name() string { return "value_count" }

func (valueCount) Traits() Traits { return Traits{Value: ValueHash, Count: true} }

func (valueCount) Check(*Spec) error { return nil }

func (valueCount) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	value = float64(all[begin : end+1].distinct())
	return value, s.Holds(value), true
}

func (valueCount) Keep(s *Spec, highest float64) int { return s.keepCount(highest) }

func (valueCount) Describe(_ *Spec, words Words) string {
	return words.Bounds + " distinct values of " + words.Field
}

func (valueCount) SQL(_ *Spec, query *SQL) { query.Value = "uniqExact(of) OVER w" }

// distinct returns the number of values. An occurrence is the last with its value if the next one is
// beyond the window.
func (w Window) distinct() int {
	n, end := 0, w[len(w)-1].At
	for i := range w {
		if w[i].next > end || w[i].next == end && w.isLast(i) {
			n++
		}
	}
	return n
}

// isLast reports whether the value at i does not occur again in the window. It is needed only where
// occurrences have the same time.
func (w Window) isLast(i int) bool {
	return !slices.ContainsFunc(w[i+1:], func(o Occurrence) bool { return o.Value == w[i].Value })
}
