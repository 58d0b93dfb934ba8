package rules

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// SQLQuery limits the events that a query of SQL searches.
type SQLQuery struct {
	Tenant string  // empty for all
	Since  SQLTime // excluded
	Until  SQLTime // included; the zero value is when the query runs
}

// SQLTime is a point in time: At or, if that is zero, Ago before the query runs.
type SQLTime struct {
	At  time.Time
	Ago time.Duration
}

// SQL returns a query for ClickHouse, over the view events, that finds the same as a rule of the
// set without tenantwatch: the events that a detection matches, or the events at
// which a correlation's condition holds, with the group and the value. An error names the
// part of the rule that ClickHouse cannot evaluate. If the result may differ from
// a Matcher's for unusual events, the comment at the start of the query says so.
func (s *Set) SQL(rule *Rule, query SQLQuery) (string, error) {
	builder := &sqlBuilder{set: s, query: query, used: map[string]bool{}, names: map[string]bool{}}

	var body string
	var err error
	if rule.Correlation == nil {
		body, err = builder.detection(rule)
	} else {
		body, err = builder.correlation(rule)
	}
	if err != nil {
		return "", fmt.Errorf("%s:%d: %s: %w", rule.File, rule.Line, rule.Title, err)
	}
	return builder.header(rule) + body, nil
}

// sqlBuilder makes one query.
type sqlBuilder struct {
	set   *Set
	query SQLQuery
	used  map[string]bool // the sqlHelpers that it calls
	notes map[sqlNote]bool
	extra []string        // notes of the correlations, in their order
	names map[string]bool // of columns and subqueries
}

// sqlNote is a difference between the query and a Matcher.
type sqlNote int

const (
	noteJSON sqlNote = iota
	noteCase
	noteZone
	noteDate
)

// sqlNotes are the texts of the notes, in the order in which a query has them.
var sqlNotes = [...]string{
	noteJSON: "Unlike tenantwatch, this query may misread JSON with a repeated name in one object, " +
		"a dot in a name, arrays more than three deep or half a surrogate pair; and it reads the number 1e2 as 100.",
	noteCase: "A few letters, such as the final sigma, have another lower case than in tenantwatch.",
	noteZone: "An address with a zone, such as fe80::1%eth0, is in no network.",
	noteDate: "The time of an event is its date, even if that is far from the time in its log_id.",
}

func (b *sqlBuilder) note(n sqlNote) {
	if b.notes == nil {
		b.notes = map[sqlNote]bool{}
	}
	b.notes[n] = true
}

// header returns the comment at the start of the query.
func (b *sqlBuilder) header(rule *Rule) string {
	kind, rows := "detection", "The events that it matches."
	if corr := rule.Correlation; corr != nil {
		kind = corr.Type.Name()
		b.note(noteDate)
		rows = "Each event at which its condition holds, with the value in the " +
			sigmaSpan(corr.Timespan) + " up to it.\n" +
			"An alert fires at the first such event of a group, unless that was backfilled, and lasts."
	}

	lines := []string{fmt.Sprintf("%s (%s), %s, %s:%d", rule.Title, rule.ID, kind, rule.File, rule.Line)}
	lines = append(lines, strings.Split(rows, "\n")...)

	// List the differences that apply to this query.
	for i, text := range sqlNotes {
		if b.notes[sqlNote(i)] {
			lines = append(lines, text)
		}
	}
	lines = append(lines, b.extra...)

	// Not "--": a query that is given as an argument must not begin like a flag.
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(sqlComment(line), "*/", "* /")
	}

	return "/* " + strings.Join(lines, "\n   ") + " */\n"
}

// sqlComment returns a text on one line, without control characters.
func sqlComment(text string) string {
	shown := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(shown), " ")
}

