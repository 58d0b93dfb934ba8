package scanner

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// tellEvery is how often, in event time, the rules are told that one of them forgets
// groups.
const tellEvery = int64(time.Minute / time.Microsecond)

// add takes a group in as the warmest of its rule.
func (e *Engine) add(g *group) *group {
	g.rule.groups[g.key] = g
	g.window = g.first[:0]
	e.groups++
	e.warm(g)
	return g
}

// warm notes that the event at hand touches a group.
func (e *Engine) warm(g *group) {
	g.touched = e.events
	if !g.open {
		g.unlink()
		last := g.rule.coldest.prev
		g.prev, g.next = last, &g.rule.coldest
		last.next, g.rule.coldest.prev = g, g
	}
}

// unlink takes a group out of its rule's ring.
func (g *group) unlink() {
	if g.next != nil {
		g.prev.next, g.next.prev = g.next, g.prev
		g.prev, g.next = nil, nil
	}
}

// opens begins a group's alert, which keeps the group from being forgotten.
func (e *Engine) opens(g *group) {
	g.unlink()
	g.open = true
	e.open++
}

// closes ends a group's alert.
func (e *Engine) closes(g *group) {
	g.open = false
	e.open--
	e.warm(g)
}

// forget lets go of a group without an open alert.
func (e *Engine) forget(g *group) {
	g.unlink()
	delete(g.rule.groups, g.key)
	e.groups--
}

// idle reports that no window reaches a group any more.
func (g *group) idle() bool {
	return len(g.window) == 0 || g.window[len(g.window)-1].at < g.tenant.now-g.rule.horizon
}

// prune makes room for a new group of a rule: it forgets what is idle, and where that
// is not enough the group that has not been touched for the longest time.
func (e *Engine) prune(t *tracked) {
	e.pruneIdle(t, 2) // more than one, so that it gets ahead of what is added
	if e.groups < e.cfg.MaxGroups {
		return
	}
	var coldest *group
	for _, t := range e.rules {
		e.pruneIdle(t, 64)
		if g := t.coldest.next; g != &t.coldest && g.touched < e.events && (coldest == nil || g.touched < coldest.touched) {
			coldest = g
		}
	}
	if coldest == nil || e.groups < e.cfg.MaxGroups {
		return
	}
	e.forget(coldest)
	t = coldest.rule
	if t.evicted++; len(e.forgot) == 0 || e.forgot[len(e.forgot)-1] != t {
		e.forgot = append(e.forgot, t)
	}
}

// pruneIdle forgets up to most of a rule's groups that are idle, the coldest first.
func (e *Engine) pruneIdle(t *tracked, most int) {
	for ; most > 0; most-- {
		g := t.coldest.next
		if g == &t.coldest || g.touched == e.events || !g.idle() { // the event at hand may still need it
			return
		}
		e.forget(g)
	}
}

// tellForgotten runs the rules over an event of our own for each rule that has
// forgotten a group. The event is of the tenant for whose event there was no room, and
// of its time, so that a run over the same events tells the same.
func (e *Engine) tellForgotten(c *clock, pages bool) {
	if len(e.forgot) == 0 {
		return
	}
	forgot := e.forgot
	e.forgot = nil
	for _, t := range forgot {
		if t.told-tellEvery < c.now && c.now < t.told+tellEvery { // of tenants whose clocks differ, each is told
			continue
		}
		if pages {
			t.told = c.now
		}
		var ev struct {
			Type    string `json:"type"`
			Details struct {
				Rule  string `json:"rule"`
				Title string `json:"title"`
			} `json:"details"`
		}
		ev.Type, ev.Details.Rule, ev.Details.Title = schema.TypeForgotten, t.rule.ID, strings.ToValidUTF8(t.rule.Title, "")
		raw, err := json.Marshal(ev)
		if err != nil {
			panic(err) // texts only
		}
		if e.match(raw) {
			e.judgeTouched(c, c.now, fmt.Sprintf("%s-%s-%d", ev.Type, t.rule.ID, c.now), pages)
		}
	}
	e.forgot = e.forgot[:0] // what that has cost is told in a minute
}
