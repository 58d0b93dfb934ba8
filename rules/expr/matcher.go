package expr

import (
	"fmt"
	"slices"
	"time"
)

// maxScratch bounds the space for unescaped and lower-cased text that a Matcher keeps between
// events, in bytes.
const maxScratch = 256 << 10

// maxScalars bounds the number of scalars for which a Matcher keeps space between events.
const maxScalars = 4096

// A Matcher evaluates a Program's conditions for events, one at a time. In the common case it does
// not allocate. It is not safe for concurrent use; make one for each goroutine.
type Matcher struct {
	program  *Program
	byType   map[typeKey]*reduced
	anyType  *reduced // see unreduced
	general  *general // of the program
	finder   *finder  // of general; nil if that has no index
	queue    []candidate
	slots    []slot
	touched  []int    // slots that have values of the current event
	reduced  *reduced // of the current event's type
	event    uint64   // number of the current event
	results  []result
	matched  []int
	at       int // index in the list that is being run
	broken   map[int]string
	timeouts uint64

	steps       int           // of regular expressions on the current event; see maxSteps
	backtracked time.Duration // spent on the current event by regular expressions that backtrack; see RegexBudget

	raw     []byte // the event being scanned
	root    *node  // of the fields to read, for the type if that is known already
	pos     int
	stop    bool
	retyped bool    // another type than the first one was found, so the scan read the wrong fields
	all     []value // every scalar of the event; see scalars
	allOf   uint64  // the event that all is of
	whole   bool    // read every field, whatever the type
	scratch []byte
	quote   []byte
}

// Match returns the conditions that hold for an event, as sorted indexes in the Program. It never
// fails: of a malformed event it sees the part before the fault. The result, and what
// AppendTexts and First return, are valid until the next Match and while raw is unchanged.
func (m *Matcher) Match(raw []byte) []int {
	m.reset()

	// An exceptionally large event must not keep its memory forever.
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

	// The scan read the fields of another type: read all of them.
	if m.retyped {
		m.reset()
		m.whole = true
		m.scan(raw)
		m.whole = false
	}

	return m.evaluate()
}

// evaluate runs the conditions for the type of the scanned event, then those for every type.
func (m *Matcher) evaluate() []int {
	// The event has no type.
	if m.reduced == nil {
		m.reduced = m.reducedFor(nil)
	}

	m.runAll(m.reduced.list, m.reduced.finder)

	if len(m.general.list) > 0 {
		before := len(m.matched)
		m.runAll(m.general.list, m.finder)

		// Both lists are sorted, their concatenation is not.
		if before > 0 {
			slices.Sort(m.matched)
		}
	}
	return m.matched
}

// runAll evaluates a list of conditions or, if the list has a finder, those that it selects.
func (m *Matcher) runAll(list []candidate, f *finder) {
	if f != nil {
		m.queue = f.find(m, m.queue[:0])
		list = m.queue
	}
	m.run(list)
}

// run evaluates some conditions.
func (m *Matcher) run(list []candidate) {
	for m.at = 0; !m.runFrom(list); m.at++ {
	}
}

// runFrom continues with the list at m.at and reports whether it reached the end. A condition that
// panics is a bug of ours: only that condition stops running.
func (m *Matcher) runFrom(list []candidate) (done bool) {
	defer func() {
		if !done {
			m.disable(list[m.at].index, recover())
		}
	}()

	for ; m.at < len(list); m.at++ {
		candidate := &list[m.at]

		// Conditions that panicked once stay off: the reason is in Broken.
		if m.broken != nil && m.isBroken(candidate.index) {
			continue
		}
		if candidate.match == nil || candidate.match.eval(m) {
			m.matched = append(m.matched, candidate.index)
		}
	}
	return true
}

func (m *Matcher) isBroken(index int) bool {
	_, broken := m.broken[index]
	return broken
}

// disable excludes a condition from all further events.
func (m *Matcher) disable(index int, why any) {
	if m.broken == nil {
		m.broken = map[int]string{}
	}
	m.broken[index] = fmt.Sprint(why)
}

// Broken returns the conditions that are no longer evaluated because they panicked, as indexes in
// the Program, with the value of each panic.
func (m *Matcher) Broken() map[int]string { return m.broken }

// reset discards the previous event.
func (m *Matcher) reset() {
	for _, i := range m.touched {
		m.slots[i].values, m.slots[i].flat = m.slots[i].values[:0], false
	}
	m.touched, m.matched, m.reduced = m.touched[:0], m.matched[:0], nil
}

// Text is a scalar of an event, as text. Quoted distinguishes a string from a number or a
// boolean.
type Text struct {
	Text   []byte
	Quoted bool
}

// AppendTexts appends the scalars that the last event has at f, all members of an array; null
// is not one. f must be a field of a condition that holds, or one of its extra fields: other fields
// are not read of every event.
func (m *Matcher) AppendTexts(list []Text, f Field) []Text {
	for i := range m.slots[f.slot].values {
		if value := &m.slots[f.slot].values[i]; value.kind > kindContainer {
			list = append(list, Text{value.text, value.kind == kindString})
		}
	}
	return list
}

// First returns the first of the texts that AppendTexts appends, and their number.
func (m *Matcher) First(f Field) (first Text, count int) {
	for i := range m.slots[f.slot].values {
		value := &m.slots[f.slot].values[i]
		if value.kind <= kindContainer {
			continue
		}
		if count++; count == 1 {
			first = Text{value.text, value.kind == kindString}
		}
	}
	return first, count
}

// valuesAt returns the values of the event at a field or, for everywhere, all of its scalars.
func (m *Matcher) valuesAt(f Field) []value {
	if f.slot != everywhere {
		return m.slots[f.slot].values
	}

	// Collect the scalars once for each event, and only if a keyword needs them.
	if m.allOf != m.event {
		m.all, m.allOf = m.scalars(m.all[:0]), m.event
	}
	return m.all
}

// Timeouts returns how many evaluations of a regular expression were aborted because they took
// too long; an aborted one counts as no match.
func (m *Matcher) Timeouts() uint64 { return m.timeouts }

// low returns v's text in lower case.
func (m *Matcher) low(v *value) []byte {
	if v.low == nil {
		// Most texts are in lower case already and need no copy.
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

// types are the event types for which a condition can hold: any if nil, otherwise those that one
// of the patterns matches.
type types []Pattern
