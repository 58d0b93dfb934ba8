package scanner

import (
	"math"
	"math/bits"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
)

// judged is the value that a correlation's condition is about in a window, and
// whether the condition holds. The window has at least one occurrence.
func (t *tracked) judged(w window) (value float64, holds bool) {
	c := t.rule.Correlation
	switch c.Type {
	case rules.ValueCount:
		value = float64(w.distinct())
	case rules.ValueSum, rules.ValueAvg:
		for i := range w {
			value += w[i].number()
		}
		if c.Type == rules.ValueAvg {
			value /= float64(len(w))
		}
	case rules.ValuePercentile:
		value = w.percentile(c.Percentile)
	case rules.Temporal:
		seen := w.seen()
		value = float64(bits.OnesCount64(seen))
		if c.Need != nil {
			return value, c.Need.Met(seen)
		}
	case rules.TemporalOrdered:
		value = float64(w.inOrder(t.ordered))
		if c.Need != nil { // an order is about all that is wanted; the rest is to be absent
			return value, int(value) == len(t.ordered) && c.Need.Met(w.seen())
		}
	default:
		value = float64(len(w))
	}
	return value, c.Holds(value)
}

// left is the value in the window that ends at a time, when nothing happens there;
// 0 for a window that has become empty.
func (t *tracked) left(w window, at int64) float64 {
	end := len(w)
	for end > 0 && w[end-1].at > at {
		end--
	}
	begin := end
	for begin > 0 && w[begin-1].at > at-t.span {
		begin--
	}
	if begin == end {
		return 0
	}
	value, _ := t.judged(w[begin:end])
	return value
}

// begin is the index of the first occurrence of a window of span that ends with
// the one at end.
func (w window) begin(end int, span int64) int {
	since := w[end].at - span
	for end > 0 && w[end-1].at > since {
		end--
	}
	return end
}

// distinct is how many values there are: an occurrence is the last of its value
// where the next one is beyond the window.
func (w window) distinct() int {
	n, end := 0, w[len(w)-1].at
	for i := range w {
		if w[i].next > end || w[i].next == end && w.lastOf(i) {
			n++
		}
	}
	return n
}

// lastOf reports whether the value at i does not occur again after it in the
// window, where that is not clear from the times.
func (w window) lastOf(i int) bool {
	return !slices.ContainsFunc(w[i+1:], func(o occurrence) bool { return o.value == w[i].value })
}

// percentile is the smallest number that at least so many percent of all are not
// above.
func (w window) percentile(percent float64) float64 {
	numbers := make([]float64, len(w))
	for i := range w {
		numbers[i] = w[i].number()
	}
	slices.Sort(numbers)
	return numbers[max(int(math.Ceil(percent/100*float64(len(numbers)))), 1)-1]
}

// seen are the sources of all occurrences, a bit for each.
func (w window) seen() (all uint64) {
	for i := range w {
		all |= w[i].seen
	}
	return all
}

// inOrder is how many of the sources, from the first on, have occurred one after
// the other, each with an occurrence of its own.
func (w window) inOrder(sources []int) int {
	n := 0
	for i := 0; i < len(w) && n < len(sources); i++ {
		if w[i].seen>>sources[n]&1 == 1 {
			n++
		}
	}
	return n
}
