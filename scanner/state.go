package scanner

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Bounds of what is told of a window.
const (
	mostIDs  = 20
	mostSeen = 50 // values
)

// state tells how a rule stands.
func (x *Explainer) state(r *rules.Rule, alerts []schema.Alert) State {
	s := State{RuleID: r.ID, Title: r.Title, Type: "detection", File: r.File, Line: r.Line}
	i := slices.IndexFunc(x.tree, func(t *tracked) bool { return t.rule == r })
	c := r.Correlation
	if c == nil {
		s.Match = x.explain(r)
		s.Occurs = s.Match.Holds
		if i >= 0 && s.Occurs {
			s.Groups = x.groups(x.tree[i], 0, alerts)
		}
		return s
	}
	t := x.tree[i]
	s.Type, s.Timespan = c.Type, schema.Seconds(c.Timespan)
	for _, source := range c.Sources {
		s.Counts = append(s.Counts, Counted{State: x.state(x.set.Rules()[source.Rule], alerts)})
	}
	looked := false
	for _, k := range c.Among {
		counted := Counted{State: x.state(x.set.Rules()[k], alerts), OnlyLookedAt: true}
		looked = looked || counted.Occurs
		s.Counts = append(s.Counts, counted)
	}
	s.Condition = x.condition(c)
	switch {
	case t.seen == 0 && looked:
		s.Groups = x.groups(t, bits.UintSize, alerts)
	case t.seen == 0:
	case !t.aliased:
		s.Groups = x.groups(t, bits.TrailingZeros64(t.seen), alerts)
	default:
		for seen := t.seen; seen != 0; seen &= seen - 1 {
			for _, g := range x.groups(t, bits.TrailingZeros64(seen), alerts) {
				if !slices.ContainsFunc(s.Groups, func(known Group) bool { return slices.Equal(known.Key, g.Key) }) {
					s.Groups = append(s.Groups, g)
				}
			}
		}
	}
	s.Occurs = slices.ContainsFunc(s.Groups, func(g Group) bool { return g.Window != nil && g.Window.Holds })
	return s
}

// names are what a condition in words calls a correlation's sources.
func (x *Explainer) names(c *rules.Correlation) (list []string) {
	for _, s := range c.Sources {
		r := x.set.Rules()[s.Rule]
		list = append(list, cmp.Or(r.Name, r.ID))
	}
	return list
}

// ops spells out bounds.
var ops = map[string]string{"gte": "at least", "gt": "more than", "lte": "at most", "lt": "less than", "eq": "exactly", "neq": "not"}

// condition spells out what a correlation wants.
func (x *Explainer) condition(c *rules.Correlation) string {
	var bounds []string
	for _, b := range c.Bounds {
		bounds = append(bounds, ops[b.Op]+" "+number(b.Than))
	}
	want := strings.Join(bounds, " and ")
	var paths []string
	for _, f := range c.Sources[0].Values {
		paths = append(paths, f.Path)
	}
	field := strings.Join(paths, " and ")
	switch c.Type {
	case rules.EventCount:
		return want + " events"
	case rules.ValueCount:
		return want + " distinct values of " + field
	case rules.ValueSum:
		return "the sum of " + field + " is " + want
	case rules.ValueAvg:
		return "the mean of " + field + " is " + want
	case rules.ValuePercentile:
		return fmt.Sprintf("percentile %s of %s is %s", number(c.Percentile), field, want)
	case rules.LastEvents:
		return fmt.Sprintf("%s of the last %d", want, c.Last)
	case rules.EventRatio:
		return fmt.Sprintf("%s of the events, of %d at least", want, c.Least)
	case rules.EventSpike:
		return fmt.Sprintf("%s times as many events as usual, and %d", want, c.Least)
	}
	order := ""
	if c.Type == rules.TemporalOrdered {
		order = ", in this order"
	}
	if c.Need != nil {
		return c.Need.Words(x.names(c)) + order
	}
	return fmt.Sprintf("%s of %s%s", want, strings.Join(x.names(c), ", "), order)
}

// groups tell how the groups of the event stand, as one source of a rule has it.
func (x *Explainer) groups(t *tracked, source int, alerts []schema.Alert) (list []Group) {
	for n, key := range x.keysAt(t, source) {
		list = append(list, x.group(t, source, n, key, alerts))
	}
	return list
}

