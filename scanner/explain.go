package scanner

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Explainer explains one rule's result for one event. It runs an Engine over the
// surrounding events. Pass these either in order to Observe, as Query selects them, or
// in any order to Keep.
type Explainer struct {
	set      *rules.Set
	rule     *rules.Rule
	event    schema.Event
	at       int64
	engine   *Engine
	top      *ruleState   // of rule; nil if the rule only serves others
	tree     []*ruleState // top and the correlations that it counts, as in Engine.rules
	hits     []int        // detections that the event matches
	keys     []string     // groups of top that the event belongs to; only if it counts detections alone
	past     []schema.Alert
	batch    *Batch
	examined bool
	out      Explanation
}

// NewExplainer returns an Explainer. The rule must be one of the set and the event
// identified.
func NewExplainer(set *rules.Set, rule *rules.Rule, cfg Config, ev *schema.Event) *Explainer {
	engine := NewEngine(set, cfg)
	explainer := &Explainer{set: set, rule: rule, event: *ev, engine: engine, at: eventTime(ev, engine.cfg.Lateness)}
	explainer.prune()
	explainer.hits = slices.Clone(engine.matcher.Match(ev.Raw))
	explainer.keys = explainer.keysOf(explainer.hits)
	return explainer
}

// prune removes from the engine all rules except the explained one and those that it
// counts.
func (x *Explainer) prune() {
	engine := x.engine
	needed := map[*rules.Rule]bool{}
	x.addNeeded(needed, x.rule)

	// A counted detection need not alert.
	other := func(f feed) bool {
		rule := f.rule.rule
		return !needed[rule] || rule.Correlation == nil && rule != x.rule
	}

	// Without feeds, the other rules are never touched.
	for i, list := range engine.feeds {
		engine.feeds[i] = slices.DeleteFunc(list, other)
	}

	var tree []*ruleState
	// Parents first, see inherit.
	for _, state := range slices.Backward(engine.rules) {
		if other(feed{rule: state}) {
			continue
		}
		if state.rule == x.rule {
			x.top = state
		}
		tree = append(tree, state)

		// Without an alert, the rule is evaluated only for its parents.
		state.rises = state.rises && state.rule.Alert != nil
		state.parents = slices.DeleteFunc(state.parents, other)
		state.captures, state.reach = captureList{}, state.horizon
		if state.distinct() { // windows hold only hashes: capture the values to show them
			for _, source := range state.rule.Correlation.Sources {
				state.captures.add(source.Values)
			}
		}
		state.inherit()
	}
	slices.Reverse(tree)
	x.tree, engine.rules = tree, tree
}

// addNeeded adds a rule and those that it counts.
func (x *Explainer) addNeeded(needed map[*rules.Rule]bool, r *rules.Rule) {
	needed[r] = true
	if r.Correlation != nil {
		for _, source := range r.Correlation.Sources {
			x.addNeeded(needed, x.set.Rules()[source.Rule])
		}
	}
}

// plain reports whether the rule counts only detections.
func (x *Explainer) plain() bool { return len(x.tree) == 1 }

// keysOf returns the groups that the matcher's event belongs to.
func (x *Explainer) keysOf(hits []int) (keys []string) {
	if x.top == nil || !x.plain() {
		return nil
	}

	engine := x.engine
	for _, i := range hits {
		for _, target := range engine.feeds[i] {
			// An event can be of several groups: any of them is shared.
			for n := range engine.findKeys(x.top, sourceOf(target)) {
				engine.setKey(engine.clockOf(&x.event), n)
				keys = append(keys, string(engine.key))
			}
		}
	}
	return keys
}

// sourceOf returns a feed's source as groupBy expects it.
func sourceOf(f feed) int {
	if f.source < 0 {
		return bits.UintSize // in Correlation.Among
	}
	return f.source
}

// Needs reports whether the result depends on the surrounding events.
func (x *Explainer) Needs() bool {
	counts, _ := x.engine.admits(&x.event, x.at)
	switch {
	case x.top == nil || !counts:
		return false
	case x.plain():
		return len(x.keys) > 0
	}
	return x.feeds(x.hits)
}

