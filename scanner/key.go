package scanner

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// An event belongs to one group for each value of the fields that a rule groups by: a
// field with an array gives a group for each element, several fields give one for each
// combination. "" is a value; null is none, like an absent field. The values of
// value_count, value_sum and the like are read in the same way.

// MaxMembers is the maximum number of groups, and of values, of one event. The first ones count.
const MaxMembers = 256

// findKeys finds the group keys of an event, as one source of the rule has
// the fields, and returns their number. An event that lacks a field belongs to no
// group of a correlation, but a detection alerts with an empty value.
func (e *Engine) findKeys(state *ruleState, ev *observed, source int) int {
	e.parts, e.ends = e.parts[:0], e.ends[:0]
	count := 1

	for _, field := range state.rule.GroupFields(source) {
		begin := len(e.parts)
		e.parts = e.appendTexts(e.parts, ev, field)

		// Repeated elements of an array give the same group.
		switch n := len(e.parts) - begin; {
		case n == 0 && state.rule.Correlation != nil:
			return 0
		case n == 0:
			e.parts = append(e.parts, expr.Text{Quoted: true})
		case n > 1:
			e.parts = e.parts[:begin+len(Distinct(e.parts[begin:]))]
			count = min(count*(len(e.parts)-begin), MaxMembers)
		}
		e.ends = append(e.ends, len(e.parts))
	}
	return count
}

// setOnlyKey sets the current key to that of the event's only group. It returns false
// if the event has several groups or none, or if finding out takes findKeys.
func (e *Engine) setOnlyKey(state *ruleState, ev *observed, source int) bool {
	if ev.kept != nil {
		return false
	}

	e.key, e.quoted = append(e.key[:0], ev.clock.tenant...), 0
	for i, field := range state.rule.GroupFields(source) {
		text, count := e.matcher.First(field)
		if count != 1 {
			return false
		}
		e.appendKey(text.Text)
		if text.Quoted {
			e.quoted |= 1 << i
		}
	}
	return true
}

// Distinct removes repeated texts, in place, and those beyond MaxMembers.
func Distinct(list []expr.Text) []expr.Text {
	if len(list) < 2 {
		return list
	}

	kept := list[:0]
	for _, text := range list[:min(len(list), MaxMembers)] {
		same := func(known expr.Text) bool { return bytes.Equal(known.Text, text.Text) }
		if !slices.ContainsFunc(kept, same) {
			kept = append(kept, text)
		}
	}
	return kept
}

// setKey sets the current key to the n-th of those that findKeys found.
func (e *Engine) setKey(c *clock, n int) {
	e.key, e.quoted = append(e.key[:0], c.tenant...), 0

	// n is a number with one digit for each field, the first field's lowest.
	begin := 0
	for i, end := range e.ends {
		part := &e.parts[begin]
		if width := end - begin; width > 1 {
			part, n = &e.parts[begin+n%width], n/width
		}
		begin = end

		e.appendKey(part.Text)
		if part.Quoted {
			e.quoted |= 1 << i
		}
	}
}

// appendKey appends a part to the current key, prefixed with its length so that
// different parts never give the same key.
func (e *Engine) appendKey(part []byte) {
	e.key = binary.AppendUvarint(e.key, uint64(len(part)))
	e.key = append(e.key, part...)
}
