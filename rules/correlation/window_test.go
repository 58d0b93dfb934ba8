package correlation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// naive counts a window the plain way.
func naive(list []Occurrence, end, span int64, distinct bool) uint64 {
	values := map[uint64]bool{}
	n := uint64(0)
	for _, o := range list {
		if o.At > end-span && o.At <= end {
			n++
			values[o.Value] = true
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
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		distinct := seed%2 == 0
		span := int64(1 + r.IntN(30))
		counted := &Spec{Type: eventCount{}, Timespan: time.Duration(span) * time.Microsecond}
		kind := ValueNone
		if distinct {
			counted.Type, kind = valueCount{}, ValueHash
		}
		var w Window
		var all []Occurrence
		for i := range 60 {
			o := Occurrence{At: int64(r.IntN(80)), Value: uint64(r.IntN(6)), ID: fmt.Sprint(i)}
			pos, ok := w.Insert(o, nil, kind)
			if !ok {
				t.Fatalf("seed %d: a new event was taken for a repeat", seed)
			}
			all = append(all, o)
			if w[pos].At != o.At || w[pos].ID != o.ID {
				t.Fatalf("seed %d: inserted at the wrong place", seed)
			}
			if !slices.IsSortedFunc(w, func(a, b Occurrence) int { return int(a.At - b.At) }) {
				t.Fatalf("seed %d: not sorted", seed)
			}
			if _, again := w.Insert(o, nil, kind); again {
				t.Fatalf("seed %d: a repeat was counted", seed)
			}
			want := uint64(0)
			for _, e := range all {
				if e.At >= o.At && e.At < o.At+span {
					want = max(want, naive(all, e.At, span, distinct))
				}
			}
			got, end := w.Peak(pos, span, distinct)
			if got != want {
				t.Fatalf("seed %d, event %d: peak %d, want %d", seed, i, got, want)
			}
			if n := naive(all, w[end].At, span, distinct); n != got {
				t.Fatalf("seed %d, event %d: the window said to hold %d holds %d", seed, i, got, n)
			}
			at := int64(r.IntN(120))
			if got, want := uint64(counted.ValueAt(w, at)), naive(all, at, span, distinct); got != want {
				t.Fatalf("seed %d: %d up to %d, want %d", seed, got, at, want)
			}
			// The last time with n of them.
			n, until := 1+r.IntN(6), int64(0)
			for at := range int64(120) {
				if naive(all, at, span, distinct) >= uint64(n) {
					until = at + 1
				}
			}
			if got, ok := w.LastWith(n, span, distinct); got != until || ok != (until > 0) {
				t.Fatalf("seed %d: windows are said to hold %d until %d, %v; they do until %d", seed, n, got, ok, until)
			}
		}
	}
}

func TestWindowTrim(t *testing.T) {
	var w Window
	for i := range 10 {
		w.Insert(Occurrence{At: int64(i), ID: fmt.Sprint(i)}, nil, ValueNone)
	}
	w.Trim(3, 100)
	if len(w) != 7 || w[0].At != 3 {
		t.Errorf("since 3: %d left, from %d", len(w), w[0].At)
	}
	w.Trim(0, 2)
	if len(w) != 2 || w[0].At != 8 {
		t.Errorf("newest 2: %d left, from %d", len(w), w[0].At)
	}
}
