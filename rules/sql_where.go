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
	"github.com/tenantwatch/tenantwatch/schema"
)

// errBacktracks is why a rule with a regular expression that RE2 does not support has no SQL.
var errBacktracks = errors.New("RE2 does not support it, and ClickHouse has no other engine")

// condition returns an expression over an event's columns. The parts of an and, and of an or
// inside of an and, are on separate lines.
func (b *sqlBuilder) condition(x expr, indent string) (string, error) {
	switch x := x.(type) {
	case and:
		return b.joined(x, "AND", indent)
	case or:
		return b.joined(x, "OR", indent)
	case not:
		part, err := b.condition(x.x, indent+"  ")
		return "NOT (" + part + ")", err
	case *test:
		return b.test(x)
	case exists:
		present := b.present(x.field)
		if x.want {
			return present, nil
		}
		return "NOT " + present, nil
	}
	return "", fmt.Errorf("%T has no SQL", x)
}

func (b *sqlBuilder) joined(list []expr, op, indent string) (string, error) {
	if len(list) == 0 {
		return strconv.FormatBool(op == "AND"), nil
	}
	if len(list) == 1 {
		return b.condition(list[0], indent)
	}

	var parts []string
	for _, operand := range list {
		_, isAnd := operand.(and)
		_, isOr := operand.(or)

		// Parentheses, and deeper indentation, for a combination inside of another.
		nested := isAnd || isOr
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
func (b *sqlBuilder) test(t *test) (string, error) {
	parts, err := b.testParts(t)
	if err != nil {
		return "", err
	}
	op := " OR "
	if t.all {
		op = " AND "
	}

	text := strings.Join(parts, op)

	switch {
	case t.negate:
		return "NOT (" + text + ")", nil
	case len(parts) > 1 || len(t.checks) > 1 && b.plainType(t):
		return "(" + text + ")", nil
	}
	return text, nil
}

// testParts returns the conditions that a test combines with and, if all is set, or with or.
func (b *sqlBuilder) testParts(t *test) ([]string, error) {
	var checks []string

	// empty says that an empty text satisfies one of the checks.
	empty := false
	for _, check := range t.checks {
		text, err := b.check(check, "x")
		if err != nil {
			return nil, err
		}
		checks = append(checks, text)
		empty = empty || acceptsEmpty(check)
	}

	var parts []string
	if t.absent {
		parts = append(parts, b.absent(t.field))
	}

	anyText := func(condition string) string {
		return "arrayExists(x -> " + condition + ", " + b.texts(t.field, empty) + ")"
	}
	switch {
	case len(checks) == 0 && !t.absent:
		// An empty list, from an empty variable, matches nothing.
		return []string{"false"}, nil
	case len(checks) == 0:
		return parts, nil
	case t.all:
		for _, part := range checks {
			parts = append(parts, anyText(part))
		}
		return parts, nil
	}

	// The column of the type needs no list of texts, which is faster.
	if b.plainType(t) {
		text, err := b.anyOf(t.checks, "type")
		return append(parts, text), err
	}
	text, err := b.anyOf(t.checks, "x")
	if err != nil {
		return nil, err
	}
	return append(parts, anyText(text)), nil
}

// anyOf returns the condition that one of the checks holds for the text x.
func (b *sqlBuilder) anyOf(checks []check, x string) (string, error) {
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
func (b *sqlBuilder) plainType(t *test) bool {
	if t.field.Path != typeField || t.all || len(t.checks) == 0 {
		return false
	}
	return !slices.ContainsFunc(t.checks, func(c check) bool { return !onlyNames(c) })
}

// onlyNames reports whether a check cannot hold for a number or a boolean.
func onlyNames(c check) bool {
	switch c := c.(type) {
	case oneOf:
		for text := range c {
			if !isName(text) {
				return false
			}
		}
		return true
	case pattern:
		if c.shape == exact {
			return isName(c.text)
		}
		if c.shape != prefix || c.text == "" {
			return false
		}

		// No number or boolean starts like this.
		low := strings.ToLower(c.text)
		return !strings.ContainsAny(c.text[:1], "-0123456789") &&
			!strings.HasPrefix("true", low) && !strings.HasPrefix("false", low)
	}

	return false
}

// isName reports whether a text is neither empty nor a number or boolean.
func isName(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return text != "" && err != nil && text != "true" && text != "false"
}

// acceptsEmpty reports whether a check may hold for an empty text.
func acceptsEmpty(c check) bool {
	switch c := c.(type) {
	case fieldRef:
		return true
	case anyOf:
		return slices.ContainsFunc(c, acceptsEmpty)
	}
	return c.member(&Matcher{}, &value{kind: kindString})
}

// check returns the condition that a check holds for the text x.
func (b *sqlBuilder) check(c check, x string) (string, error) {
	switch c := c.(type) {
	case oneOf:
		return b.oneOf(c, x), nil
	case anyOf:
		text, err := b.anyOf(c, x)
		return "(" + text + ")", err
	case pattern:
		return b.pattern(c, x), nil
	case number:
		return fmt.Sprintf("%s(%s, %s)", b.use("same_number"), x, schema.Literal(c.text)), nil
	case ordering:
		operator := correlation.SQLOperator(c.op)

		// A float64 does not hold every whole number of this size: compare them as Int256.
		if math.Abs(c.limit) >= 1<<53 && integer([]byte(c.text)) {
			b.use("number")
			return fmt.Sprintf("%s(%s, %s) %s 0", b.use("order"), x, schema.Literal(c.text), operator), nil
		}
		return fmt.Sprintf("%s(%s) %s %s", b.use("number"), x, operator, correlation.SQLFloat(c.limit)), nil
	case timePart:
		part := sqlTimeParts[c.part]
		return fmt.Sprintf("ifNull(%s(%s(%s)) %s %s, false)",
			part, b.use("time_of"), x, correlation.SQLOperator(c.op), correlation.SQLFloat(c.limit)), nil
	case network:
		b.note(noteZone)
		return networkSQL(netip.Prefix(c), x), nil
	case regex:
		source := c.String()
		if strings.Contains(strings.ReplaceAll(source, `\.`, ""), ".") {
			// In ClickHouse, a dot matches a newline.
			source = "(?-s)" + source
		}
		return "match(" + x + ", " + schema.Literal(source) + ")", nil
	case backtracking:
		return "", fmt.Errorf("the regular expression %s: %w", c.source, errBacktracks)
	case fieldRef:
		low := func(text string) string { return text }
		if !c.cased {
			low = func(text string) string { return "lowerUTF8(" + text + ")" }
			b.note(noteCase)
		}
		return "arrayExists(y -> " + compared(c.shape, low(x), low("y")) + ", " + b.texts(c.other, true) + ")", nil
	}

	return "", fmt.Errorf("%T has no SQL", c)
}

// sqlTimeParts are the functions for the parts of a timestamp, by modifier.
var sqlTimeParts = map[string]string{"minute": "toMinute", "hour": "toHour", "day": "toDayOfMonth",
	"week": "toISOWeek", "month": "toMonth", "year": "toYear"}

// oneOf returns the condition that the text x equals one of a list. For ASCII, lower is enough,
// which is faster and has no exceptions.
func (b *sqlBuilder) oneOf(c oneOf, x string) string {
	var ascii, others []string
	for _, text := range slices.Sorted(maps.Keys(c)) {
		if isASCII(text) {
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

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > 127 })
}

// compared returns the comparison of two texts.
func compared(s shape, text, want string) string {
	switch s {
	case prefix:
		return "startsWith(" + text + ", " + want + ")"
	case suffix:
		return "endsWith(" + text + ", " + want + ")"
	case contains:
		return "position(" + text + ", " + want + ") > 0"
	}
	return text + " = " + want
}

// pattern returns the condition that a Sigma string matches the text x.
func (b *sqlBuilder) pattern(p pattern, x string) string {
	if !p.cased {
		beyondASCII := func(part string) bool { return !isASCII(strings.ReplaceAll(part, string(wildOne), "")) }
		if isASCII(p.text) && !slices.ContainsFunc(p.parts, beyondASCII) {
			x = "lower(" + x + ")"
		} else {
			b.note(noteCase)
			x = "lowerUTF8(" + x + ")"
		}
	}

	if p.shape != glob {
		return compared(p.shape, x, schema.Literal(p.text))
	}

	// Escape the characters that LIKE treats as wildcards.
	replacer := strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, string(wildOne), "_")
	var parts []string
	for _, part := range p.parts {
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
