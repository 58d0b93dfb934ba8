package scanner

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"strconv"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// An event belongs to one group for each value of the fields that a rule groups by: a
// field with an array gives a group for each element, several fields give one for each
// combination. "" is a value; null is none, like an absent field. The values of
// value_count, value_sum and the like are read in the same way.

// maxMembers bounds the groups, and the values, of one event. The first ones count.
const maxMembers = 256

// findKeys finds the group keys of the current event, as one source of the rule has
// the fields, and returns their number. An event that lacks a field belongs to no
// group of a correlation, but a detection alerts with an empty value.
func (e *Engine) findKeys(state *ruleState, source int) int {
	e.parts, e.ends = e.parts[:0], e.ends[:0]
	count := 1

	for _, field := range state.groupBy(source) {
		begin := len(e.parts)
		e.parts = e.appendTexts(e.parts, field)

		// Repeated elements of an array give the same group.
		switch n := len(e.parts) - begin; {
		case n == 0 && state.rule.Correlation != nil:
			return 0
		case n == 0:
			e.parts = append(e.parts, expr.Text{Quoted: true})
		case n > 1:
			e.parts = e.parts[:begin+len(unique(e.parts[begin:]))]
			count = min(count*(len(e.parts)-begin), maxMembers)
		}
		e.ends = append(e.ends, len(e.parts))
	}
	return count
}

// setOnlyKey sets the current key to that of the event's only group. It returns false
// if the event has several groups or none, or if finding out takes findKeys.
func (e *Engine) setOnlyKey(state *ruleState, c *clock, source int) bool {
	if e.captured != nil {
		return false
	}

	e.key, e.quoted = append(e.key[:0], c.tenant...), 0
	for i, field := range state.groupBy(source) {
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

// unique removes repeated texts, in place.
func unique(list []expr.Text) []expr.Text {
	if len(list) < 2 {
		return list
	}

	kept := list[:0]
	for _, text := range list[:min(len(list), maxMembers)] {
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

// valuesOf returns hashes of the values that value_count counts in the current event,
// or the bits of the numbers of value_sum and the like. They are valid until the next
// call.
func (e *Engine) valuesOf(state *ruleState, source int) []uint64 {
	fields := state.rule.Correlation.Sources[source].Values
	e.values = e.values[:0]
	if state.value == correlation.ValueNumber {
		e.appendNumbers(fields[0])
		return e.values
	}

	// Extend the hashes of the combinations so far by each value of the next field.
	e.values = append(e.values, 0)
	for _, field := range fields {
		e.texts = e.appendTexts(e.texts[:0], field)
		// The common case.
		if len(e.texts) == 1 {
			for i, sum := range e.values {
				e.values[i] = e.hash(sum, e.texts[0].Text)
			}
			continue
		}

		before := len(e.values)
		for _, text := range unique(e.texts) {
			for _, sum := range e.values[:before] {
				e.values = append(e.values, e.hash(sum, text.Text))
			}
		}
		e.values = slices.Delete(e.values, 0, before)
		e.values = e.values[:min(len(e.values), maxMembers)]
	}
	return e.values
}

// appendNumbers appends to Engine.values the numbers that the current event has at a
// field. Texts that are not finite numbers are left out.
func (e *Engine) appendNumbers(f expr.Field) {
	e.texts = e.appendTexts(e.texts[:0], f)
	for _, text := range e.texts[:min(len(e.texts), maxMembers)] {
		value, err := strconv.ParseFloat(string(text.Text), 64)
		if err == nil && !math.IsNaN(value) && !math.IsInf(value, 0) {
			e.values = append(e.values, math.Float64bits(value))
		}
	}
}

// hash returns the hash of a text that follows the texts hashed as before.
func (e *Engine) hash(before uint64, text []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], before)
	_, _ = h.Write(prefix[:])
	_, _ = h.Write(text)
	return h.Sum64()
}

// appendTexts appends the scalars of a field of the current event, or of the captured
// one if that is set.
func (e *Engine) appendTexts(list []expr.Text, f expr.Field) []expr.Text {
	if e.captured == nil {
		return e.matcher.AppendTexts(list, f)
	}
	for _, known := range e.captured.Texts[slices.Index(e.captured.Paths, f.Path)] {
		list = append(list, expr.Text{Text: []byte(known.Text), Quoted: known.Quoted})
	}
	return list
}

// captureList are the fields of an event that are kept after the event itself.
type captureList struct {
	fields []expr.Field
	paths  []string // of the fields
}

// add adds fields.
func (l *captureList) add(lists ...[]expr.Field) {
	for _, field := range slices.Concat(lists...) {
		if !slices.Contains(l.paths, field.Path) {
			l.fields, l.paths = append(l.fields, field), append(l.paths, field.Path)
		}
	}
}

// capture copies fields of the current event.
func (e *Engine) capture(list *captureList) *correlation.Fields {
	kept := &correlation.Fields{Paths: list.paths, Texts: make([][]correlation.Text, len(list.fields))}
	for i, field := range list.fields {
		e.texts = e.appendTexts(e.texts[:0], field)
		for _, text := range e.texts[:min(len(e.texts), maxMembers)] {
			kept.Texts[i] = append(kept.Texts[i], correlation.Text{Text: string(text.Text), Quoted: text.Quoted})
		}
	}
	return kept
}
