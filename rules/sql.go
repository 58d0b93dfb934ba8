package rules

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tenantwatch/tenantwatch/schema"
)

// SQLQuery says of which events SQL is to ask.
type SQLQuery struct {
	Tenant string  // empty for all
	Since  SQLTime // excluded
	Until  SQLTime // included; the zero value is when the query runs
}

// SQLTime is a time, or where that is zero, so long before the query runs.
type SQLTime struct {
	At  time.Time
	Ago time.Duration
}

// SQL is a query for ClickHouse, over the view events, that finds what a rule of the
// set finds, without tenantwatch: the events that a detection matches, or those at
// which a correlation's condition holds, with each group and the value then. An
// error says what of the rule ClickHouse cannot do; where the answer may differ from
// a Matcher's for events that Auth0 hardly sends, the query says so in its first lines.
func (s *Set) SQL(r *Rule, q SQLQuery) (string, error) {
	b := &sqlBuilder{set: s, query: q, used: map[string]bool{}, names: map[string]bool{}}
	var body string
	var err error
	if r.Correlation == nil {
		body, err = b.detection(r)
	} else {
		body, err = b.correlation(r)
	}
	if err != nil {
		return "", fmt.Errorf("%s:%d: %s: %w", r.File, r.Line, r.Title, err)
	}
	return b.header(r) + body, nil
}

// sqlBuilder makes one query.
type sqlBuilder struct {
	set   *Set
	query SQLQuery
	used  map[string]bool // of sqlHelpers
	notes map[sqlNote]bool
	names map[string]bool // of columns and subqueries that are taken
}

// sqlNote is something that the query does not see as a Matcher does.
type sqlNote int

const (
	noteJSON sqlNote = iota
	noteCase
	noteZone
	noteSum
	noteDate
	noteSpike
)

// sqlNotes are in the order of their constants.
var sqlNotes = [...]string{
	noteJSON:  "Read otherwise than by tenantwatch: JSON with a name twice in one object, with a dot in a name, with arrays more than three deep or with half a surrogate pair; and how numbers are spelled, 1e2 being 100.",
	noteCase:  "Few letters, such as the final sigma, have another lower case than with tenantwatch.",
	noteZone:  "An address with a zone, such as fe80::1%eth0, is in no network.",
	noteSum:   "Sums of fractions may differ in their last digit.",
	noteSpike: "A group of which nothing has come for longer than is looked back is taken for a new one.",
	noteDate:  "An event is taken at its date, also where that is far from the time in its log_id.",
}

func (b *sqlBuilder) note(n sqlNote) {
	if b.notes == nil {
		b.notes = map[sqlNote]bool{}
	}
	b.notes[n] = true
}

// header is what the query says of itself.
func (b *sqlBuilder) header(r *Rule) string {
	kind, rows := "detection", "The events that it matches."
	if c := r.Correlation; c != nil {
		kind = c.Type
		b.note(noteDate)
		rows = "Each event at which its condition holds, with the value in the " + sigmaSpan(c.Timespan) + " up to it.\nAn alert begins at the first such event of a group, unless that was backfilled, and lasts."
	}
	lines := []string{fmt.Sprintf("%s (%s), %s, %s:%d", r.Title, r.ID, kind, r.File, r.Line)}
	lines = append(lines, strings.Split(rows, "\n")...)
	for i, text := range sqlNotes {
		if b.notes[sqlNote(i)] {
			lines = append(lines, text)
		}
	}
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(sqlComment(line), "*/", "* /")
	}
	return "/* " + strings.Join(lines, "\n   ") + " */\n" // a command would take -- for a flag
}

// sqlComment is text for one line.
func sqlComment(text string) string {
	shown := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(shown), " ")
}