// feeds reports whether one of the detections is counted.
func (x *Explainer) feeds(hits []int) bool {
	return slices.ContainsFunc(hits, func(i int) bool { return len(x.engine.feeds[i]) > 0 })
}

// Span returns the time range (after, until] of the events that the result depends on.
func (x *Explainer) Span() (after, until time.Time) {
	var back, span int64
	for _, state := range x.tree {
		back = max(back, state.reach)
	}

	if x.top != nil {
		span = x.top.span
		if x.rule.Alert != nil && x.rule.Alert.Class == rules.ClassEvent {
			// An earlier alert may still be open.
			back += x.top.keep
		}
	}
	return time.UnixMicro(x.at - back).UTC(), time.UnixMicro(x.at + span).UTC()
}

// Query returns SQL over the view events that selects the events that the result
// depends on, and some others, in the order that Observe requires.
func (x *Explainer) Query() string {
	after, until := x.Span()
	where := []string{
		"tenant = " + schema.Literal(x.event.Tenant),
		"date > " + sqlTime(after.UnixMicro()),
		"date <= " + sqlTime(until.UnixMicro()),
	}
	if types := sqlTypes(x.types()); types != "" {
		where = append(where, types)
	}

	// Only the event's own groups matter if ClickHouse has their fields in columns.
	if x.plain() && !x.top.aliased && len(x.keys) > 0 {
		x.engine.matcher.Match(x.event.Raw)
		for _, field := range x.top.groupBy(0) {
			texts := x.engine.matcher.AppendTexts(nil, field)
			place := tosql.Locate(field.Path)
			if len(texts) == 1 && place.Plain() {
				value := schema.Literal(string(texts[0].Text))
				where = append(where, fmt.Sprintf("(%s = %s OR %s)", place.Column, value, place.Elsewhere()))
			}
		}
	}
	return "SELECT log_id, date, type, raw, source, fetched_at FROM events WHERE " +
		strings.Join(where, " AND ") + " ORDER BY date, log_id"
}

