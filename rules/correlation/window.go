package correlation

import (
	"math"
	"slices"
	"sort"
	"strconv"
)

// Occurrence is an event that a correlation counts. Times are µs since 1970.
type Occurrence struct {
	At     int64
	prev   int64   // time of the previous occurrence with the same value; math.MinInt64 for none
	next   int64   // time of the next one; math.MaxInt64 for none
	Value  uint64  // see Traits.Value
	Seen   uint64  // bit i: it matches rule i; 0 for an event of Among only
	ID     string  // log_id
	Fields *Fields // what correlations that count this one need; nil for nothing
}

// Number returns the number that a type with ValueNumber keeps.
func (o *Occurrence) Number() float64 { return math.Float64frombits(o.Value) }

// SameEvent reports whether two occurrences are of one event.
func (o *Occurrence) SameEvent(other *Occurrence) bool { return o.At == other.At && o.ID == other.ID }

// Window is what one group of a correlation has counted, by time and then by log_id, so that
// it does not depend on the order of arrival.
type Window []Occurrence

// Insert inserts o in its position, once for each value if there are any. kind says what the values
// are. It returns the index of the last, and false if the event is already there with the same
// sources.
func (w *Window) Insert(o Occurrence, values []uint64, kind Value) (pos int, ok bool) {
	list := *w
	pos = len(list)
	for pos > 0 && (list[pos-1].At > o.At || list[pos-1].At == o.At && list[pos-1].ID > o.ID) {
		pos--
	}

	// The event is already there: add its sources.
	for source := pos - 1; source >= 0 && list[source].SameEvent(&o); source-- {
		ok = ok || list[source].Seen|o.Seen != list[source].Seen
		list[source].Seen |= o.Seen
	}
	if pos > 0 && list[pos-1].SameEvent(&o) {
		if ok && kind == ValueMatches {
			w.countMatches(pos - 1)
		}
		return pos - 1, ok
	}

	if len(values) == 0 {
		w.insertAt(pos, o, kind == ValueHash)
		if kind == ValueMatches {
			w.countMatches(pos)
		}
		return pos, true
	}

	// The values of one event stay next to each other.
	for i, value := range values {
		o.Value = value
		w.insertAt(pos+i, o, kind == ValueHash)
	}
	return pos + len(values) - 1, true
}

// countMatches stores in each occurrence from pos on the number of matches up to it, so that matches
// need not iterate over the window.
func (w Window) countMatches(pos int) {
	for i := pos; i < len(w); i++ {
		w[i].Value = 0
		if i > 0 {
			w[i].Value = w[i-1].Value
		}
		if w[i].Seen != 0 {
			w[i].Value++
		}
	}
}

// insertAt inserts one occurrence at an index and links it with its neighbors of the
// same value.
func (w *Window) insertAt(pos int, o Occurrence, distinct bool) {
	list := *w
	o.prev, o.next = math.MinInt64, math.MaxInt64

	if distinct {
		// Only the nearest neighbor on each side is linked.
		for i := pos - 1; i >= 0; i-- {
			if list[i].Value == o.Value {
				o.prev, o.next, list[i].next = list[i].At, list[i].next, o.At
				break
			}
		}
		for i := pos; i < len(list); i++ {
			if list[i].Value == o.Value {
				o.next, list[i].prev = list[i].At, o.At
				break
			}
		}
	}
	*w = slices.Insert(list, pos, o)
}

// LastOfEvent returns the index of the last occurrence of the event at pos. A pos
// beyond the end is returned as it is.
func (w Window) LastOfEvent(pos int) int {
	for pos+1 < len(w) && w[pos].SameEvent(&w[pos+1]) {
		pos++
	}
	return pos
}

// Events returns the number of events.
func (w Window) Events() (n int) {
	for i := range w {
		if i == 0 || !w[i].SameEvent(&w[i-1]) {
			n++
		}
	}
	return n
}

// Find returns the index of the first occurrence of an event, or -1.
func (w Window) Find(at int64, id string) int {
	return slices.IndexFunc(w, func(o Occurrence) bool { return o.At == at && o.ID == id })
}

// Condense drops occurrences whose value occurs again at or before a time. A window
// that ends at that time or later still contains the value.
func (w *Window) Condense(before int64) {
	*w = slices.DeleteFunc(*w, func(o Occurrence) bool { return o.next <= before })
	for i := range *w {
		if occ := &(*w)[i]; occ.At <= before {
			occ.prev = math.MinInt64
		}
	}
}

