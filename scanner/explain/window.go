package explain

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// Bounds of the description of a window.
const (
	maxIDs  = 20
	maxSeen = 50 // values
)

// window describes the window of a group that ends with the occurrence at pos.
func (x *Explainer) window(counted *rules.Correlation, all correlation.Window, pos int) *Window {
	at, span := x.at.UnixMicro(), counted.Timespan.Microseconds()
	for pos+1 < len(all) && all[pos+1].At == at {
		pos++
	}

	begin := all.Begin(pos, span)
	if counted.Last > 0 {
		begin = max(begin, pos+1-counted.Last)
	}

	in := all[begin : pos+1]
	w := &Window{
		After:      x.at.Add(-counted.Timespan),
		Until:      x.at,
		Events:     in.Events(),
		LogIDs:     in.IDs(len(in)-1, maxIDs, span, false),
		LastsUntil: x.at.Add(counted.Timespan),
		FirstLeave: time.UnixMicro(in[0].At + span).UTC(),
	}
	w.Value, w.Holds, _ = counted.Type.Evaluate(&counted.Spec, all, begin, pos)

	for _, bound := range counted.Bounds {
		if bound.Op == "gte" || bound.Op == "gt" {
			w.Missing = max(w.Missing, bound.Than-w.Value)
		}
	}
	switch {
	case counted.Type.Traits().Rules:
		w.Sources = x.seenRules(counted, in)
	case counted.Type.Traits().Value.OfField():
		w.Values = seenValues(counted, in)
	}
	return w
}

// seenRules returns the rules of a temporal correlation, with the last event of each. A
// rule of an order has the event that counts for the order.
func (x *Explainer) seenRules(counted *rules.Correlation, in correlation.Window) []Seen {
	order := counted.Order()
	list := make([]Seen, len(counted.Sources))
	for source, name := range x.names(counted) {
		list[source] = Seen{Text: name, Absent: counted.Need != nil && counted.Need.Wanted()>>source&1 == 0}
	}

	// The index in order of the rule that must come next.
	next := 0
	for i := range in {
		occ := &in[i]
		at := time.UnixMicro(occ.At).UTC()
		for source := range list {
			if occ.Seen>>source&1 == 0 || slices.Contains(order, source) {
				continue
			}
			list[source].Times++
			list[source].Last, list[source].LogID = at, occ.ID
		}

		// In an order, an occurrence counts only after the previous source's.
		if next < len(order) && occ.Seen>>order[next]&1 == 1 {
			seen := &list[order[next]]
			seen.Times, seen.Last, seen.LogID = 1, at, occ.ID
			next++
		}
	}
	return list
}

// seenValues returns the values in a window, the newest last.
func seenValues(counted *rules.Correlation, in correlation.Window) []Seen {
	byText := map[string]*Seen{}
	// Index of the value among those of its event.
	member := 0
	for i := range in {
		occ := &in[i]
		if member++; i == 0 || !occ.SameEvent(&in[i-1]) {
			member = 0
		}

		text := ""
		if counted.Type.Traits().Value == correlation.ValueNumber {
			text = correlation.Number(occ.Number())
		} else if occ.Fields != nil {
			sources := counted.Sources
			source := min(bits.TrailingZeros64(occ.Seen), len(sources)-1)
			text = join(occ.Fields, sources[source].Values, member)
		}
		known := byText[text]
		if known == nil {
			known = &Seen{Text: text}
			byText[text] = known
		}
		known.Times++
		known.Last, known.LogID = time.UnixMicro(occ.At).UTC(), occ.ID
	}

	list := slices.SortedFunc(maps.Values(byText), func(a, b *Seen) int {
		return cmp.Or(a.Last.Compare(b.Last), strings.Compare(a.Text, b.Text))
	})
	var newest []Seen
	for _, seen := range list[max(0, len(list)-maxSeen):] {
		newest = append(newest, *seen)
	}
	return newest
}

// join returns the n-th combination of the values at some fields, in the order of
// Engine.valuesOf.
func join(kept *correlation.Fields, fields []expr.Field, n int) string {
	var texts []string
	for _, field := range fields {
		var known []string
		for _, text := range kept.Texts[slices.Index(kept.Paths, field.Path)] {
			if !slices.Contains(known, text.Text) {
				known = append(known, text.Text)
			}
		}
		if len(known) == 0 {
			return ""
		}
		texts = append(texts, known[n%len(known)])
		n /= len(known)
	}
	return strings.Join(texts, ", ")
}
