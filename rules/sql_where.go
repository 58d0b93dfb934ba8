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

	"github.com/tenantwatch/tenantwatch/schema"
)

// errBacktracks is why a rule has no SQL whose regular expression needs more than RE2.
var errBacktracks = errors.New("it is outside RE2, and ClickHouse has no other")

// condition is an expression over an event's columns. What an and, or the or of an
// and, is made of stands on lines of its own.
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
		there := b.there(x.field)
		if x.want {
			return there, nil
		}
		return "NOT " + there, nil
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
	for _, x := range list {
		_, isAnd := x.(and)
		_, isOr := x.(or)
		inner := indent
		if isAnd || isOr {
			inner += "  "
		}
		part, err := b.condition(x, inner)
		if err != nil {
			return "", err
		}
		if isAnd || isOr {
			part = "(" + part + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "\n"+indent+op+" "), nil
}

// test is a field held against a detection item's values. It goes as test.holds does.
func (b *sqlBuilder) test(t *test) (string, error) {
	var checks []string
	empty := false // the empty text will do
	for _, c := range t.checks {
		text, err := b.check(c, "x")
		if err != nil {
			return "", err
		}
		checks = append(checks, text)
		empty = empty || takesEmpty(c)
	}
	var parts []string
	if t.absent {
		parts = append(parts, b.absent(t.field))
	}
	switch {
	case len(checks) == 0 && !t.absent:
		parts = []string{"false"} // an empty list, from an empty variable, has nothing to match
	case len(checks) == 0:
	case t.all:
		for _, c := range checks {
			parts = append(parts, "arrayExists(x -> "+c+", "+b.texts(t.field, empty)+")")
		}
	case b.plainType(t):
		text, err := b.anyOf(t.checks, "type")
		if err != nil {
			return "", err
		}
		parts = append(parts, text)
	default:
		text, err := b.anyOf(t.checks, "x")
		if err != nil {
			return "", err
		}
		parts = append(parts, "arrayExists(x -> "+text+", "+b.texts(t.field, empty)+")")
	}
	op := " OR "
	if t.all {
		op = " AND "
	}
	text := strings.Join(parts, op)
	switch {
	case t.negate:
		return "NOT (" + text + ")", nil
	case len(parts) > 1 || len(checks) > 1 && b.plainType(t):
		return "(" + text + ")", nil
	}
	return text, nil
}

// anyOf is the condition that one of the checks holds for the text x.
func (b *sqlBuilder) anyOf(checks []check, x string) (string, error) {
	var list []string
	for _, c := range checks {
		text, err := b.check(c, x)
		if err != nil {
			return "", err
		}
		list = append(list, text)
	}
	return strings.Join(list, " OR "), nil
}

// plainType reports that a test is about names of event types. The column then says
// all: what is elsewhere, null, a number or a boolean, is no name, and of an array
// no rule takes a member as the event's type.
func (b *sqlBuilder) plainType(t *test) bool {
	plain := func(text string) bool {
		_, err := strconv.ParseFloat(text, 64)
		return text != "" && err != nil && text != "true" && text != "false"
	}
	return t.field.Path == typeField && !t.all && len(t.checks) > 0 && !slices.ContainsFunc(t.checks, func(c check) bool {
		switch c := c.(type) {
		case oneOf:
			for text := range c {
				if !plain(text) {
					return true
				}
			}
			return false
		case pattern:
			// No number or boolean begins like this.
			return !(c.shape == exact && plain(c.text) ||
				c.shape == prefix && c.text != "" && !strings.ContainsAny(c.text[:1], "-0123456789") &&
					!strings.HasPrefix("true", strings.ToLower(c.text)) && !strings.HasPrefix("false", strings.ToLower(c.text)))
		}
		return true
	})
}

// takesEmpty reports whether a check may hold for an empty text.
func takesEmpty(c check) bool {
	switch c := c.(type) {
	case fieldRef:
		return true
	case anyOf:
		return slices.ContainsFunc(c, takesEmpty)
	}
	return c.member(&Matcher{}, &value{kind: kindString})
}

// Where a member may be. A column has a member that is text and otherwise is empty.
// Whether it is because the member is an empty text, only raw tells.

// column returns the column of a field.
func column(f Field) (name string, ok bool) {
	i := slices.Index(schema.TextColumns[:], f.Path)
	return f.Path, i >= schema.FirstText
}

// located is the JSON that has a field, and the path in it, as SQL.
func located(f Field) (json, path string) {
	steps := strings.Split(f.Path, ".")
	json = "rest"
	switch {
	case slices.Contains(schema.TextColumns[:], f.Path):
		json = "raw"
	case steps[0] == "details" && len(steps) > 1:
		json, steps = "details", steps[1:]
	}
	for i, step := range steps {
		steps[i] = schema.Literal(step)
	}
	return json, "[" + strings.Join(steps, ", ") + "]"
}

// texts is the list of the texts that an event has at a field; empty says that an
// empty one matters.
func (b *sqlBuilder) texts(f Field, empty bool) string {
	if f.slot == everywhere {
		return b.use("everywhere") + "(raw)"
	}
	elsewhere := "rest"
	if empty {
		elsewhere = "raw" // which is longer to read
	}
	if f.Path == typeField { // the first one counts, and no member of an array
		b.use("scalars")
		return "if(type = '', scalars([JSONExtractRaw(" + elsewhere + ", 'type')]), [toString(type)])"
	}
	if f.Path == "details" {
		b.use("scalars")
		return "scalars(" + b.use("unfold") + "([details]))"
	}
	if name, ok := column(f); ok {
		b.use("member")
		if name == "scope" { // of an array the column has the texts, joined
			name = "if(JSONHas(rest, 'scope'), '', scope)"
		}
		return fmt.Sprintf("member(%s, %s, %s)", name, elsewhere, schema.Literal(f.Path))
	}
	json, path := located(f)
	return fmt.Sprintf("%s(%s, %s)", b.use("texts"), json, path)
}

