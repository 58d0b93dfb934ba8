package rules

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern is a Sigma string: text with the wildcards * (any characters) and ? (any one
// character). It is kept in lower case unless cased.
type pattern struct {
	shape shape
	text  string   // exact, prefix, suffix, contains: the text without wildcards
	parts []string // glob: the texts between stars; a ? is wildOne
	cased bool
}

type shape uint8

const (
	exact shape = iota
	prefix
	suffix
	contains
	glob
)

// Wildcards inside a pattern while it is being built. They are in the last plane of the
// private use area, so a rule's own text hardly ever contains them; one that does matches
// slightly more than it says.
const (
	wildMany = '\U0010FFFE'
	wildOne  = '\U0010FFFD'
)

// parsePattern reads wildcards and escapes as pySigma does: \* \? and \\ are the character
// itself; any other backslash is literal.
func parsePattern(s string) []rune {
	var out []rune
	escaped := false
	for _, r := range s {
		// A backslash only escapes a wildcard or itself.
		switch {
		case escaped:
			if r != '*' && r != '?' && r != '\\' {
				out = append(out, '\\')
			}
			out = append(out, r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == '*':
			out = append(out, wildMany)
		case r == '?':
			out = append(out, wildOne)
		default:
			out = append(out, r)
		}
	}

	// A backslash at the end is literal.
	if escaped {
		out = append(out, '\\')
	}

	return out
}

// newPattern compiles text whose wildcards are wildMany and wildOne.
func newPattern(text []rune, cased bool) pattern {
	source := string(text)
	if !cased {
		source = string(lower(nil, []byte(source)))
	}

	// A star at the start or the end is the shape; anything else needs a glob.
	many, one := string(wildMany), string(wildOne)
	inner := strings.TrimSuffix(strings.TrimPrefix(source, many), many)
	if strings.Contains(inner, many) || strings.Contains(inner, one) {
		return pattern{shape: glob, parts: strings.Split(source, many), cased: cased}
	}

	pat := pattern{text: inner, cased: cased}
	starts, ends := strings.HasPrefix(source, many), strings.HasSuffix(source, many)
	switch {
	case starts && ends:
		pat.shape = contains
	case starts:
		pat.shape = suffix
	case ends:
		pat.shape = prefix
	}

	return pat
}

// match reports whether the pattern matches text, which is in lower case unless the pattern is cased.
func (p pattern) match(text []byte) bool {
	if p.shape != glob {
		return shapeMatch(p.shape, text, p.text)
	}

	first, last := p.parts[0], p.parts[len(p.parts)-1]
	n := matchAt(text, first)
	if n < 0 {
		return false
	}
	text = text[n:]
	if len(p.parts) == 1 {
		return len(text) == 0
	}

	// The leftmost match of each part is enough: the text after a star may start anywhere.
	for _, part := range p.parts[1 : len(p.parts)-1] {
		rest, ok := cutPart(text, part)
		if !ok {
			return false
		}
		text = rest
	}

	// The last part must match at the end of the text.
	for i := 0; ; {
		if n := matchAt(text[i:], last); n >= 0 && i+n == len(text) {
			return true
		}
		if i >= len(text) {
			return false
		}
		_, size := utf8.DecodeRune(text[i:])
		i += size
	}
}

// shapeMatch reports whether text equals, starts with, ends with or contains want. The compiler
// does not allocate for conversions to string that are only compared.
func shapeMatch[T string | []byte](s shape, text []byte, want T) bool {
	switch s {
	case exact:
		return string(text) == string(want)
	case prefix:
		return len(text) >= len(want) && string(text[:len(want)]) == string(want)
	case suffix:
		return len(text) >= len(want) && string(text[len(text)-len(want):]) == string(want)
	}

	// Jump from one occurrence of the first byte to the next.
	for len(want) > 0 {
		i := bytes.IndexByte(text, want[0])
		if i < 0 || len(text)-i < len(want) {
			return false
		}
		if string(text[i:i+len(want)]) == string(want) {
			return true
		}
		text = text[i+1:]
	}

	return true
}

// cutPart returns the text after the first match of part.
func cutPart(text []byte, part string) (rest []byte, ok bool) {
	for i := 0; ; {
		if n := matchAt(text[i:], part); n >= 0 {
			return text[i+n:], true
		}
		if i >= len(text) {
			return nil, false
		}

		// Advance by a whole character.
		_, size := utf8.DecodeRune(text[i:])
		i += size
	}
}

// matchAt matches part, which has no star, at the start of text. It returns the number of bytes
// matched, or -1.
func matchAt(text []byte, part string) int {
	n := 0
	for _, want := range part {
		if n >= len(text) {
			return -1
		}
		got, size := utf8.DecodeRune(text[n:])
		if want != wildOne && want != got {
			return -1
		}
		n += size
	}
	return n
}

// lower appends text in lower case to dst. Bytes that are not UTF-8 are kept.
func lower(dst, text []byte) []byte {
	for i := 0; i < len(text); {
		char := text[i]
		if char < utf8.RuneSelf {
			if 'A' <= char && char <= 'Z' {
				char += 'a' - 'A'
			}
			dst = append(dst, char)
			i++
			continue
		}

		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, char)
		} else {
			dst = utf8.AppendRune(dst, unicode.ToLower(r))
		}

		i += size
	}

	return dst
}

// isLower reports whether lower would change nothing.
func isLower(text []byte) bool {
	for _, char := range text {
		if char >= utf8.RuneSelf || 'A' <= char && char <= 'Z' {
			return false
		}
	}
	return true
}
