package scanner

import (
	"container/heap"
	"strings"

	"github.com/tenantwatch/tenantwatch/schema"
)

// clockKey names a clock. Events of our own have a separate clock: they also arrive
// while the tenant's do not, and only the tenant's events may end what those started.
type clockKey struct {
	tenant string
	own    bool
}

// clock is a tenant's event time, with the deadlines that depend on it.
type clock struct {
	tenant    string
	now       int64 // µs, time of the newest event
	deadlines deadlines
}

// eventTime returns the event's date. If that is far from the time at which Auth0
// stored the event, it returns the latter: a wrong date must not move a tenant's
// clock.
func (e *Engine) eventTime(ev *schema.Event) int64 {
	at := ev.Date
	if stored, ok := schema.IDTime(ev.LogID); ok && at.Sub(stored).Abs() > maxDateGap {
		at = stored
	}
	if at.After(ev.FetchedAt.Add(e.cfg.Lateness)) {
		at = ev.FetchedAt
	}
	return at.UnixMicro()
}

// clockOf returns the clock of an event.
func (e *Engine) clockOf(ev *schema.Event) *clock {
	return e.clock(ev.Tenant, ev.Source == schema.SourceSelf || ev.Source == schema.SourceProbe)
}

func (e *Engine) clock(tenant string, own bool) *clock {
	tenantClock := e.clocks[clockKey{tenant, own}]
	if tenantClock == nil {
		tenantClock = &clock{tenant: strings.Clone(tenant)}
		e.clocks[clockKey{tenantClock.tenant, own}] = tenantClock
	}
	return tenantClock
}

// deadlines is a heap of open alerts by the time at which they may end.
type deadlines []deadline

type deadline struct {
	at    int64
	group *group
}

// schedule adds an open alert's deadline to its clock. Later events may move the
// deadline back; expireAlert then schedules it again.
func (e *Engine) schedule(g *group) {
	if at, ok := g.deadline(); ok && (g.scheduled == 0 || at < g.scheduled) {
		g.scheduled = at
		heap.Push(&g.clock.deadlines, deadline{at, g})
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
