package scanner

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
)

// judged is the value that a correlation's condition is about in the window of the
// occurrences from begin to end, whether the condition holds, and whether there are
// enough of them to tell. What came before matters where it says what is usual.
func (t *tracked) judged(all window, begin, end int) (value float64, holds, enough bool) {
	c := t.rule.Correlation
	w := all[begin : end+1]
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
			return value, c.Need.Met(seen), true
		}
	case rules.TemporalOrdered:
		value = float64(w.inOrder(t.ordered))
		if c.Need != nil { // an order is about all that is wanted; the rest is to be absent
			return value, int(value) == len(t.ordered) && c.Need.Met(w.seen()), true
		}
	case rules.EventRatio:
		value = float64(w.matches()) / float64(len(w))
		enough = len(w) >= c.Least
		return value, enough && c.Holds(value), enough
	case rules.EventSpike:
		usual, known := all.usual(w[len(w)-1].at, t.span, t.over)
		value = float64(len(w)) / max(usual, 1)
		enough = known && len(w) >= c.Least
		return value, enough && c.Holds(value), enough
	default:
		value = float64(len(w))
	}
	return value, c.Holds(value), true
}

// left is the value in the window that ends at a time, when nothing happens there;
// 0 for a window that has become empty.
func (t *tracked) left(w window, at int64) float64 {
	begin, end := w.after(at-t.span), w.after(at)
	if begin == end {
		return 0
	}
	value, _, _ := t.judged(w, begin, end-1)
	return value
}

// begin is the index of the first occurrence of a window of span that ends with
// the one at end.
func (w window) begin(end int, span int64) int { return w[:end].after(w[end].at - span) }

const day = int64(24 * time.Hour / time.Microsecond)

// usual is the median of the counts in the windows that end a day, two days and so on
// before a time, of the days since the first occurrence. It is known where those are
// half of the days at least.
func (w window) usual(at, span, over int64) (median float64, known bool) {
	var counts []int
	for back := day; back <= over && at-back-span >= w[0].at; back += day {
		counts = append(counts, w.after(at-back)-w.after(at-back-span))
	}
	n := len(counts)
	if n == 0 || int64(2*n) < over/day {
		return 0, false
	}
	slices.Sort(counts)
	return float64(counts[(n-1)/2]+counts[n/2]) / 2, true
}

// countMatches keeps with each occurrence from pos on how many match up to it, so that
// those of a window need not be counted.
func (w window) countMatches(pos int) {
	for i := pos; i < len(w); i++ {
		w[i].value = 0
		if i > 0 {
			w[i].value = w[i-1].value
		}
		if w[i].seen != 0 {
			w[i].value++
		}
	}
}

// matches are the occurrences that match, by what countMatches has kept.
func (w window) matches() uint64 {
	n := w[len(w)-1].value - w[0].value
	if w[0].seen != 0 {
		n++
	}
	return n
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
	return numbers[max(int(math.Ceil(percent*float64(len(numbers))/100)), 1)-1]
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
