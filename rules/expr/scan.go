package expr

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/go-json-experiment/json/jsontext"
)

// maxNesting bounds the recursion into arrays of arrays at a path that is read. Deeper values
// are skipped; that is not an error.
const maxNesting = 64

type kind uint8

const (
	kindNull      kind = iota // null
	kindContainer             // an object or array at a path that is read
	kindNumber
	kindBool
	kindString
)

// value is one value found at a field. Its text is a piece of the event or of
// the Matcher's scratch space, so it is valid until the next event.
type value struct {
	kind kind
	text []byte // a string without quotes and escapes, otherwise the literal
	low  []byte // text in lower case, computed on first use
}

// slot holds the values of one event at one field. An array contributes its
// members, and a repeated name all of its values.
type slot struct {
	values []value
	flat   bool // found under a key that contains dots, which takes precedence over nesting
}

// The scanner below reads only the paths in the trie. It skips everything else and checks no
// more of that than is needed to find its end. It is written by hand because a general decoder
// checks every byte of an event, of which rules need a handful of fields. On well-formed JSON it
// finds what jsontext finds (see TestScanAgreesWithDecoder). On malformed JSON it stops, and the
// values read up to there count.

// scan reads one event. It returns early once the event's type shows that no
// rule can match.
func (m *Matcher) scan(raw []byte) {
	m.raw, m.pos, m.root, m.stop, m.retyped = raw, 0, m.program.root, false, false
	if m.next() == '{' {
		m.object(m.program.root, 0, false)
	}
}

// peek returns the byte at pos, or 0 at the end.
func (m *Matcher) peek() byte {
	if m.pos < len(m.raw) {
		return m.raw[m.pos]
	}
	return 0
}

// next skips white space and returns the byte after it, or 0 at the end.
func (m *Matcher) next() byte {
	for m.pos < len(m.raw) {
		char := m.raw[m.pos]
		if char > ' ' || char != ' ' && char != '\t' && char != '\n' && char != '\r' {
			return char
		}
		m.pos++
	}
	return 0
}