// types returns the types of the events that are counted; none for all types.
func (x *Explainer) types() (types []string) {
	for i, feeds := range x.engine.feeds {
		if len(feeds) == 0 {
			continue
		}

		// A detection of any type makes the condition useless.
		list := x.set.Rules()[i].Types
		if list == nil {
			return nil
		}
		types = append(types, list...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// Fingerprints returns those of the alerts that the event may belong to.
func (x *Explainer) Fingerprints() (list []string) {
	if x.rule.Alert == nil {
		return nil
	}

	x.readEvent()

	// Keys come from the explained event, not from a captured one.
	x.engine.captured = nil
	sources := 1
	if correlation := x.rule.Correlation; correlation != nil {
		sources = len(correlation.Sources)
	}
	for source := range sources {
		for _, key := range x.keysAt(x.top, source) {
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
	for _, part := range key {
		values = append(values, schema.GroupValue{Field: part.Field, Value: part.Value})
	}
	return schema.Fingerprint(ev.Tenant, r.ID, values)
}

func complete(key []Key) bool {
	return !slices.ContainsFunc(key, func(k Key) bool { return !k.Found })
}

// keysAt returns the group keys of the current event, as one source of a rule has the
// fields, in the order of Engine.setKey. A field that the event lacks is included, and
// not Found.
func (x *Explainer) keysAt(state *ruleState, source int) [][]Key {
	list := [][]Key{nil}
	for i, field := range state.groupBy(source) {
		part := Key{Field: field.Path}
		if alert := state.rule.Alert; alert != nil && alert.GroupBy[i].Path != field.Path {
			part.Field, part.Path = alert.GroupBy[i].Path, field.Path
		}

		texts := unique(x.engine.appendTexts(nil, field))
		if part.Found = len(texts) > 0; !part.Found {
			texts = []expr.Text{{}}
		}

		// Extend each key so far by each value of the field.
		var longer [][]Key
		for _, text := range texts {
			for _, key := range list {
				part.Value = string(text.Text)
				longer = append(longer, append(slices.Clone(key), part))
			}
		}
		list = longer[:min(len(longer), maxMembers)]
	}
	return list
}

// Record adds the stored transitions of the alerts with the Fingerprints, in any order.
// Call it before Observe and Keep. An alert that fired before the surrounding events
// is open only if a transition says so.
func (x *Explainer) Record(list []schema.Alert) {
	byTime := func(a, b schema.Alert) int { return a.UpdatedAt.Compare(b.UpdatedAt) }
	x.past = slices.SortedStableFunc(slices.Values(list), byTime)
	for _, alert := range x.past {
		stored := Transition{alert.State, alert.Level, alert.StartsAt, alert.UpdatedAt, alert.Count}
		x.out.Recorded = append(x.out.Recorded, stored)
	}
}

// restore restores the alerts that were open before the event. If any transition is
// stored, alerts that the engine opened without one are closed: the stored ones result
// from more events than these.
func (x *Explainer) restore() {
	if len(x.past) == 0 {
		return
	}

	// The last transition before the event is the alert's state then.
	last := map[string]*schema.Alert{}
	for i := range x.past {
		if alert := &x.past[i]; x.before(alert) {
			last[alert.Fingerprint] = alert
		}
	}
	for _, alert := range last {
		starts := alert.StartsAt.UnixMicro()

		// An event alert closes without a stored transition.
		closed := x.rule.Alert.Class == rules.ClassEvent && starts+x.top.keep <= x.at
		if alert.State == schema.Resolved || closed {
			continue
		}

		x.engine.Restore(alert)
		if group := x.top.groups[string(x.engine.key)]; group != nil && group.open {
			// The stored start wins over that from the surrounding events.
			group.starts = starts
			x.engine.schedule(group)
		}
	}
	x.engine.CloseUnpublished(x.event.Tenant)
}

// before reports whether a transition happened before the event.
func (x *Explainer) before(a *schema.Alert) bool {
	if at := a.UpdatedAt.UnixMicro(); at != x.at {
		return at < x.at
	}
	if a.State == schema.Resolved {
		return true
	}
	// last_events lists matches, not the event that fired the alert.
	return x.top.last == 0 && len(a.LogIDs) > 0 && a.LogIDs[len(a.LogIDs)-1] < x.event.LogID
}

// Observe adds one of the surrounding events. They must come by date and then by
// log_id, and may include the explained event.
func (x *Explainer) Observe(ev *schema.Event) {
	// The explained event comes at its place in the order.
	at := eventTime(ev, x.engine.cfg.Lateness)
	if !x.examined && (at > x.at || at == x.at && ev.LogID >= x.event.LogID) {
		x.examine()
	}
	if ev.LogID != x.event.LogID && x.shares(ev) {
		x.noteLater(x.engine.Observe(ev), ev.LogID)
	}
}

// Keep adds one of the surrounding events, in any order.
func (x *Explainer) Keep(ev *schema.Event) {
	if _, until := x.Span(); ev.LogID == x.event.LogID || ev.Date.After(until) || !x.shares(ev) {
		return
	}
	if x.batch == nil {
		x.batch = x.newBatch()
	}
	x.batch.Observe(ev)
}

// newBatch returns a batch that shares the engine and keeps the fields that it needs.
func (x *Explainer) newBatch() *Batch {
	batch := &Batch{set: x.set, engine: x.engine, interned: map[string]string{}}
	for _, state := range x.tree {
		batch.fields.add(state.captures.fields)
		if state.rule.Correlation == nil {
			batch.fields.add(state.rule.Alert.GroupBy)
			continue
		}
		for _, source := range state.rule.Correlation.Sources {
			batch.fields.add(source.GroupBy, source.Values)
		}
	}
	return batch
}

// shares reports whether an event may belong to a group of the explained event.
func (x *Explainer) shares(ev *schema.Event) bool {
	if x.top == nil {
		return false
	}
	hits := x.engine.matcher.Match(ev.Raw)
	if !x.plain() {
		return x.feeds(hits)
	}

	// The engine reads the explained event itself from here on.
	x.engine.captured = nil
	return slices.ContainsFunc(x.keysOf(hits), func(key string) bool { return slices.Contains(x.keys, key) })
}

// Explain returns the explanation. Call it after all surrounding events were passed to
// Observe or Keep.
func (x *Explainer) Explain() *Explanation {
	if x.batch != nil {
		x.batch.sort()
		for _, counted := range x.batch.hits {
			if !x.examined && (counted.at > x.at || counted.at == x.at && counted.id > x.event.LogID) {
				x.examine()
			}
			x.noteLater(x.batch.evaluate(counted), counted.id)
		}
	}
	if !x.examined {
		x.examine()
	}
	x.out.Reason = x.reason()
	return &x.out
}

// noteLater notes the first alert that fires after the event, in a window with it.
func (x *Explainer) noteLater(alerts []schema.Alert, id string) {
	if !x.examined || x.out.Fires || x.out.Later != nil {
		return
	}

	for i := range alerts {
		alert := &alerts[i]
		fired := alert.RuleID == x.rule.ID && alert.State == schema.Firing && alert.StartsAt.Equal(alert.UpdatedAt)
		if fired && alert.UpdatedAt.UnixMicro() < x.at+x.top.span && x.inGroups(alert.Group) {
			x.out.Later = &Later{alert.UpdatedAt, id, alert.Count}
			return
		}
	}
}

// inGroups reports whether an alert's group is one of the event's.
func (x *Explainer) inGroups(values []schema.GroupValue) bool {
	return slices.ContainsFunc(x.out.Groups, func(g Group) bool {
		return g.Missing == "" && !slices.ContainsFunc(g.Key, func(k Key) bool {
			return !slices.Contains(values, schema.GroupValue{Field: k.Field, Value: k.Value})
		})
	})
}

// examine observes the explained event and records the state right after it.
func (x *Explainer) examine() {
	x.examined = true
	if x.top != nil {
		x.restore()
	}
	for _, state := range x.tree {
		state.seen = 0
	}
	x.engine.captured = nil
	alerts := x.engine.Observe(&x.event)

	out := &x.out
	out.Level, out.Tenant, out.LogID, out.EventType = x.rule.Level, x.event.Tenant, x.event.LogID, x.event.Type
	out.At, out.Source = time.UnixMicro(x.at).UTC(), string(x.event.Source)
	if x.event.Source != "" {
		out.FetchedAt = x.event.FetchedAt.UTC()
	}
	if alert := x.rule.Alert; alert != nil {
		for _, level := range alert.Levels {
			out.Levels = append(out.Levels, Level{level.Name, level.Count})
		}
	}

	for _, rule := range x.set.Rules() {
		if x.serves(rule) {
			out.Serves = append(out.Serves, rule.Title)
		}
	}
	out.State = x.state(x.rule, alerts)
	out.Fires = slices.ContainsFunc(out.Groups, func(g Group) bool {
		return g.Alert != nil && (g.Alert.Fired || g.Alert.Raised)
	})
}

// serves reports whether a rule counts the explained one.
func (x *Explainer) serves(r *rules.Rule) bool {
	correlation := r.Correlation
	if correlation == nil {
		return false
	}
	all := x.set.Rules()
	return slices.ContainsFunc(correlation.Sources, func(s rules.Source) bool { return all[s.Rule] == x.rule }) ||
		slices.ContainsFunc(correlation.Among, func(i int) bool { return all[i] == x.rule })
}

// explain returns the match tree of a detection.
func (x *Explainer) explain(r *rules.Rule) *expr.Explanation {
	return x.engine.matcher.Explain(x.event.Raw, r.Match)
}

// readEvent makes the matcher read all fields of the explained event, by explaining
// any detection.
func (x *Explainer) readEvent() {
	for _, rule := range x.set.Rules() {
		if rule.Correlation == nil {
			x.explain(rule)
			return
		}
	}
}