// there is the condition that a field is there, with whatever value.
func (b *sqlBuilder) there(f Field) string {
	switch f.Path {
	case typeField:
		return "(type != '' OR JSONHas(raw, 'type'))"
	case "details":
		return "(details != '')"
	}
	json, path := located(f)
	text := fmt.Sprintf("%s(%s, %s)", b.use("present"), json, path)
	if name, ok := column(f); ok && name != "scope" {
		text = "(" + name + " != '' OR " + text + ")"
	}
	return text
}

// absent is the condition that a field is not there, or null.
func (b *sqlBuilder) absent(f Field) string {
	switch f.Path {
	case typeField:
		return "type = '' AND JSONExtractRaw(raw, 'type') IN ('', 'null')"
	case "details":
		return "has(" + b.use("unfold") + "([if(details = '', 'null', details)]), 'null')"
	}
	json, path := located(f)
	b.use("unfold")
	text := fmt.Sprintf("%s(%s, %s)", b.use("missing"), json, path)
	if name, ok := column(f); ok && name != "scope" {
		text = name + " = '' AND " + text
	}
	return text
}

// check is the condition that a text, called x, is as a check wants it.
func (b *sqlBuilder) check(c check, x string) (string, error) {
	switch c := c.(type) {
	case oneOf:
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
			return "(" + strings.Join(parts, " OR ") + ")", nil
		}
		return parts[0], nil
	case anyOf:
		text, err := b.anyOf(c, x)
		return "(" + text + ")", err
	case pattern:
		return b.pattern(c, x), nil
	case number:
		return fmt.Sprintf("%s(%s, %s)", b.use("same_number"), x, schema.Literal(c.text)), nil
	case ordering:
		if math.Abs(c.limit) >= 1<<53 { // floating-point numbers are no longer all whole numbers there
			if integer([]byte(c.text)) {
				b.use("number")
				return fmt.Sprintf("%s(%s, %s) %s 0", b.use("order"), x, schema.Literal(c.text), sqlOps[c.op]), nil
			}
		}
		return fmt.Sprintf("%s(%s) %s %s", b.use("number"), x, sqlOps[c.op], sqlFloat(c.limit)), nil
	case timePart:
		part := map[string]string{"minute": "toMinute", "hour": "toHour", "day": "toDayOfMonth", "week": "toISOWeek", "month": "toMonth", "year": "toYear"}[c.part]
		return fmt.Sprintf("ifNull(%s(%s(%s)) %s %s, false)", part, b.use("time_of"), x, sqlOps[c.op], sqlFloat(c.limit)), nil
	case network:
		b.note(noteZone)
		return networkSQL(netip.Prefix(c), x), nil
	case regex:
		source := c.String()
		if strings.Contains(strings.ReplaceAll(source, `\.`, ""), ".") {
			source = "(?-s)" + source // to ClickHouse a dot is a newline, too
		}
		return "match(" + x + ", " + schema.Literal(source) + ")", nil
	case backtracking:
		return "", fmt.Errorf("the regular expression %s: %w", c.source, errBacktracks)
	case fieldRef:
		y := "y"
		low := func(text string) string { return text }
		if !c.cased {
			low = func(text string) string { return "lowerUTF8(" + text + ")" }
			b.note(noteCase)
		}
		return "arrayExists(" + y + " -> " + compared(c.shape, low(x), low(y)) + ", " + b.texts(c.other, true) + ")", nil
	}
	return "", fmt.Errorf("%T has no SQL", c)
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

// compared is the comparison of two texts.
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

// pattern is the condition that a text is as a Sigma string says.
func (b *sqlBuilder) pattern(p pattern, x string) string {
	if !p.cased {
		if isASCII(p.text) && !slices.ContainsFunc(p.parts, func(part string) bool {
			return !isASCII(strings.ReplaceAll(part, string(wildOne), ""))
		}) {
			x = "lower(" + x + ")"
		} else {
			b.note(noteCase)
			x = "lowerUTF8(" + x + ")"
		}
	}
	if p.shape != glob {
		return compared(p.shape, x, schema.Literal(p.text))
	}
	var parts []string
	for _, part := range p.parts {
		parts = append(parts, strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, string(wildOne), "_").Replace(part))
	}
	return x + " LIKE " + schema.Literal(strings.Join(parts, "%"))
}

// networkSQL is the condition that a text is an address of a network. An IPv4
// address counts as the IPv6 address that stands for it, and is in no other network
// of IPv6.
func networkSQL(p netip.Prefix, x string) string {
	within := func(p netip.Prefix) string {
		first := p.Addr().As16()
		bits := p.Bits()
		if p.Addr().Is4() {
			bits += 96
		}
		last := first
		for i := bits; i < 128; i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		text := func(a [16]byte) string { return "toIPv6('" + netip.AddrFrom16(a).String() + "')" }
		return "toIPv6OrNull(" + x + ") BETWEEN " + text(first) + " AND " + text(last)
	}
	text := within(p)
	if v4 := netip.MustParsePrefix("::ffff:0:0/96"); p.Addr().Is6() && p.Contains(v4.Addr().WithZone("")) {
		text += " AND NOT " + within(v4)
	}
	return "ifNull(" + text + ", false)"
}
