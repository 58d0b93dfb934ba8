package tosql

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Range limits the events that a query searches.
type Range struct {
	Tenant string // empty for all
	Since  Time   // excluded
	Until  Time   // included; the zero value is when the query runs
}

// Time is a point in time: At or, if that is zero, Ago before the query runs.
type Time struct {
	At  time.Time
	Ago time.Duration
}

// Query returns a query for ClickHouse, over the view events, that finds the same as a rule of a
// set without tenantwatch: the events that a detection matches, or the events at which a
// correlation's condition holds, with the group and the value. An error names the part of the rule
// that ClickHouse cannot evaluate. If the result may differ from a Matcher's for unusual events,
// the comment at the start of the query says so.
func Query(set *rules.Set, rule *rules.Rule, within Range) (string, error) {
	query := &builder{set: set, within: within, used: map[string]bool{}, names: map[string]bool{}}

	var body string
	var err error
	if rule.Correlation == nil {
		body, err = query.detection(rule)
	} else {
		body, err = query.correlation(rule)
	}
	if err != nil {
		return "", fmt.Errorf("%s:%d: %s: %w", rule.File, rule.Line, rule.Title, err)
	}
	return query.header(rule) + body, nil
}

// builder makes one query.
type builder struct {
	set    *rules.Set
	within Range
	used   map[string]bool // the helpers that it calls
	notes  map[difference]bool
	extra  []string        // notes of the correlations, in their order
	names  map[string]bool // of columns and subqueries
}

// difference is how the result of a query may differ from a Matcher's.
type difference int

const (
	noteJSON difference = iota
	noteCase
	noteZone
	noteDate
)

// noteTexts are the texts of the notes, in the order in which a query has them.
var noteTexts = [...]string{
	noteJSON: "Unlike tenantwatch, this query may misread JSON with a repeated name in one object, " +
		"a dot in a name, arrays more than three deep or half a surrogate pair; and it reads the number 1e2 as 100.",
	noteCase: "A few letters, such as the final sigma, have another lower case than in tenantwatch.",
	noteZone: "An address with a zone, such as fe80::1%eth0, is in no network.",
	noteDate: "The time of an event is its date, even if that is far from the time in its log_id.",
}

func (b *builder) note(n difference) {
	if b.notes == nil {
		b.notes = map[difference]bool{}
	}
	b.notes[n] = true
}

// header returns the comment at the start of the query.
func (b *builder) header(rule *rules.Rule) string {
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
	for i, text := range noteTexts {
		if b.notes[difference(i)] {
			lines = append(lines, text)
		}
	}
	lines = append(lines, b.extra...)

	// Not "--": a query that is given as an argument must not begin like a flag.
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(oneLine(line), "*/", "* /")
	}

	return "/* " + strings.Join(lines, "\n   ") + " */\n"
}

// oneLine returns a text on one line, without control characters.
func oneLine(text string) string {
	shown := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(shown), " ")
}

// detection returns the query for the events that a detection matches.
func (b *builder) detection(rule *rules.Rule) (string, error) {
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
		b.where("  ", b.within.Since) + "\n  AND " + where + "\nORDER BY date, log_id\n", nil
}

// where returns the conditions on every event: time and tenant.
func (b *builder) where(indent string, since Time) string {
	list := []string{"date > " + since.sql()}
	if b.within.Until != (Time{}) {
		list = append(list, "date <= "+b.within.Until.sql())
	}
	if b.within.Tenant != "" {
		list = append(list, "tenant = "+schema.Literal(b.within.Tenant))
	}
	return strings.Join(list, "\n"+indent+"AND ")
}

// before returns the time d earlier.
func (t Time) before(d time.Duration) Time {
	if t.At.IsZero() {
		return Time{Ago: t.Ago + d}
	}
	return Time{At: t.At.Add(-d)}
}

func (t Time) sql() string {
	switch {
	case !t.At.IsZero():
		return DateTime(t.At)
	case t.Ago == 0:
		return "now64(3, 'UTC')"
	}
	return "now64(3, 'UTC') - INTERVAL " + interval(t.Ago)
}

// interval formats a duration in the largest unit of which it is a whole number.
func interval(d time.Duration) string {
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
	number, unit, _ := strings.Cut(interval(d), " ")
	return number + strings.ToLower(unit[:1])
}

// columnName returns a name of a column, quoted if necessary.
func columnName(name string) string {
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
func (b *builder) named(prefix, text, suffix string) string {
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
