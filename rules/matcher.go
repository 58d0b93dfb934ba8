package rules

import "strings"

// Bounds of what a Matcher keeps between events.
const (
	maxTypes   = 4096      // distinct event types whose candidates are remembered
	maxScratch = 256 << 10 // unescaped and lower-cased text, in bytes
)

// A Matcher runs a Set's detections over events, one at a time, without
// allocating in the common case. It belongs to one goroutine; make one for each.
type Matcher struct {
	set        *Set
	byType     map[string][]int // detections that an event of this type can match
	slots      []slot
	touched    []int // slots that the current event filled
	candidates []int
	matched    []int
	timeouts   uint64

	raw     []byte // the event being scanned
	pos     int
	stop    bool
	whole   bool // the event's type does not stop the scan
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
	m.scratch = m.scratch[:0]
	m.candidates = nil
	m.scan(raw)
	if m.candidates == nil && len(m.slots[0].values) == 0 {
		m.candidates = m.candidatesFor(nil)
	}
	for _, i := range m.candidates {
		if m.set.rules[i].match.eval(m) {
			m.matched = append(m.matched, i)
		}
	}
	return m.matched
}

// reset forgets the event before.
func (m *Matcher) reset() {
	for _, i := range m.touched {
		m.slots[i].values, m.slots[i].flat = m.slots[i].values[:0], false
	}
	m.touched, m.matched = m.touched[:0], m.matched[:0]
}

// Value returns the first scalar that the last event has at f, as text. It is
// empty when there is none; quoted tells a string from a number or a boolean.
func (m *Matcher) Value(f Field) (text []byte, quoted bool) {
	for i := range m.slots[f.slot].values {
		if v := &m.slots[f.slot].values[i]; v.kind > kindContainer {
			return v.text, v.kind == kindString
		}
	}
	return nil, true
}

// Timeouts returns how often a backtracking regular expression was given up on
// because it took too long; such an event counts as not matching.
func (m *Matcher) Timeouts() uint64 { return m.timeouts }

// candidatesFor returns the detections whose type condition admits typ.
func (m *Matcher) candidatesFor(typ []byte) []int {
	if known, ok := m.byType[string(typ)]; ok {
		return known
	}
	low := lower(nil, typ)
	found := []int{} // not nil: nil says that no type was seen
	for i, r := range m.set.rules {
		if r.Correlation == nil && r.types.admits(low) {
			found = append(found, i)
		}
	}
	if len(m.byType) < maxTypes && len(typ) < 256 {
		m.byType[string(typ)] = found
	}
	return found
}

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

func (t types) admits(low []byte) bool {
	if t == nil {
		return true
	}
	for _, p := range t {
		if p.match(low) {
			return true
		}
	}
	return false
}

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
