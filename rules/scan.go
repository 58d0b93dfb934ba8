package rules

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// maxNesting bounds the recursion into arrays of arrays at a wanted path. What
// lies deeper is skipped, not an error.
const maxNesting = 64

type kind uint8

const (
	kindNull      kind = iota // null
	kindContainer             // the object or array that stands at a wanted path
	kindNumber
	kindBool
	kindString
)

// value is one member found at a field. Its text is a piece of the event or of
// the Matcher's scratch space, so it lives until the next event.
type value struct {
	kind kind
	text []byte // a string without quotes and escapes, otherwise the literal
	low  []byte // text in lower case, made when first asked for
}

// slot holds what one event has at one field. An array fans out into its
// members, and so do repeated names.
type slot struct {
	values []value
	flat   bool // found under a key that itself has dots, which wins over nesting
}

// The scanner below reads only what the trie asks for and steps over the rest
// without looking at it more closely than needed to find its end. It is written
// by hand because a general decoder checks every byte of a log event of which
// rules want a handful of fields; on well-formed JSON it finds what jsontext
// finds (see TestScanAgreesWithDecoder). On malformed JSON it stops, and what
// it has read until there counts.

// scan reads one event. It returns early once the event's type shows that no
// rule can match.
func (m *Matcher) scan(raw []byte) {
	m.raw, m.pos, m.stop = raw, 0, false
	m.space()
	if m.peek() == '{' {
		m.object(m.set.root, 0, false)
	}
}

func (m *Matcher) peek() byte {
	if m.pos < len(m.raw) {
		return m.raw[m.pos]
	}
	return 0
}

func (m *Matcher) space() {
	for m.pos < len(m.raw) {
		switch m.raw[m.pos] {
		case ' ', '\t', '\n', '\r':
			m.pos++
		default:
			return
		}
	}
}

// object reads the object at pos into the fields under n; flat says that a key
// with dots led here. It reports whether the scan can go on.
func (m *Matcher) object(n *node, depth int, flat bool) bool {
	m.pos++ // {
	m.space()
	if m.peek() == '}' {
		m.pos++
		return true
	}
	for {
		key, escaped, ok := m.quoted()
		if !ok {
			return false
		}
		if escaped {
			key = m.unquote(key)
		}
		m.space()
		if m.peek() != ':' {
			return false
		}
		m.pos++
		m.space()
		if !m.member(n, key, depth, flat) || m.stop {
			return false
		}
		m.space()
		switch m.peek() {
		case ',':
			m.pos++
			m.space()
		case '}':
			m.pos++
			return true
		default:
			return false
		}
	}
}

// member reads the value of one key of the object at n.
func (m *Matcher) member(n *node, key []byte, depth int, flat bool) bool {
	child := n.children[string(key)]
	if n == m.set.root && depth == 0 {
		if string(key) == "data" && m.peek() == '{' && child == nil {
			return m.object(n, 1, flat) // the envelope of a log stream
		}
	}
	if child == nil {
		if bytes.IndexByte(key, '.') < 0 {
			return m.skip()
		}
		if n == m.set.root {
			key = bytes.TrimPrefix(key, []byte("data."))
		}
		if child = n.walk(key); child == nil {
			return m.skip()
		}
		flat = true
	}
	return m.wanted(child, depth+1, flat)
}

// walk follows a key that spells out several steps of a path.
func (n *node) walk(key []byte) *node {
	for n != nil {
		step, rest, more := bytes.Cut(key, []byte("."))
		n = n.children[string(step)]
		if !more {
			return n
		}
		key = rest
	}
	return nil
}

// wanted reads the value at pos, which stands at n.
func (m *Matcher) wanted(n *node, depth int, flat bool) bool {
	switch c := m.peek(); c {
	case '{':
		m.add(n, value{kind: kindContainer}, flat)
		if n.children == nil || depth > maxNesting {
			return m.skip()
		}
		return m.object(n, depth, flat)
	case '[':
		m.add(n, value{kind: kindContainer}, flat)
		if depth > maxNesting {
			return m.skip()
		}
		return m.array(n, depth, flat)
	case '"':
		text, escaped, ok := m.quoted()
		if !ok {
			return false
		}
		if escaped && n.slot >= 0 {
			text = m.unquote(text)
		}
		m.add(n, value{kind: kindString, text: text}, flat)
		return true
	default:
		start := m.pos
		if !m.skip() {
			return false
		}
		v := value{kind: kindNumber, text: m.raw[start:m.pos]}
		switch c {
		case 't', 'f':
			v.kind = kindBool
		case 'n':
			v = value{kind: kindNull}
		}
		m.add(n, v, flat)
		return true
	}
}

