package scanner

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
	"github.com/tenantwatch/tenantwatch/schema"
)

// Bounds of the description of a window.
const (
	maxIDs  = 20
	maxSeen = 50 // values
)

// state returns the state of a rule. alerts are the transitions that the explained
// event caused.
func (x *Explainer) state(r *rules.Rule, alerts []schema.Alert) State {
	status := State{RuleID: r.ID, Title: r.Title, Type: "detection", File: r.File, Line: r.Line}
	i := slices.IndexFunc(x.tree, func(state *ruleState) bool { return state.rule == r })

	counted := r.Correlation
	if counted == nil {
		status.Match = x.explain(r)
		status.Occurs = status.Match.Holds
		if i >= 0 && status.Occurs {
			status.Groups = x.groups(x.tree[i], 0, alerts)
		}
		return status
	}

	status.Type, status.Timespan = counted.Type.Name(), schema.Seconds(counted.Timespan)
	for _, source := range counted.Sources {
		status.Counts = append(status.Counts, Counted{State: x.state(x.set.Rules()[source.Rule], alerts)})
	}
	among := false
	for _, source := range counted.Among {
		counted := Counted{State: x.state(x.set.Rules()[source], alerts), OnlyLookedAt: true}
		among = among || counted.Occurs
		status.Counts = append(status.Counts, counted)
	}

	status.Condition = x.condition(counted)
	status.Groups = x.correlationGroups(x.tree[i], among, alerts)
	status.Occurs = slices.ContainsFunc(status.Groups, func(g Group) bool {
		return g.Window != nil && g.Window.Holds
	})
	return status
}

// correlationGroups returns the groups of the event in a correlation. among says that
// the event is of a rule in Correlation.Among.
func (x *Explainer) correlationGroups(state *ruleState, among bool, alerts []schema.Alert) (groups []Group) {
	switch {
	case state.seen == 0 && among:
		return x.groups(state, bits.UintSize, alerts)
	case state.seen == 0:
		return nil
	case !state.aliased:
		return x.groups(state, bits.TrailingZeros64(state.seen), alerts)
	}

	// With aliases, each source may place the event in other groups.
	for seen := state.seen; seen != 0; seen &= seen - 1 {
		for _, group := range x.groups(state, bits.TrailingZeros64(seen), alerts) {
			same := func(known Group) bool { return slices.Equal(known.Key, group.Key) }
			if !slices.ContainsFunc(groups, same) {
				groups = append(groups, group)
			}
		}
	}
	return groups
}

// names returns the names of a correlation's sources, as Sigma conditions use them.
func (x *Explainer) names(counted *rules.Correlation) (list []string) {
	for _, source := range counted.Sources {
		rule := x.set.Rules()[source.Rule]
		list = append(list, cmp.Or(rule.Name, rule.ID))
	}
	return list
}

// opWords are the comparisons of correlation.Bound in words.
var opWords = map[string]string{
	"gte": "at least",
	"gt":  "more than",
	"lte": "at most",
	"lt":  "less than",
	"eq":  "exactly",
	"neq": "not",
}

// condition returns the condition of a correlation in words.
func (x *Explainer) condition(counted *rules.Correlation) string {
	var bounds, paths []string
	for _, bound := range counted.Bounds {
		bounds = append(bounds, opWords[bound.Op]+" "+number(bound.Than))
	}
	for _, field := range counted.Sources[0].Values {
		paths = append(paths, field.Path)
	}

	return counted.Type.Describe(&counted.Spec, correlation.Words{
		Bounds: strings.Join(bounds, " and "),
		Field:  strings.Join(paths, " and "),
		Rules:  x.names(counted),
	})
}

// groups returns the groups of the event, as one source of a rule has it.
func (x *Explainer) groups(state *ruleState, source int, alerts []schema.Alert) (list []Group) {
	for n, key := range x.keysAt(state, source) {
		list = append(list, x.group(state, source, n, key, alerts))
	}
	return list
}

// group returns the n-th group of the event, as one source of a rule has it.
func (x *Explainer) group(state *ruleState, source, n int, key []Key, alerts []schema.Alert) Group {
	missing := x.missing(state, source, key)
	if missing != "" {
		return Group{Key: key, Missing: missing}
	}

	engine := x.engine

	// Look the group up without creating it.
	clock := engine.clockOf(&x.event)
	engine.findKeys(state, source)
	engine.setKey(clock, n)
	counted := engine.groupOf(state, clock, false)
	if counted == &state.absent {
		missing = "the event is not counted"
		if state.leads != 0 {
			first := x.names(state.rule.Correlation)[state.ordered[0]]
			missing = "nothing is counted before the first of the order, " + first + ", has occurred"
		}
		return Group{Key: key, Missing: missing}
	}

	g := Group{Key: key}
	if pos := counted.window.Find(x.at, x.event.LogID); state.rule.Correlation != nil && pos >= 0 {
		g.Window = x.window(counted, pos)
	}
	if counted.open {
		g.Alert = x.openAlert(counted, key, alerts)
	}
	return g
}

