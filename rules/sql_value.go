package rules

import (
	"fmt"
	"strconv"
	"strings"
)

// sqlValue is how the value of a correlation is computed from the events that it counts.
type sqlValue struct {
	from    string      // the subquery with the events, or one over it
	by      string      // PARTITION BY the group
	windows []sqlWindow // of the columns
	columns []string    // the last is called value
	holds   []string    // conditions on the columns
}

type sqlWindow struct{ name, frame string }

// The frames of windows.
const (
	frameUpTo   = "ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
	frameBefore = "ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
)

// frameOf returns a frame of a number of milliseconds.
func frameOf(place string, ms float64) string {
	return fmt.Sprintf("ORDER BY %s / %s RANGE BETWEEN 1 PRECEDING AND CURRENT ROW", place, sqlFloat(ms))
}

// sqlTime returns a column's time in milliseconds.
func sqlTime(column string) string { return "toUnixTimestamp64Milli(" + column + ")" }

// value returns the value of a correlation over the subquery hits.
func (c *sqlChain) value(rule *Rule, hits string) *sqlValue {
	corr := rule.Correlation
	result := &sqlValue{from: hits, by: "PARTITION BY tenant"}
	for i := range corr.Sources[0].GroupBy {
		result.by += fmt.Sprintf(", key%d", i+1)
	}

	// By default, count the events in the window.
	span := corr.Timespan.Milliseconds()
	frame := frameOf("place", float64(span)-0.5)
	value := "count() OVER w"
	switch corr.Type {
	case ValueCount:
		value = "uniqExact(of) OVER w"
	case ValueSum:
		value = "sum(of) OVER w"
	case ValueAvg:
		value = "avg(of) OVER w"
	case ValuePercentile:
		value = result.percentile(corr.Percentile)
	case Temporal, TemporalOrdered:
		value = result.temporal(corr)
	case EventRatio:
		result.columns = []string{"count() OVER w AS events"}
		result.holds = []string{fmt.Sprintf("events >= %d", corr.Least)}
		value = "(countIf(" + anySource(corr) + ") OVER w) / events"
	case LastEvents:
		frame = fmt.Sprintf("ORDER BY at, log_id ROWS BETWEEN %d PRECEDING AND CURRENT ROW", corr.Last-1)
		value = fmt.Sprintf("arrayCount(x -> x > %s - %d, groupArrayIf(%s, %s) OVER w)",
			sqlTime("at"), span, sqlTime("at"), anySource(corr))
	case EventSpike:
		c.note(noteSpike)
		frame = frameOf("shifted", float64(span)-0.5)
		value = result.spike(rule, hits)
	}

	// The temporal types have their own windows, and may have a condition in words.
	if corr.Type != Temporal && corr.Type != TemporalOrdered {
		result.windows = append(result.windows, sqlWindow{"w", frame})
	}

	result.columns = append(result.columns, value+" AS value")
	if corr.Need == nil {
		for _, bound := range corr.Bounds {
			result.holds = append(result.holds, "value "+sqlOps[bound.Op]+" "+sqlFloat(bound.Than))
		}
	}

	return result
}

// anySource returns the condition that an event is of a source, not only of Among.
func anySource(corr *Correlation) string {
	var list []string
	for i := range corr.Sources {
		list = append(list, sourceColumn(i))
	}
	return strings.Join(list, " OR ")
}

// percentile returns the smallest number that at least that many percent do not exceed. ClickHouse
// rounds its index among the sorted numbers down. If the index is a whole number, the number
// before it may be the right one, so the query selects from both neighbours.
func (v *sqlValue) percentile(percent float64) string {
	const little = 1e-9
	if percent == 100 {
		return "max(of) OVER w"
	}
	low, high := sqlFloat(max(percent/100-little, 0)), sqlFloat(min(percent/100+little, 1))
	v.columns = []string{
		"count() OVER w AS events",
		"quantilesExact(" + low + ", " + high + ")(of) OVER w AS near",
	}
	return fmt.Sprintf("if(ceil(%s * events / 100) - 1 <= floor(%s * events), near[1], near[2])",
		sqlFloat(percent), low)
}

