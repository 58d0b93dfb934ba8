package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Explainer explains one rule's result for one event. It runs an Engine over the
// surrounding events. Pass these either in order to Observe, as Query selects them, or
// in any order to Keep.
type Explainer struct {
	all     *rules.Set // with rules that count the explained one
	set     *rules.Set // the explained rule, which is the last, and those that it counts
	rule    *rules.Rule
	event   schema.Event
	at      time.Time
	engine  *scanner.Engine
	matcher *expr.Matcher // reads the events apart from the engine
	maxAge  time.Duration

	counts, fires bool   // see Engine.Admits
	hits          []int  // detections that the event matches
	keys          []keys // groups that the event belongs to; only of a rule that counts detections alone

	past     []schema.Alert
	kept     []scanner.Hit
	examined bool
	out      Explanation
}

// New returns an Explainer. The rule must be one of the set and the event identified.
func New(set *rules.Set, rule *rules.Rule, cfg scanner.Config, ev *schema.Event) *Explainer {
	only := set.Only(rule)
	cfg.Explains = true
	engine := scanner.NewEngine(only, cfg)

	x := &Explainer{
		all:     set,
		set:     only,
		rule:    only.Rules()[len(only.Rules())-1],
		event:   *ev,
		at:      engine.EventTime(ev),
		engine:  engine,
		matcher: only.Matcher(),
		maxAge:  engine.MaxAge(),
	}
	x.counts, x.fires = engine.Admits(ev)
	x.hits = slices.Clone(x.matcher.Match(ev.Raw))
	x.keys = x.keysOf(x.hits)
	return x
}

// evaluated reports whether the engine evaluates the rule. It does not evaluate a detection that only
// serves others.
func (x *Explainer) evaluated() bool { return x.rule.Alert != nil || x.rule.Correlation != nil }

// plain reports whether the rule counts only detections.
func (x *Explainer) plain() bool {
	return !slices.ContainsFunc(x.set.Rules(), func(r *rules.Rule) bool { return r != x.rule && r.Correlation != nil })
}

// keysOf returns the groups that the matcher's event, which matches some detections, belongs to.
func (x *Explainer) keysOf(hits []int) (list []keys) {
	if !x.evaluated() || !x.plain() || len(hits) == 0 {
		return nil
	}

	// A detection that is only looked at is in the groups of the first source.
	for source := range max(len(x.sources()), 1) {
		if x.rule.Correlation == nil || x.isOf(hits, source) {
			list = append(list, x.completeKeys(source)...)
		}
	}
	return list
}

// sources returns the rules that the explained one counts.
func (x *Explainer) sources() []rules.Source {
	if x.rule.Correlation == nil {
		return nil
	}
	return x.rule.Correlation.Sources
}

// isOf reports whether one of some detections is a source of the rule. Those in Among count with the
// first one.
func (x *Explainer) isOf(hits []int, source int) bool {
	counted := x.rule.Correlation
	if slices.Contains(hits, counted.Sources[source].Rule) {
		return true
	}
	return source == 0 && slices.ContainsFunc(hits, func(i int) bool { return slices.Contains(counted.Among, i) })
}

// completeKeys returns the groups of the matcher's event, as one source of the rule has the fields.
func (x *Explainer) completeKeys(source int) (list []keys) {
	for _, key := range keysAt(x.matcher, x.rule, source) {
		if x.rule.Correlation == nil || key.complete() {
			list = append(list, key)
		}
	}
	return list
}

// Needs reports whether the result depends on the surrounding events.
func (x *Explainer) Needs() bool {
	switch {
	case !x.evaluated() || !x.counts:
		return false
	case x.plain():
		return len(x.keys) > 0
	}
	return len(x.hits) > 0
}

// Span returns the time range (after, until] of the events that the result depends on.
func (x *Explainer) Span() (after, until time.Time) {
	back, span := x.engine.Reach(), time.Duration(0)
	if x.rule.Correlation != nil {
		span = x.rule.Correlation.Timespan
	}

	// An earlier alert may still be open.
	if x.rule.Alert != nil && x.rule.Alert.Class == rules.ClassEvent {
		back += scanner.KeepFiring(x.rule.Alert)
	}
	return x.at.Add(-back), x.at.Add(span)
}

