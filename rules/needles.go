package rules

import (
	"slices"
	"strconv"
	"strings"
)

// Needles returns pieces of JSON of which at least one, in whatever case, is in a member of every
// event that the rules match, unless the member has letters beyond ASCII or escape sequences. It
// returns nil if none are known.
func (s *Set) Needles(member string) []string {
	list := []string{}
	for _, rule := range s.rules {
		if rule.Correlation != nil {
			continue
		}

		// Every detection needs its own: one without would be missed.
		texts := needlesIn(rule.match, member)
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
func needlesIn(x expr, member string) (list []string) {
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
	case *test:
		if first, _, _ := strings.Cut(x.field.Path, "."); first == member && !x.negate && !x.absent {
			return needlesOf(x.checks)
		}
	}

	return list
}

// needlesOf returns pieces of which at least one is in every value that satisfies one of the
// checks; nil if none are known.
func needlesOf(checks []check) (list []string) {
	for _, check := range checks {
		var texts []string
		switch c := check.(type) {
		case oneOf:
			for text := range c {
				texts = append(texts, quoted(text))
			}
		case anyOf:
			texts = needlesOf(c)
		case pattern:
			texts = []string{c.longestText()}
			if c.shape == exact {
				texts[0] = quoted(c.text)
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
