package schema

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// plainDepth is the maximum nesting of the containers of a plain event.
const plainDepth = 64

// readPlain splits an event into its members if it is plain: valid JSON in valid UTF-8,
// without escaped surrogates, at most plainDepth deep. It reports false for every other
// text, which may still be valid JSON: use read for that. Nearly all events are plain,
// and readPlain is three times as fast as read. A fuzz test compares the two.
//
// The plain… functions below return an index, or -1 if the text is not plain there.
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

// plainMembers splits the event, which is the object at an index, and its details. It
// returns the index after the object.
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

		// The details are scanned once: their members with columns are noted on the way.
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

// plainDetails notes the members of the details, which are the object at an index, that
// have columns. It returns the index after the object.
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

// plainFirst returns the start of the first member or element of the container at an
// index, or of its closing bracket.
func plainFirst(raw []byte, at int) int {
	if at = skipSpace(raw, at+1); at == len(raw) {
		return -1
	}
	return at
}

// plainNext returns the start of the member or element after the one that ends at an
// index, or of the closing bracket.
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

	// Refuse a bracket after a comma here: the caller would take it for the end.
	if at = skipSpace(raw, at+1); at == len(raw) || raw[at] == bracket {
		return -1
	}
	return at
}

// plainColon returns the start of the value after the name that ends at an index.
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

// plainValue returns the end of the value at an index. It is a loop, not a recursion, since
// that is faster.
func plainValue(raw []byte, at int) int {
	var objects uint64 // one bit for each open container, 1 for an object; the innermost is the lowest
	depth := 0

	for {
		switch opening := raw[at]; opening {
		case '{', '[':
			first := plainFirst(raw, at)
			if first < 0 || depth == plainDepth {
				return -1
			}
			at = first

			// An empty container ends at once. In ASCII, its closing bracket is the opening one + 2.
			if raw[first] == opening+2 {
				at++
				break
			}

			depth++
			objects <<= 1
			if opening == '{' {
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

		// A value has ended. Close the containers that end after it.
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

		// In an object, the next value has a name.
		if objects&1 == 1 {
			if at = plainName(raw, at); at < 0 {
				return -1
			}
		}
	}
}

// plainName returns the start of the value of the member at an index.
func plainName(raw []byte, at int) int {
	end := plainString(raw, at)
	if end < 0 {
		return -1
	}
	return plainColon(raw, end)
}

// plainString returns the end of the string at an index.
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

// plainRun returns the index of the next byte of a string that is a quote, a backslash or
// a control character, or the length of the text.
func plainRun(raw []byte, at int) int {
	const each, high = 0x0101010101010101, 0x8080808080808080

	// Test eight bytes at once. The lowest high bit that is set belongs to the first byte
	// that is below 0x20, or that one of the XORs makes zero.
	for ; at+8 <= len(raw); at += 8 {
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

// plainEscape returns the end of the escape sequence at an index.
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
		for _, digit := range raw[at+2 : at+6] {
			isHex := digit >= '0' && digit <= '9' || digit >= 'a' && digit <= 'f' || digit >= 'A' && digit <= 'F'
			if !isHex {
				return -1
			}
		}

		// A surrogate, \ud800 to \udfff, may be half of a pair.
		if (raw[at+2] == 'd' || raw[at+2] == 'D') && raw[at+3] >= '8' {
			return -1
		}
		return at + 6
	}
	return -1
}

// plainScalar returns the end of the number or literal at an index.
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

	// The integer part has no leading zero.
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

// digitsEnd returns the index of the next byte that is not a digit.
func digitsEnd(raw []byte, at int) int {
	for at < len(raw) && raw[at] >= '0' && raw[at] <= '9' {
		at++
	}
	return at
}
