package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Query selects the events that some rules may need.
type Query struct {
	Set    *rules.Set
	Tenant string    // empty for all
	Since  time.Time // in event time, excluded
	Until  time.Time // included
	// Groups leaves out groups that have too few events to satisfy the condition, if
	// the set has one rule and ClickHouse can tell its groups apart.
	Groups bool
	// NewSince is the insertion time after which events are new. Events that an earlier
	// run has seen come first, and only groups with new events are selected. Zero if
	// all events are new.
	NewSince time.Time
	// Columns says that all members that the rules read are in columns, so that rest
	// need not be read.
	Columns bool
	// Open are the groups that are selected regardless of Groups, since they have an
	// open alert. Each is the tenant followed by the values of the group.
	Open [][]string
}

// largeBlocks makes ClickHouse read in large blocks in the order of the table. Its
// default blocks are so small there that passing them on costs more than a sort.
const largeBlocks = "SETTINGS max_block_size = 262144, preferred_block_size_bytes = 8388608"

// maxNeedles bounds the texts that are searched for at once. ClickHouse accepts 255.
const maxNeedles = 200

// SQL returns the query over the table events_stored. Its columns are tenant, date in
// milliseconds, log_id, fetched_at, source, new, and the event as JSON with the
// members that the rules read. fetched_at and source are set only with NewSince.
//
// Rows come old before new, by tenant, date and log_id. An event that is stored twice
// comes twice, one after the other. The rows include every event that a rule matches,
// and others.
func (q *Query) SQL() string {
	where := q.where()

	// A backtest needs neither these columns nor a sort: it reads in the table's order.
	origin, order := "toInt64(0), '', true", "tenant, date, log_id\n"+largeBlocks
	if !q.NewSince.IsZero() {
		origin = "toUnixTimestamp64Milli(fetched_at), source, inserted_at > " + timeLiteral(q.NewSince)
		order = "new, tenant, date, log_id"
	}

	groups := ""
	if q.Groups {
		if k, ok := keyOf(q.Set); ok {
			groups = "\n  AND " + q.inGroups(k, where)
		}
	}
	return "SELECT tenant, toUnixTimestamp64Milli(date), log_id, " + origin + " AS new,\n" +
		"  " + q.json() + "\n" +
		"FROM events_stored\nWHERE " + where + groups + "\n" +
		"ORDER BY " + order
}

// where returns the condition on a single event.
func (q *Query) where() string {
	list := []string{"date > " + timeLiteral(q.Since), "date <= " + timeLiteral(q.Until)}
	if q.Tenant != "" {
		list = append([]string{"tenant = " + schema.Literal(q.Tenant)}, list...)
	}
	list = append(list, typesSQL(q.Set.Types()))
	if needles := q.Set.Needles("details"); needles != nil && len(needles) <= maxNeedles {
		list = append(list, detailsSQL(needles))
	}
	return strings.Join(list, " AND ")
}

// detailsSQL returns a condition that holds for every event that has one of some texts
// in its details, in any case. Details that are escaped, not ASCII or stored in rest
// also satisfy it.
func detailsSQL(needles []string) string {
	var quoted []string
	for _, needle := range needles {
		quoted = append(quoted, schema.Literal(needle))
	}
	return "(multiSearchAnyCaseInsensitive(details, [" + strings.Join(quoted, ", ") + "])" +
		" OR position(details, '\\\\') > 0 OR length(details) != lengthUTF8(details)" +
		" OR " + restSQL([]string{"details"}) + ")"
}

func timeLiteral(t time.Time) string {
	return fmt.Sprintf("fromUnixTimestamp64Milli(%d, 'UTC')", t.UnixMilli())
}

// typesSQL returns a condition that holds for every event with one of some types,
// which rules compare in any case. Types that are not text or not ASCII also satisfy
// it.
func typesSQL(types []string) string {
	if types == nil {
		return "true"
	}

	var plain []string
	list := []string{"type = ''", "match(type, '[^\\\\x00-\\\\x7F]')"}
	for _, name := range types {
		if strings.ContainsAny(name, "*?") {
			list = append(list, "lower(type) LIKE "+schema.Like(name))
		} else {
			plain = append(plain, schema.Literal(name))
		}
	}
	if len(plain) > 0 {
		list = append([]string{"lower(type) IN (" + strings.Join(plain, ", ") + ")"}, list...)
	}
	return "(" + strings.Join(list, " OR ") + ")"
}

// json returns an expression that rebuilds the event with the members that the rules
// read. A member that is not in its column is in rest.
func (q *Query) json() string {
	names, all := q.Set.Members()
	var parts []string

	for bit, column := range schema.Columns {
		if !all && !slices.Contains(names, column.Name) {
			continue
		}
		parts = append(parts, fmt.Sprintf("if(bitTest(members, %d), concat(',\"%s\":', toJSONString(%s)), '')",
			bit, column.Name, column.SQL()))
	}

	if all || slices.Contains(names, "details") {
		present := "details != '' AND " + typesSQL(q.Set.TypesReading("details"))
		parts = append(parts, "if("+present+", concat(',\"details\":', details), '')")
	}
	if !q.Columns {
		present := "rest != ''"
		if !all {
			present += " AND " + restSQL(names)
		}
		parts = append(parts, "if("+present+", concat(',', substring(rest, 2, length(rest) - 2)), '')")
	}

	// concat takes two arguments at least.
	parts = append(parts, "''", "''")
	return "concat('{', substring(concat(\n    " + strings.Join(parts, ",\n    ") + "), 2), '}')"
}

// restSQL returns a condition that holds for every event with one of some members in
// rest: rest contains the name, or an escape that may spell it.
func restSQL(names []string) string {
	list := []string{"position(rest, '\\\\') > 0"}
	for _, name := range names {
		list = append(list, "position(rest, "+schema.Literal(name)+") > 0")
	}
	return "(" + strings.Join(list, " OR ") + ")"
}

// countOutsideColumns returns a query that counts events with a member that the rules
// read and that may be in rest, since it is not text. It is empty if rest must be read
// regardless.
func (q *Query) countOutsideColumns() string {
	// all says that some rule searches the whole event.
	names, all := q.Set.Members()
	mask := uint32(0)
	var inRest []string
	for _, name := range names {
		place := tosql.Locate(name)
		if !place.Own() || all {
			return ""
		}
		mask |= 1 << place.Bit
		inRest = append(inRest, place.Elsewhere())
	}

	// PREWHERE, so that rest, which is large, is read only for events that lack a column.
	return fmt.Sprintf("SELECT count() FROM events_stored PREWHERE %s AND bitAnd(members, %d) != %d WHERE %s",
		q.where(), mask, mask, strings.Join(inRest, " OR "))
}
