package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Need is a condition in words over a correlation's sources: one source, or an operator
// with the conditions that it combines.
type Need struct {
	source int    // index of the source; -1 if there is an op
	op     string // and, or, not
	parts  []*Need
}

// Met reports whether the condition is true for the sources seen, one bit for each source.
func (n *Need) Met(seen uint64) bool {
	switch n.op {
	case "and":
		return !slices.ContainsFunc(n.parts, func(p *Need) bool { return !p.Met(seen) })
	case "or":
		return slices.ContainsFunc(n.parts, func(p *Need) bool { return p.Met(seen) })
	case "not":
		return !n.parts[0].Met(seen)
	}
	return seen>>n.source&1 == 1
}

// Wanted returns the sources that the condition names outside of any not, one bit for each
// source: those whose events can make it true.
func (n *Need) Wanted() uint64 {
	switch n.op {
	case "not":
		return 0
	case "":
		return 1 << n.source
	}

	// Collect them from all parts.
	var all uint64
	for _, part := range n.parts {
		all |= part.Wanted()
	}
	return all
}

// has reports whether an operator is used anywhere.
func (n *Need) has(op string) bool {
	return n.op == op || slices.ContainsFunc(n.parts, func(p *Need) bool { return p.has(op) })
}

// Words writes the condition in words, with the given name for each of the sources.
func (n *Need) Words(names []string) string {
	switch n.op {
	case "":
		return names[n.source]
	case "not":
		return "not " + n.parts[0].inner(names)
	}

	// Parts that are combinations themselves need parentheses.
	var list []string
	for _, part := range n.parts {
		list = append(list, part.inner(names))
	}
	return strings.Join(list, " "+n.op+" ")
}

// inner is Words, in parentheses where it combines several parts.
func (n *Need) inner(names []string) string {
	if n.op == "and" || n.op == "or" {
		return "(" + n.Words(names) + ")"
	}
	return n.Words(names)
}

// parseNeed parses a condition in words over a correlation's rules. Both may refer to a rule
// by its id or its name.
func parseNeed(text string, refs []string, find func(ref string) *document) (*Need, error) {
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
	join := func(op string) func([]*Need) *Need {
		return func(parts []*Need) *Need { return &Need{source: -1, op: op, parts: parts} }
	}
	parser := condition[*Need]{
		names:  names,
		allOf:  join("and"),
		anyOf:  join("or"),
		negate: func(x *Need) *Need { return &Need{source: -1, op: "not", parts: []*Need{x}} },
		lookup: func(name string) (*Need, error) {
			i := indexOf(name)
			if i < 0 {
				return nil, fmt.Errorf("%q is not among the correlation's rules", name)
			}
			used[i] = true
			return &Need{source: i}, nil
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