// missing says why the event is in no group of a rule; "" if it is.
func (x *Explainer) missing(state *ruleState, source int, key []Key) string {
	if state.rule.Correlation != nil && !complete(key) {
		i := slices.IndexFunc(key, func(k Key) bool { return !k.Found })
		return "the event has no " + cmp.Or(key[i].Path, key[i].Field) + ", so it belongs to no group"
	}
	if !state.value.OfField() || len(x.engine.valuesOf(state, source)) > 0 {
		return ""
	}

	fields := state.rule.Correlation.Sources[source].Values
	switch {
	case state.value == correlation.ValueNumber:
		return "the event's " + fields[0].Path + " is not a number"
	case len(fields) > 1:
		return "the event lacks one of the fields whose values are counted"
	}
	return "the event has no " + fields[0].Path
}

// openAlert returns the open alert of a group.
func (x *Explainer) openAlert(g *group, key []Key, alerts []schema.Alert) *Open {
	alert := g.rule.rule.Alert
	open := &Open{
		StartsAt: time.UnixMicro(g.starts).UTC(),
		Level:    alert.Levels[g.level].Name,
		Silently: alert.Class == rules.ClassEvent,
	}
	if at, ok := g.deadline(); ok {
		open.Ends = time.UnixMicro(at).UTC()
	}

	// The event's own transitions tell whether it fired or escalated the alert.
	id := fingerprint(&x.event, g.rule.rule, key)
	for i := range alerts {
		if alert := &alerts[i]; alert.Fingerprint == id && alert.State == schema.Firing {
			open.Fired = alert.StartsAt.Equal(alert.UpdatedAt) && alert.StartsAt.UnixMicro() == x.at
			open.Raised = !open.Fired
		}
	}
	return open
}

// window describes the window of a group that ends with the occurrence at pos.
func (x *Explainer) window(g *group, pos int) *Window {
	state, counted := g.rule, g.rule.rule.Correlation
	for pos+1 < len(g.window) && g.window[pos+1].At == x.at {
		pos++
	}

	begin := g.window.Begin(pos, state.span)
	if state.last > 0 {
		begin = max(begin, pos+1-state.last)
	}

	in := g.window[begin : pos+1]
	w := &Window{
		After:      time.UnixMicro(x.at - state.span).UTC(),
		Until:      time.UnixMicro(x.at).UTC(),
		Events:     in.Events(),
		LogIDs:     in.IDs(len(in)-1, maxIDs, state.span, false),
		LastsUntil: time.UnixMicro(x.at + state.span).UTC(),
		FirstLeave: time.UnixMicro(in[0].At + state.span).UTC(),
	}
	w.Value, w.Holds, _ = counted.Type.Evaluate(&counted.Spec, g.window, begin, pos)

	for _, bound := range counted.Bounds {
		if bound.Op == "gte" || bound.Op == "gt" {
			w.Missing = max(w.Missing, bound.Than-w.Value)
		}
	}
	switch {
	case counted.Type.Traits().Rules:
		w.Sources = x.sources(state, in)
	case state.value.OfField():
		w.Values = state.values(in)
	}
	return w
}

// sources returns the rules of a temporal correlation, with the last event of each. A
// rule of an order has the event that counts for the order.
func (x *Explainer) sources(state *ruleState, in correlation.Window) []Seen {
	counted := state.rule.Correlation
	list := make([]Seen, len(counted.Sources))
	for source, name := range x.names(counted) {
		list[source] = Seen{Text: name, Absent: counted.Need != nil && counted.Need.Wanted()>>source&1 == 0}
	}

	// In state.ordered.
	next := 0
	for i := range in {
		occ := &in[i]
		at := time.UnixMicro(occ.At).UTC()
		for source := range list {
			if occ.Seen>>source&1 == 0 || slices.Contains(state.ordered, source) {
				continue
			}
			list[source].Times++
			list[source].Last, list[source].LogID = at, occ.ID
		}

		// In an order, an occurrence counts only after the previous source's.
		if next < len(state.ordered) && occ.Seen>>state.ordered[next]&1 == 1 {
			seen := &list[state.ordered[next]]
			seen.Times, seen.Last, seen.LogID = 1, at, occ.ID
			next++
		}
	}
	return list
}

// values returns the values in a window, the newest last.
func (s *ruleState) values(in correlation.Window) []Seen {
	byText := map[string]*Seen{}
	// Index of the value among those of its event.
	member := 0
	for i := range in {
		occ := &in[i]
		if member++; i == 0 || !occ.SameEvent(&in[i-1]) {
			member = 0
		}

		text := ""
		if s.value == correlation.ValueNumber {
			text = number(occ.Number())
		} else if occ.Fields != nil {
			sources := s.rule.Correlation.Sources
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
