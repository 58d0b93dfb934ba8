package scanner

import (
	"math"
	"slices"
	"sort"
)

// occurrence is an event that a rule counts. Times are µs since 1970.
type occurrence struct {
	at     int64
	prev   int64     // time of the previous occurrence with the same value; math.MinInt64 for none
	next   int64     // time of the next one; math.MaxInt64 for none
	value  uint64    // value_count: hash of the value; value_sum and the like: bits of the number
	seen   uint64    // bit i: it is of source i; 0 for a rule in Correlation.Among
	id     string    // log_id
	fields *captured // what parents of the rule need
}

func (o *occurrence) number() float64 { return math.Float64frombits(o.value) }

// sameEvent reports whether two occurrences are of one event.
func (o *occurrence) sameEvent(other *occurrence) bool { return o.at == other.at && o.id == other.id }

// window is what one group of a rule has counted, by time and then by log_id, so that
// it does not depend on the order of arrival.
type window []occurrence

// insert inserts o in its position, once for each value if there are any. It returns
// the index of the last, and false if the event is already there with the same
// sources.
func (w *window) insert(o occurrence, values []uint64, distinct bool) (pos int, ok bool) {
	list := *w
	pos = len(list)
	for pos > 0 && (list[pos-1].at > o.at || list[pos-1].at == o.at && list[pos-1].id > o.id) {
		pos--
	}

	// The event is already there: add its sources.
	for source := pos - 1; source >= 0 && list[source].sameEvent(&o); source-- {
		ok = ok || list[source].seen|o.seen != list[source].seen
		list[source].seen |= o.seen
	}
	if pos > 0 && list[pos-1].sameEvent(&o) {
		return pos - 1, ok
	}

	if len(values) == 0 {
		w.insertAt(pos, o, distinct)
		return pos, true
	}

	// The values of one event stay next to each other.
	for i, value := range values {
		o.value = value
		w.insertAt(pos+i, o, distinct)
	}
	return pos + len(values) - 1, true
}

// insertAt inserts one occurrence at an index and links it with its neighbours of the
// same value.
func (w *window) insertAt(pos int, o occurrence, distinct bool) {
	list := *w
	o.prev, o.next = math.MinInt64, math.MaxInt64

	if distinct {
		// Only the nearest neighbour on each side is linked.
		for i := pos - 1; i >= 0; i-- {
			if list[i].value == o.value {
				o.prev, o.next, list[i].next = list[i].at, list[i].next, o.at
				break
			}
		}
		for i := pos; i < len(list); i++ {
			if list[i].value == o.value {
				o.next, list[i].prev = list[i].at, o.at
				break
			}
		}
	}
	*w = slices.Insert(list, pos, o)
}

// lastOfEvent returns the index of the last occurrence of the event at pos. A pos
// beyond the end is returned as it is.
func (w window) lastOfEvent(pos int) int {
	for pos+1 < len(w) && w[pos].sameEvent(&w[pos+1]) {
		pos++
	}
	return pos
}

// events returns the number of events.
func (w window) events() (n int) {
	for i := range w {
		if i == 0 || !w[i].sameEvent(&w[i-1]) {
			n++
		}
	}
	return n
}

// find returns the index of the first occurrence of an event, or -1.
func (w window) find(at int64, id string) int {
	return slices.IndexFunc(w, func(o occurrence) bool { return o.at == at && o.id == id })
}

// condense drops occurrences whose value occurs again at or before a time. A window
// that ends at that time or later still contains the value.
func (w *window) condense(before int64) {
	*w = slices.DeleteFunc(*w, func(o occurrence) bool { return o.next <= before })
	for i := range *w {
		if occ := &(*w)[i]; occ.at <= before {
			occ.prev = math.MinInt64
		}
	}
}

// trim drops occurrences older than since, and the oldest ones beyond limit.
func (w *window) trim(since int64, limit int) {
	list := *w
	drop := max(len(list)-limit, 0)
	for drop < len(list) && list[drop].at < since {
		drop++
	}
	w.dropFirst(drop)
}

// trimTo drops occurrences that are older than since and precede the first occurrence
// of one of the sources in leads.
func (w *window) trimTo(leads uint64, since int64) {
	list := *w
	drop := 0
	for drop < len(list) && list[drop].at < since && list[drop].seen&leads == 0 {
		drop++
	}
	w.dropFirst(drop)
}

func (w *window) dropFirst(n int) {
	if n > 0 {
		// Releases the ids.
		clear((*w)[:n])
		*w = (*w)[n:]
	}
}

// after returns the index of the first occurrence later than a time.
func (w window) after(at int64) int {
	return sort.Search(len(w), func(i int) bool { return w[i].at > at })
}

// peak returns the highest count in a window of span that contains the occurrence at
// pos and ends there or later, and the index at which that window ends.
func (w window) peak(pos int, span int64, distinct bool) (count uint64, end int) {
	at := w[pos].at
	for pos+1 < len(w) && w[pos+1].at == at {
		pos++
	}

	// Count the window (at-span, at].
	since := at - span
	low := w[:pos+1].after(since)
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
	for next := pos + 1; next < len(w) && w[next].at < at+span; next++ {
		until := w[next].at
		since = until - span
		for ; ; next++ {
			if !distinct || w[next].prev <= since {
				current++
			}
			if next+1 == len(w) || w[next+1].at != until {
				break
			}
		}

		for ; w[low].at <= since; low++ {
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

// lastWith returns when windows of span last contained n occurrences, or n values: the
// time at which the first of them leaves the last such window. It returns false if no
// window did.
func (w window) lastWith(n int, span int64, distinct bool) (until int64, ok bool) {
	if distinct {
		return w.lastWithValues(n, span)
	}
	for i := len(w) - 1; i >= n-1; i-- {
		if first := w[i-n+1].at; w[i].at-first < span {
			return first + span, true
		}
	}
	return 0, false
}

func (w window) lastWithValues(n int, span int64) (until int64, ok bool) {
	for end := len(w) - 1; end >= n-1; end-- {
		found, last := 0, w[end].at
		for i := end; i >= 0 && w[i].at > last-span; i-- {
			newest := w[i].next > last || w[i].next == last && w[:end+1].isLast(i)
			if !newest {
				continue
			}
			if found++; found == n {
				return w[i].at + span, true
			}
		}
	}
	return 0, false
}

// lastMatches returns how many of the last n occurrences match and are within span.
func (w window) lastMatches(n int, span int64) (count uint64) {
	newest := w[len(w)-1].at
	for i := max(len(w)-n, 0); i < len(w); i++ {
		if w[i].seen != 0 && w[i].at > newest-span {
			count++
		}
	}
	return count
}

// ids returns up to n log_ids of the events within span before the index end, the
// newest last. With matches set, only those that match.
func (w window) ids(end, n int, span int64, matches bool) []string {
	var list []string
	since := w[end].at - max(span, 1)
	for i := end; i >= 0 && len(list) < n && w[i].at > since; i-- {
		repeated := i < end && w[i].sameEvent(&w[i+1])
		if !repeated && (!matches || w[i].seen != 0) {
			list = append(list, w[i].id)
		}
	}

	slices.Reverse(list)
	return list
}
