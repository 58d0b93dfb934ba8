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

// key is how ClickHouse tells the groups of a rule apart.
type key struct {
	columns []string      // an expression for each field of the group
	unclear []string      // conditions under which an expression may not equal the field
	least   int           // fewest events of a window in which the condition holds
	span    time.Duration // of the window
}

// keyOf returns the key of a set with one alerting rule, if that is a correlation that
// counts only detections, all by the same fields.
func keyOf(set *rules.Set) (k key, ok bool) {
	list := set.Rules()
	// After those that it counts.
	rule := list[len(list)-1]
	correlation := rule.Correlation
	if correlation == nil || rule.Alert == nil || len(correlation.Among) > 0 {
		return k, false
	}
	groupBy := correlation.Sources[0].GroupBy
	for _, source := range correlation.Sources {
		if list[source.Rule].Correlation != nil || !slices.Equal(source.GroupBy, groupBy) {
			return k, false
		}
	}

	k.least, k.span = correlation.LeastEvents(), correlation.Timespan
	for _, field := range groupBy {
		k.add(field.Path)
	}
	return k, true
}

// add adds a field to the key.
func (k *key) add(path string) {
	place := tosql.Locate(path)
	k.columns = append(k.columns, place.Text)

	// A column has the value if it is text. Otherwise rest has the member's name.
	if place.Own() {
		k.unclear = append(k.unclear, fmt.Sprintf("NOT bitTest(members, %d) AND %s", place.Bit, place.Elsewhere()))
		return
	}

	// An empty result may be an absent member, or one that is not text.
	if place.Column == "details" {
		k.unclear = append(k.unclear, "position(rest, 'details') > 0")
	}
	last := schema.Literal(place.Steps[len(place.Steps)-1])
	k.unclear = append(k.unclear, place.Text+" = '' AND position("+place.Column+", "+last+") > 0")
}

// countUnclear returns a query that counts events whose group ClickHouse cannot tell
// for certain. It is empty if Groups is unset or cannot be used.
func (q *Query) countUnclear() string {
	k, ok := keyOf(q.Set)
	if !q.Groups || !ok {
		return ""
	}
	unclear := append(k.unclear, "false")
	return "SELECT count() FROM events_stored WHERE " + q.where() + " AND (" + strings.Join(unclear, " OR ") + ")"
}

// inGroups returns the condition that the event's group may satisfy the rule.
func (q *Query) inGroups(k key, where string) string {
	columns := append([]string{"toString(tenant)"}, k.columns...)
	tuple := "(" + strings.Join(columns, ", ") + ")"
	var names, named []string
	for i, column := range columns {
		names = append(names, fmt.Sprintf("k%d", i))
		named = append(named, column+" AS "+names[i])
	}
	by := strings.Join(names, ", ")

	// Cut time into stretches of the window's length. A window lies in two neighboring
	// ones, so each event counts in its own stretch and in the next.
	inner := fmt.Sprintf("SELECT %s, arrayJoin([0, 1]) + intDiv(toUnixTimestamp64Milli(date), %d) AS stretch, "+
		"count() AS n, max(inserted_at) AS newest\n    FROM events_stored WHERE %s GROUP BY %s, stretch",
		strings.Join(named, ", "), max(k.span.Milliseconds(), 1), where, by)
	newest := ""
	if !q.NewSince.IsZero() {
		newest = " AND max(newest) > " + timeLiteral(q.NewSince)
	}
	condition := fmt.Sprintf("%s IN (SELECT %s FROM (%s)\n    GROUP BY %s HAVING max(n) >= %d%s)",
		tuple, by, inner, by, k.least, newest)
	if len(q.Open) == 0 {
		return condition
	}

	// An open alert may end without a new event in its group.
	var open []string
	for _, values := range q.Open {
		quoted := make([]string, len(values))
		for i, value := range values {
			quoted[i] = schema.Literal(value)
		}
		open = append(open, "("+strings.Join(quoted, ", ")+")")
	}
	return "(" + condition + "\n    OR " + tuple + " IN (" + strings.Join(open, ", ") + "))"
}
