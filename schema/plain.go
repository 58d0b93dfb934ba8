package schema

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// plainDepth is how deep the containers of a plain event may be nested.
const plainDepth = 64

// readPlain splits an event that is plain: valid JSON in valid UTF-8, without escaped
// surrogates, not nested deeply. It reports false for every other text, which may be
// JSON as well: decode reads that. Nearly all events are plain, and this reads them
// three times as fast. A fuzz test compares the two.
func (p *parser) readPlain(raw []byte) bool {
	p.members, p.detail, p.plain = p.members[:0], p.detail[:0], false
	if !utf8.Valid(raw) {
		return false
	}

	at := skipSpace(raw, 0)
	if at == len(raw) || raw[at] != '{' {
		return false
	}
	end := p.plainMembers(raw, at)
	p.plain = end >= 0 && skipSpace(raw, end) == len(raw)
	return p.plain
}

// plainMembers splits the object at an index, which is the event, and its details. It
// returns the index after the object, -1 when it is not plain.
func (p *parser) plainMembers(raw []byte, at int) int {
	for at = plainFirst(raw, at); at >= 0 && raw[at] != '}'; at = plainNext(raw, at, '}') {
		m := member{nameAt: at, nameEnd: plainString(raw, at)}
		if m.nameEnd < 0 {
			return -1
		}
		m.column = columnOf(raw[m.nameAt:m.nameEnd])
		if m.at = plainColon(raw, m.nameEnd); m.at < 0 {
			return -1
		}

		if m.column == detailsColumn && raw[m.at] == '{' {
			m.end = p.plainDetails(raw, m.at)
		} else {
			m.end = plainValue(raw, m.at)
		}
		if m.end < 0 {
			return -1
		}
		p.members = append(p.members, m)
		at = m.end
	}
	if at < 0 {
		return -1
	}
	return at + 1
}

// plainDetails notes those members of the details that have columns.
func (p *parser) plainDetails(raw []byte, at int) int {
	for at = plainFirst(raw, at); at >= 0 && raw[at] != '}'; at = plainNext(raw, at, '}') {
		m := member{nameAt: at, nameEnd: plainString(raw, at)}
		if m.nameEnd < 0 {
			return -1
		}
		if m.at = plainColon(raw, m.nameEnd); m.at < 0 {
			return -1
		}
		if m.end = plainValue(raw, m.at); m.end < 0 {
			return -1
		}
		if m.column = detailOf(raw[m.nameAt:m.nameEnd]); m.column != noColumn {
			p.detail = append(p.detail, m)
		}
		at = m.end
	}
	if at < 0 {
		return -1
	}
	return at + 1
}

// plainFirst is where the first member or element of the container at an index
// begins, or its closing bracket; -1 when the text ends.
func plainFirst(raw []byte, at int) int {
	if at = skipSpace(raw, at+1); at == len(raw) {
		return -1
	}
	return at
}

// plainNext is where the member after the one that ends at an index begins, or the
// closing bracket; -1 when neither follows.
func plainNext(raw []byte, end int, bracket byte) int {
	at := skipSpace(raw, end)
	switch {
	case at == len(raw):
		return -1
	case raw[at] == bracket:
		return at
	case raw[at] != ',':
		return -1
	}
	// A bracket after a comma is no member, but would end the loop.
	if at = skipSpace(raw, at+1); at == len(raw) || raw[at] == bracket {
		return -1
	}
	return at
}

// plainColon is where the value after a name begins, -1 when there is none.
func plainColon(raw []byte, end int) int {
	at := skipSpace(raw, end)
	if at == len(raw) || raw[at] != ':' {
		return -1
	}
	if at = skipSpace(raw, at+1); at == len(raw) {
		return -1
	}
	return at
}

