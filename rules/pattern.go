package rules

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern is a Sigma string: text with the wildcards * (any run) and ? (any one
// character). It is held in lower case unless it is to be compared cased.
type pattern struct {
	shape shape
	text  string   // exact, prefix, suffix, contains: the text without wildcards
	parts []string // glob: the pieces between stars; a ? is wildOne
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

// Wildcards inside a pattern while it is being built. They are in the private
// use area's last plane, so that a rule's own text hardly ever has them; one
// that does matches a little more than it says.
const (
	wildMany = '\U0010FFFE'
	wildOne  = '\U0010FFFD'
)

// parsePattern reads wildcards and escapes as pySigma does: \* \? and \\ stand
// for the character itself, and any other backslash is a plain one.
func parsePattern(s string) []rune {
	var out []rune
	escaped := false
	for _, r := range s {
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
	if escaped {
		out = append(out, '\\')
	}
	return out
}

// newPattern compiles text, the wildcards in it being wildMany and wildOne.
func newPattern(text []rune, cased bool) pattern {
	s := string(text)
	if !cased {
		s = string(lower(nil, []byte(s)))
	}
	many, one := string(wildMany), string(wildOne)
	inner := strings.TrimSuffix(strings.TrimPrefix(s, many), many)
	if strings.Contains(inner, many) || strings.Contains(inner, one) {
		return pattern{shape: glob, parts: strings.Split(s, many), cased: cased}
	}
	p := pattern{text: inner, cased: cased}
	starts, ends := strings.HasPrefix(s, many), strings.HasSuffix(s, many)
	switch {
	case starts && ends:
		p.shape = contains
	case starts:
		p.shape = suffix
	case ends:
		p.shape = prefix
	}
	return p
}

// match compares text, which is in lower case unless the pattern is cased.
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
	for _, part := range p.parts[1 : len(p.parts)-1] {
		// The leftmost place is enough: what follows a star may start anywhere.
		rest, ok := cutPart(text, part)
		if !ok {
			return false
		}
		text = rest
	}
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

// shapeMatch compares plain text. Its conversions to string are only read, so
// the compiler allocates nothing for them.
func shapeMatch[T string | []byte](s shape, text []byte, want T) bool {
	switch s {
	case exact:
		return string(text) == string(want)
	case prefix:
		return len(text) >= len(want) && string(text[:len(want)]) == string(want)
	case suffix:
		return len(text) >= len(want) && string(text[len(text)-len(want):]) == string(want)
	}
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

// cutPart returns what follows the first place where part matches.
func cutPart(text []byte, part string) (rest []byte, ok bool) {
	for i := 0; ; {
		if n := matchAt(text[i:], part); n >= 0 {
			return text[i+n:], true
		}
		if i >= len(text) {
			return nil, false
		}
		_, size := utf8.DecodeRune(text[i:])
		i += size
	}
}

// matchAt matches part, which has no star, at the start of text and returns the
// number of bytes it takes, or -1.
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

// lower appends text in lower case to dst. Bytes that are not UTF-8 stay.
func lower(dst, text []byte) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, c)
		} else {
			dst = utf8.AppendRune(dst, unicode.ToLower(r))
		}
		i += size
	}
	return dst
}

// isLower reports whether lower would change nothing.
func isLower(text []byte) bool {
	for _, c := range text {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}
