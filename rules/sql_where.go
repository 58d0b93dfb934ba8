package rules

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// errBacktracks is why a rule with a regular expression that RE2 does not support has no SQL.
var errBacktracks = errors.New("RE2 does not support it, and ClickHouse has no other engine")

// condition returns an expression over an event's columns. The parts of an and, and of an or
// inside of an and, are on separate lines.
func (b *sqlBuilder) condition(tree *expr.Tree, indent string) (string, error) {
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

func (b *sqlBuilder) joined(list []*expr.Tree, op, indent string) (string, error) {
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
func (b *sqlBuilder) test(t *expr.Test) (string, error) {
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
func (b *sqlBuilder) testParts(t *expr.Test) ([]string, error) {
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
func (b *sqlBuilder) anyOf(checks []expr.Check, x string) (string, error) {
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
func (b *sqlBuilder) plainType(t *expr.Test) bool {
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

// check returns the condition that a check holds for the text x.
func (b *sqlBuilder) check(c expr.Check, x string) (string, error) {
	switch c := c.(type) {
	case expr.OneOf:
		return b.oneOf(c, x), nil
	case expr.AnyOf:
		text, err := b.anyOf(c, x)
		return "(" + text + ")", err
	case expr.Pattern:
		return b.pattern(c, x), nil
	case expr.Number:
		return fmt.Sprintf("%s(%s, %s)", b.use("same_number"), x, schema.Literal(c.Text)), nil
	case expr.Ordering:
		operator := correlation.SQLOperator(c.Op)

		// A float64 does not hold every whole number of this size: compare them as Int256.
		if math.Abs(c.Limit) >= 1<<53 && c.Whole() {
			b.use("number")
			return fmt.Sprintf("%s(%s, %s) %s 0", b.use("order"), x, schema.Literal(c.Text), operator), nil
		}
		return fmt.Sprintf("%s(%s) %s %s", b.use("number"), x, operator, correlation.SQLFloat(c.Limit)), nil
	case expr.TimePart:
		part := sqlTimeParts[c.Part]
		return fmt.Sprintf("ifNull(%s(%s(%s)) %s %s, false)",
			part, b.use("time_of"), x, correlation.SQLOperator(c.Op), correlation.SQLFloat(c.Limit)), nil
	case expr.Network:
		b.note(noteZone)
		return networkSQL(netip.Prefix(c), x), nil
	case expr.Regex:
		source := c.String()
		if strings.Contains(strings.ReplaceAll(source, `\.`, ""), ".") {
			// In ClickHouse, a dot matches a newline.
			source = "(?-s)" + source
		}
		return "match(" + x + ", " + schema.Literal(source) + ")", nil
	case expr.Backtracking:
		return "", fmt.Errorf("the regular expression %s: %w", c.Source, errBacktracks)
	case expr.FieldRef:
		low := func(text string) string { return text }
		if !c.Cased {
			low = func(text string) string { return "lowerUTF8(" + text + ")" }
			b.note(noteCase)
		}
		return "arrayExists(y -> " + compared(c.Shape, low(x), low("y")) + ", " + b.texts(c.Other, true) + ")", nil
	}

	return "", fmt.Errorf("%T has no SQL", c)
}

// sqlTimeParts are the functions for the parts of a timestamp, by modifier.
var sqlTimeParts = map[string]string{"minute": "toMinute", "hour": "toHour", "day": "toDayOfMonth",
	"week": "toISOWeek", "month": "toMonth", "year": "toYear"}

// oneOf returns the condition that the text x equals one of a list. For ASCII, lower is enough,
// which is faster and has no exceptions.
func (b *sqlBuilder) oneOf(c expr.OneOf, x string) string {
	var ascii, others []string
	for _, text := range slices.Sorted(maps.Keys(c)) {
		if plainASCII(text) {
			ascii = append(ascii, schema.Literal(text))
		} else {
			others = append(others, schema.Literal(text))
		}
	}

	var parts []string
	if len(ascii) > 0 {
		parts = append(parts, "lower("+x+")"+in(ascii))
	}
	if len(others) > 0 {
		b.note(noteCase)
		parts = append(parts, "lowerUTF8("+x+")"+in(others))
	}
	if len(parts) > 1 {
		return "(" + strings.Join(parts, " OR ") + ")"
	}
	return parts[0]
}

func in(list []string) string {
	if len(list) == 1 {
		return " = " + list[0]
	}
	return " IN (" + strings.Join(list, ", ") + ")"
}

// plainASCII reports whether lower has the same result as lowerUTF8.
func plainASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > 127 })
}

// compared returns the comparison of two texts.
func compared(s expr.Shape, text, want string) string {
	switch s {
	case expr.ShapePrefix:
		return "startsWith(" + text + ", " + want + ")"
	case expr.ShapeSuffix:
		return "endsWith(" + text + ", " + want + ")"
	case expr.ShapeContains:
		return "position(" + text + ", " + want + ") > 0"
	}
	return text + " = " + want
}

// pattern returns the condition that a Sigma string matches the text x.
func (b *sqlBuilder) pattern(p expr.Pattern, x string) string {
	if !p.Cased {
		beyondASCII := func(part string) bool { return !plainASCII(strings.ReplaceAll(part, string(expr.WildOne), "")) }
		if plainASCII(p.Text) && !slices.ContainsFunc(p.Parts, beyondASCII) {
			x = "lower(" + x + ")"
		} else {
			b.note(noteCase)
			x = "lowerUTF8(" + x + ")"
		}
	}

	if p.Shape != expr.ShapeGlob {
		return compared(p.Shape, x, schema.Literal(p.Text))
	}

	// Escape the characters that LIKE treats as wildcards.
	replacer := strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, string(expr.WildOne), "_")
	var parts []string
	for _, part := range p.Parts {
		parts = append(parts, replacer.Replace(part))
	}
	return x + " LIKE " + schema.Literal(strings.Join(parts, "%"))
}

// networkSQL returns the condition that the text x is an address in a network. An IPv4
// address counts as its IPv4-mapped IPv6 address, and is in no other IPv6 network.
func networkSQL(p netip.Prefix, x string) string {
	// An IPv6 network that includes the IPv4-mapped addresses must not match IPv4.
	text := within(p, x)
	if v4 := netip.MustParsePrefix("::ffff:0:0/96"); p.Addr().Is6() && p.Contains(v4.Addr().WithZone("")) {
		text += " AND NOT " + within(v4, x)
	}
	return "ifNull(" + text + ", false)"
}

// within returns the condition that the text x is between the first and the last address of a prefix.
func within(p netip.Prefix, x string) string {
	first := p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}

	// The last address has all bits after the prefix set.
	last := first
	for i := bits; i < 128; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}

	literal := func(address [16]byte) string { return "toIPv6('" + netip.AddrFrom16(address).String() + "')" }
	return "toIPv6OrNull(" + x + ") BETWEEN " + literal(first) + " AND " + literal(last)
}