// Trim drops occurrences older than since, and the oldest ones beyond limit.
func (w *Window) Trim(since int64, limit int) {
	list := *w
	drop := max(len(list)-limit, 0)
	for drop < len(list) && list[drop].At < since {
		drop++
	}
	w.dropFirst(drop)
}

// TrimTo drops occurrences that are older than since and precede the first occurrence
// of one of the sources in leads.
func (w *Window) TrimTo(leads uint64, since int64) {
	list := *w
	drop := 0
	for drop < len(list) && list[drop].At < since && list[drop].Seen&leads == 0 {
		drop++
	}
	w.dropFirst(drop)
}

func (w *Window) dropFirst(n int) {
	if n > 0 {
		// Releases the ids.
		clear((*w)[:n])
		*w = (*w)[n:]
	}
}

// Begin returns the index of the first occurrence in the window of span that ends with the occurrence
// at end.
func (w Window) Begin(end int, span int64) int { return w[:end].After(w[end].At - span) }

// Contains reports whether an occurrence is of one of the sources, one bit for each.
func (w Window) Contains(sources uint64) bool {
	return slices.ContainsFunc(w, func(o Occurrence) bool { return o.Seen&sources != 0 })
}

// After returns the index of the first occurrence later than a time.
func (w Window) After(at int64) int {
	return sort.Search(len(w), func(i int) bool { return w[i].At > at })
}

// Peak returns the highest count in a window of span that contains the occurrence at
// pos and ends there or later, and the index at which that window ends.
func (w Window) Peak(pos int, span int64, distinct bool) (count uint64, end int) {
	at := w[pos].At
	for pos+1 < len(w) && w[pos+1].At == at {
		pos++
	}

	// Count the window (at-span, at].
	since := at - span
	low := w[:pos+1].After(since)
	current := uint64(pos + 1 - low)
	if distinct {
		current = 0
		for i := low; i <= pos; i++ {
			if w[i].prev <= since {
				current++
			}
		}
	}
	count, end = current, pos

	// Slide it to the end of each later group of occurrences with the same time.
	for next := pos + 1; next < len(w) && w[next].At < at+span; next++ {
		until := w[next].At
		since = until - span
		for ; ; next++ {
			if !distinct || w[next].prev <= since {
				current++
			}
			if next+1 == len(w) || w[next+1].At != until {
				break
			}
		}

		for ; w[low].At <= since; low++ {
			// A value stays if it occurs again before until. If it occurs at until,
			// that occurrence was counted above.
			if !distinct || w[low].next >= until {
				current--
			}
		}
		if current > count {
			count, end = current, next
		}
	}
	return count, end
}

// LastWith returns when windows of span last contained n occurrences, or n values: the
// time at which the first of them leaves the last such window. It returns false if no
// window did.
func (w Window) LastWith(n int, span int64, distinct bool) (until int64, ok bool) {
	if distinct {
		return w.lastWithValues(n, span)
	}
	for i := len(w) - 1; i >= n-1; i-- {
		if first := w[i-n+1].At; w[i].At-first < span {
			return first + span, true
		}
	}
	return 0, false
}

func (w Window) lastWithValues(n int, span int64) (until int64, ok bool) {
	for end := len(w) - 1; end >= n-1; end-- {
		found, last := 0, w[end].At
		for i := end; i >= 0 && w[i].At > last-span; i-- {
			newest := w[i].next > last || w[i].next == last && w[:end+1].isLast(i)
			if !newest {
				continue
			}
			if found++; found == n {
				return w[i].At + span, true
			}
		}
	}
	return 0, false
}

// IDs returns up to n log_ids of the events within span before the index end, the
// newest last. With matches set, only those that match.
func (w Window) IDs(end, n int, span int64, matches bool) []string {
	var list []string
	since := w[end].At - max(span, 1)
	for i := end; i >= 0 && len(list) < n && w[i].At > since; i-- {
		repeated := i < end && w[i].SameEvent(&w[i+1])
		if !repeated && (!matches || w[i].Seen != 0) {
			list = append(list, w[i].ID)
		}
	}

	slices.Reverse(list)
	return list
}

// Fields are values of an event that are kept after the event itself.
type Fields struct {
	Paths []string // of the fields
	Texts [][]Text // of each field
}

// Text is a scalar value of a field.
type Text struct {
	Text   string
	Quoted bool // it is a JSON string, not a number or a boolean
}

// ParseNumber returns the number that a text is for types with ValueNumber. It returns false for a text
// that is not a finite number.
func ParseNumber(text []byte) (float64, bool) {
	value, err := strconv.ParseFloat(string(text), 64)
	return value, err == nil && !math.IsNaN(value) && !math.IsInf(value, 0)
}
