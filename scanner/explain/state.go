package explain

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// state returns the state of a rule. alerts are the transitions that the explained
// event caused.
func (x *Explainer) state(r *rules.Rule, alerts []schema.Alert) State {
	status := State{RuleID: r.ID, Title: r.Title, Type: "detection", File: r.File, Line: r.Line}
	counted := r.Correlation
	if counted == nil {
		status.Match = x.matcher.Explain(x.event.Raw, r.Match)
		status.Occurs = status.Match.Holds
		if r == x.rule && r.Alert != nil && status.Occurs {
			status.Groups = x.groups(r, 0, alerts)
		}
		return status
	}

	status.Type, status.Timespan = counted.Type.Name(), schema.Seconds(counted.Timespan)

	// The sources that the event is of, one bit for each.
	var seen uint64
	for i, source := range counted.Sources {
		of := x.state(x.set.Rules()[source.Rule], alerts)
		if of.Occurs {
			seen |= 1 << i
		}
		status.Counts = append(status.Counts, Counted{State: of})
	}
	onlyLookedAt := false
	for _, source := range counted.Among {
		of := x.state(x.set.Rules()[source], alerts)
		onlyLookedAt = onlyLookedAt || of.Occurs
		status.Counts = append(status.Counts, Counted{State: of, OnlyLookedAt: true})
	}

	status.Condition = counted.Words(x.names(counted))
	if x.counts && (seen != 0 || onlyLookedAt) {
		status.Groups = x.correlationGroups(r, seen, alerts)
	}
	status.Occurs = slices.ContainsFunc(status.Groups, func(g Group) bool {
		return g.Window != nil && g.Window.Holds
	})
	return status
}

// correlationGroups returns the groups of the event in a correlation. seen are the sources that the
// event is of, one bit for each; none if it is only of a rule in Correlation.Among.
func (x *Explainer) correlationGroups(r *rules.Rule, seen uint64, alerts []schema.Alert) (groups []Group) {
	switch {
	case seen == 0:
		return x.groups(r, among, alerts)
	case !r.Correlation.HasAliases():
		return x.groups(r, bits.TrailingZeros64(seen), alerts)
	}

	// With aliases, each source may place the event in other groups.
	for ; seen != 0; seen &= seen - 1 {
		for _, group := range x.groups(r, bits.TrailingZeros64(seen), alerts) {
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

// groups returns the groups of the event, as one source of a rule has it.
func (x *Explainer) groups(r *rules.Rule, source int, alerts []schema.Alert) (list []Group) {
	x.readEvent()
	for _, key := range keysAt(x.matcher, r, source) {
		list = append(list, x.group(r, source, key, alerts))
	}
	return list
}

// group returns one group of the event, as one source of a rule has it.
func (x *Explainer) group(r *rules.Rule, source int, key keys, alerts []schema.Alert) Group {
	if missing := x.missing(r, source, key); missing != "" {
		return Group{Key: key, Missing: missing}
	}

	counted, ok := x.engine.Inspect(r, &x.event, key.values())
	if !ok {
		return Group{Key: key, Missing: x.notCounted(r)}
	}

	g := Group{Key: key}
	if pos := counted.Window.Find(x.at.UnixMicro(), x.event.LogID); r.Correlation != nil && pos >= 0 {
		g.Window = x.window(r.Correlation, counted.Window, pos)
	}
	if counted.Open {
		g.Alert = x.openAlert(r, &counted, key, alerts)
	}
	return g
}

// notCounted says why a group has counted nothing.
func (x *Explainer) notCounted(r *rules.Rule) string {
	if r.Correlation == nil || r.Correlation.Leading() == 0 {
		return "the event is not counted"
	}
	first := x.names(r.Correlation)[r.Correlation.Order()[0]]
	return "nothing is counted before the first of the order, " + first + ", has occurred"
}

// missing says why the event is in no group of a rule; "" if it is.
func (x *Explainer) missing(r *rules.Rule, source int, key keys) string {
	if r.Correlation == nil {
		return ""
	}
	if i := slices.IndexFunc(key, func(k Key) bool { return !k.Found }); i >= 0 {
		return "the event has no " + cmp.Or(key[i].Path, key[i].Field) + ", so it belongs to no group"
	}
	if hasValue(x.matcher, r.Correlation, source) {
		return ""
	}

	fields := r.Correlation.Sources[source].Values
	switch {
	case r.Correlation.Type.Traits().Value == correlation.ValueNumber:
		return "the event's " + fields[0].Path + " is not a number"
	case len(fields) > 1:
		return "the event lacks one of the fields whose values are counted"
	}
	return "the event has no " + fields[0].Path
}

// openAlert returns the open alert of a group.
func (x *Explainer) openAlert(r *rules.Rule, group *scanner.GroupState, key keys, alerts []schema.Alert) *Open {
	open := &Open{
		StartsAt: group.StartsAt,
		Level:    r.Alert.Levels[group.Level].Name,
		Ends:     group.EndsAt,
		Silently: r.Alert.Class == rules.ClassEvent,
	}

	// The event's own transitions tell whether it fired or escalated the alert.
	id := x.fingerprint(r, key)
	for i := range alerts {
		if alert := &alerts[i]; alert.Fingerprint == id && alert.State == schema.StateFiring {
			open.Fired = alert.StartsAt.Equal(alert.UpdatedAt) && alert.StartsAt.Equal(x.at)
			open.Raised = !open.Fired
		}
	}
	return open
}