// sqlHelpers are the functions that a query may begin with, each after those that it
// calls.
var sqlHelpers = []struct{ name, about, text string }{
	{"unfold", "arrays stand for their members, three deep",
		"list -> arrayFold((l, _) -> arrayFlatten(arrayMap(v -> if(startsWith(v, '['), JSONExtractArrayRaw(v), [v]), l)), [1, 2, 3], list)"},
	{"values_at", "what stands at a path of an object, or of each in an array, as JSON",
		"(json, path) -> arrayFold((found, step) -> arrayFilter(v -> v != '', arrayMap(v -> JSONExtractRaw(v, step), unfold(found))), path, [json])"},
	{"scalars", "the texts of strings, numbers and booleans",
		`list -> arrayMap(v -> if(startsWith(v, '"'), JSONExtractString(v), v), arrayFilter(v -> v NOT IN ('', 'null') AND left(v, 1) NOT IN ('{', '['), list))`},
	{"texts", "",
		"(json, path) -> scalars(unfold(values_at(json, path)))"},
	{"member", "what has no column of its own, such as a number, is elsewhere",
		"(column, elsewhere, name) -> if(column = '', texts(elsewhere, [name]), [toString(column)])"},
	{"present", "anything, also null",
		"(json, path) -> notEmpty(values_at(json, path))"},
	{"missing", "nothing, or null",
		"(json, path) -> empty(values_at(json, path)) OR has(unfold(values_at(json, path)), 'null')"},
	{"everywhere", "the texts of all strings, numbers and booleans at any depth; keys are no values",
		`json -> arrayMap(v -> if(startsWith(v, '"'), JSONExtractString(v), v), arrayFilter(v -> NOT endsWith(v, ':') AND left(v, 1) != 'n',` + "\n" +
			`    extractAll(json, '"(?:[^"\\\\]|\\\\.)*"\\s*:?|[^\\s{}\\[\\],:"]+')))`},
	{"number", "not a number, nan, is neither equal, more nor less",
		`x -> if(match(x, '^-?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$') AND isFinite(toFloat64OrZero(x)), toFloat64OrZero(x), nan)`},
	{"amount", "",
		`x -> if(match(x, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$') AND isFinite(toFloat64OrZero(x)), toFloat64OrZero(x), nan)`},
	{"same_number", "whole ones by their digits, others by their value",
		`(x, n) -> x = n OR number(x) = toFloat64(n) AND NOT (match(x, '^-?[0-9]+$') AND match(n, '^-?[0-9]+$'))`},
	{"order", "of a number to a whole one that is large; nan for none",
		`(x, n) -> if(match(x, '^-?[0-9]{1,76}$'), toFloat64(multiIf(toInt256OrZero(x) = toInt256OrZero(n), 0, toInt256OrZero(x) < toInt256OrZero(n), -1, 1)), number(x) - toFloat64(n))`},
	{"time_of", "",
		`x -> if(match(x, '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$'), parseDateTime64BestEffortOrNull(x, 3, 'UTC'), NULL)`},
}

// sqlHelpersOf are the helpers that one calls itself.
var sqlHelpersOf = map[string][]string{
	"values_at": {"unfold"}, "texts": {"scalars", "values_at"}, "member": {"texts"}, "present": {"values_at"},
	"missing": {"values_at"}, "same_number": {"number"}, "order": {"number"},
}

// use notes that a helper is called, and returns its name.
func (b *sqlBuilder) use(name string) string {
	if b.used[name] {
		return name
	}
	b.used[name] = true
	for _, other := range sqlHelpersOf[name] {
		b.use(other)
	}
	if name == "unfold" || name == "everywhere" {
		b.note(noteJSON)
	}
	return name
}

// with is the beginning of a query, up to its SELECT.
func (b *sqlBuilder) with(subqueries ...string) string {
	var parts []string
	for _, h := range sqlHelpers {
		if !b.used[h.name] {
			continue
		}
		about := ""
		if h.about != "" {
			about = "  -- " + h.about + "\n"
		}
		parts = append(parts, about+"  "+h.text+" AS "+h.name)
	}
	parts = append(parts, subqueries...)
	if len(parts) == 0 {
		return ""
	}
	return "WITH\n" + strings.Join(parts, ",\n") + "\n"
}

// detection asks for the events that a detection matches.
func (b *sqlBuilder) detection(r *Rule) (string, error) {
	indent := "  "
	_, isOr := r.match.(or)
	if isOr {
		indent += "  "
	}
	where, err := b.condition(r.match, indent)
	if err != nil {
		return "", err
	}
	if isOr {
		where = "(" + where + ")"
	}
	return b.with() + "SELECT date, log_id, tenant, type, description, ip, user_id, user_name\nFROM events\nWHERE " +
		b.where("  ", b.query.Since) + "\n  AND " + where + "\nORDER BY date, log_id\n", nil
}

// where is what is asked of every event.
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

// before is a time that is earlier by so much.
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

// sqlSpan is a duration in the largest unit that it is a whole number of.
func sqlSpan(d time.Duration) string {
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"DAY", 24 * time.Hour}, {"HOUR", time.Hour}, {"MINUTE", time.Minute}, {"SECOND", time.Second}} {
		if d >= unit.of && d%unit.of == 0 {
			return fmt.Sprintf("%d %s", d/unit.of, unit.name)
		}
	}
	return fmt.Sprintf("%d MILLISECOND", d.Milliseconds())
}

// sigmaSpan is a duration as a rule has it.
func sigmaSpan(d time.Duration) string {
	n, unit, _ := strings.Cut(sqlSpan(d), " ")
	return n + strings.ToLower(unit[:1])
}

// sqlName is a name of a column, in quotes where it needs them.
func sqlName(name string) string {
	plain := name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) && (name[0] < '0' || name[0] > '9')
	if plain {
		return name
	}
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// longestName is the length from which on a name made of a title is cut.
const longestName = 40

// named makes a name of a text that is nobody else's.
func (b *sqlBuilder) named(prefix, text, suffix string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case out.Len() >= longestName:
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_':
			out.WriteRune(r)
		case !strings.HasSuffix(out.String(), "_"):
			out.WriteByte('_')
		}
	}
	base := prefix + strings.Trim(out.String(), "_") + suffix
	name := base
	for n := 2; b.names[name]; n++ {
		name = fmt.Sprintf("%s_%d", base, n)
	}
	b.names[name] = true
	return name
}

func sqlFloat(f float64) string {
	if math.IsInf(f, 0) {
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// sqlOps are the comparisons.
var sqlOps = map[string]string{"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=", "neq": "!=", "": "="}
