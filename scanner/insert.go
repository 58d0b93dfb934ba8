package scanner

import (
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// insertion is the place of an event in a group that counts it.
type insertion struct {
	group *group
	pos   int // index in group.window of the event's last occurrence
}

// insertEvent inserts an event into the groups of a rule and appends them to
// Engine.inserted. seen are the sources that the event is of, one bit for each.
func (e *Engine) insertEvent(state *ruleState, seen uint64, ev *observed) {
	begin := len(e.inserted)
	if !state.aliased || seen == 0 {
		e.insertSource(state, seen, ev, begin)
		return
	}

	// With aliases, the sources can place one event in several groups.
	for ; seen != 0; seen &= seen - 1 {
		e.insertSource(state, seen&-seen, ev, begin)
	}
}

// insertSource inserts an event as the sources in seen have it, which must have the group
// fields in the same places. The insertions of the event start at begin.
func (e *Engine) insertSource(state *ruleState, seen uint64, ev *observed, begin int) {
	// All sources have the same fields, so the lowest stands for all of them.
	source := bits.TrailingZeros64(seen)
	if e.setOnlyKey(state, ev, source) { // the common case
		e.insertInGroup(state, seen, ev, source, begin)
		return
	}

	for n := range e.findKeys(state, ev, source) {
		e.setKey(ev.clock, n)
		e.insertInGroup(state, seen, ev, source, begin)
	}
}

// insertInGroup inserts an event into the group of the current key, unless it has no value to
// count, is set aside, or is a duplicate.
func (e *Engine) insertInGroup(state *ruleState, seen uint64, ev *observed, source, begin int) {
	group, pos, ok := e.insert(state, seen, ev, source)
	if !ok {
		return
	}

	same := func(known insertion) bool { return known.group == group }
	if i := slices.IndexFunc(e.inserted[begin:], same); i >= 0 {
		e.inserted[begin+i].pos = pos
		return
	}
	e.inserted = append(e.inserted, insertion{group, pos})
}

// insert inserts an event into the window of the current key's group.
func (e *Engine) insert(state *ruleState, seen uint64, ev *observed, source int) (g *group, pos int, ok bool) {
	occurrence := correlation.Occurrence{At: ev.at, Seen: seen, ID: ev.id}
	leads := state.leads == 0 || seen&state.leads != 0

	var values []uint64
	if state.value.OfField() {
		if values = e.valuesOf(state, ev, source); len(values) == 0 {
			return nil, 0, false
		}
	}

	// Only a leading occurrence creates a group.
	g = e.groupOf(state, ev.clock, leads)

	// Parents may count the event later, when the matcher holds another one.
	if len(state.captures.fields) > 0 {
		occurrence.Fields = e.capture(ev, &state.captures)
	}
	if g == &state.absent {
		aside := earlyOccurrence{maphash.Bytes(e.seed, e.key), occurrence}
		state.setAside(aside, ev.clock.now-e.cfg.Lateness.Microseconds())
		return nil, 0, false
	}

	pos, ok = g.window.Insert(occurrence, values, state.value)

	// A leading occurrence that arrives late makes those set aside after it count.
	if ok && leads && state.earlyStart < len(state.early) && !g.window[:pos].Contains(state.leads) {
		e.insertEarly(g, ev.at)
		pos = g.window.Find(ev.at, ev.id)
	}
	return g, pos, ok
}
