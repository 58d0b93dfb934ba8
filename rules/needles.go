package rules

import (
	"slices"
	"strconv"
	"strings"
)

// Needles are pieces of JSON of which one, in whatever case, is in a member of every
// event that the rules match, unless it has letters beyond ASCII there or escape
// sequences. They are nil where none are known.
func (s *Set) Needles(member string) []string {
	list := []string{}
	for _, r := range s.rules {
		if r.Correlation != nil {
			continue
		}
		texts := needlesIn(r.match, member)
		if texts == nil {
			return nil
		}
		list = append(list, texts...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// needlesIn are pieces of which one is in a member wherever an expression holds; nil for
// none.
func needlesIn(x expr, member string) (list []string) {
	switch x := x.(type) {
	case and:
		for _, part := range x {
			if texts := needlesIn(part, member); texts != nil && (list == nil || len(texts) < len(list)) {
				list = texts
			}
		}
	case or:
		for _, part := range x {
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

// needlesOf are pieces of which one is in every value that some checks hold for; nil
// where such are not known.
func needlesOf(checks []check) (list []string) {
	for _, c := range checks {
		var texts []string
		switch c := c.(type) {
		case oneOf:
			for text := range c {
				texts = append(texts, quoted(text))
			}
		case anyOf:
			texts = needlesOf(c)
		case pattern:
			texts = []string{c.text}
			switch c.shape {
			case exact:
				texts[0] = quoted(c.text)
			case glob:
				for _, part := range c.parts {
					for piece := range strings.SplitSeq(part, string(wildOne)) {
						if len(piece) > len(texts[0]) {
							texts[0] = piece
						}
					}
				}
			}
		}
		if texts == nil || slices.ContainsFunc(texts, func(text string) bool { return text == "" || !isASCII(text) }) {
			return nil
		}
		list = append(list, texts...)
	}
	return list
}

// quoted is a text as JSON has it where it is no other scalar than a string.
func quoted(text string) string {
	if _, err := strconv.ParseFloat(text, 64); err == nil || text == "true" || text == "false" {
		return text
	}
	return `"` + text + `"`
}
