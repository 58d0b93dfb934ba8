package scanner

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/schema"
)

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
		e.emit(g, schema.StateFiring, value, end)
		e.schedule(g)
	case level > g.level:
		g.level, g.updated = level, max(g.updated, at)
		e.emit(g, schema.StateFiring, value, end)
	default:
		g.updated = max(g.updated, at)
	}
}

// openAlert opens a group's alert, which protects the group from eviction.
func (e *Engine) openAlert(g *group) {
	g.unlink()
	g.open = true
	e.open++
}

// closeAlert closes a group's alert.
func (e *Engine) closeAlert(g *group) {
	g.open = false
	e.open--
	e.warm(g)
}

// deadline returns when the open alert ends if no further event arrives, or false if
// only an event can end it.
func (g *group) deadline() (at int64, ok bool) {
	state := g.rule
	switch {
	case state.last > 0:
		return 0, false
	case state.rule.Alert.Class == rules.ClassEvent:
		return g.starts + state.keep, true
	}

	if !state.rises {
		// The condition holds as long as its window lasts, or until an event shows
		// that it no longer does.
		below := g.updated + state.span
		if g.below > g.updated {
			below = min(below, g.below)
		}
		return below + state.keep, true
	}

	// A count stays high enough until the window's first occurrence leaves.
	below, count := g.updated, int(max(state.rule.Alert.ResolveBelow, 1))
	if until, ok := g.window.LastWith(count, state.span, state.distinct()); ok {
		below = max(below, until)
	}
	return below + state.keep, true
}

// expire ends the alerts whose deadline has passed, the earliest first.
func (e *Engine) expire(c *clock) {
	defer func() {
		// Alerts that end together come in an order that does not depend on the heap.
		slices.SortFunc(e.out, func(a, b schema.Alert) int {
			return cmp.Or(a.UpdatedAt.Compare(b.UpdatedAt), strings.Compare(a.Fingerprint, b.Fingerprint))
		})
	}()

	for len(c.deadlines) > 0 && c.deadlines[0].at <= c.now {
		next := heap.Pop(&c.deadlines).(deadline)
		group := next.group
		if group.scheduled != next.at {
			// Replaced by an earlier deadline.
			continue
		}

		group.scheduled = 0
		if group.open {
			e.expireAlert(c, group)
		}
	}
}

// expireAlert ends an open alert whose scheduled deadline has passed.
func (e *Engine) expireAlert(c *clock, g *group) {
	defer e.disableOnPanic(g.rule, len(e.inserted))

	at, ok := g.deadline()
	switch {
	case !ok:
	case at > c.now:
		e.schedule(g)
	case g.rule.rule.Alert.Class == rules.ClassEvent:
		// An event alert closes without a transition.
		e.closeAlert(g)
	default:
		e.closeAlert(g)
		g.updated = at
		e.emit(g, schema.StateResolved, g.rule.valueAt(g.window, at), len(g.window)-1)
	}
}

// emit appends a transition of g's alert to the output. end is the index of the last
// occurrence of its window, or -1 if there is none.
func (e *Engine) emit(g *group, state schema.AlertState, count float64, end int) {
	rule := g.rule.rule
	level, values := rule.Alert.Levels[g.level], g.values()

	alert := schema.Alert{
		Fingerprint: schema.Fingerprint(g.clock.tenant, rule.ID, values),
		Tenant:      g.clock.tenant,
		RuleID:      rule.ID,
		Title:       rule.Title,
		Level:       level.Name,
		State:       state,
		StartsAt:    time.UnixMicro(g.starts).UTC(),
		UpdatedAt:   time.UnixMicro(g.updated).UTC(),
		Group:       slices.Clone(values),
		Count:       count,
		Threshold:   level.Count,
		Window:      schema.Seconds(time.Duration(g.rule.span) * time.Microsecond),
		Tags:        rule.Tags,
		Prevention:  rule.Prevention,
	}
	slices.SortFunc(alert.Group, func(x, y schema.GroupValue) int { return strings.Compare(x.Field, y.Field) })
	if state == schema.StateResolved {
		alert.ResolvedAt = alert.UpdatedAt
	}

	if end >= 0 {
		alert.LogIDs = g.sampleIDs(end, e.cfg.Samples)
		alert.Query = g.query(values, end)
	}
	alert.Summary = summary(rule, &alert)
	alert.Investigation = alert.InvestigationCommand(rule.Alert.Investigation)
	e.out = append(e.out, alert)
}

// sampleIDs returns up to n log_ids of the window that ends at an index.
func (g *group) sampleIDs(end, n int) []string {
	state, first := g.rule, 0
	if state.leads != 0 { // occurrences before the first of the order are not part of the alert

		first = g.window.Begin(end, state.span)
		for first < end && g.window[first].Seen>>state.ordered[0]&1 == 0 {
			first++
		}
	}
	return g.window[first:end+1].IDs(end-first, n, state.span, state.last > 0)
}

// summary fills in the rule's template. Without one, it lists the count and the group.
func summary(r *rules.Rule, a *schema.Alert) string {
	window := schema.ShortDuration(time.Duration(a.Window))
	switch {
	case a.State == schema.StateResolved && a.Window == 0:
		return "over"
	case a.State == schema.StateResolved:
		return fmt.Sprintf("over, %s in the last %s", correlation.Number(a.Count), window)
	case r.Alert.Summary == "":
		return plainSummary(r, a, window)
	}

	pairs := []string{
		"{count}", correlation.Number(a.Count),
		"{percent}", correlation.Number(math.Round(100 * a.Count)),
		"{threshold}", correlation.Number(a.Threshold),
		"{window}", window,
		"{level}", a.Level,
		"{tenant}", a.Tenant,
	}
	for _, value := range a.Group {
		pairs = append(pairs, "{"+value.Field+"}", value.Value)
	}
	return strings.NewReplacer(pairs...).Replace(r.Alert.Summary)
}

func plainSummary(r *rules.Rule, a *schema.Alert, window string) string {
	var b strings.Builder
	if r.Correlation != nil {
		fmt.Fprintf(&b, "%s in %s, from %s on", correlation.Number(a.Count), window, correlation.Number(a.Threshold))
	}
	for i, value := range a.Group {
		if i > 0 || b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(value.Field + " " + value.Value)
	}
	return b.String()
}

// query returns SQL over the view events that lists the window: the events of the
// rule's types and group. If the rule has further conditions, it lists more events
// than were counted.
func (g *group) query(values []schema.GroupValue, end int) string {
	state := g.rule
	until := g.window[end].At
	since := until - state.span

	// Of last_events, only the last ones are in the window.
	if state.last > 0 && end-state.last+1 >= 0 {
		since = max(since, g.window[end-state.last+1].At-1)
	}

	where := []string{"tenant = " + schema.Literal(g.clock.tenant)}
	last := tosql.DateTime(time.UnixMicro(until))
	if state.span == 0 {
		where = append(where, "date = "+last, "log_id = "+schema.Literal(g.window[end].ID))
	} else {
		where = append(where, "date > "+tosql.DateTime(time.UnixMicro(since)), "date <= "+last)
	}

	// Narrow it down by what is known without evaluating the rule.
	if types := tosql.Types(state.rule.Types); types != "" {
		where = append(where, types)
	}
	for i, value := range values {
		if value.Value != "" {
			where = append(where, tosql.Equal(value, g.quoted>>i&1 == 1))
		}
	}

	return "SELECT date, type, log_id, ip, user_id, user_name, client_id, description, details FROM events WHERE " +
		strings.Join(where, " AND ") + " ORDER BY date"
}