// object reads the object at pos into the fields below n. flat says that a key
// with dots led here. It reports whether the scan can continue.
func (m *Matcher) object(n *node, depth int, flat bool) bool {
	m.pos++ // {
	if m.next() == '}' {
		m.pos++
		return true
	}

	for {
		// The key, up to the colon.
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

		// The value.
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

// member reads the value of one key of the object at n. dotted says that the key may
// contain a dot.
func (m *Matcher) member(n *node, key []byte, dotted bool, depth int, flat bool) bool {
	top := n == m.program.root
	if top {
		// Once the type is known, this trie has fewer fields.
		n = m.root
	}

	// Most keys are not in the trie: find that out first.
	child := n.child(key)
	if child == nil {
		if top && depth == 0 && string(key) == "data" && m.peek() == '{' && m.program.root.children["data"] == nil {
			// Read through the envelope of a log stream.
			return m.object(m.program.root, 1, flat)
		}
		if !dotted {
			return m.skip()
		}

		// A key such as "details.error" stands for two steps of the path.
		if top {
			key = bytes.TrimPrefix(key, []byte("data."))
		}
		if child = n.walk(key); child == nil {
			return m.skip()
		}
		flat = true
	}

	return m.read(child, depth+1, flat)
}

// walk follows a key that contains several steps of a path.
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

// read reads the value at pos into the fields at and below n.
func (m *Matcher) read(n *node, depth int, flat bool) bool {
	// The first byte shows the kind of value.
	switch char := m.peek(); char {
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

		// Resolve escapes only for values that are stored.
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
		literal := value{kind: kindNumber, text: m.raw[start:m.pos]}
		switch char {
		case 't', 'f':
			literal.kind = kindBool
		case 'n':
			literal = value{kind: kindNull}
		}
		m.add(n, literal, flat)
		return true
	}
}

// array reads the members of the array at pos like values at n.
func (m *Matcher) array(n *node, depth int, flat bool) bool {
	m.pos++ // [
	if m.next() == ']' {
		m.pos++
		return true
	}

	for {
		if !m.read(n, depth+1, flat) || m.stop {
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

// add stores a value in n's slot.
func (m *Matcher) add(n *node, v value, flat bool) {
	// A node without a slot is only on the way to others.
	if n.slot < 0 {
		return
	}
	slot := &m.slots[n.slot]
	if len(slot.values) == 0 {
		m.touched = append(m.touched, n.slot)
	}

	// A key with dots replaces nested values, and hides those that follow.
	switch {
	case flat && !slot.flat:
		slot.values, slot.flat = slot.values[:0], true
	case slot.flat && !flat:
		return
	}

	// The first type counts: it selects the program, and so the fields to read.
	if n.slot == 0 {
		if len(slot.values) == 0 {
			slot.values = append(slot.values, v)
			m.retyped = m.reduced != nil && !m.whole
			m.reduced = m.reducedFor(slot.values)
			if !m.whole {
				m.root = m.reduced.root
				m.stop = m.retyped || len(m.reduced.list) == 0 && len(m.general.list) == 0
			}
		}

		return
	}
	slot.values = append(slot.values, v)
}

// quoted skips the string at pos and returns the text between its quotes.
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

// Words for bytesIn, each with one byte repeated.
const (
	ones        = 0x0101010101010101
	highs       = 0x8080808080808080
	quotes      = '"' * ones
	backslashes = '\\' * ones
	dots        = '.' * ones
)

// bytesIn searches the eight bytes of a word at once: (x^each - ones) &^ (x^each) has the high
// bit of the first byte of x that equals the byte repeated in each, and no high bit below it.
func bytesIn(word, each uint64) uint64 {
	word ^= each
	return (word - ones) &^ word & highs
}

// textEnd returns the index of the quote that ends the string whose text starts at i, or -1, and
// whether there is a backslash before it.
func textEnd(raw []byte, i int) (end int, escaped bool) {
	for {
		// Search eight bytes at a time.
		for i+8 <= len(raw) {
			word := binary.LittleEndian.Uint64(raw[i:])
			if found := bytesIn(word, quotes) | bytesIn(word, backslashes); found != 0 {
				i += bits.TrailingZeros64(found) / 8
				break
			}
			i += 8
		}

		for i < len(raw) && raw[i] != '"' && raw[i] != '\\' { // the last bytes
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

// keyEnd is like textEnd and also reports whether the text may contain a dot.
func keyEnd(raw []byte, i int) (end int, escaped, dotted bool) {
	// Search eight bytes at a time, as textEnd does.
	for i+8 <= len(raw) {
		word := binary.LittleEndian.Uint64(raw[i:])
		dot := bytesIn(word, dots)
		if found := bytesIn(word, quotes) | bytesIn(word, backslashes); found != 0 {
			// Ignore dots after the end of the text.
			dotted = dotted || dot&(found-1)&^found != 0
			if i += bits.TrailingZeros64(found) / 8; raw[i] == '"' {
				return i, false, dotted
			}
			break
		}
		i, dotted = i+8, dotted || dot != 0
	}

	// An escape, or the last bytes of the event: say that there may be a dot.
	end, escaped = textEnd(raw, i)
	return end, escaped, true
}

// unquote resolves escapes. A broken escape, or half of a surrogate pair, becomes
// U+FFFD or is kept unchanged.
func (m *Matcher) unquote(text []byte) []byte {
	// Append to the scratch space, since values of this event may point into it.
	start := len(m.scratch)

	// jsontext expects the quotes around the text.
	m.quote = append(append(append(m.quote[:0], '"'), text...), '"')
	out, err := jsontext.AppendUnquote(m.scratch, m.quote)
	if err != nil && len(out) == start {
		return text
	}
	m.scratch = out
	return out[start:]
}

// skip skips the value at pos. Brackets are counted, not paired.
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

	// A number, a boolean or null, up to the next delimiter.
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

	// Brackets inside of strings do not count.
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

// scalars appends every scalar of the event, at any depth. Object keys and null are not scalars.
func (m *Matcher) scalars(list []value) []value {
	m.pos = 0
	for m.pos < len(m.raw) {
		switch char := m.raw[m.pos]; char {
		case '{', '}', '[', ']', ',', ':', ' ', '\t', '\n', '\r':
			m.pos++
		// A string is a key if a colon follows it.
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
			// A number, a boolean or null.
			start := m.pos
			if !m.skip() {
				return list
			}
			if char != 'n' {
				list = append(list, value{kind: kindNumber, text: m.raw[start:m.pos]})
			}
		}
	}

	return list
}
