package scanner

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Explainer finds out what one rule makes of one event. It runs an Engine over the
// events around that, of which it is given either all that Query selects, in order,
// with Observe, or those of a file, in any order, with Keep.
type Explainer struct {
	set    *rules.Set
	rule   *rules.Rule
	event  schema.Event
	engine *Engine
	top    *tracked   // nil where the rule only serves others
	tree   []*tracked // top and the correlations that it counts, as in Engine.rules
	hits   []int      // detections that the event matches
	keys   []string   // the groups of top that the event belongs to; only where it counts detections alone
	at     int64
	past   []schema.Alert
	batch  *Batch
	done   bool
	out    Explanation
}

// NewExplainer returns an Explainer. The rule is one of the set, and the event is
// identified.
func NewExplainer(set *rules.Set, rule *rules.Rule, cfg Config, ev *schema.Event) *Explainer {
	e := NewEngine(set, cfg)
	x := &Explainer{set: set, rule: rule, event: *ev, engine: e, at: eventTime(ev, e.cfg.Lateness)}
	x.prune()
	x.hits = slices.Clone(e.matcher.Match(ev.Raw))
	x.keys = x.keysOf(x.hits)
	return x
}

// prune leaves to the engine the rule and what it counts.
func (x *Explainer) prune() {
	e := x.engine
	wanted := map[*rules.Rule]bool{}
	var want func(r *rules.Rule)
	want = func(r *rules.Rule) {
		wanted[r] = true
		if r.Correlation != nil {
			for _, s := range r.Correlation.Sources {
				want(x.set.Rules()[s.Rule])
			}
		}
	}
	want(x.rule)
	other := func(f feed) bool { // a detection that is counted need not alert by itself
		return !wanted[f.rule.rule] || f.rule.rule.Correlation == nil && f.rule.rule != x.rule
	}
	for i, list := range e.feeds {
		e.feeds[i] = slices.DeleteFunc(list, other)
	}
	var tree []*tracked
	for _, t := range slices.Backward(e.rules) {
		if other(feed{rule: t}) {
			continue
		}
		if t.rule == x.rule {
			x.top = t
		}
		tree = append(tree, t)
		t.rises = t.rises && t.rule.Alert != nil // without an alert, what it is counted for is all there is to judge
		t.parents = slices.DeleteFunc(t.parents, other)
		t.wanted, t.reach = nil, t.horizon
		if t.distinct { // so that the values can be told, of which only hashes are compared
			for _, s := range t.rule.Correlation.Sources {
				t.wanted = slices.Concat(t.wanted, s.Values)
			}
		}
		for _, f := range t.parents {
			source := f.rule.rule.Correlation.Sources[f.source]
			t.wanted = slices.Concat(t.wanted, source.GroupBy, source.Values, f.rule.wanted)
			t.reach = max(t.reach, t.span+f.rule.reach)
		}
	}
	slices.Reverse(tree)
	x.tree = tree
	e.rules = tree
}

// plain reports that the rule counts nothing but detections.
func (x *Explainer) plain() bool { return len(x.tree) == 1 }

// keysOf are the groups that an event which the matcher has belongs to.
func (x *Explainer) keysOf(hits []int) (keys []string) {
	if x.top == nil || !x.plain() {
		return nil
	}
	e := x.engine
	for _, i := range hits {
		for _, f := range e.feeds[i] {
			for n := range e.keys(x.top, sourceOf(f)) {
				e.keyAt(e.clockOf(&x.event), n)
				keys = append(keys, string(e.key))
			}
		}
	}
	return keys
}

// sourceOf is a feed's source as groupOf takes it.
func sourceOf(f feed) int {
	if f.source < 0 {
		return bits.UintSize // none: it is only looked at
	}
	return f.source
}

// Needs reports whether events around this one have a say.
func (x *Explainer) Needs() bool {
	counts, _ := x.engine.admits(&x.event, x.at)
	switch {
	case x.top == nil || !counts:
		return false
	case x.plain():
		return len(x.keys) > 0
	}
	return slices.ContainsFunc(x.hits, func(i int) bool { return len(x.engine.feeds[i]) > 0 })
}

// Span is the time of the events that have a say: from after the first to the
// second.
func (x *Explainer) Span() (after, until time.Time) {
	var back, span int64
	for _, t := range x.tree {
		back = max(back, t.reach)
	}
	if x.top != nil {
		span = x.top.span
		if x.rule.Alert != nil && x.rule.Alert.Class == rules.ClassEvent {
			back += x.top.keep // as long as an earlier alert is open
		}
	}
	return time.UnixMicro(x.at - back).UTC(), time.UnixMicro(x.at + span).UTC()
}

