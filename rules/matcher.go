package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxScratch bounds the unescaped and lower-cased text that a Matcher keeps room
// for, in bytes.
const maxScratch = 256 << 10

// maxScalars bounds the scalars of an event that a Matcher keeps room for.
const maxScalars = 4096

// A Matcher runs a Set's detections over events, one at a time, without
// allocating in the common case. It belongs to one goroutine; make one for each.
type Matcher struct {
	set      *Set
	programs map[typeKey]*program
	anyType  *program // see plain
	general  *general // of the set
	finder   *finder  // of general, where that is long
	queue    []candidate
	wants    [][]Field // see Set.wants
	slots    []slot
	touched  []int // slots that the current event filled
	program  *program
	event    uint64 // counts events
	results  []result
	matched  []int
	at       int // in the list that is run
	broken   map[int]string
	timeouts uint64

	steps       int           // that regular expressions have taken of the current event, see mostSteps
	backtracked time.Duration // the same of those that backtrack, see regexBudget

	raw     []byte // the event being scanned
	root    *node  // of the fields that are asked for, as far as the type is known
	pos     int
	stop    bool
	retyped bool    // there was another type before the one that counts
	all     []value // every scalar of the event, see scalars
	allOf   uint64  // the event that they are of
	whole   bool    // every field is read, whatever the type
	scratch []byte
	quote   []byte
}

// Match returns the detections that match an event, as indexes into Set.Rules
// in rising order. It never fails: of a malformed event it sees what comes
// before the fault. The result and what Value returns are valid until the next
// Match, and only as long as raw is not changed.
func (m *Matcher) Match(raw []byte) []int {
	m.reset()
	if cap(m.scratch) > maxScratch {
		m.scratch = nil
	}
	if cap(m.all) > maxScalars {
		m.all = nil
	}
	m.scratch = m.scratch[:0]
	m.event++
	m.steps, m.backtracked = 0, 0
	m.scan(raw)
	if m.retyped { // what was read is what the first type asks for
		m.reset()
		m.whole = true
		m.scan(raw)
		m.whole = false
	}
	return m.evaluate()
}

// evaluate runs the program of the event that was scanned, and what the index says of it.
func (m *Matcher) evaluate() []int {
	if m.program == nil {
		m.program = m.programFor(nil)
	}
	m.runAll(m.program.list, m.program.finder)
	if len(m.general.list) > 0 {
		before := len(m.matched)
		m.runAll(m.general.list, m.finder)
		if before > 0 {
			slices.Sort(m.matched)
		}
	}
	return m.matched
}

// runAll holds the event against a list of detections, or what its finder leaves of it.
func (m *Matcher) runAll(list []candidate, f *finder) {
	if f != nil {
		m.queue = f.find(m, m.queue[:0])
		list = m.queue
	}
	m.run(list)
}

// run holds the event against some detections.
func (m *Matcher) run(list []candidate) {
	for m.at = 0; !m.runOn(list); m.at++ {
	}
}

// runOn continues with a list, and reports whether that came to its end: a rule that
// panics is a fault of ours, which is to cost that rule and no other.
func (m *Matcher) runOn(list []candidate) (done bool) {
	defer func() {
		if !done {
			m.breaks(list[m.at].rule, recover())
		}
	}()
	for ; m.at < len(list); m.at++ {
		c := &list[m.at]
		if m.broken != nil && m.isBroken(c.rule) {
			continue
		}
		if c.match == nil || c.match.eval(m) {
			m.matched = append(m.matched, c.rule)
		}
	}
	return true
}

func (m *Matcher) isBroken(rule int) bool {
	_, broken := m.broken[rule]
	return broken
}

// breaks leaves a rule out from now on.
func (m *Matcher) breaks(rule int, why any) {
	if m.broken == nil {
		m.broken = map[int]string{}
	}
	m.broken[rule] = fmt.Sprint(why)
}

// Broken are the rules that no longer run since they panicked, as indexes into
// Set.Rules, and with what.
func (m *Matcher) Broken() map[int]string { return m.broken }

// reset forgets the event before.
func (m *Matcher) reset() {
	for _, i := range m.touched {
		m.slots[i].values, m.slots[i].flat = m.slots[i].values[:0], false
	}
	m.touched, m.matched, m.program = m.touched[:0], m.matched[:0], nil
}

// Text is a scalar of an event, as text. Quoted tells a string from a number or a
// boolean.
type Text struct {
	Text   []byte
	Quoted bool
}

// AppendTexts appends the scalars that the last event has at f, all members of an array;
// null is none. f is a field of a rule that matches, or of a correlation that counts
// one: others are not read of every event.
func (m *Matcher) AppendTexts(list []Text, f Field) []Text {
	for i := range m.slots[f.slot].values {
		if v := &m.slots[f.slot].values[i]; v.kind > kindContainer {
			list = append(list, Text{v.text, v.kind == kindString})
		}
	}
	return list
}

// First is the first of the texts that AppendTexts appends, with how many these are.
func (m *Matcher) First(f Field) (first Text, count int) {
	for i := range m.slots[f.slot].values {
		v := &m.slots[f.slot].values[i]
		if v.kind <= kindContainer {
			continue
		}
		if count++; count == 1 {
			first = Text{v.text, v.kind == kindString}
		}
	}
	return first, count
}

// everywhere stands for the slot of a keyword, which is not about one field.
const everywhere = -1

// valuesAt is what the event has at a field, or all of its scalars.
func (m *Matcher) valuesAt(f Field) []value {
	if f.slot != everywhere {
		return m.slots[f.slot].values
	}
	if m.allOf != m.event {
		m.all, m.allOf = m.scalars(m.all[:0]), m.event
	}
	return m.all
}

// Timeouts returns how often a regular expression was given up on because it took too
// long; such an event counts as not matching.
func (m *Matcher) Timeouts() uint64 { return m.timeouts }

// low returns v's text in lower case.
func (m *Matcher) low(v *value) []byte {
	if v.low == nil {
		if isLower(v.text) {
			v.low = v.text
		} else {
			start := len(m.scratch)
			m.scratch = lower(m.scratch, v.text)
			v.low = m.scratch[start:]
		}
	}
	return v.low
}

// types is what a detection demands of an event's type: nil for nothing,
// otherwise that one of the patterns matches.
type types []pattern

// strings returns the patterns as Sigma strings, for people and for SQL.
func (t types) strings() []string {
	out := make([]string, len(t))
	for i, p := range t {
		switch p.shape {
		case exact:
			out[i] = p.text
		case prefix:
			out[i] = p.text + "*"
		case suffix:
			out[i] = "*" + p.text
		case contains:
			out[i] = "*" + p.text + "*"
		case glob:
			out[i] = strings.ReplaceAll(strings.Join(p.parts, "*"), string(wildOne), "?")
		}
	}
	return out
}
