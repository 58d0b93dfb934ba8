package rules

import (
	"bytes"
	"encoding/binary"
	"math/bits"

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
	m.raw, m.pos, m.root, m.stop, m.retyped = raw, 0, m.set.root, false, false
	if m.next() == '{' {
		m.object(m.set.root, 0, false)
	}
}

func (m *Matcher) peek() byte {
	if m.pos < len(m.raw) {
		return m.raw[m.pos]
	}
	return 0
}

// next steps over white space and returns what follows; 0 at the end.
func (m *Matcher) next() byte {
	for m.pos < len(m.raw) {
		c := m.raw[m.pos]
		if c > ' ' || c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
		m.pos++
	}
	return 0
}

// object reads the object at pos into the fields under n; flat says that a key
// with dots led here. It reports whether the scan can go on.
func (m *Matcher) object(n *node, depth int, flat bool) bool {
	m.pos++ // {
	if m.next() == '}' {
		m.pos++
		return true
	}
	for {
		if m.peek() != '"' {
			return false
		}
		start := m.pos + 1
		end, escaped, dotted := keyEnd(m.raw, start)
		if end < 0 {
			m.pos = len(m.raw)
			return false
		}
		m.pos = end + 1
		key := m.raw[start:end]
		if escaped {
			key, dotted = m.unquote(key), true
		}
		if m.next() != ':' {
			return false
		}
		m.pos++
		m.next()
		if !m.member(n, key, dotted, depth, flat) || m.stop {
			return false
		}
		switch m.next() {
		case ',':
			m.pos++
			m.next()
		case '}':
			m.pos++
			return true
		default:
			return false
		}
	}
}

// member reads the value of one key of the object at n; dotted says that the key may
// have a dot.
func (m *Matcher) member(n *node, key []byte, dotted bool, depth int, flat bool) bool {
	top := n == m.set.root
	if top {
		n = m.root // as far as the type is known by now
	}
	child := n.child(key)
	if child == nil {
		if top && depth == 0 && string(key) == "data" && m.peek() == '{' && m.set.root.children["data"] == nil {
			return m.object(m.set.root, 1, flat) // the envelope of a log stream
		}
		if !dotted {
			return m.skip()
		}
		if top {
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
		n = n.child(step)
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
	if m.next() == ']' {
		m.pos++
		return true
	}
	for {
		if !m.wanted(n, depth+1, flat) || m.stop {
			return false
		}
		switch m.next() {
		case ',':
			m.pos++
			m.next()
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
		// The first type counts: what is to be done is chosen by it.
		if len(s.values) == 0 {
			s.values = append(s.values, v)
			m.retyped = m.program != nil && !m.whole
			m.program = m.programFor(s.values)
			if !m.whole {
				m.root, m.stop = m.program.root, m.retyped || len(m.program.list) == 0 && len(m.general.list) == 0
			}
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
	end, escaped := textEnd(m.raw, start)
	if end < 0 {
		m.pos = len(m.raw)
		return nil, false, false
	}
	m.pos = end + 1
	return m.raw[start:end], escaped, true
}

// The bytes of a word that are looked for, all eight at once: (x^each - ones) &^
// (x^each) has the high bit of the first byte of x that is the one in each, and none
// below it.
const (
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
	quotes = '"' * ones
	slants = '\\' * ones
	dots   = '.' * ones
)

func bytesIn(word, each uint64) uint64 {
	word ^= each
	return (word - ones) &^ word & highs
}

// textEnd is the index of the quote that ends the string whose text begins at an
// index, -1 where none does, and whether there is a backslash before it.
func textEnd(raw []byte, i int) (end int, escaped bool) {
	for {
		for i+8 <= len(raw) {
			word := binary.LittleEndian.Uint64(raw[i:])
			if found := bytesIn(word, quotes) | bytesIn(word, slants); found != 0 {
				i += bits.TrailingZeros64(found) / 8
				break
			}
			i += 8
		}
		for i < len(raw) && raw[i] != '"' && raw[i] != '\\' {
			i++
		}
		switch {
		case i >= len(raw):
			return -1, escaped
		case raw[i] == '"':
			return i, escaped
		}
		i, escaped = i+2, true
	}
}

// keyEnd is textEnd, and tells of dots.
func keyEnd(raw []byte, i int) (end int, escaped, dotted bool) {
	for i+8 <= len(raw) {
		word := binary.LittleEndian.Uint64(raw[i:])
		dot := bytesIn(word, dots)
		if found := bytesIn(word, quotes) | bytesIn(word, slants); found != 0 {
			dotted = dotted || dot&(found-1)&^found != 0
			if i += bits.TrailingZeros64(found) / 8; raw[i] == '"' {
				return i, false, dotted
			}
			break
		}
		i, dotted = i+8, dotted || dot != 0
	}
	end, escaped = textEnd(raw, i)
	return end, escaped, true
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
		end, _ := textEnd(m.raw, m.pos+1)
		if end < 0 {
			m.pos = len(m.raw)
			return false
		}
		m.pos = end + 1
		return true
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
	raw, depth := m.raw, 0
	for i := m.pos; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			if i, _ = textEnd(raw, i+1); i < 0 {
				m.pos = len(raw)
				return false
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				m.pos = i + 1
				return true
			}
		}
	}
	m.pos = len(raw)
	return false
}

// scalars appends every scalar of the event, at any depth. Object keys are not values,
// nor is null.
func (m *Matcher) scalars(list []value) []value {
	m.pos = 0
	for m.pos < len(m.raw) {
		switch c := m.raw[m.pos]; c {
		case '{', '}', '[', ']', ',', ':', ' ', '\t', '\n', '\r':
			m.pos++
		case '"':
			text, escaped, ok := m.quoted()
			if !ok {
				return list
			}
			if m.next() == ':' {
				continue // a key
			}
			if escaped {
				text = m.unquote(text)
			}
			list = append(list, value{kind: kindString, text: text})
		default:
			start := m.pos
			if !m.skip() {
				return list
			}
			if c != 'n' {
				list = append(list, value{kind: kindNumber, text: m.raw[start:m.pos]})
			}
		}
	}
	return list
}
