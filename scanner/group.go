package scanner

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"strconv"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// An event belongs to a group for each value of the fields that a rule groups by: where
// an array has several, to the group of each, and of several fields to that of each
// combination. "" is a value; null, like an absent field, is none. What value_count and
// its like look at is taken in the same way.

// mostMembers is how many groups, and how many values, of one event count: the first of
// them.
const mostMembers = 256

// keys finds the group keys of the event at hand, as one source of the rule has it, and
// returns how many there are. A correlation's event without a field of the key belongs to
// no group; a detection alerts all the same.
func (e *Engine) keys(t *tracked, source int) int {
	e.parts, e.ends = e.parts[:0], e.ends[:0]
	count := 1
	for _, f := range t.groupBy(source) {
		begin := len(e.parts)
		e.parts = e.appendTexts(e.parts, f)
		switch n := len(e.parts) - begin; {
		case n == 0 && t.rule.Correlation != nil:
			return 0
		case n == 0:
			e.parts = append(e.parts, rules.Text{Quoted: true})
		case n > 1:
			e.parts = e.parts[:begin+len(unique(e.parts[begin:]))]
			count = min(count*(len(e.parts)-begin), mostMembers)
		}
		e.ends = append(e.ends, len(e.parts))
	}
	return count
}

// onlyKey makes the key at hand that of the one group that the event belongs to. It is
// false where that cannot be told at once: the event may be of several groups, or of none.
func (e *Engine) onlyKey(t *tracked, c *clock, source int) bool {
	if e.from != nil {
		return false
	}
	e.key, e.quoted = append(e.key[:0], c.name...), 0
	for i, f := range t.groupBy(source) {
		text, count := e.matcher.First(f)
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

// unique leaves out texts that were there before.
func unique(list []rules.Text) []rules.Text {
	if len(list) < 2 {
		return list
	}
	kept := list[:0]
	for _, text := range list[:min(len(list), mostMembers)] {
		if !slices.ContainsFunc(kept, func(known rules.Text) bool { return bytes.Equal(known.Text, text.Text) }) {
			kept = append(kept, text)
		}
	}
	return kept
}

// keyAt makes the n-th of the keys the one at hand.
func (e *Engine) keyAt(c *clock, n int) {
	e.key, e.quoted = append(e.key[:0], c.name...), 0
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

// appendKey appends one part of a key, with its length, so that no two keys are
// mistaken for each other.
func (e *Engine) appendKey(part []byte) {
	e.key = binary.AppendUvarint(e.key, uint64(len(part)))
	e.key = append(e.key, part...)
}

// groupAt finds the group whose key is at hand. It is t.none where there is none yet and
// make is not set.
func (e *Engine) groupAt(t *tracked, c *clock, make bool) *group {
	g := t.groups[string(e.key)]
	switch {
	case g != nil:
		e.warm(g)
		return g
	case !make:
		return &t.none
	}
	e.prune(t)
	return e.add(&group{rule: t, tenant: c, key: string(e.key), quoted: e.quoted})
}

// groupBy are the fields of the group key, as one source of the rule has them.
func (t *tracked) groupBy(source int) []rules.Field {
	switch r := t.rule; {
	case r.Correlation == nil:
		return r.Alert.GroupBy
	case source < len(r.Correlation.Sources):
		return r.Correlation.Sources[source].GroupBy
	default: // it is only looked at
		return r.Correlation.Sources[0].GroupBy
	}
}

// values are the fields of a group's key, for an alert.
func (g *group) values() []schema.GroupValue {
	var list []schema.GroupValue
	rest := []byte(g.key[len(g.tenant.name):])
	for _, f := range g.rule.rule.Alert.GroupBy {
		n, width := binary.Uvarint(rest)
		list = append(list, schema.GroupValue{Field: f.Path, Value: string(rest[width : width+int(n)])})
		rest = rest[width+int(n):]
	}
	return list
}

// valuesOf are what value_count tells apart in the event at hand, or the bits of the
// numbers that value_sum and its like look at. They are valid until the next call.
func (e *Engine) valuesOf(t *tracked, source int) []uint64 {
	fields := t.rule.Correlation.Sources[source].Values
	e.values = e.values[:0]
	if t.valued {
		e.texts = e.appendTexts(e.texts[:0], fields[0])
		for _, text := range e.texts[:min(len(e.texts), mostMembers)] {
			f, err := strconv.ParseFloat(string(text.Text), 64)
			if err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
				e.values = append(e.values, math.Float64bits(f))
			}
		}
		return e.values
	}

	e.values = append(e.values, 0)
	for _, f := range fields {
		e.texts = e.appendTexts(e.texts[:0], f)
		if len(e.texts) == 1 { // as it nearly always is
			for i, h := range e.values {
				e.values[i] = e.hash(h, e.texts[0].Text)
			}
			continue
		}
		before := len(e.values)
		for _, text := range unique(e.texts) {
			for _, h := range e.values[:before] {
				e.values = append(e.values, e.hash(h, text.Text))
			}
		}
		e.values = slices.Delete(e.values, 0, before)
		e.values = e.values[:min(len(e.values), mostMembers)]
	}
	return e.values
}

// hash tells a text after others, of which there is a hash already, from other such texts.
func (e *Engine) hash(before uint64, text []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], before)
	_, _ = h.Write(n[:])
	_, _ = h.Write(text)
	return h.Sum64()
}

// appendTexts appends the scalars that the event which is looked at has at a field.
func (e *Engine) appendTexts(list []rules.Text, f rules.Field) []rules.Text {
	if e.from == nil {
		return e.matcher.AppendTexts(list, f)
	}
	for _, known := range e.from.texts[slices.Index(e.from.fields, f)] {
		list = append(list, rules.Text{Text: []byte(known.text), Quoted: known.quoted})
	}
	return list
}

// captured are fields of an event that is gone.
type captured struct {
	fields []rules.Field
	texts  [][]fieldText // of each
}

type fieldText struct {
	text   string
	quoted bool
}

// capture keeps fields of the event at hand.
func (e *Engine) capture(fields []rules.Field) *captured {
	c := &captured{fields: fields, texts: make([][]fieldText, len(fields))}
	for i, f := range fields {
		e.texts = e.appendTexts(e.texts[:0], f)
		for _, text := range e.texts[:min(len(e.texts), mostMembers)] {
			c.texts[i] = append(c.texts[i], fieldText{string(text.Text), text.Quoted})
		}
	}
	return c
}
