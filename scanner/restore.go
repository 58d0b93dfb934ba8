package scanner

import (
	"math"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Restore takes over an alert in the state of its last published transition. Call it
// after the replay, which may not reach back to the start of the alert, and before the
// first new event.
//
// A firing alert continues. A resolved one is taken over only if the replay stands
// before its end: that end will be reached again and must belong to the same alert.
// Alerts of rules that were deleted or no longer alert are ignored.
func (e *Engine) Restore(a *schema.Alert) {
	state := e.ruleOf(a)
	if state == nil || !e.setAlertKey(state, a) {
		return
	}

	// An end that the replay has passed is in the past: the alert is over.
	g := state.groups[string(e.key)]
	if a.State == schema.StateResolved {
		end := a.ResolvedAt.UnixMicro()
		if g == nil || !g.open || g.starts > end || g.clock.now >= end {
			return
		}
	}

	// The replay does not reach back to the alert: create its group.
	if g == nil {
		clock := e.clock(a.Tenant, state.own())
		g = e.add(&group{rule: state, clock: clock, key: string(e.key), quoted: math.MaxUint64})
	}
	g.published = true

	starts, level := a.StartsAt.UnixMicro(), state.levelOf(a)
	switch {
	case !g.open:
		e.openAlert(g)
		g.starts, g.level, g.updated = starts, level, a.UpdatedAt.UnixMicro()
	case g.starts >= starts || g.clock.now >= starts:
		// The replay may have seen only part of the alert: the published start wins.
		g.starts, g.level = starts, max(g.level, level)
	default:
		// The earlier run was ahead of the replay. The alert will fire again there.
		return
	}
	e.schedule(g)
}

// Continue restores an alert that is known to be open, and gives it its published start.
func (e *Engine) Continue(a *schema.Alert) {
	e.Restore(a)
	state := e.ruleOf(a)
	if state == nil || !e.setAlertKey(state, a) {
		return
	}
	if group := state.groups[string(e.key)]; group != nil && group.open {
		group.starts = a.StartsAt.UnixMicro()
		e.schedule(group)
	}
}

// ruleOf returns the alerting rule of an alert, or nil.
func (e *Engine) ruleOf(a *schema.Alert) *ruleState {
	for _, state := range e.rules {
		rule := state.rule
		if rule.ID == a.RuleID && rule.Alert != nil && len(a.Group) == len(rule.Alert.GroupBy) {
			return state
		}
	}
	return nil
}

// setAlertKey sets the current key to the group of an alert. It returns false if the
// alert lacks a field that the rule groups by.
func (e *Engine) setAlertKey(state *ruleState, a *schema.Alert) bool {
	e.key = append(e.key[:0], a.Tenant...)
	for _, field := range state.rule.Alert.GroupBy {
		pos := slices.IndexFunc(a.Group, func(g schema.GroupValue) bool { return g.Field == field.Path })
		if pos < 0 {
			return false
		}
		e.appendKey([]byte(a.Group[pos].Value))
	}
	return true
}

// levelOf returns the index of the highest level that is not above an alert's.
func (s *ruleState) levelOf(a *schema.Alert) (level int) {
	for i, l := range s.rule.Alert.Levels {
		if rules.CompareLevels(l.Name, a.Level) <= 0 {
			level = i
		}
	}
	return level
}

// CloseUnpublished closes alerts that the replay opened but that were never
// published: their rules are newer than the last run and fire when they next hold.
// Call it after Restore, before the tenant's first new event.
func (e *Engine) CloseUnpublished(tenant string) {
	for _, state := range e.rules {
		var unpublished []*group
		for _, group := range state.groups {
			if group.open && !group.published && group.clock.tenant == tenant {
				unpublished = append(unpublished, group)
			}
		}

		// Sorted, so that the order of eviction does not depend on the map.
		slices.SortFunc(unpublished, func(a, b *group) int { return strings.Compare(a.key, b.key) })
		for _, group := range unpublished {
			e.closeAlert(group)
		}
	}
}