// group tells how one group stands, which is the n-th of the event.
func (x *Explainer) group(t *tracked, source, n int, key []Key, alerts []schema.Alert) Group {
	e := x.engine
	g := Group{Key: key}
	if t.rule.Correlation != nil && !complete(g.Key) {
		i := slices.IndexFunc(g.Key, func(k Key) bool { return !k.Found })
		g.Missing = "the event has no " + cmp.Or(g.Key[i].Path, g.Key[i].Field) + ", so it belongs to no group"
		return g
	}
	if t.distinct || t.valued {
		if len(e.valuesOf(t, source)) == 0 {
			f := t.rule.Correlation.Sources[source].Values
			g.Missing = "the event has no " + f[0].Path
			if t.valued {
				g.Missing = "the event's " + f[0].Path + " is no number"
			} else if len(f) > 1 {
				g.Missing = "the event lacks one of the fields whose values are counted"
			}
			return g
		}
	}

	c := e.clockOf(&x.event)
	e.keys(t, source)
	e.keyAt(c, n)
	state := e.groupAt(t, c, false)
	if state == &t.none {
		if t.leads != 0 {
			g.Missing = "nothing is counted before the first of the order, " + x.names(t.rule.Correlation)[t.ordered[0]] + ", has occurred"
		} else {
			g.Missing = "the event is not counted"
		}
		return g
	}
	if pos := state.window.find(x.at, x.event.LogID); t.rule.Correlation != nil && pos >= 0 {
		g.Window = x.window(state, pos)
	}
	if state.open {
		a := &Open{StartsAt: time.UnixMicro(state.starts).UTC(), Level: t.rule.Alert.Levels[state.level].Name, Silently: t.rule.Alert.Class == rules.ClassEvent}
		if at, ok := state.deadline(); ok {
			a.Ends = time.UnixMicro(at).UTC()
		}
		id := fingerprint(&x.event, t.rule, g.Key)
		for i := range alerts {
			if alerts[i].Fingerprint == id && alerts[i].State == schema.Firing {
				a.Fired = alerts[i].StartsAt.Equal(alerts[i].UpdatedAt) && alerts[i].StartsAt.UnixMicro() == x.at
				a.Raised = !a.Fired
			}
		}
		g.Alert = a
	}
	return g
}

// window tells what a group has counted when the occurrence at pos is the last.
func (x *Explainer) window(g *group, pos int) *Window {
	t := g.rule
	for pos+1 < len(g.window) && g.window[pos+1].at == x.at {
		pos++
	}
	begin := g.window.begin(pos, t.span)
	if t.last > 0 {
		begin = max(begin, pos+1-t.last)
	}
	in := g.window[begin : pos+1]
	w := &Window{After: time.UnixMicro(x.at - t.span).UTC(), Until: time.UnixMicro(x.at).UTC(), Events: in.events(),
		LogIDs: in.ids(len(in)-1, mostIDs, t.span, false), LastsUntil: time.UnixMicro(x.at + t.span).UTC(), FirstLeave: time.UnixMicro(in[0].at + t.span).UTC()}
	if t.last > 0 {
		w.Value = float64(in.lastMatches(t.last, t.span))
		w.Holds = t.rule.Correlation.Holds(w.Value)
	} else {
		w.Value, w.Holds, _ = t.judged(g.window, begin, pos)
	}
	for _, b := range t.rule.Correlation.Bounds {
		if b.Op == "gte" || b.Op == "gt" {
			w.Missing = max(w.Missing, b.Than-w.Value)
		}
	}
	switch {
	case t.rule.Correlation.Type == rules.Temporal || t.rule.Correlation.Type == rules.TemporalOrdered:
		w.Sources = x.sources(t, in)
	case t.distinct || t.valued:
		w.Values = t.values(in)
	}
	return w
}

// sources are the rules of a temporal correlation, with when they were seen: in an
// order, with the occurrence that has its place.
func (x *Explainer) sources(t *tracked, in window) []Seen {
	c := t.rule.Correlation
	list := make([]Seen, len(c.Sources))
	next := 0 // in t.ordered
	for k, name := range x.names(c) {
		list[k] = Seen{Text: name, Absent: c.Need != nil && c.Need.Wanted()>>k&1 == 0}
	}
	for i := range in {
		o := &in[i]
		at := time.UnixMicro(o.at).UTC()
		for k := range list {
			if o.seen>>k&1 == 0 {
				continue
			}
			if len(t.ordered) == 0 || !slices.Contains(t.ordered, k) {
				list[k].Times++
				list[k].Last, list[k].LogID = at, o.id
			}
		}
		if next < len(t.ordered) && o.seen>>t.ordered[next]&1 == 1 {
			s := &list[t.ordered[next]]
			s.Times, s.Last, s.LogID = 1, at, o.id
			next++
		}
	}
	return list
}

// values are the values in a window, the newest last.
func (t *tracked) values(in window) []Seen {
	known := map[string]*Seen{}
	member := 0 // which of its event's values an occurrence has
	for i := range in {
		o := &in[i]
		if member++; i == 0 || !o.sameEvent(&in[i-1]) {
			member = 0
		}
		text := ""
		if t.valued {
			text = number(o.number())
		} else if o.fields != nil {
			text = o.fields.join(t.rule.Correlation.Sources[min(bits.TrailingZeros64(o.seen), len(t.rule.Correlation.Sources)-1)].Values, member)
		}
		s := known[text]
		if s == nil {
			s = &Seen{Text: text}
			known[text] = s
		}
		s.Times++
		s.Last, s.LogID = time.UnixMicro(o.at).UTC(), o.id
	}
	list := slices.SortedFunc(maps.Values(known), func(a, b *Seen) int { return cmp.Or(a.Last.Compare(b.Last), strings.Compare(a.Text, b.Text)) })
	var out []Seen
	for _, s := range list[max(0, len(list)-mostSeen):] {
		out = append(out, *s)
	}
	return out
}

// join is what an event had at some fields: the n-th combination of what it had at each,
// in the order of Engine.valuesOf.
func (c *captured) join(fields []rules.Field, n int) string {
	var texts []string
	for _, f := range fields {
		var known []string
		for _, text := range c.texts[slices.Index(c.fields, f)] {
			if !slices.Contains(known, text.text) {
				known = append(known, text.text)
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
