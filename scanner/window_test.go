package scanner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tenantwatch/tenantwatch/rules"
)

// naive counts a window the plain way.
func naive(list []occurrence, end, span int64, distinct bool) uint64 {
	values := map[uint64]bool{}
	n := uint64(0)
	for _, o := range list {
		if o.at > end-span && o.at <= end {
			n++
			values[o.value] = true
		}
	}
	if distinct {
		return uint64(len(values))
	}
	return n
}

// TestWindowAgreesWithNaive inserts events in any order, with ties and repeats,
// and compares every answer with one that is found by looking at everything.
func TestWindowAgreesWithNaive(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		distinct := seed%2 == 0
		span := int64(1 + r.IntN(30))
		counted := &ruleState{rule: &rules.Rule{Correlation: &rules.Correlation{Type: rules.EventCount}}, span: span}
		if distinct {
			counted.rule.Correlation.Type = rules.ValueCount
		}
		var w window
		var all []occurrence
		for i := range 60 {
			o := occurrence{at: int64(r.IntN(80)), value: uint64(r.IntN(6)), id: fmt.Sprint(i)}
			pos, ok := w.insert(o, nil, distinct)
			if !ok {
				t.Fatalf("seed %d: a new event was taken for a repeat", seed)
			}
			all = append(all, o)
			if w[pos].at != o.at || w[pos].id != o.id {
				t.Fatalf("seed %d: inserted at the wrong place", seed)
			}
			if !slices.IsSortedFunc(w, func(a, b occurrence) int { return int(a.at - b.at) }) {
				t.Fatalf("seed %d: not sorted", seed)
			}
			if _, again := w.insert(o, nil, distinct); again {
				t.Fatalf("seed %d: a repeat was counted", seed)
			}
			want := uint64(0)
			for _, e := range all {
				if e.at >= o.at && e.at < o.at+span {
					want = max(want, naive(all, e.at, span, distinct))
				}
			}
			got, end := w.peak(pos, span, distinct)
			if got != want {
				t.Fatalf("seed %d, event %d: peak %d, want %d", seed, i, got, want)
			}
			if n := naive(all, w[end].at, span, distinct); n != got {
				t.Fatalf("seed %d, event %d: the window said to hold %d holds %d", seed, i, got, n)
			}
			at := int64(r.IntN(120))
			if got, want := uint64(counted.valueAt(w, at)), naive(all, at, span, distinct); got != want {
				t.Fatalf("seed %d: %d up to %d, want %d", seed, got, at, want)
			}
			// The last time with n of them.
			n, until := 1+r.IntN(6), int64(0)
			for at := range int64(120) {
				if naive(all, at, span, distinct) >= uint64(n) {
					until = at + 1
				}
			}
			if got, ok := w.lastWith(n, span, distinct); got != until || ok != (until > 0) {
				t.Fatalf("seed %d: windows are said to hold %d until %d, %v; they do until %d", seed, n, got, ok, until)
			}
		}
	}
}

func TestWindowTrim(t *testing.T) {
	var w window
	for i := range 10 {
		w.insert(occurrence{at: int64(i), id: fmt.Sprint(i)}, nil, false)
	}
	w.trim(3, 100)
	if len(w) != 7 || w[0].at != 3 {
		t.Errorf("since 3: %d left, from %d", len(w), w[0].at)
	}
	w.trim(0, 2)
	if len(w) != 2 || w[0].at != 8 {
		t.Errorf("newest 2: %d left, from %d", len(w), w[0].at)
	}
}
