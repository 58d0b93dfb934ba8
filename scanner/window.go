package scanner

import (
	"math"
	"slices"
	"sort"
)

// An occurrence is an event that a rule counts. Times are µs since 1970.
type occurrence struct {
	at     int64
	prev   int64     // of the occurrence before it with the same value; math.MinInt64 for none
	next   int64     // of the one after it; math.MaxInt64 for none
	value  uint64    // what value_count tells apart; the bits of the number for value_sum and its like
	seen   uint64    // the sources of the correlation that it is of, a bit for each; 0 for one that is only looked at
	id     string    // log_id
	fields *captured // what correlations of this one want to know of it
}

func (o *occurrence) number() float64 { return math.Float64frombits(o.value) }

// window is what one group of a rule has counted lately, by rising time and, at
// the same time, by log_id, so that it does not depend on the order of arrival.
type window []occurrence

// sameEvent reports whether two occurrences are of one event.
func (o *occurrence) sameEvent(other *occurrence) bool { return o.at == other.at && o.id == other.id }

// insert puts o in its place, once for each of the values that its event has, if it is
// about these. It returns the place of the last, or false for an event that is there
// already and is of no other source than before.
func (w *window) insert(o occurrence, values []uint64, distinct bool) (pos int, ok bool) {
	list := *w
	pos = len(list)
	for pos > 0 && (list[pos-1].at > o.at || list[pos-1].at == o.at && list[pos-1].id > o.id) {
		pos--
	}
	for k := pos - 1; k >= 0 && list[k].sameEvent(&o); k-- {
		ok = ok || list[k].seen|o.seen != list[k].seen
		list[k].seen |= o.seen
	}
	if pos > 0 && list[pos-1].sameEvent(&o) {
		return pos - 1, ok
	}
	if len(values) == 0 {
		w.insertAt(pos, o, distinct)
		return pos, true
	}
	for i, value := range values {
		o.value = value
		w.insertAt(pos+i, o, distinct)
	}
	return pos + len(values) - 1, true
}

// insertAt puts one occurrence into a place, between those with the same value.
func (w *window) insertAt(pos int, o occurrence, distinct bool) {
	list := *w
	o.prev, o.next = math.MinInt64, math.MaxInt64
	if distinct {
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

// lastOfEvent is the place of the last occurrence that is of the same event as the one at
// a place. Beyond the end, it is that.
func (w window) lastOfEvent(pos int) int {
	for pos+1 < len(w) && w[pos].sameEvent(&w[pos+1]) {
		pos++
	}
	return pos
}

// events is how many there are.
func (w window) events() (n int) {
	for i := range w {
		if i == 0 || !w[i].sameEvent(&w[i-1]) {
			n++
		}
	}
	return n
}

// find is the place of an occurrence that is there.
func (w window) find(at int64, id string) int {
	return slices.IndexFunc(w, func(o occurrence) bool { return o.at == at && o.id == id })
}

// condense forgets occurrences whose value occurs again not later than a time: a
// window that ends at that time or later has the value all the same.
func (w *window) condense(before int64) {
	*w = slices.DeleteFunc(*w, func(o occurrence) bool { return o.next <= before })
	for i := range *w {
		if o := &(*w)[i]; o.at <= before {
			o.prev = math.MinInt64
		}
	}
}

// trim forgets what is older than since, and all but the newest limit.
func (w *window) trim(since int64, limit int) {
	list := *w
	n := max(len(list)-limit, 0)
	for n < len(list) && list[n].at < since {
		n++
	}
	if n > 0 {
		clear(list[:n]) // lets go of the ids
		*w = list[n:]
	}
}

// trimTo forgets what is older than since and comes before the first occurrence of
// one of the sources in leads.
func (w *window) trimTo(leads uint64, since int64) {
	list := *w
	n := 0
	for n < len(list) && list[n].at < since && list[n].seen&leads == 0 {
		n++
	}
	if n > 0 {
		clear(list[:n])
		*w = list[n:]
	}
}

// after is the index of the first occurrence later than a time.
func (w window) after(at int64) int {
	return sort.Search(len(w), func(i int) bool { return w[i].at > at })
}

// peak is the highest count in a window of span that holds the occurrence at pos
// and ends there or later, and the index at which that window ends.
func (w window) peak(pos int, span int64, distinct bool) (count uint64, end int) {
	t := w[pos].at
	for pos+1 < len(w) && w[pos+1].at == t {
		pos++
	}
	since := t - span // excluded
	low := w[:pos+1].after(since)
	n := uint64(pos + 1 - low)
	if distinct {
		n = 0
		for i := low; i <= pos; i++ {
			if w[i].prev <= since {
				n++
			}
		}
	}
	count, end = n, pos
	for j := pos + 1; j < len(w) && w[j].at < t+span; j++ {
		b := w[j].at
		since = b - span
		for ; ; j++ {
			if !distinct || w[j].prev <= since {
				n++
			}
			if j+1 == len(w) || w[j+1].at != b {
				break
			}
		}
		for ; w[low].at <= since; low++ {
			// A value stays where it occurs again before b. Where it does at b,
			// that occurrence was counted above.
			if !distinct || w[low].next >= b {
				n--
			}
		}
		if n > count {
			count, end = n, j
		}
	}
	return count, end
}

// lastWith is when windows of span were last to hold n occurrences, or n values: as
// many are in the one that ends with some occurrence, and the count falls when the
// first of them leaves. It is false where they never did.
func (w window) lastWith(n int, span int64, distinct bool) (until int64, ok bool) {
	if !distinct {
		for i := len(w) - 1; i >= n-1; i-- {
			if first := w[i-n+1].at; w[i].at-first < span {
				return first + span, true
			}
		}
		return 0, false
	}
	for end := len(w) - 1; end >= n-1; end-- {
		found := 0
		for i := end; i >= 0 && w[i].at > w[end].at-span; i-- {
			// The newest of its value up to end.
			if w[i].next > w[end].at || w[i].next == w[end].at && !slices.ContainsFunc(w[i+1:end+1], func(o occurrence) bool { return o.value == w[i].value }) {
				if found++; found == n {
					return w[i].at + span, true
				}
			}
		}
	}
	return 0, false
}

// lastMatches is how many of the last n occurrences match and are not older
// than span.
func (w window) lastMatches(n int, span int64) (count uint64) {
	newest := w[len(w)-1].at
	for i := max(len(w)-n, 0); i < len(w); i++ {
		if w[i].seen != 0 && w[i].at > newest-span {
			count++
		}
	}
	return count
}

// ids are the log_ids of the newest n occurrences up to the index end that are
// within span and counted, newest last.
func (w window) ids(end, n int, span int64, matches bool) []string {
	var list []string
	for i := end; i >= 0 && len(list) < n && w[i].at > w[end].at-max(span, 1); i-- {
		if again := i < end && w[i].sameEvent(&w[i+1]); !again && (!matches || w[i].seen != 0) {
			list = append(list, w[i].id)
		}
	}
	slices.Reverse(list)
	return list
}
