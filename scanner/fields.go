package scanner

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// valuesOf returns hashes of the values that value_count counts in an event,
// or the bits of the numbers of value_sum and the like. They are valid until the next
// call.
func (e *Engine) valuesOf(state *ruleState, ev *observed, source int) []uint64 {
	fields := state.rule.Correlation.Sources[source].Values
	e.values = e.values[:0]
	if state.value == correlation.ValueNumber {
		e.appendNumbers(ev, fields[0])
		return e.values
	}

	// Extend the hashes of the combinations so far by each value of the next field.
	e.values = append(e.values, 0)
	for _, field := range fields {
		e.texts = e.appendTexts(e.texts[:0], ev, field)
		// The common case.
		if len(e.texts) == 1 {
			for i, sum := range e.values {
				e.values[i] = e.hash(sum, e.texts[0].Text)
			}
			continue
		}

		before := len(e.values)
		for _, text := range Distinct(e.texts) {
			for _, sum := range e.values[:before] {
				e.values = append(e.values, e.hash(sum, text.Text))
			}
		}
		e.values = slices.Delete(e.values, 0, before)
		e.values = e.values[:min(len(e.values), MaxMembers)]
	}
	return e.values
}

// appendNumbers appends to Engine.values the numbers that an event has at a
// field. Texts that are not finite numbers are left out.
func (e *Engine) appendNumbers(ev *observed, f expr.Field) {
	e.texts = e.appendTexts(e.texts[:0], ev, f)
	for _, text := range e.texts[:min(len(e.texts), MaxMembers)] {
		if value, ok := correlation.ParseNumber(text.Text); ok {
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

// appendTexts appends the scalars of a field of an event.
func (e *Engine) appendTexts(list []expr.Text, ev *observed, f expr.Field) []expr.Text {
	if ev.kept == nil {
		return e.matcher.AppendTexts(list, f)
	}
	for _, known := range ev.kept.Texts[slices.Index(ev.kept.Paths, f.Path)] {
		list = append(list, expr.Text{Text: []byte(known.Text), Quoted: known.Quoted})
	}
	return list
}

// capture copies fields of an event.
func (e *Engine) capture(ev *observed, list *captureList) *correlation.Fields {
	kept := &correlation.Fields{Paths: list.paths, Texts: make([][]correlation.Text, len(list.fields))}
	for i, field := range list.fields {
		e.texts = e.appendTexts(e.texts[:0], ev, field)
		for _, text := range e.texts[:min(len(e.texts), MaxMembers)] {
			kept.Texts[i] = append(kept.Texts[i], correlation.Text{Text: string(text.Text), Quoted: text.Quoted})
		}
	}
	return kept
}
