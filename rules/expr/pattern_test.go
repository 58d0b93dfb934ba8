package expr

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// regexpOf translates a Sigma string to a regular expression.
func regexpOf(s string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		next := byte(0)
		if i+size < len(s) {
			next = s[i+size]
		}
		switch {
		case r == '\\' && (next == '*' || next == '?' || next == '\\'):
			b.WriteString(regexp.QuoteMeta(string(next)))
			size++
		case r == '*':
			b.WriteString(`.*`)
		case r == '?':
			b.WriteString(`.`)
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
		i += size
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// FuzzPattern holds the pattern matcher against the regexp package.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{{"a*b?c", "axxbyc"}, {"*", ""}, {"?*", "x"}, {`\*\?\\*`, `*?\x`}, {"*ab*ab", "ab"}, {"ab*ba", "aba"},
		{"Straße*", "STRASSE"}, {"É?", "éx"}, {"**a**", "ba"}, {"*?*?*", "x"}, {"\U0010FFFE", "x"}, {`a\`, `a\`}, {"*\xff", "x\xff"}, {"İ*", "i̇x"}} {
		f.Add(seed[0], seed[1], true)
		f.Add(seed[0], seed[1], false)
	}
	f.Fuzz(func(t *testing.T, source, text string, cased bool) {
		p := NewPattern(source, ShapeExact, cased)
		subject := []byte(text)
		if !cased {
			subject = lower(nil, subject)
		}
		got := p.Match(subject)
		if !utf8.ValidString(source) || !utf8.ValidString(text) || strings.ContainsAny(source, string(wildMany)+string(WildOne)) || len(source) > 500 {
			return // nothing to compare with; it must only end
		}
		want := source
		if !cased {
			want = strings.ToLower(want)
		}
		if got != regexpOf(want).Match(subject) {
			t.Errorf("%q, cased %v, on %q: got %v", source, cased, subject, got)
		}
	})
}

// FuzzLower compares with the standard library.
func FuzzLower(f *testing.F) {
	for _, seed := range []string{"", "ABC", "Straße É İ ſ K", "a\xffB", "\xe2\x82"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := string(lower(nil, []byte(text)))
		if utf8.ValidString(text) && got != strings.ToLower(text) {
			t.Errorf("%q: got %q", text, got)
		}
		if isLower([]byte(text)) && got != text {
			t.Errorf("%q is lower case, yet becomes %q", text, got)
		}
	})
}