func (m *Matcher) array(n *node, depth int, flat bool) bool {
	m.pos++ // [
	m.space()
	if m.peek() == ']' {
		m.pos++
		return true
	}
	for {
		if !m.wanted(n, depth+1, flat) || m.stop {
			return false
		}
		m.space()
		switch m.peek() {
		case ',':
			m.pos++
			m.space()
		case ']':
			m.pos++
			return true
		default:
			return false
		}
	}
}

// add notes a value at n's field.
func (m *Matcher) add(n *node, v value, flat bool) {
	if n.slot < 0 {
		return
	}
	s := &m.slots[n.slot]
	if len(s.values) == 0 {
		m.touched = append(m.touched, n.slot)
	}
	switch {
	case flat && !s.flat:
		s.values, s.flat = s.values[:0], true
	case s.flat && !flat:
		return
	}
	if n.slot == 0 {
		// The first type counts: candidates are chosen by it.
		if len(s.values) == 0 {
			s.values = append(s.values, v)
			m.candidates = m.candidatesFor(v.text)
			m.stop = len(m.candidates) == 0 && !m.whole
		}
		return
	}
	s.values = append(s.values, v)
}

// quoted steps over the string at pos and returns what is between its quotes.
func (m *Matcher) quoted() (text []byte, escaped, ok bool) {
	if m.peek() != '"' {
		return nil, false, false
	}
	start := m.pos + 1
	if !m.skipString() {
		return nil, false, false
	}
	text = m.raw[start : m.pos-1]
	return text, bytes.IndexByte(text, '\\') >= 0, true
}

// skipString steps over the string at pos.
func (m *Matcher) skipString() bool {
	i := m.pos + 1
	for {
		j := bytes.IndexByte(m.raw[i:], '"')
		if j < 0 {
			m.pos = len(m.raw)
			return false
		}
		i += j
		// A quote ends the string unless an odd number of backslashes precedes it.
		back := i
		for m.raw[back-1] == '\\' {
			back--
		}
		i++
		if (i-1-back)%2 == 0 {
			m.pos = i
			return true
		}
	}
}

// unquote resolves escapes. A broken one, or half of a surrogate pair, becomes
// U+FFFD or is kept as it stands.
func (m *Matcher) unquote(text []byte) []byte {
	start := len(m.scratch)
	m.quote = append(append(append(m.quote[:0], '"'), text...), '"')
	out, err := jsontext.AppendUnquote(m.scratch, m.quote)
	if err != nil && len(out) == start {
		return text
	}
	m.scratch = out
	return out[start:]
}

// skip steps over the value at pos. Brackets are counted, not paired.
func (m *Matcher) skip() bool {
	switch m.peek() {
	case '"':
		return m.skipString()
	case '{', '[':
		return m.skipContainer()
	}
	start := m.pos
	for m.pos < len(m.raw) {
		switch m.raw[m.pos] {
		case ',', '}', ']', ' ', '\t', '\n', '\r', ':', '"', '{', '[':
			return m.pos > start
		}
		m.pos++
	}
	return m.pos > start
}

func (m *Matcher) skipContainer() bool {
	for depth := 0; m.pos < len(m.raw); {
		switch m.raw[m.pos] {
		case '"':
			if !m.skipString() {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				m.pos++
				return true
			}
		}
		m.pos++
	}
	return false
}

// scalars calls yield for every scalar of an event, at any depth, until it
// returns true, and reports whether it did. Object keys are not values.
func scalars(raw []byte, yield func(*value) bool) bool {
	m := Matcher{raw: raw}
	for m.pos < len(raw) {
		switch c := raw[m.pos]; c {
		case '{', '}', '[', ']', ',', ':', ' ', '\t', '\n', '\r':
			m.pos++
		case '"':
			text, escaped, ok := m.quoted()
			if !ok {
				return false
			}
			m.space()
			if m.peek() == ':' {
				continue // a key
			}
			if escaped {
				m.scratch = m.scratch[:0]
				text = m.unquote(text)
			}
			if yield(&value{kind: kindString, text: text}) {
				return true
			}
		default:
			start := m.pos
			if !m.skip() {
				return false
			}
			if c != 'n' && yield(&value{kind: kindNumber, text: raw[start:m.pos]}) {
				return true
			}
		}
	}
	return false
}