// temporal returns the number of sources seen in the window or, for an order, the number seen
// one after the other. It needs no window, only the time at which each source was last seen.
func (v *sqlValue) temporal(corr *Correlation) string {
	span := corr.Timespan.Milliseconds()
	seen := make([]string, len(corr.Sources))
	for i := range seen {
		if corr.Type == Temporal || corr.Need != nil {
			seen[i] = fmt.Sprintf("seen%d", i+1)
			v.columns = append(v.columns, fmt.Sprintf("maxIf(%s, %s) OVER up_to > %s - %d AS %s",
				sqlTime("at"), sourceColumn(i), sqlTime("at"), span, seen[i]))
		}
	}

	if len(v.columns) > 0 {
		v.windows = []sqlWindow{{"up_to", frameUpTo}}
	}
	if corr.Need != nil {
		v.holds = append(v.holds, corr.Need.sql(seen))
	}
	if corr.Type == Temporal {
		return strings.Join(seen, " + ")
	}
	return v.ordered(corr)
}

// ordered returns the number of sources that were seen in order. For each one, a subquery has the
// start of the latest run of sources that leads up to it: a run within the window has been seen.
func (v *sqlValue) ordered(corr *Correlation) string {
	var runs []string
	began := sqlTime("at")
	for i := range corr.Sources {
		if corr.Need != nil && corr.Need.Wanted()>>i&1 == 0 {
			continue // it must be absent, so it has no place in the order
		}
		n := len(runs) + 1
		run := fmt.Sprintf("maxIf(%s, %s) OVER", began, sourceColumn(i))
		v.from = fmt.Sprintf("(\n      SELECT *, %s up_to AS began%d, %s before AS began%d_before FROM %s\n"+
			"      WINDOW up_to AS (%s %s), before AS (%s %s))",
			run, n, run, n, v.from, v.by, frameUpTo, v.by, frameBefore)
		began = fmt.Sprintf("began%d_before", n)
		runs = append(runs, fmt.Sprintf("(began%d > %s - %d)", n, sqlTime("at"), corr.Timespan.Milliseconds()))
	}

	// An order needs all of these sources; Need.sql checks that the others are absent.
	if corr.Need != nil {
		v.holds = append(v.holds, "value = "+strconv.Itoa(len(runs)))
	}
	return strings.Join(runs, " + ")
}

// spike returns the number of events divided by the usual number: the median of the counts one
// day, two days and so on before, for those days since the first event. The usual number is known
// if there are at least half of the days.
//
// Each event is repeated for every day that looks back at it, so that one window has the events of
// all days; the column back is the number of days. On its day, such a copy sorts before the events
// of that time.
func (v *sqlValue) spike(rule *Rule, hits string) string {
	corr := rule.Correlation
	days := int(corr.Over / sqlDay)

	// At an event, the engine knows of the group what mattered at the previous event: first_at is the
	// first event that it still has.
	known := corr.Timespan + corr.Over + sqlSlack + keepOf(rule)
	v.from = fmt.Sprintf("(\n      SELECT *, arrayJoin(range(%d)) AS back, "+
		"if(back = 0, place, %s + back * %d) AS shifted\n"+
		"      FROM (SELECT *, if((row_number() OVER up_to) = 1, %s, lagInFrame(kept_at) OVER up_to) AS first_at\n"+
		"        FROM (SELECT *, %s AS kept_at FROM %s\n          WINDOW kept AS (%s %s))\n"+
		"        WINDOW up_to AS (%s %s))\n    )",
		days+1, sqlTime("at"), sqlDay.Milliseconds(), sqlTime("at"), sqlTime("nth_value(at, 1) OVER kept"),
		hits, v.by, frameOf("place", float64(known.Milliseconds())+0.5), v.by, frameUpTo)

	var counts []string
	for day := range days {
		counts = append(counts, fmt.Sprintf("countIf(back = %d) OVER w", day+1))
	}

	v.columns = []string{
		"countIf(back = 0) OVER w AS events",
		fmt.Sprintf("least(intDiv(greatest(%s - %d - first_at, 0), %d), %d) AS days",
			sqlTime("at"), corr.Timespan.Milliseconds(), sqlDay.Milliseconds(), days),
		"arraySort(arraySlice([" + strings.Join(counts, ", ") + "], 1, days)) AS earlier",
		"(earlier[intDiv(days - 1, 2) + 1] + earlier[intDiv(days, 2) + 1]) / 2 AS usual",
	}
	v.holds = []string{
		"back = 0",
		fmt.Sprintf("days > 0 AND 2 * days >= %d", days),
		fmt.Sprintf("events >= %d", corr.Least),
	}
	return "events / greatest(usual, 1)"
}

// sql returns the condition on columns that say which sources were seen.
func (n *Need) sql(seen []string) string {
	switch n.op {
	case "":
		return seen[n.source]
	case "not":
		return "NOT " + n.parts[0].sql(seen)
	}

	var list []string
	for _, part := range n.parts {
		list = append(list, part.sql(seen))
	}
	return "(" + strings.Join(list, " "+strings.ToUpper(n.op)+" ") + ")"
}