// Query is SQL over the view events for the events that have a say, some more
// among them, in the order in which Observe wants them.
func (x *Explainer) Query() string {
	after, until := x.Span()
	where := []string{"tenant = " + schema.Literal(x.event.Tenant), "date > " + sqlTime(after.UnixMicro()), "date <= " + sqlTime(until.UnixMicro())}
	var types []string
	for i, feeds := range x.engine.feeds {
		if len(feeds) == 0 {
			continue
		}
		list := x.set.Rules()[i].Types
		if list == nil {
			types = nil
			break
		}
		types = append(types, list...)
	}
	slices.Sort(types)
	if types := sqlTypes(slices.Compact(types)); types != "" {
		where = append(where, types)
	}
	if x.plain() && !x.top.aliased && len(x.keys) > 0 {
		x.engine.matcher.Match(x.event.Raw)
		for _, f := range x.top.groupBy(0) {
			texts := x.engine.matcher.AppendTexts(nil, f)
			if len(texts) == 1 && slices.Contains(schema.TextColumns[schema.FirstText:], f.Path) {
				// What is no plain text is in rest.
				where = append(where, fmt.Sprintf("(%s = %s OR position(rest, %s) > 0)", f.Path, schema.Literal(string(texts[0].Text)), schema.Literal(f.Path+`"`)))
			}
		}
	}
	return "SELECT log_id, date, type, raw, source, fetched_at FROM events WHERE " + strings.Join(where, " AND ") + " ORDER BY date, log_id"
}

