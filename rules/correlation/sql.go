package correlation

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// SQL is how ClickHouse computes the value of a correlation at each event that it counts. The
// events are the rows of From, with the columns tenant, at, log_id and place (a number that orders
// them), of (a field's value, where Value.OfField) and, with Traits.BySource, one SourceColumn for
// each rule.
type SQL struct {
	From    string        // the subquery with the events; a type may wrap it in another one
	GroupBy string        // PARTITION BY the group
	Kept    time.Duration // how much longer than the window's span the engine keeps an event

	// Frame is the frame of the window w. It is the timespan, unless the type sets another.
	Frame string

	Windows []SQLWindow // further windows
	Columns []string    // further columns, each "expression AS name"
	Value   string      // the expression of the value
	Holds   []string    // conditions on the columns and on value, besides the bounds
	Notes   []string    // how the result may differ from the engine's
}

// SQLWindow is a named window.
type SQLWindow struct{ Name, Frame string }

// The frames of windows.
const (
	frameUpTo   = "ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
	frameBefore = "ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
)

// SQL returns how ClickHouse computes the value over the events of a subquery.
func (s *Spec) SQL(from, groupBy string, kept time.Duration) *SQL {
	query := &SQL{
		From:    from,
		GroupBy: groupBy,
		Kept:    kept,
		Frame:   frameOf("place", float64(s.Timespan.Milliseconds())-0.5),
	}
	s.Type.SQL(s, query)

	// Types that ask which rules have matched bring windows of their own.
	if !s.Type.Traits().Rules {
		query.Windows = append(query.Windows, SQLWindow{"w", query.Frame})
	}

	query.Columns = append(query.Columns, query.Value+" AS value")
	if s.Need == nil {
		for _, bound := range s.Bounds {
			query.Holds = append(query.Holds, "value "+SQLOperator(bound.Op)+" "+SQLFloat(bound.Than))
		}
	}
	return query
}

// SourceColumn returns the column that says whether an event matches a rule of the correlation.
func SourceColumn(source int) string { return fmt.Sprintf("source%d", source+1) }

// anySource returns the condition that an event matches one of the rules, not only one of Among.
func (s *Spec) anySource() string {
	var list []string
	for i := range s.Rules {
		list = append(list, SourceColumn(i))
	}
	return strings.Join(list, " OR ")
}

// frameOf returns a frame of a number of milliseconds over a place.
func frameOf(place string, ms float64) string {
	return fmt.Sprintf("ORDER BY %s / %s RANGE BETWEEN 1 PRECEDING AND CURRENT ROW", place, SQLFloat(ms))
}

// sqlTime returns a column's time in milliseconds.
func sqlTime(column string) string { return "toUnixTimestamp64Milli(" + column + ")" }

// SQLFloat formats a number for a query, an infinite one as inf or -inf.
func SQLFloat(f float64) string {
	if math.IsInf(f, 0) {
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// SQLOperator returns the operator of a Bound.Op; that of no operator is equality.
func SQLOperator(op string) string {
	operators := map[string]string{"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "neq": "!="}
	if operator, ok := operators[op]; ok {
		return operator
	}
	return "="
}

// Number formats a value with up to three decimal places.
func Number(f float64) string { return strconv.FormatFloat(math.Round(f*1e3)/1e3, 'f', -1, 64) }