// plainValue is the end of the value at an index, -1 when it is not plain.
func plainValue(raw []byte, at int) int {
	var objects uint64 // a bit for each open container, the innermost lowest: 1 for an object
	depth := 0
	for {
		switch c := raw[at]; c {
		case '{', '[':
			first := plainFirst(raw, at)
			if first < 0 || depth == plainDepth {
				return -1
			}
			at = first
			if raw[first] == c+2 { // the closing bracket, as in ASCII: it is empty
				at++
				break
			}
			depth++
			objects <<= 1
			if c == '{' {
				objects |= 1
				if at = plainName(raw, at); at < 0 {
					return -1
				}
			}
			continue
		case '"':
			at = plainString(raw, at)
		default:
			at = plainScalar(raw, at)
		}
		if at < 0 {
			return -1
		}

		// A value has ended, and perhaps containers with it.
		for ; depth > 0; at++ {
			bracket := byte(']')
			if objects&1 == 1 {
				bracket = '}'
			}
			if at = plainNext(raw, at, bracket); at < 0 {
				return -1
			}
			if raw[at] != bracket {
				break
			}
			objects >>= 1
			depth--
		}
		if depth == 0 {
			return at
		}
		if objects&1 == 1 {
			if at = plainName(raw, at); at < 0 {
				return -1
			}
		}
	}
}

// plainName is where the value of the member at an index begins.
func plainName(raw []byte, at int) int {
	end := plainString(raw, at)
	if end < 0 {
		return -1
	}
	return plainColon(raw, end)
}

// plainString is the end of the string at an index.
func plainString(raw []byte, at int) int {
	if raw[at] != '"' {
		return -1
	}
	for at++; ; {
		if at = plainRun(raw, at); at == len(raw) {
			return -1
		}
		switch raw[at] {
		case '"':
			return at + 1
		case '\\':
			if at = plainEscape(raw, at); at < 0 {
				return -1
			}
		default: // a control character
			return -1
		}
	}
}

// plainRun is the index of the next byte of a string that is a quote, a backslash or
// a control character.
func plainRun(raw []byte, at int) int {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; at+8 <= len(raw); at += 8 {
		// Eight bytes at once: the lowest high bit that is set is that of the first
		// byte below 0x20, or that becomes zero.
		word := binary.LittleEndian.Uint64(raw[at:])
		quotes, slashes := word^('"'*each), word^('\\'*each)
		found := ((word-0x20*each)&^word | (quotes-each)&^quotes | (slashes-each)&^slashes) & high
		if found != 0 {
			return at + bits.TrailingZeros64(found)/8
		}
	}
	for at < len(raw) && raw[at] >= 0x20 && raw[at] != '"' && raw[at] != '\\' {
		at++
	}
	return at
}

// plainEscape is the end of the escape at an index.
func plainEscape(raw []byte, at int) int {
	if at+1 == len(raw) {
		return -1
	}
	switch raw[at+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return at + 2
	case 'u':
		if at+6 > len(raw) {
			return -1
		}
		for _, c := range raw[at+2 : at+6] {
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
				return -1
			}
		}
		if (raw[at+2] == 'd' || raw[at+2] == 'D') && raw[at+3] >= '8' {
			return -1 // a surrogate, which may be half of a pair
		}
		return at + 6
	}
	return -1
}

// plainScalar is the end of the number or literal at an index.
func plainScalar(raw []byte, at int) int {
	for _, literal := range [...]string{"true", "false", "null"} {
		if raw[at] == literal[0] {
			if end := at + len(literal); end <= len(raw) && string(raw[at:end]) == literal {
				return end
			}
			return -1
		}
	}

	if raw[at] == '-' {
		at++
	}
	whole := at
	if at = digitsEnd(raw, at); at == whole || at > whole+1 && raw[whole] == '0' {
		return -1
	}
	if at < len(raw) && raw[at] == '.' {
		fraction := at + 1
		if at = digitsEnd(raw, fraction); at == fraction {
			return -1
		}
	}
	if at < len(raw) && (raw[at] == 'e' || raw[at] == 'E') {
		exponent := at + 1
		if exponent < len(raw) && (raw[exponent] == '+' || raw[exponent] == '-') {
			exponent++
		}
		if at = digitsEnd(raw, exponent); at == exponent {
			return -1
		}
	}
	return at
}

func digitsEnd(raw []byte, at int) int {
	for at < len(raw) && raw[at] >= '0' && raw[at] <= '9' {
		at++
	}
	return at
}
