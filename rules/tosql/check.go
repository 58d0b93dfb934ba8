package tosql

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// errBacktracks is why a rule with a regular expression that RE2 does not support has no SQL.
var errBacktracks = errors.New("RE2 does not support it, and ClickHouse has no other engine")

// check returns the condition that a check holds for the text x.
func (b *builder) check(c expr.Check, x string) (string, error) {
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
		part := timeParts[c.Part]
		return fmt.Sprintf("ifNull(%s(%s(%s)) %s %s, false)",
			part, b.use("time_of"), x, correlation.SQLOperator(c.Op), correlation.SQLFloat(c.Limit)), nil
	case expr.Network:
		b.note(noteZone)
		return inNetwork(netip.Prefix(c), x), nil
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

// timeParts are the functions for the parts of a timestamp, by modifier.
var timeParts = map[string]string{"minute": "toMinute", "hour": "toHour", "day": "toDayOfMonth",
	"week": "toISOWeek", "month": "toMonth", "year": "toYear"}

// oneOf returns the condition that the text x equals one of a list. For ASCII, lower is enough,
// which is faster and has no exceptions.
func (b *builder) oneOf(c expr.OneOf, x string) string {
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
func (b *builder) pattern(p expr.Pattern, x string) string {
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

// inNetwork returns the condition that the text x is an address in a network. An IPv4
// address counts as its IPv4-mapped IPv6 address, and is in no other IPv6 network.
func inNetwork(p netip.Prefix, x string) string {
	// An IPv6 network that includes the IPv4-mapped addresses must not match IPv4.
	text := between(p, x)
	if v4 := netip.MustParsePrefix("::ffff:0:0/96"); p.Addr().Is6() && p.Contains(v4.Addr().WithZone("")) {
		text += " AND NOT " + between(v4, x)
	}
	return "ifNull(" + text + ", false)"
}

// between returns the condition that the text x is between the first and the last address of a prefix.
func between(p netip.Prefix, x string) string {
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
