package scanner

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// deadlines is a heap of open alerts by the time at which they may end.
type deadlines []deadline

type deadline struct {
	at    int64
	group *group
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

// schedule adds an open alert's deadline to its clock. Later events may move the
// deadline back; expireAlert then schedules it again.
func (e *Engine) schedule(g *group) {
	if at, ok := g.deadline(); ok && (g.scheduled == 0 || at < g.scheduled) {
		g.scheduled = at
		heap.Push(&g.clock.deadlines, deadline{at, g})
	}
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
	defer e.disableOnPanic(g.rule, e.captured, e.older)

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
		e.emit(g, schema.Resolved, g.rule.valueAt(g.window, at), len(g.window)-1)
	}
}

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at < d[j].at }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	popped := (*d)[last]
	// Releases the group.
	(*d)[last] = deadline{}
	*d = (*d)[:last]
	return popped
}
