package history

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Query asks for the events that some rules may be about.
type Query struct {
	Set    *rules.Set
	Tenant string    // empty for all
	Since  time.Time // in event time, excluded
	Until  time.Time // included
	// Groups leaves out the groups that cannot come to what a rule asks for, where
	// the set has one rule and that is easily told.
	Groups bool
	// NewSince is, in time of insertion, what tells new events from those that an
	// earlier run has seen: these come first, and only groups with new ones do. Zero
	// where all are new.
	NewSince time.Time
	// Columns says that all which the rules look at is in columns of its own.
	Columns bool
	// Open are the values of groups that come in any case, by tenant: those with an
	// open alert.
	Open [][]string
}

// inOrder has ClickHouse read in large pieces where it reads in the table's order:
// by itself it then takes so small ones that handing them over costs more than a sort.
const inOrder = "SETTINGS max_block_size = 262144, preferred_block_size_bytes = 8388608"

// SQL is the query over the table events_stored. Its rows are tenant, date in
// milliseconds, log_id, fetched_at and source where NewSince asks which are new,
// whether it is, and the event as JSON with what the rules look at. They come old
// before new, by tenant, date and log_id; one that is stored twice comes twice, one
// after the other. Every event that a rule matches is among them, and others.
func (q *Query) SQL() string {
	where := q.where()
	// A backtest has no use for what columns cost to read, nor for sorting: its order
	// is the table's.
	how, order := "toInt64(0), '', true", "tenant, date, log_id\n"+inOrder
	if !q.NewSince.IsZero() {
		how = "toUnixTimestamp64Milli(fetched_at), source, inserted_at > " + timeLiteral(q.NewSince)
		order = "new, tenant, date, log_id"
	}
	groups := ""
	if q.Groups {
		if k, ok := keyOf(q.Set); ok {
			groups = "\n  AND " + q.keep(k, where)
		}
	}
	return "SELECT tenant, toUnixTimestamp64Milli(date), log_id, " + how + " AS new,\n" +
		"  " + q.json() + "\n" +
		"FROM events_stored\nWHERE " + where + groups + "\n" +
		"ORDER BY " + order
}

// where is what is known of the events without a look at their groups.
func (q *Query) where() string {
	list := []string{"date > " + timeLiteral(q.Since), "date <= " + timeLiteral(q.Until)}
	if q.Tenant != "" {
		list = append([]string{"tenant = " + schema.Literal(q.Tenant)}, list...)
	}
	list = append(list, typesSQL(q.Set.Types()))
	if needles := q.Set.Needles("details"); needles != nil && len(needles) <= mostNeedles {
		list = append(list, detailsSQL(needles))
	}
	return strings.Join(list, " AND ")
}

// mostNeedles is how many texts are searched for at once, of which ClickHouse takes
// 255.
const mostNeedles = 200

// detailsSQL is a condition that holds for every event with one of some texts in its
// details, in whatever case and wherever these are.
func detailsSQL(needles []string) string {
	var quoted []string
	for _, needle := range needles {
		quoted = append(quoted, schema.Literal(needle))
	}
	return "(multiSearchAnyCaseInsensitive(details, [" + strings.Join(quoted, ", ") + "])" +
		" OR position(details, '\\\\') > 0 OR length(details) != lengthUTF8(details) OR " + restSQL([]string{"details"}) + ")"
}

func timeLiteral(t time.Time) string {
	return fmt.Sprintf("fromUnixTimestamp64Milli(%d, 'UTC')", t.UnixMilli())
}

