package scanner

import (
	"math"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/schema"
)

// evaluateGroup evaluates a group after an occurrence was inserted at pos, and drops
// occurrences that no longer matter.
func (e *Engine) evaluateGroup(g *group, pos int, fires bool) {
	state := g.rule
	switch {
	case state.last > 0:
		e.evaluateLast(g, fires)
	case state.rule.Correlation == nil:
		e.notifyEvaluated(g, 1)
		e.fireOrEscalate(g, 1, pos, fires)
	case !state.rises || len(state.parents) > 0:
		e.evaluateWindows(g, pos, fires)
	case g.open && g.level == state.topLevel() && e.cfg.Evaluated == nil:
		// The alert cannot escalate further, and expire evaluates the window.
	default:
		// A late event may complete a window that ends after it.
		count, end := g.window.Peak(pos, state.span, state.distinct())
		e.notifyEvaluated(g, float64(count))
		if float64(count) >= state.rule.Alert.Levels[0].Count {
			e.fireOrEscalate(g, float64(count), end, fires)
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
func (e *Engine) evaluateWindows(g *group, pos int, fires bool) {
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
			e.fireOrEscalate(g, value, end, fires)
		}
		e.countInParents(g, end, end == pos && !e.older, fires)
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
		fields, older := e.captured, e.older
		e.captured, e.older = occ.Fields, true
		e.count(target.rule, g.clock, correlation.Occurrence{At: occ.At, Seen: 1 << target.source, ID: occ.ID}, fires)
		e.captured, e.older = fields, older
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
	e.emit(g, schema.Resolved, count, end)
}

// notifyEvaluated calls Config.Evaluated with a value that is compared with a
// condition.
func (e *Engine) notifyEvaluated(g *group, value float64) {
	if e.cfg.Evaluated != nil && g.rule.rule.Alert != nil {
		e.cfg.Evaluated(g.rule.rule, Evaluated{g}, value)
	}
}

// fireOrEscalate fires or escalates the alert of a group whose condition holds in the
// window that ends at index end. It does nothing unless fires is set.
func (e *Engine) fireOrEscalate(g *group, value float64, end int, fires bool) {
	if !fires {
		return
	}

	// The highest level that the value reaches.
	levels, level := g.rule.rule.Alert.Levels, 0
	for level+1 < len(levels) && levels[level+1].Count <= value {
		level++
	}

	at := g.window[end].At
	switch {
	case !g.open:
		e.openAlert(g)
		g.level, g.starts, g.updated = level, at, at
		e.emit(g, schema.Firing, value, end)
		e.schedule(g)
	case level > g.level:
		g.level, g.updated = level, max(g.updated, at)
		e.emit(g, schema.Firing, value, end)
	default:
		g.updated = max(g.updated, at)
	}
}