// sqlHelpers are the functions that a query may define at its start, each after those that it
// calls. They are listed with a comment for the query.
var sqlHelpers = []struct{ name, about, text string }{
	{"unfold", "arrays stand for their members, three deep",
		"list -> arrayFold((l, _) -> arrayFlatten(arrayMap(v -> " +
			"if(startsWith(v, '['), JSONExtractArrayRaw(v), [v]), l)), [1, 2, 3], list)"},
	{"values_at", "the JSON at a path of an object, or of each object in an array",
		"(json, path) -> arrayFold((found, step) -> arrayFilter(v -> v != '', " +
			"arrayMap(v -> JSONExtractRaw(v, step), unfold(found))), path, [json])"},
	{"scalars", "the texts of strings, numbers and booleans",
		`list -> arrayMap(v -> if(startsWith(v, '"'), JSONExtractString(v), v), ` +
			`arrayFilter(v -> v NOT IN ('', 'null') AND left(v, 1) NOT IN ('{', '['), list))`},
	{"texts", "",
		"(json, path) -> scalars(unfold(values_at(json, path)))"},
	{"member", "a value that is not text, such as a number, is not in the column but elsewhere",
		"(column, elsewhere, name) -> if(column = '', texts(elsewhere, [name]), [toString(column)])"},
	{"present", "any value, including null",
		"(json, path) -> notEmpty(values_at(json, path))"},
	{"missing", "no value, or null",
		"(json, path) -> empty(values_at(json, path)) OR has(unfold(values_at(json, path)), 'null')"},
	{"everywhere", "the texts of all strings, numbers and booleans at any depth, without keys",
		`json -> arrayMap(v -> if(startsWith(v, '"'), JSONExtractString(v), v), ` +
			`arrayFilter(v -> NOT endsWith(v, ':') AND left(v, 1) != 'n',` + "\n" +
			`    extractAll(json, '"(?:[^"\\\\]|\\\\.)*"\\s*:?|[^\\s{}\\[\\],:"]+')))`},
	{"number", "nan for a text that is not a number: it is neither equal, greater nor less",
		`x -> if(match(x, '^-?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$') ` +
			`AND isFinite(toFloat64OrZero(x)), toFloat64OrZero(x), nan)`},
	{"amount", "",
		`x -> if(match(x, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$') ` +
			`AND isFinite(toFloat64OrZero(x)), toFloat64OrZero(x), nan)`},
	{"same_number", "whole numbers by their digits, others by their value",
		`(x, n) -> x = n OR number(x) = toFloat64(n) AND NOT (match(x, '^-?[0-9]+$') AND match(n, '^-?[0-9]+$'))`},
	{"order", "the sign of a number minus a large whole number; nan for a text that is not a number",
		`(x, n) -> if(match(x, '^-?[0-9]{1,76}$'), toFloat64(multiIf(` +
			`toInt256OrZero(x) = toInt256OrZero(n), 0, toInt256OrZero(x) < toInt256OrZero(n), -1, 1)), ` +
			`number(x) - toFloat64(n))`},
	{"time_of", "",
		`x -> if(match(x, '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?` +
			`(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$'), parseDateTime64BestEffortOrNull(x, 3, 'UTC'), NULL)`},
}

// sqlHelpersOf lists the helpers that a helper calls itself.
var sqlHelpersOf = map[string][]string{
	"values_at": {"unfold"}, "texts": {"scalars", "values_at"}, "member": {"texts"}, "present": {"values_at"},
	"missing": {"values_at"}, "same_number": {"number"}, "order": {"number"},
}

// use adds a helper to the query, with those that it calls, and returns its name.
func (b *sqlBuilder) use(name string) string {
	if b.used[name] {
		return name
	}

	b.used[name] = true

	// A helper also needs the helpers that it calls.
	for _, other := range sqlHelpersOf[name] {
		b.use(other)
	}

	if name == "unfold" || name == "everywhere" {
		b.note(noteJSON)
	}
	return name
}