// Fingerprints are those of the alerts that the event could be of.
func (x *Explainer) Fingerprints() (list []string) {
	if x.rule.Alert == nil {
		return nil
	}
	x.explain(nil) // so that the matcher has all fields
	x.engine.from = nil
	n := 1
	if c := x.rule.Correlation; c != nil {
		n = len(c.Sources)
	}
	for k := range n {
		for _, key := range x.keysAt(x.top, k) {
			if complete(key) || x.rule.Correlation == nil {
				list = append(list, fingerprint(&x.event, x.rule, key))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func fingerprint(ev *schema.Event, r *rules.Rule, key []Key) string {
	var values []schema.GroupValue
	for _, k := range key {
		values = append(values, schema.GroupValue{Field: k.Field, Value: k.Value})
	}
	return schema.Fingerprint(ev.Tenant, r.ID, values)
}

func complete(key []Key) bool {
	return !slices.ContainsFunc(key, func(k Key) bool { return !k.Found })
}

// keysAt are the group keys of the event at hand, as one source of a rule has it, in the
// order of Engine.keyAt. Where it lacks a field, there is one that says so.
func (x *Explainer) keysAt(t *tracked, source int) [][]Key {
	list := [][]Key{nil}
	for i, f := range t.groupBy(source) {
		k := Key{Field: f.Path}
		if a := t.rule.Alert; a != nil && a.GroupBy[i].Path != f.Path {
			k.Field, k.Path = a.GroupBy[i].Path, f.Path
		}
		texts := unique(x.engine.appendTexts(nil, f))
		if k.Found = len(texts) > 0; !k.Found {
			texts = []rules.Text{{}}
		}
		var longer [][]Key
		for _, text := range texts {
			for _, key := range list {
				k.Value = string(text.Text)
				longer = append(longer, append(slices.Clone(key), k))
			}
		}
		list = longer[:min(len(longer), mostMembers)]
	}
	return list
}

// Record notes what became of the alerts with the Fingerprints, in any order. It
// comes before Observe and Keep. An alert that began before the events that are
// seen is open only if this says so.
func (x *Explainer) Record(list []schema.Alert) {
	x.past = slices.SortedStableFunc(slices.Values(list), func(a, b schema.Alert) int { return a.UpdatedAt.Compare(b.UpdatedAt) })
	for _, a := range x.past {
		x.out.Recorded = append(x.out.Recorded, Transition{a.State, a.Level, a.StartsAt, a.UpdatedAt, a.Count})
	}
}

// restore takes up the alerts that were open before the event. Where anything is on
// record, what else the events seen would have opened was not: the record knows of
// more events than these.
func (x *Explainer) restore() {
	if len(x.past) == 0 {
		return
	}
	last := map[string]*schema.Alert{}
	for i := range x.past {
		if a := &x.past[i]; x.before(a) {
			last[a.Fingerprint] = a
		}
	}
	for _, a := range last {
		if a.State == schema.Resolved || x.rule.Alert.Class == rules.ClassEvent && a.StartsAt.UnixMicro()+x.top.keep <= x.at {
			continue // it has ended
		}
		x.engine.Restore(a)
		if g := x.top.groups[string(x.engine.key)]; g != nil && g.open {
			g.starts = a.StartsAt.UnixMicro() // whatever the events seen make of it
			x.engine.schedule(g)
		}
	}
	x.engine.Begin(x.event.Tenant)
}

// before reports whether a transition was before the event.
func (x *Explainer) before(a *schema.Alert) bool {
	if at := a.UpdatedAt.UnixMicro(); at != x.at {
		return at < x.at
	}
	return a.State == schema.Resolved ||
		x.top.last == 0 && len(a.LogIDs) > 0 && a.LogIDs[len(a.LogIDs)-1] < x.event.LogID // last_events lists matches, not what fired it
}

// Observe takes one of the events, which come by date and, at the same time, by
// log_id. The event that is explained may be among them.
func (x *Explainer) Observe(ev *schema.Event) {
	if at := eventTime(ev, x.engine.cfg.Lateness); !x.done && (at > x.at || at == x.at && ev.LogID >= x.event.LogID) {
		x.look()
	}
	if ev.LogID != x.event.LogID && x.shares(ev) {
		x.note(x.engine.Observe(ev), ev.LogID)
	}
}

// Keep takes one of the events, in any order.
func (x *Explainer) Keep(ev *schema.Event) {
	if _, until := x.Span(); ev.LogID == x.event.LogID || ev.Date.After(until) || !x.shares(ev) {
		return
	}
	if x.batch == nil {
		x.batch = &Batch{set: x.set, engine: x.engine, texts: map[string]string{}}
		for _, t := range x.tree {
			x.batch.wanted = slices.Concat(x.batch.wanted, t.wanted)
			if t.rule.Correlation == nil {
				x.batch.wanted = slices.Concat(x.batch.wanted, t.rule.Alert.GroupBy)
				continue
			}
			for _, s := range t.rule.Correlation.Sources {
				x.batch.wanted = slices.Concat(x.batch.wanted, s.GroupBy, s.Values)
			}
		}
		slices.SortFunc(x.batch.wanted, func(a, b rules.Field) int { return strings.Compare(a.Path, b.Path) })
		x.batch.wanted = slices.Compact(x.batch.wanted)
	}
	x.batch.Observe(ev)
}

// shares reports whether an event belongs to a group that the explained event is
// of, as far as that can be told.
func (x *Explainer) shares(ev *schema.Event) bool {
	if x.top == nil {
		return false
	}
	hits := x.engine.matcher.Match(ev.Raw)
	if !x.plain() {
		return slices.ContainsFunc(hits, func(i int) bool { return len(x.engine.feeds[i]) > 0 })
	}
	x.engine.from = nil
	return slices.ContainsFunc(x.keysOf(hits), func(key string) bool { return slices.Contains(x.keys, key) })
}

// Explain says what the rule makes of the event, after Observe or Keep has been
// given the others.
func (x *Explainer) Explain() *Explanation {
	if x.batch != nil {
		x.batch.sort()
		for _, f := range x.batch.facts {
			if !x.done && (f.at > x.at || f.at == x.at && f.id > x.event.LogID) {
				x.look()
			}
			x.note(x.batch.judge(f), f.id)
		}
	}
	if !x.done {
		x.look()
	}
	x.out.Reason = x.reason()
	return &x.out
}

// note notes the first alert that begins after the event in a window with it.
func (x *Explainer) note(alerts []schema.Alert, id string) {
	if !x.done || x.out.Fires || x.out.Later != nil {
		return
	}
	for i := range alerts {
		a := &alerts[i]
		if a.RuleID == x.rule.ID && a.State == schema.Firing && a.StartsAt.Equal(a.UpdatedAt) && a.UpdatedAt.UnixMicro() < x.at+x.top.span && x.ours(a.Group) {
			x.out.Later = &Later{a.UpdatedAt, id, a.Count}
			return
		}
	}
}

// ours reports whether an alert's group is one of the event's.
func (x *Explainer) ours(group []schema.GroupValue) bool {
	return slices.ContainsFunc(x.out.Groups, func(g Group) bool {
		return g.Missing == "" && !slices.ContainsFunc(g.Key, func(k Key) bool {
			return !slices.Contains(group, schema.GroupValue{Field: k.Field, Value: k.Value})
		})
	})
}

// look observes the event itself and tells how things stand then.
func (x *Explainer) look() {
	x.done = true
	e := x.engine
	if x.top != nil {
		x.restore()
	}
	for _, t := range x.tree {
		t.seen = 0
	}
	e.from = nil
	alerts := e.Observe(&x.event)
	out := &x.out
	out.Level, out.Tenant, out.LogID, out.EventType = x.rule.Level, x.event.Tenant, x.event.LogID, x.event.Type
	out.At, out.Source = time.UnixMicro(x.at).UTC(), string(x.event.Source)
	if x.event.Source != "" {
		out.FetchedAt = x.event.FetchedAt.UTC()
	}
	if a := x.rule.Alert; a != nil {
		for _, l := range a.Levels {
			out.Levels = append(out.Levels, Level{l.Name, l.Count})
		}
	}
	for _, r := range x.set.Rules() {
		if c := r.Correlation; c != nil && (slices.ContainsFunc(c.Sources, func(s rules.Source) bool { return x.set.Rules()[s.Rule] == x.rule }) ||
			slices.ContainsFunc(c.Among, func(i int) bool { return x.set.Rules()[i] == x.rule })) {
			out.Serves = append(out.Serves, r.Title)
		}
	}
	out.State = x.state(x.rule, alerts)
	out.Fires = slices.ContainsFunc(out.Groups, func(g Group) bool { return g.Alert != nil && (g.Alert.Fired || g.Alert.Raised) })
}

// explain is the tree of a detection; of no rule in particular, it has the matcher
// read all of the event.
func (x *Explainer) explain(r *rules.Rule) *rules.Explanation {
	if r == nil {
		for _, r := range x.set.Rules() {
			if r.Correlation == nil {
				return x.explain(r)
			}
		}
		return nil
	}
	return x.engine.matcher.Explain(x.event.Raw, r)
}
