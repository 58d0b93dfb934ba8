package scanner

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
)

const day = int64(24 * time.Hour / time.Microsecond)

// value returns the value of a correlation in the window of the occurrences from begin
// to end, whether its condition holds, and whether the window has enough of them to
// decide. Occurrences before begin matter to event_spike only.
func (s *ruleState) value(all window, begin, end int) (value float64, holds, enough bool) {
	correlation := s.rule.Correlation
	w := all[begin : end+1]

	switch correlation.Type {
	case rules.ValueCount:
		value = float64(w.distinct())
	case rules.ValueSum, rules.ValueAvg:
		for i := range w {
			value += w[i].number()
		}
		if correlation.Type == rules.ValueAvg {
			value /= float64(len(w))
		}
	case rules.ValuePercentile:
		value = w.percentile(correlation.Percentile)
	case rules.Temporal:
		seen := w.seen()
		value = float64(bits.OnesCount64(seen))
		if correlation.Need != nil {
			return value, correlation.Need.Met(seen), true
		}
	case rules.TemporalOrdered:
		value = float64(w.inOrder(s.ordered))
		if correlation.Need != nil { // the order covers the required sources; Need also checks the absent ones
			return value, int(value) == len(s.ordered) && correlation.Need.Met(w.seen()), true
		}
	case rules.EventRatio:
		value = float64(w.matches()) / float64(len(w))
		enough = len(w) >= correlation.Least
		return value, enough && correlation.Holds(value), enough
	case rules.EventSpike:
		usual, known := all.usual(w[len(w)-1].at, s.span, s.over)
		value = float64(len(w)) / max(usual, 1)
		enough = known && len(w) >= correlation.Least
		return value, enough && correlation.Holds(value), enough
	default:
		value = float64(len(w))
	}
	return value, correlation.Holds(value), true
}

// valueAt returns the value in the window that ends at a time without an event; 0 for
// an empty window.
func (s *ruleState) valueAt(w window, at int64) float64 {
	begin, end := w.after(at-s.span), w.after(at)
	if begin == end {
		return 0
	}
	value, _, _ := s.value(w, begin, end-1)
	return value
}

// begin returns the index of the first occurrence in the window of span that ends with
// the occurrence at end.
func (w window) begin(end int, span int64) int { return w[:end].after(w[end].at - span) }

// usual returns the median count of the windows that end one day, two days and so on
// before a time, back to the first occurrence. It is known if these are at least half
// of the days in over.
func (w window) usual(at, span, over int64) (median float64, known bool) {
	var counts []int
	for back := day; back <= over && at-back-span >= w[0].at; back += day {
		counts = append(counts, w.after(at-back)-w.after(at-back-span))
	}

	days := len(counts)
	if days == 0 || int64(2*days) < over/day {
		return 0, false
	}

	// The median, so that a single unusual day does not change it.
	slices.Sort(counts)
	return float64(counts[(days-1)/2]+counts[days/2]) / 2, true
}

// countMatches stores in each occurrence from pos on the number of matches up to it,
// so that matches need not iterate over the window.
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

// matches returns the number of occurrences that match. See countMatches.
func (w window) matches() uint64 {
	count := w[len(w)-1].value - w[0].value
	if w[0].seen != 0 {
		count++
	}
	return count
}

// distinct returns the number of values. An occurrence is the last with its value if
// the next one is beyond the window.
func (w window) distinct() int {
	n, end := 0, w[len(w)-1].at
	for i := range w {
		if w[i].next > end || w[i].next == end && w.isLast(i) {
			n++
		}
	}
	return n
}

// isLast reports whether the value at i does not occur again in the window. It is
// needed only where occurrences have the same time.
func (w window) isLast(i int) bool {
	return !slices.ContainsFunc(w[i+1:], func(o occurrence) bool { return o.value == w[i].value })
}

// percentile returns the smallest number that at least percent of all numbers do not
// exceed.
func (w window) percentile(percent float64) float64 {
	numbers := make([]float64, len(w))
	for i := range w {
		numbers[i] = w[i].number()
	}

	slices.Sort(numbers)
	rank := math.Ceil(percent * float64(len(numbers)) / 100)
	return numbers[max(int(rank), 1)-1]
}

// seen returns the sources of all occurrences, a bit for each.
func (w window) seen() (all uint64) {
	for i := range w {
		all |= w[i].seen
	}
	return all
}

// contains reports whether an occurrence is of one of the sources.
func (w window) contains(sources uint64) bool {
	return slices.ContainsFunc(w, func(o occurrence) bool { return o.seen&sources != 0 })
}

// inOrder returns how many of the sources, starting with the first, occurred one after
// the other, each with a separate occurrence.
func (w window) inOrder(sources []int) int {
	n := 0
	for i := 0; i < len(w) && n < len(sources); i++ {
		if w[i].seen>>sources[n]&1 == 1 {
			n++
		}
	}
	return n
}
