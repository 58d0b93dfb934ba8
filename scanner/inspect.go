package scanner

import (
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/schema"
)

// GroupState is the state of one group of a rule.
type GroupState struct {
	Window correlation.Window // what the group counts; it must not be changed

	// The open alert, if there is one.

	Open     bool
	Level    int // index into Alert.Levels
	StartsAt time.Time
	EndsAt   time.Time // if no further event arrives; zero if only an event ends it
}

// Admits reports whether an event is counted, and whether it may fire an alert: it may not if it was
// backfilled or was too old when it was pulled.
func (e *Engine) Admits(ev *schema.Event) (counts, fires bool) { return e.admits(ev, e.eventTime(ev)) }

// Inspect returns the state of the group of a rule that has the values of the group's fields, in the
// order of the rule. It returns false if there is no such group. The event stands for the tenant.
func (e *Engine) Inspect(rule *rules.Rule, ev *schema.Event, values []string) (GroupState, bool) {
	i := slices.IndexFunc(e.rules, func(state *ruleState) bool { return state.rule == rule })
	if i < 0 {
		return GroupState{}, false
	}

	e.key = append(e.key[:0], ev.Tenant...)
	for _, value := range values {
		e.appendKey([]byte(value))
	}
	group := e.rules[i].groups[string(e.key)]
	if group == nil {
		return GroupState{}, false
	}

	state := GroupState{Window: group.window, Open: group.open}
	if group.open {
		state.Level, state.StartsAt = group.level, time.UnixMicro(group.starts).UTC()
		if at, ok := group.deadline(); ok {
			state.EndsAt = time.UnixMicro(at).UTC()
		}
	}
	return state, true
}
