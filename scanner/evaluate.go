package scanner

import (
	"fmt"
	"math"

	"github.com/tenantwatch/tenantwatch/schema"
)

// evaluateTouched evaluates the rules that the current event concerns.
func (e *Engine) evaluateTouched(ev *observed) {
	e.events++
	// A correlation appends its parents.
	for i := 0; i < len(e.touched); i++ {
		e.evaluateRule(e.touched[i].rule, e.touched[i].seen, ev)
	}
	e.touched = e.touched[:0]
}

// evaluateRule counts an event and evaluates the groups that it belongs to.
func (e *Engine) evaluateRule(state *ruleState, seen uint64, ev *observed) {
	begin := len(e.inserted)
	defer e.disableOnPanic(state, begin)
	e.count(state, seen, ev)
}

// count inserts an event into the groups of a rule, then evaluates them.
func (e *Engine) count(state *ruleState, seen uint64, ev *observed) {
	if state.broken != "" {
		return
	}

	// An evaluation may count older events in other rules, above these insertions.
	begin := len(e.inserted)
	e.insertEvent(state, seen, ev)
	for i, end := begin, len(e.inserted); i < end; i++ {
		e.evaluateGroup(e.inserted[i].group, e.inserted[i].pos, ev)
	}
	e.inserted = e.inserted[:begin]
}

// disableOnPanic is deferred where a rule is evaluated. A panic is a bug in the
// engine that must not affect other rules: the rule is disabled from then on, and its
// published alerts keep their state. begin is the number of Engine.inserted before.
func (e *Engine) disableOnPanic(state *ruleState, begin int) {
	failure := recover()
	if failure == nil {
		return
	}

	e.inserted = e.inserted[:begin]
	state.broken = fmt.Sprint(failure)
	for _, group := range state.groups {
		if group.open {
			group.open = false
			e.open--
		}
		e.remove(group)
	}
}

// evaluateGroup evaluates a group after an occurrence was inserted at pos, and drops
// occurrences that no longer matter.
func (e *Engine) evaluateGroup(g *group, pos int, ev *observed) {
	state := g.rule
	switch {
	case state.last > 0:
		e.evaluateLast(g, ev.fires)
	case state.rule.Correlation == nil:
		e.notifyEvaluated(g, 1)
		e.fireOrEscalate(g, 1, pos, ev.fires)
	case !state.rises || len(state.parents) > 0:
		e.evaluateWindows(g, pos, ev)
	case g.open && g.level == state.topLevel() && e.cfg.Evaluated == nil:
		// The alert cannot escalate further, and expire evaluates the window.
	default:
		// A late event may complete a window that ends after it.
		count, end := g.window.Peak(pos, state.span, state.distinct())
		e.notifyEvaluated(g, float64(count))
		if float64(count) >= state.rule.Alert.Levels[0].Count {
			e.fireOrEscalate(g, float64(count), end, ev.fires)
		}
	}

	e.trim(g)
}

// trim drops the occurrences of a group that no longer matter.
func (e *Engine) trim(g *group) {
	state, lateness := g.rule, e.cfg.Lateness.Microseconds()
	newest := g.window[len(g.window)-1].At

	// Out of reach of any window that can still be evaluated.
	g.window.Trim(newest-state.horizon, math.MaxInt)

	// Nothing counts in an order before its first leading occurrence.
	if state.leads != 0 {
		g.window.TrimTo(state.leads, newest-lateness)
	}

	// Of repeated values, the newest occurrence is enough.
	if state.distinct() && len(g.window) > state.limit {
		g.window.Condense(newest - lateness)
	}
	g.window.Trim(math.MinInt64, state.limit)
}

// evaluateWindows evaluates every window that contains the occurrence at pos, the
// earliest first, by the value at the window's end.
func (e *Engine) evaluateWindows(g *group, pos int, ev *observed) {
	state := g.rule

	// An event with several values has several occurrences: count them all.
	pos = g.window.LastOfEvent(pos)
	until := g.window[pos].At + state.span

	for end := pos; end < len(g.window) && g.window[end].At < until; end = g.window.LastOfEvent(end + 1) {
		value, holds, enough := state.evaluate(g.window, end)
		if enough {
			e.notifyEvaluated(g, value)
		}

		if !holds {
			// Note it without an open alert, too: Restore may still open one.
			if end == len(g.window)-1 && g.below <= g.updated {
				if g.below = g.window[end].At; g.open {
					e.schedule(g)
				}
			}
			continue
		}

		if state.rule.Alert != nil {
			e.fireOrEscalate(g, value, end, ev.fires)
		}
		e.countInParents(g, end, end == pos && !ev.past, ev.fires)
	}
}

// countInParents counts a correlation that holds at the occurrence at end in the
// correlations that count it. current says that this is the current event.
func (e *Engine) countInParents(g *group, end int, current, fires bool) {
	occ := &g.window[end]
	for _, target := range g.rule.parents {
		if current {
			// Evaluated after its other sources.
			e.touch(target)
			continue
		}

		// An older event: its fields come from the occurrence.
		past := observed{clock: g.clock, at: occ.At, id: occ.ID, fires: fires, kept: occ.Fields, past: true}
		e.count(target.rule, 1<<target.source, &past)
	}
}

// evaluateLast fires and resolves the alert of a rule whose window is bounded by a number of events.
func (e *Engine) evaluateLast(g *group, fires bool) {
	end := len(g.window) - 1
	count, holds, _ := g.rule.evaluate(g.window, end)
	e.notifyEvaluated(g, count)

	if holds {
		e.fireOrEscalate(g, count, end, fires)
		return
	}
	if !g.open {
		return
	}
	e.closeAlert(g)
	g.updated = g.window[end].At
	e.emit(g, schema.StateResolved, count, end)
}

// notifyEvaluated calls Config.Evaluated with a value that is compared with a
// condition.
func (e *Engine) notifyEvaluated(g *group, value float64) {
	if e.cfg.Evaluated != nil && g.rule.rule.Alert != nil {
		e.cfg.Evaluated(g.rule.rule, Evaluated{g}, value)
	}
}
