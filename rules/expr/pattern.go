package expr

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Pattern is a Sigma string: text with the wildcards * (any characters) and ? (any one
// character). It is kept in lower case unless cased.
type Pattern struct {
	Shape Shape
	Text  string   // exact, prefix, suffix, contains: the text without wildcards
	Parts []string // glob: the texts between stars; a ? is WildOne
	Cased bool     // letters are compared as they are
}

// Shape is where a pattern has wildcards.
type Shape uint8

// The shapes of patterns. The others than ShapeGlob have a star at the edges or nowhere.
const (
	ShapeExact Shape = iota
	ShapePrefix
	ShapeSuffix
	ShapeContains
	ShapeGlob
)

// WildOne stands for any one character in the parts of a pattern, and wildMany for any characters
// while a pattern is being built. They are in the last plane of the private use area, so a rule's
// own text hardly ever contains them; one that does matches slightly more than it says.
const (
	wildMany = '\U0010FFFE'
	WildOne  = '\U0010FFFD'
)

// NewPattern compiles a Sigma string. A shape other than ShapeExact adds stars around it.
func NewPattern(text string, shape Shape, cased bool) Pattern {
	runes := wildcards(text)
	switch shape {
	case ShapeContains:
		runes = slices.Concat([]rune{wildMany}, runes, []rune{wildMany})
	case ShapePrefix:
		runes = append(runes, wildMany)
	case ShapeSuffix:
		runes = slices.Concat([]rune{wildMany}, runes)
	}
	return newPattern(runes, cased)
}

// Unescape returns the text that a Sigma string without wildcards matches; ok is false if it has
// wildcards.
func Unescape(text string) (plain string, ok bool) {
	runes := wildcards(text)
	return string(runes), !slices.Contains(runes, wildMany) && !slices.Contains(runes, WildOne)
}

// Escape returns the Sigma string that matches a text literally.
func Escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(text)
}

// wildcards reads wildcards and escapes as pySigma does: \* \? and \\ are the character itself;
// any other backslash is literal.
func wildcards(s string) []rune {
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
			out = append(out, WildOne)
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

// newPattern compiles text whose wildcards are wildMany and WildOne.
func newPattern(text []rune, cased bool) Pattern {
	source := string(text)
	if !cased {
		source = string(lower(nil, []byte(source)))
	}

	// A star at the start or the end is the shape; anything else needs a glob.
	many, one := string(wildMany), string(WildOne)
	inner := strings.TrimSuffix(strings.TrimPrefix(source, many), many)
	if strings.Contains(inner, many) || strings.Contains(inner, one) {
		return Pattern{Shape: ShapeGlob, Parts: strings.Split(source, many), Cased: cased}
	}

	pat := Pattern{Text: inner, Cased: cased}
	starts, ends := strings.HasPrefix(source, many), strings.HasSuffix(source, many)
	switch {
	case starts && ends:
		pat.Shape = ShapeContains
	case starts:
		pat.Shape = ShapeSuffix
	case ends:
		pat.Shape = ShapePrefix
	}

	return pat
}

// String returns the pattern as a Sigma string without escapes, for people and for SQL.
func (p Pattern) String() string {
	switch p.Shape {
	case ShapePrefix:
		return p.Text + "*"
	case ShapeSuffix:
		return "*" + p.Text
	case ShapeContains:
		return "*" + p.Text + "*"
	case ShapeGlob:
		return strings.ReplaceAll(strings.Join(p.Parts, "*"), string(WildOne), "?")
	}
	return p.Text
}

// Match reports whether the pattern matches text, which is in lower case unless the pattern is cased.
func (p Pattern) Match(text []byte) bool {
	if p.Shape != ShapeGlob {
		return shapeMatch(p.Shape, text, p.Text)
	}

	first, last := p.Parts[0], p.Parts[len(p.Parts)-1]
	n := matchAt(text, first)
	if n < 0 {
		return false
	}
	text = text[n:]
	if len(p.Parts) == 1 {
		return len(text) == 0
	}

	// The leftmost match of each part is enough: the text after a star may start anywhere.
	for _, part := range p.Parts[1 : len(p.Parts)-1] {
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
func shapeMatch[T string | []byte](s Shape, text []byte, want T) bool {
	switch s {
	case ShapeExact:
		return string(text) == string(want)
	case ShapePrefix:
		return len(text) >= len(want) && string(text[:len(want)]) == string(want)
	case ShapeSuffix:
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
		if want != WildOne && want != got {
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
