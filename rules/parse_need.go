package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// parseNeed parses a condition in words over a correlation's rules. Both may refer to a rule
// by its id or its name.
func parseNeed(text string, refs []string, find func(ref string) *document) (*correlation.Need, error) {
	// "1 of NAME*" goes by names.
	names := slices.Clone(refs)
	for i, ref := range refs {
		if doc := find(ref); doc != nil {
			names[i] = cmp.Or(doc.name, ref)
		}
	}

	// Both spellings of a reference mean the same source.
	indexOf := func(name string) int {
		doc := find(name)
		return slices.IndexFunc(refs, func(ref string) bool { return ref == name || doc != nil && find(ref) == doc })
	}

	used := map[int]bool{}
	parser := condition[*correlation.Need]{
		names:  names,
		allOf:  correlation.All,
		anyOf:  correlation.Any,
		negate: correlation.Not,
		lookup: func(name string) (*correlation.Need, error) {
			i := indexOf(name)
			if i < 0 {
				return nil, fmt.Errorf("%q is not among the correlation's rules", name)
			}
			used[i] = true
			return correlation.Match(i), nil
		},
	}
	need, err := parser.parse(text)
	if err != nil {
		return nil, err
	}

	// A rule that the condition ignores is counted for nothing: probably a mistake.
	for i, name := range names {
		if !used[i] {
			return nil, fmt.Errorf("condition %q does not mention the rule %q", text, name)
		}
	}

	if need.Wanted() == 0 {
		return nil, fmt.Errorf("condition %q requires no rule to match, so no event can make it true", text)
	}
	return need, nil
}

// namesIn returns the rules that a condition in words refers to, in its order.
func namesIn(text string) []string {
	var names []string
	for _, token := range strings.Fields(strings.NewReplacer("(", " ", ")", " ").Replace(text)) {
		// Keywords are not names.
		switch strings.ToLower(token) {
		case "and", "or", "not":
		default:
			if !slices.Contains(names, token) {
				names = append(names, token)
			}
		}
	}
	return names
}