// with returns the start of a query, up to its SELECT: the helpers and subqueries.
func (b *sqlBuilder) with(subqueries ...string) string {
	var parts []string

	// Define the helpers in an order in which each follows those that it calls.
	for _, helper := range sqlHelpers {
		if !b.used[helper.name] {
			continue
		}
		about := ""
		if helper.about != "" {
			about = "  -- " + helper.about + "\n"
		}
		parts = append(parts, about+"  "+helper.text+" AS "+helper.name)
	}

	parts = append(parts, subqueries...)
	if len(parts) == 0 {
		return ""
	}
	return "WITH\n" + strings.Join(parts, ",\n") + "\n"
}

// detection returns the query for the events that a detection matches.
func (b *sqlBuilder) detection(rule *Rule) (string, error) {
	indent := "  "
	isOr := rule.Match.Op == expr.OpOr
	if isOr {
		indent += "  "
	}

	where, err := b.condition(rule.Match, indent)
	if err != nil {
		return "", err
	}
	if isOr {
		where = "(" + where + ")"
	}

	return b.with() + "SELECT date, log_id, tenant, type, description, ip, user_id, user_name\nFROM events\nWHERE " +
		b.where("  ", b.query.Since) + "\n  AND " + where + "\nORDER BY date, log_id\n", nil
}

// where returns the conditions on every event: time and tenant.
func (b *sqlBuilder) where(indent string, since SQLTime) string {
	list := []string{"date > " + since.sql()}
	if b.query.Until != (SQLTime{}) {
		list = append(list, "date <= "+b.query.Until.sql())
	}
	if b.query.Tenant != "" {
		list = append(list, "tenant = "+schema.Literal(b.query.Tenant))
	}
	return strings.Join(list, "\n"+indent+"AND ")
}

// before returns the time d earlier.
func (t SQLTime) before(d time.Duration) SQLTime {
	if t.At.IsZero() {
		return SQLTime{Ago: t.Ago + d}
	}
	return SQLTime{At: t.At.Add(-d)}
}

func (t SQLTime) sql() string {
	switch {
	case !t.At.IsZero():
		return "toDateTime64('" + t.At.UTC().Format("2006-01-02 15:04:05.000") + "', 3, 'UTC')"
	case t.Ago == 0:
		return "now64(3, 'UTC')"
	}
	return "now64(3, 'UTC') - INTERVAL " + sqlSpan(t.Ago)
}

// sqlSpan formats a duration in the largest unit of which it is a whole number.
func sqlSpan(d time.Duration) string {
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"DAY", 24 * time.Hour}, {"HOUR", time.Hour}, {"MINUTE", time.Minute}, {"SECOND", time.Second}} {
		if d >= unit.length && d%unit.length == 0 {
			return fmt.Sprintf("%d %s", d/unit.length, unit.name)
		}
	}
	return fmt.Sprintf("%d MILLISECOND", d.Milliseconds())
}

// sigmaSpan formats a duration as in a rule.
func sigmaSpan(d time.Duration) string {
	number, unit, _ := strings.Cut(sqlSpan(d), " ")
	return number + strings.ToLower(unit[:1])
}

// sqlName returns a name of a column, quoted if necessary.
func sqlName(name string) string {
	special := func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}
	startsWithDigit := name != "" && name[0] >= '0' && name[0] <= '9'
	if name != "" && !strings.ContainsFunc(name, special) && !startsWithDigit {
		return name
	}
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// maxName is the length at which a name made from a title is cut.
const maxName = 40

// named makes a unique name from a text.
func (b *sqlBuilder) named(prefix, text, suffix string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case out.Len() >= maxName:
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_':
			out.WriteRune(r)
		case !strings.HasSuffix(out.String(), "_"):
			out.WriteByte('_')
		}
	}

	// Append a number if the name is in use.
	base := prefix + strings.Trim(out.String(), "_") + suffix
	name := base
	for n := 2; b.names[name]; n++ {
		name = fmt.Sprintf("%s_%d", base, n)
	}

	b.names[name] = true
	return name
}
