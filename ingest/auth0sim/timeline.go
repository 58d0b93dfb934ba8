package auth0sim

import (
	"math"
	"math/bits"
	"sort"
	"time"
)

// timeline maps the index of a background event to the microsecond of its log_id, and
// back. Indexes below history lie before the anchor, the others after it.
type timeline struct {
	seed    uint64
	history int64   // events before the anchor
	start   int64   // µs of the first moment of history
	anchor  int64   // µs
	rate    float64 // events per second after the anchor; 0 = none
}

// batches gives, for each place in a block of eight events, the place at which its
// ingest batch begins. Events of one batch share their microsecond.
var batches = [4][8]int64{
	{0, 1, 2, 3, 4, 5, 6, 7},
	{0, 0, 2, 2, 2, 5, 6, 6},
	{0, 1, 1, 1, 1, 5, 6, 7},
	{0, 1, 2, 3, 3, 3, 3, 3},
}

// linear returns the time of event x of its era if all were equally spaced.
func (t *timeline) linear(x int64, live bool) int64 {
	if live {
		return t.anchor + int64(float64(x)*1e6/t.rate)
	}

	// 128 bits, since the product overflows 64.
	hi, lo := bits.Mul64(uint64(x), uint64(t.anchor-t.start))

	quotient, _ := bits.Div64(hi, lo, uint64(t.history))
	return t.start + int64(quotient)
}

// at returns the time of event i in µs. It never decreases with i.
func (t *timeline) at(i int64) int64 {
	live := i >= t.history
	place := i
	if live {
		place -= t.history
	}

	// The block of eight decides the batches, the batch its place before the next event.
	block := mix(t.seed ^ uint64(i-place+1)<<40 ^ uint64(place>>3))
	place = place&^7 + batches[block&3][place&7]

	from, to := t.linear(place, live), t.linear(place+1, live)
	if to > from {
		from += int64(mix(block+uint64(place)) % uint64(to-from))
	}
	return from
}

func (t *timeline) pos(i int64) pos { return pos{t.at(i), bulkTail + uint64(i)} }

// first returns the lowest index whose time is at or after us.
func (t *timeline) first(us int64) int64 {
	if us < t.anchor || t.rate == 0 {
		return int64(sort.Search(int(t.history), func(i int) bool { return t.at(int64(i)) >= us }))
	}

	// A batch may begin seven places early, so the result is close to the line.
	near := float64(us-t.anchor) * t.rate / 1e6
	if near > 1e11 {
		near = 1e11
	}
	low, high := max(int64(near)-2, 0), int64(near)+10
	return t.history + low + int64(sort.Search(int(high-low), func(i int) bool {
		return t.at(t.history+low+int64(i)) >= us
	}))
}

// after returns the lowest index whose id is above p.
func (t *timeline) after(p pos) int64 {
	switch {
	case p.us == math.MaxInt64, p.tail < bulkTail:
		return t.first(p.us)
	case p.tail >= otherTail:
		return t.first(p.us + 1)
	}

	// Within the batch of that microsecond.
	return max(t.first(p.us), min(int64(p.tail-bulkTail)+1, t.first(p.us+1)))
}

// index returns the index of the event with exactly this position.
func (t *timeline) index(p pos) (int64, bool) {
	if p.tail < bulkTail || p.tail >= otherTail {
		return 0, false
	}
	number := int64(p.tail - bulkTail)
	if number >= t.history && t.rate == 0 {
		return 0, false
	}
	return number, t.at(number) == p.us
}

// rng is splitmix64: small, fast and random enough to look natural.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return mix(uint64(*r))
}

// n returns a number from 0 to limit-1.
func (r *rng) n(limit int) int {
	hi, _ := bits.Mul64(r.next(), uint64(limit))
	return int(hi)
}

// one returns true once in n calls.
func (r *rng) one(n int) bool { return r.n(n) == 0 }

// mix is the finalizer of splitmix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// micros returns a time in µs since 1970.
func micros(t time.Time) int64 { return t.UnixMicro() }