// Query returns SQL over the view events that selects the events that the result
// depends on, and some others, in the order that Observe requires.
func (x *Explainer) Query() string {
	after, until := x.Span()
	where := []string{
		"tenant = " + schema.Literal(x.event.Tenant),
		"date > " + tosql.DateTime(after),
		"date <= " + tosql.DateTime(until),
	}
	if x.evaluated() {
		if types := tosql.Types(x.set.Types()); types != "" {
			where = append(where, types)
		}
	}

	// Only the event's own groups matter if ClickHouse has their fields in columns.
	aliased := x.rule.Correlation != nil && x.rule.Correlation.HasAliases()
	if x.plain() && !aliased && len(x.keys) > 0 {
		x.matcher.Match(x.event.Raw)
		for _, field := range x.rule.GroupFields(0) {
			texts := x.matcher.AppendTexts(nil, field)
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

// Fingerprints returns those of the alerts that the event may belong to.
func (x *Explainer) Fingerprints() (list []string) {
	if x.rule.Alert == nil {
		return nil
	}

	x.readEvent()
	for source := range max(len(x.sources()), 1) {
		for _, key := range x.completeKeys(source) {
			list = append(list, x.fingerprint(x.rule, key))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// fingerprint returns the fingerprint of the alert of a rule and group.
func (x *Explainer) fingerprint(r *rules.Rule, key keys) string {
	var values []schema.GroupValue
	for _, part := range key {
		values = append(values, schema.GroupValue{Field: part.Field, Value: part.Value})
	}
	return schema.Fingerprint(x.event.Tenant, r.ID, values)
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
		// An event alert closes without a stored transition.
		closes := alert.StartsAt.Add(scanner.KeepFiring(x.rule.Alert))
		closed := x.rule.Alert.Class == rules.ClassEvent && !closes.After(x.at)
		if alert.State != schema.StateResolved && !closed {
			x.engine.Continue(alert)
		}
	}
	x.engine.CloseUnpublished(x.event.Tenant)
}

// before reports whether a transition happened before the event.
func (x *Explainer) before(a *schema.Alert) bool {
	if order := a.UpdatedAt.Compare(x.at); order != 0 {
		return order < 0
	}
	if a.State == schema.StateResolved {
		return true
	}

	// A rule about the last events lists matches, not the event that fired the alert.
	listsMatches := x.rule.Correlation != nil && x.rule.Correlation.Last > 0
	return !listsMatches && len(a.LogIDs) > 0 && a.LogIDs[len(a.LogIDs)-1] < x.event.LogID
}

// Observe adds one of the surrounding events. They must come by date and then by
// log_id, and may include the explained event.
func (x *Explainer) Observe(ev *schema.Event) {
	// The explained event comes at its place in the order.
	order := x.engine.EventTime(ev).Compare(x.at)
	if !x.examined && (order > 0 || order == 0 && ev.LogID >= x.event.LogID) {
		x.examine()
	}
	if ev.LogID != x.event.LogID && x.shares(x.matcher.Match(ev.Raw)) {
		x.noteLater(x.engine.Observe(ev), ev.LogID)
	}
}

// Keep adds one of the surrounding events, in any order.
func (x *Explainer) Keep(ev *schema.Event) {
	if _, until := x.Span(); ev.LogID == x.event.LogID || ev.Date.After(until) {
		return
	}
	if !x.shares(x.matcher.Match(ev.Raw)) {
		return
	}
	if hit, ok := x.engine.Hit(ev, x.engine.Match(ev.Raw)); ok {
		x.kept = append(x.kept, hit)
	}
}

// shares reports whether the matcher's event, which matches some detections, may belong to a group of
// the explained event.
func (x *Explainer) shares(hits []int) bool {
	if !x.evaluated() || !x.plain() {
		return x.evaluated() && len(hits) > 0
	}
	return slices.ContainsFunc(x.keysOf(hits), func(key keys) bool {
		return slices.ContainsFunc(x.keys, key.sameValues)
	})
}

// Explain returns the explanation. Call it after all surrounding events were passed to
// Observe or Keep.
func (x *Explainer) Explain() *Explanation {
	slices.SortStableFunc(x.kept, func(a, b scanner.Hit) int { return a.Compare(&b) })
	at := x.at.UnixMicro()
	for i := range x.kept {
		hit := &x.kept[i]
		if !x.examined && (hit.At > at || hit.At == at && hit.LogID > x.event.LogID) {
			x.examine()
		}
		x.noteLater(x.engine.ObserveHit(hit), hit.LogID)
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

	_, until := x.Span()
	for i := range alerts {
		alert := &alerts[i]
		fired := alert.RuleID == x.rule.ID && alert.State == schema.StateFiring && alert.StartsAt.Equal(alert.UpdatedAt)
		if fired && alert.UpdatedAt.Before(until) && x.inGroups(alert.Group) {
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
	if x.evaluated() {
		x.restore()
	}
	alerts := x.engine.Observe(&x.event)

	out := &x.out
	out.Level, out.Tenant, out.LogID, out.EventType = x.rule.Level, x.event.Tenant, x.event.LogID, x.event.Type
	out.At, out.Source = x.at, string(x.event.Source)
	if x.event.Source != "" {
		out.FetchedAt = x.event.FetchedAt.UTC()
	}
	if alert := x.rule.Alert; alert != nil {
		for _, level := range alert.Levels {
			out.Levels = append(out.Levels, Level{level.Name, level.Count})
		}
	}

	for _, rule := range x.all.Rules() {
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
	counted := r.Correlation
	if counted == nil {
		return false
	}
	isExplained := func(i int) bool { return x.all.Rules()[i].ID == x.rule.ID }
	return slices.ContainsFunc(counted.Sources, func(s rules.Source) bool { return isExplained(s.Rule) }) ||
		slices.ContainsFunc(counted.Among, isExplained)
}

// readEvent makes the matcher read all fields of the explained event, by explaining
// any detection.
func (x *Explainer) readEvent() {
	for _, rule := range x.set.Rules() {
		if rule.Correlation == nil {
			x.matcher.Explain(x.event.Raw, rule.Match)
			return
		}
	}
}
