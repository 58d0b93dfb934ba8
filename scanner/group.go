package scanner

import (
	"encoding/binary"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/schema"
)

// group is one group key of a rule.
type group struct {
	rule   *ruleState
	clock  *clock
	key    string // as in ruleState.groups
	quoted uint64 // bit i: part i of key is a string, not a number or a boolean
	window correlation.Window
	first  [1]correlation.Occurrence // storage of a window of one occurrence, as most groups have

	touched    uint64 // Engine.events at the last use
	prev, next *group // in ruleState.coldest; nil while an alert is open

	open      bool
	published bool  // Restore has seen an alert of the group
	level     int   // index into Alert.Levels
	starts    int64 // µs
	updated   int64 // µs, newest time at which the condition held
	below     int64 // µs, time at which an event last showed that it does not; unused by rising rules
	scheduled int64 // µs, the deadline in clock.deadlines; 0 for none
}

// groupOf returns the group of the current key. If it does not exist, it is created if
// create is set; otherwise state.absent is returned.
func (e *Engine) groupOf(state *ruleState, c *clock, create bool) *group {
	if group := state.groups[string(e.key)]; group != nil {
		e.warm(group)
		return group
	}
	if !create {
		return &state.absent
	}
	e.makeRoom(state)
	return e.add(&group{rule: state, clock: c, key: string(e.key), quoted: e.quoted})
}

// values returns the fields of a group key, for an alert.
func (g *group) values() []schema.GroupValue {
	var list []schema.GroupValue
	rest := []byte(g.key[len(g.clock.tenant):])
	for _, field := range g.rule.rule.Alert.GroupBy {
		// See appendKey: each part follows its length.
		size, width := binary.Uvarint(rest)
		end := width + int(size)
		list = append(list, schema.GroupValue{Field: field.Path, Value: string(rest[width:end])})
		rest = rest[end:]
	}
	return list
}
