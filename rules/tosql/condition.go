package tosql

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// condition returns an expression over an event's columns. The parts of an and, and of an or
// inside of an and, are on separate lines.
func (b *builder) condition(tree *expr.Tree, indent string) (string, error) {
	switch tree.Op {
	case expr.OpAnd:
		return b.joined(tree.Parts, "AND", indent)
	case expr.OpOr:
		return b.joined(tree.Parts, "OR", indent)
	case expr.OpNot:
		part, err := b.condition(tree.Parts[0], indent+"  ")
		return "NOT (" + part + ")", err
	}

	switch leaf := tree.Leaf.(type) {
	case *expr.Test:
		return b.test(leaf)
	case expr.Exists:
		present := b.present(leaf.Field)
		if leaf.Want {
			return present, nil
		}
		return "NOT " + present, nil
	}
	return "", fmt.Errorf("%T has no SQL", tree.Leaf)
}

func (b *builder) joined(list []*expr.Tree, op, indent string) (string, error) {
	if len(list) == 0 {
		return strconv.FormatBool(op == "AND"), nil
	}
	if len(list) == 1 {
		return b.condition(list[0], indent)
	}

	var parts []string
	for _, operand := range list {
		// Parentheses, and deeper indentation, for a combination inside of another.
		nested := operand.Op == expr.OpAnd || operand.Op == expr.OpOr
		inner := indent
		if nested {
			inner += "  "
		}

		part, err := b.condition(operand, inner)
		if err != nil {
			return "", err
		}
		if nested {
			part = "(" + part + ")"
		}

		parts = append(parts, part)
	}

	return strings.Join(parts, "\n"+indent+op+" "), nil
}

// test returns the condition of a test. It follows test.holds.
func (b *builder) test(t *expr.Test) (string, error) {
	parts, err := b.testParts(t)
	if err != nil {
		return "", err
	}
	op := " OR "
	if t.All {
		op = " AND "
	}

	text := strings.Join(parts, op)

	switch {
	case t.Negate:
		return "NOT (" + text + ")", nil
	case len(parts) > 1 || len(t.Checks) > 1 && b.plainType(t):
		return "(" + text + ")", nil
	}
	return text, nil
}

// testParts returns the conditions that a test combines with and, if all is set, or with or.
func (b *builder) testParts(t *expr.Test) ([]string, error) {
	var checks []string

	// empty says that an empty text satisfies one of the checks.
	empty := false
	for _, check := range t.Checks {
		text, err := b.check(check, "x")
		if err != nil {
			return nil, err
		}
		checks = append(checks, text)
		empty = empty || expr.AcceptsEmpty(check)
	}

	var parts []string
	if t.Absent {
		parts = append(parts, b.absent(t.Field))
	}

	anyText := func(condition string) string {
		return "arrayExists(x -> " + condition + ", " + b.texts(t.Field, empty) + ")"
	}
	switch {
	case len(checks) == 0 && !t.Absent:
		// An empty list, from an empty variable, matches nothing.
		return []string{"false"}, nil
	case len(checks) == 0:
		return parts, nil
	case t.All:
		for _, part := range checks {
			parts = append(parts, anyText(part))
		}
		return parts, nil
	}

	// The column of the type needs no list of texts, which is faster.
	if b.plainType(t) {
		text, err := b.anyOf(t.Checks, "type")
		return append(parts, text), err
	}
	text, err := b.anyOf(t.Checks, "x")
	if err != nil {
		return nil, err
	}
	return append(parts, anyText(text)), nil
}

// anyOf returns the condition that one of the checks holds for the text x.
func (b *builder) anyOf(checks []expr.Check, x string) (string, error) {
	var list []string
	for _, check := range checks {
		text, err := b.check(check, x)
		if err != nil {
			return "", err
		}
		list = append(list, text)
	}
	return strings.Join(list, " OR "), nil
}

// plainType reports whether a test only compares the type with names of types. Then the column
// is sufficient: a value that is not in the column, such as null, a number or a boolean, is not
// a name, and a member of an array is never the event's type.
func (b *builder) plainType(t *expr.Test) bool {
	if t.Field.Path != expr.TypeField || t.All || len(t.Checks) == 0 {
		return false
	}
	return !slices.ContainsFunc(t.Checks, func(c expr.Check) bool { return !onlyNames(c) })
}

// onlyNames reports whether a check cannot hold for a number or a boolean.
func onlyNames(c expr.Check) bool {
	switch c := c.(type) {
	case expr.OneOf:
		for text := range c {
			if !isName(text) {
				return false
			}
		}
		return true
	case expr.Pattern:
		if c.Shape == expr.ShapeExact {
			return isName(c.Text)
		}
		if c.Shape != expr.ShapePrefix || c.Text == "" {
			return false
		}

		// No number or boolean starts like this.
		low := strings.ToLower(c.Text)
		return !strings.ContainsAny(c.Text[:1], "-0123456789") &&
			!strings.HasPrefix("true", low) && !strings.HasPrefix("false", low)
	}

	return false
}

// isName reports whether a text is neither empty nor a number or boolean.
func isName(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return text != "" && err != nil && text != "true" && text != "false"
}
