package expr

import (
	"slices"
	"strconv"
	"strings"
)

// Needles returns pieces of JSON of which at least one, in whatever case, is in a member of every
// event for which a condition holds, unless the member has letters beyond ASCII or escape
// sequences. It returns nil if none are known.
func (p *Program) Needles(member string) []string {
	list := []string{}
	for _, one := range p.list {
		if one.match == nil {
			continue
		}

		// Every condition needs its own: one without would be missed.
		texts := needlesIn(one.match, member)
		if texts == nil {
			return nil
		}
		list = append(list, texts...)
	}

	slices.Sort(list)
	return slices.Compact(list)
}

// needlesIn returns pieces of which at least one is in the member wherever an expression holds;
// nil if none are known.
func needlesIn(x expression, member string) (list []string) {
	switch x := x.(type) {
	case and:
		for _, part := range x {
			// One part of a conjunction is enough: take the one with the fewest pieces.
			if texts := needlesIn(part, member); texts != nil && (list == nil || len(texts) < len(list)) {
				list = texts
			}
		}
	case or:
		for _, part := range x {
			// A disjunction needs pieces from every part.
			texts := needlesIn(part, member)
			if texts == nil {
				return nil
			}
			list = append(list, texts...)
		}
	case *Test:
		if first, _, _ := strings.Cut(x.Field.Path, "."); first == member && !x.Negate && !x.Absent {
			return needlesOf(x.Checks)
		}
	}

	return list
}

// needlesOf returns pieces of which at least one is in every value that satisfies one of the
// checks; nil if none are known.
func needlesOf(checks []Check) (list []string) {
	for _, check := range checks {
		var texts []string
		switch c := check.(type) {
		case OneOf:
			for text := range c {
				texts = append(texts, quoted(text))
			}
		case AnyOf:
			texts = needlesOf(c)
		case Pattern:
			texts = []string{c.longestText()}
			if c.Shape == ShapeExact {
				texts[0] = quoted(c.Text)
			}
		}

		usable := func(text string) bool { return text != "" && isASCII(text) }
		if texts == nil || slices.ContainsFunc(texts, func(text string) bool { return !usable(text) }) {
			return nil
		}
		list = append(list, texts...)
	}

	return list
}

// quoted returns a text as it is in JSON: in quotes unless it is a number or a boolean.
func quoted(text string) string {
	if _, err := strconv.ParseFloat(text, 64); err == nil || text == "true" || text == "false" {
		return text
	}
	return `"` + text + `"`
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > 127 })
}
