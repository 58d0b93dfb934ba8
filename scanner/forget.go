package scanner

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// reportInterval is how often, in event time, the evictions of a rule are reported to
// the rules.
const reportInterval = int64(time.Minute / time.Microsecond)

// add adds a group to its rule as the most recently used.
func (e *Engine) add(g *group) *group {
	g.rule.groups[g.key] = g
	g.window = g.first[:0]
	e.groups++
	e.warm(g)
	return g
}

// warm marks a group as used by the current event.
func (e *Engine) warm(g *group) {
	g.touched = e.events
	if g.open {
		return
	}

	g.unlink()
	ring := &g.rule.coldest
	g.prev, g.next = ring.prev, ring
	ring.prev.next, ring.prev = g, g
}

// unlink removes a group from its rule's ring.
func (g *group) unlink() {
	if g.next != nil {
		g.prev.next, g.next.prev = g.next, g.prev
		g.prev, g.next = nil, nil
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

// remove removes a group without an open alert.
func (e *Engine) remove(g *group) {
	g.unlink()
	delete(g.rule.groups, g.key)
	e.groups--
}

// idle reports whether all occurrences of a group are out of reach of its rule.
func (g *group) idle() bool {
	return len(g.window) == 0 || g.window[len(g.window)-1].At < g.clock.now-g.rule.horizon
}

// makeRoom makes room for a new group of a rule. It removes idle groups. If that is
// not enough, it evicts the least recently used group of all rules.
func (e *Engine) makeRoom(state *ruleState) {
	// More than one, so that removals outpace additions.
	e.removeIdle(state, 2)
	if e.groups < e.cfg.MaxGroups {
		return
	}

	// The rings are in order of use, so the coldest group is the head of one of them.
	var coldest *group
	for _, other := range e.rules {
		e.removeIdle(other, 64)
		group := other.coldest.next
		if group == &other.coldest || group.touched >= e.events {
			// None, or the current event may still need it.
			continue
		}
		if coldest == nil || group.touched < coldest.touched {
			coldest = group
		}
	}
	if coldest == nil || e.groups < e.cfg.MaxGroups {
		return
	}

	e.remove(coldest)

	// Report each rule once for an event, however many groups it lost.
	loser := coldest.rule
	loser.evicted++
	if len(e.evictedFor) == 0 || e.evictedFor[len(e.evictedFor)-1] != loser {
		e.evictedFor = append(e.evictedFor, loser)
	}
}

// removeIdle removes up to limit idle groups of a rule, the least recently used first.
func (e *Engine) removeIdle(state *ruleState, limit int) {
	for ; limit > 0; limit-- {
		group := state.coldest.next
		// The current event may still need it.
		if group == &state.coldest || group.touched == e.events || !group.idle() {
			return
		}
		e.remove(group)
	}
}

// reportEvictions runs the rules over an event of our own for each rule that lost a
// group. The event has the tenant and the time of the event that needed the room, so
// that a second run over the same events reports the same.
func (e *Engine) reportEvictions(c *clock, fires bool) {
	if len(e.evictedFor) == 0 {
		return
	}

	losers := e.evictedFor
	e.evictedFor = nil
	for _, state := range losers {
		// A distance in both directions, as the clocks of tenants differ.
		if state.reported-reportInterval < c.now && c.now < state.reported+reportInterval {
			continue
		}
		if fires {
			state.reported = c.now
		}

		if e.match(evictionEvent(state)) {
			id := fmt.Sprintf("%s-%s-%d", schema.TypeForgotten, state.rule.ID, c.now)
			e.evaluateTouched(c, c.now, id, fires)
		}
	}
	// The reports' evictions wait for the next interval.
	e.evictedFor = e.evictedFor[:0]
}

// evictionEvent returns the event that reports evictions of a rule.
func evictionEvent(state *ruleState) []byte {
	var ev struct {
		Type    string `json:"type"`
		Details struct {
			Rule  string `json:"rule"`
			Title string `json:"title"`
		} `json:"details"`
	}
	ev.Type = schema.TypeForgotten
	ev.Details.Rule, ev.Details.Title = state.rule.ID, strings.ToValidUTF8(state.rule.Title, "")

	raw, err := json.Marshal(ev)
	if err != nil {
		// Cannot happen: the struct holds strings only.
		panic(err)
	}
	return raw
}
