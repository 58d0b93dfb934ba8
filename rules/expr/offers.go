package expr

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// offersOf returns lists of needs. Wherever the expression holds, at least one need of each list
// is met. It returns nil if nothing is known to be needed.
func offersOf(x expression) (offers [][]need) {
	switch x := x.(type) {
	case and:
		for _, part := range x {
			offers = append(offers, offersOf(part)...)
		}
	case or:
		// The union of one offer of each part: the best by length.
		var union []need
		for _, part := range x {
			offer := best(offersOf(part), map[need]int{})
			if offer == nil {
				return nil
			}
			union = append(union, offer...)
		}
		if union != nil {
			slices.SortFunc(union, compareNeeds)
			offers = [][]need{slices.Compact(union)}
		}
	case Exists:
		if x.Want {
			offers = [][]need{{{field: x.Field}}}
		}
	case *Test:
		offers = x.offers()
	}

	return offers
}

// offers returns those of a test. With the modifier all, every check is an offer; otherwise the
// union of the checks is one.
func (t *Test) offers() (offers [][]need) {
	if t.Negate || t.Absent || len(t.Checks) == 0 {
		return nil
	}

	var union []need

	// Collect what each check needs, in this test's field.
	for _, check := range t.Checks {
		var needs []need
		for _, need := range neededBy(check) {
			need.field = t.Field
			needs = append(needs, need)
		}

		if t.All {
			if needs != nil {
				offers = append(offers, needs)
			}
			continue
		}
		if needs == nil {
			union = nil
			break
		}
		union = append(union, needs...)
	}

	if union != nil {
		slices.SortFunc(union, compareNeeds)
		offers = append(offers, slices.Compact(union))
	}

	// The field must be present at least. For a keyword that says nothing: an event has values.
	if !t.isKeyword() {
		offers = append(offers, []need{{field: t.Field}})
	}

	return offers
}

// neededBy returns texts of which every value that satisfies the check contains at least one; nil
// if none are known.
func neededBy(c Check) (list []need) {
	switch c := c.(type) {
	case OneOf:
		for text := range c {
			list = append(list, need{kind: needExact, text: text})
		}
	case AnyOf:
		for _, form := range c {
			texts := neededBy(form)
			if texts == nil {
				return nil
			}
			list = append(list, texts...)
		}
	case Pattern:
		part := need{kind: needPart, text: string(lower(nil, []byte(c.longestText())))}
		if c.Shape == ShapeExact {
			part.kind = needExact
		} else if part.text == "" {
			return nil
		}
		list = []need{part}
	case Regex:
		if text := literalIn(c.String()); text != "" {
			list = []need{{kind: needPart, text: text}}
		}
	}

	return list
}

// longestText returns the longest text without wildcards in the pattern.
func (p Pattern) longestText() string {
	longest := p.Text
	for _, part := range p.Parts {
		for piece := range strings.SplitSeq(part, string(WildOne)) {
			if len(piece) > len(longest) {
				longest = piece
			}
		}
	}
	return longest
}

// literalIn returns the longest text, in lower case, that every match of a regular expression contains.
func literalIn(source string) string {
	re, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return ""
	}
	return longestLiteral(re.Simplify())
}

func longestLiteral(re *syntax.Regexp) (longest string) {
	switch re.Op {
	case syntax.OpLiteral:
		unusable := func(r rune) bool {
			// With (?i), k and s also match letters beyond ASCII.
			folds := re.Flags&syntax.FoldCase != 0 && (r > 127 || strings.ContainsRune("kKsS", r))
			return r == utf8.RuneError || folds
		}
		for piece := range strings.FieldsFuncSeq(string(re.Rune), unusable) {
			if len(piece) > len(longest) {
				longest = piece
			}
		}
		return string(lower(nil, []byte(longest)))
	case syntax.OpCapture, syntax.OpPlus:
		return longestLiteral(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return longestLiteral(re.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if text := longestLiteral(sub); len(text) > len(longest) {
				longest = text
			}
		}
	}

	return longest
}
