package correlation

import (
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

// Match returns the condition that a source has matched.
func Match(source int) *Need { return &Need{source: source} }

// All returns the condition that all parts are true.
func All(parts []*Need) *Need { return &Need{source: -1, op: "and", parts: parts} }

// Any returns the condition that at least one of the parts is true.
func Any(parts []*Need) *Need { return &Need{source: -1, op: "or", parts: parts} }

// Not returns the condition that another one is false.
func Not(part *Need) *Need { return &Need{source: -1, op: "not", parts: []*Need{part}} }

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

// sql returns the condition on columns that say which sources were seen.
func (n *Need) sql(seen []string) string {
	switch n.op {
	case "":
		return seen[n.source]
	case "not":
		return "NOT " + n.parts[0].sql(seen)
	}

	var list []string
	for _, part := range n.parts {
		list = append(list, part.sql(seen))
	}
	return "(" + strings.Join(list, " "+strings.ToUpper(n.op)+" ") + ")"
}