// typesSQL is a condition that holds for every event whose type is one of some, as
// rules compare it: without regard to case. Types that are no text, and those that
// have more than ASCII, are left to the rules.
func typesSQL(types []string) string {
	if types == nil {
		return "true"
	}
	var plain []string
	any := []string{"type = ''", "match(type, '[^\\\\x00-\\\\x7F]')"}
	for _, name := range types {
		if strings.ContainsAny(name, "*?") {
			any = append(any, "lower(type) LIKE "+schema.Like(name))
		} else {
			plain = append(plain, schema.Literal(name))
		}
	}
	if len(plain) > 0 {
		any = append([]string{"lower(type) IN (" + strings.Join(plain, ", ") + ")"}, any...)
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// json rebuilds of an event what the rules look at. What is not in a column is in
// rest.
func (q *Query) json() string {
	names, all := q.Set.Members()
	var parts []string
	for i, column := range schema.TextColumns {
		if !all && !slices.Contains(names, column) {
			continue
		}
		value := "toJSONString(toString(" + column + "))"
		switch column {
		case "_id":
			value = "toJSONString(log_id)"
		case "date":
			value = "concat('\"', replaceOne(toString(date), ' ', 'T'), 'Z\"')"
		}
		parts = append(parts, fmt.Sprintf("if(bitTest(members, %d), concat(',\"%s\":', %s), '')", i, column, value))
	}
	if all || slices.Contains(names, "details") {
		parts = append(parts, "if(details != '' AND "+typesSQL(q.Set.TypesReading("details"))+", concat(',\"details\":', details), '')")
	}
	if !q.Columns {
		wanted := "rest != ''"
		if !all {
			wanted += " AND " + restSQL(names)
		}
		parts = append(parts, "if("+wanted+", concat(',', substring(rest, 2, length(rest) - 2)), '')")
	}
	parts = append(parts, "''", "''") // concat wants two
	return "concat('{', substring(concat(\n    " + strings.Join(parts, ",\n    ") + "), 2), '}')"
}

// restSQL is a condition that holds for every event of which rest has one of some
// members: where a name stands in it, or something that may be one.
func restSQL(names []string) string {
	list := []string{"position(rest, '\\\\') > 0"}
	for _, name := range names {
		list = append(list, "position(rest, "+schema.Literal(name)+") > 0")
	}
	return "(" + strings.Join(list, " OR ") + ")"
}

// elsewhere asks how many events there are of which a column may not say all that a
// member has, for what is not text is in rest. It is empty where that is to be read
// in any case.
func (q *Query) elsewhere() string {
	names, all := q.Set.Members()
	mask := uint32(0)
	var there []string
	for _, name := range names {
		i := slices.Index(schema.TextColumns[:], name)
		if i < 0 || all {
			return ""
		}
		mask |= 1 << i
		there = append(there, "position(rest, "+schema.Literal(name+`"`)+") > 0")
	}
	// So that rest, which is large, is only read where need be.
	return fmt.Sprintf("SELECT count() FROM events_stored PREWHERE %s AND bitAnd(members, %d) != %d WHERE %s", q.where(), mask, mask, strings.Join(there, " OR "))
}

// key is how ClickHouse can tell the groups of a rule apart.
type key struct {
	columns []string      // an expression for each field of the group
	unclear []string      // of events for which one of them may not say what the field has
	least   int           // events that its window has at least when it holds
	span    time.Duration // of the window
}

// keyOf is the key of a set with one rule, where that is a correlation that counts
// detections only, all by the same fields.
func keyOf(set *rules.Set) (k key, ok bool) {
	list := set.Rules()
	r := list[len(list)-1] // what it counts comes before it
	c := r.Correlation
	if c == nil || r.Alert == nil || len(c.Among) > 0 {
		return k, false
	}
	for _, s := range c.Sources {
		if set.Rules()[s.Rule].Correlation != nil || !slices.Equal(s.GroupBy, c.Sources[0].GroupBy) {
			return k, false
		}
	}
	k.least, k.span = leastEvents(c), c.Timespan
	for _, f := range c.Sources[0].GroupBy {
		// In a column is what is text, nearly always. What stands elsewhere has its
		// name there.
		if i := slices.Index(schema.TextColumns[:], f.Path); i >= 0 {
			k.columns = append(k.columns, "toString("+f.Path+")")
			k.unclear = append(k.unclear, fmt.Sprintf("NOT bitTest(members, %d) AND position(rest, %s) > 0", i, schema.Literal(f.Path+`"`)))
			continue
		}
		column, path := "rest", strings.Split(f.Path, ".")
		if path[0] == "details" && len(path) > 1 {
			column, path = "details", path[1:]
			k.unclear = append(k.unclear, "position(rest, 'details') > 0")
		}
		expr := "JSONExtractString(" + column
		for _, step := range path {
			expr += ", " + schema.Literal(step)
		}
		expr += ")"
		k.columns = append(k.columns, expr)
		k.unclear = append(k.unclear, expr+" = '' AND position("+column+", "+schema.Literal(path[len(path)-1])+") > 0")
	}
	return k, true
}

// leastEvents is how many events at least are in a window for which a condition
// holds.
func leastEvents(c *rules.Correlation) int {
	if c.Type == rules.Temporal || c.Type == rules.TemporalOrdered {
		if c.Need != nil {
			return 1
		}
		if c.Type == rules.Temporal { // one event may be of all rules
			return 1
		}
	} else if c.Type != rules.EventCount && c.Type != rules.ValueCount {
		return 1
	}
	for n := range 1 << 20 {
		if n > 0 && c.Holds(float64(n)) {
			return n
		}
	}
	return math.MaxInt32
}

// unclear asks how many events there are whose group ClickHouse cannot tell for sure.
// It is empty where groups are not asked for, or cannot be told at all.
func (q *Query) unclear() string {
	k, ok := keyOf(q.Set)
	if !q.Groups || !ok {
		return ""
	}
	return "SELECT count() FROM events_stored WHERE " + q.where() + " AND (" + strings.Join(append(k.unclear, "false"), " OR ") + ")"
}

// keep is the condition that an event's group is of interest. A window of a span
// lies in two neighbouring stretches of that length, so a group whose events in no
// two of them are enough is not.
func (q *Query) keep(k key, where string) string {
	columns := append([]string{"toString(tenant)"}, k.columns...)
	tuple := "(" + strings.Join(columns, ", ") + ")"
	var names, named []string
	for i, column := range columns {
		names = append(names, fmt.Sprintf("k%d", i))
		named = append(named, column+" AS "+names[i])
	}
	by := strings.Join(names, ", ")
	newest := ""
	if !q.NewSince.IsZero() {
		newest = " AND max(newest) > " + timeLiteral(q.NewSince)
	}
	inner := fmt.Sprintf("SELECT %s, arrayJoin([0, 1]) + intDiv(toUnixTimestamp64Milli(date), %d) AS stretch, count() AS n, max(inserted_at) AS newest\n    FROM events_stored WHERE %s GROUP BY %s, stretch",
		strings.Join(named, ", "), max(k.span.Milliseconds(), 1), where, by)
	keep := fmt.Sprintf("%s IN (SELECT %s FROM (%s)\n    GROUP BY %s HAVING max(n) >= %d%s)", tuple, by, inner, by, k.least, newest)
	if len(q.Open) > 0 {
		var list []string
		for _, values := range q.Open {
			quoted := make([]string, len(values))
			for i, v := range values {
				quoted[i] = schema.Literal(v)
			}
			list = append(list, "("+strings.Join(quoted, ", ")+")")
		}
		keep = "(" + keep + "\n    OR " + tuple + " IN (" + strings.Join(list, ", ") + "))"
	}
	return keep
}
