package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A correlation's SQL is a chain of subqueries: matched has the events that any of
// the detections match, then come for each correlation, those that others count
// first, what it counts and what it makes of that. Its windows are those of package
// scanner: they end at an event, and of the events at that time have those up to it
// by log_id.

// Windows are RANGE frames over an event's place: its date in milliseconds and, behind
// the point, which of the events of that time it is. A frame's length is to be a whole
// number of 32 bits, so a place is divided by the timespan and a frame is 1 long. The
// timespan is half a millisecond less than it says: a window (t - d, t] begins after
// every event at t - d, and has all that are later.
const (
	sqlTies = 1024 // parts of a millisecond
	mostTie = 255  // so that events of one time are close together
)

// sqlSlack is how much longer than it looks back an event_spike remembers with the
// engine's defaults: of a day it knows what has an event before it.
const sqlSlack = 5 * time.Minute

const sqlDay = 24 * time.Hour

// sqlChain is the SQL of a correlation with all that it counts.
type sqlChain struct {
	*sqlBuilder
	detections []int             // as indexes into Set.Rules
	flags      map[int]string    // by detection: the column of matched that says whether it matches; empty where all do
	fields     []Field           // that are read
	columns    map[string]string // by path: the column of matched that has the texts there
	held       map[int]string    // by correlation: that it holds at an event
	subqueries []string
}

// correlation asks for the events at which a correlation's condition holds.
func (b *sqlBuilder) correlation(r *Rule) (string, error) {
	c := &sqlChain{sqlBuilder: b, flags: map[int]string{}, columns: map[string]string{}, held: map[int]string{}}
	c.collect(r)
	if err := c.matched(b.set.Span(r) + slackOf(b.set, r)); err != nil {
		return "", err
	}
	name, holds, err := c.judged(r)
	if err != nil {
		return "", err
	}
	names := []string{"at", "log_id", "tenant"}
	columns := slices.Clone(names)
	groupBy := r.Correlation.Sources[0].GroupBy
	if r.Alert != nil {
		groupBy = r.Alert.GroupBy // by their aliases
	}
	for i, f := range groupBy {
		alias := f.Path
		for alias == "value" || slices.Contains(names, alias) {
			alias = "group_" + alias
		}
		names = append(names, alias)
		columns = append(columns, fmt.Sprintf("key%d AS %s", i+1, sqlName(alias)))
	}
	distinct := ""
	if r.Correlation.looksAtValues() {
		distinct = "DISTINCT " // an event stands once for each of its values
	}
	return b.with(c.subqueries...) + "SELECT " + distinct + strings.Join(columns, ", ") + ", value\nFROM " + name + "\nWHERE at > " +
		b.query.Since.sql() + " AND " + holds + "\nORDER BY at, log_id\n", nil
}

// slackOf is how much is to be read beyond the spans of a rule.
func slackOf(s *Set, r *Rule) (slack time.Duration) {
	if r.Correlation == nil {
		return 0
	}
	for _, source := range r.Correlation.Sources {
		slack = max(slack, slackOf(s, s.rules[source.Rule]))
	}
	if r.Correlation.Type == EventSpike {
		slack += sqlSlack + keepOf(r)
	}
	return slack
}

func keepOf(r *Rule) time.Duration {
	if r.Alert != nil && r.Alert.Class == Condition {
		return r.Alert.KeepFiringFor
	}
	return 0
}

// collect finds the detections and fields that a correlation and what it counts are
// about.
func (c *sqlChain) collect(r *Rule) {
	detection := func(i int) {
		if !slices.Contains(c.detections, i) {
			c.detections = append(c.detections, i)
		}
	}
	for _, source := range r.Correlation.Sources {
		if inner := c.set.rules[source.Rule]; inner.Correlation != nil {
			c.collect(inner)
		} else {
			detection(source.Rule)
		}
		for _, f := range slices.Concat(source.GroupBy, source.Values) {
			if !slices.ContainsFunc(c.fields, func(known Field) bool { return known.Path == f.Path }) {
				c.fields = append(c.fields, f)
			}
		}
	}
	for _, i := range r.Correlation.Among {
		detection(i)
	}
}

// matched adds the subquery for the events that any of the detections match.
func (c *sqlChain) matched(lookback time.Duration) error {
	columns := []string{"tenant", "date AS at", "log_id",
		fmt.Sprintf("toUnixTimestamp64Milli(date) + least(row_number() OVER (PARTITION BY tenant, date ORDER BY log_id), %d) / %d AS place", mostTie, sqlTies)}
	var any []string
	for _, i := range c.detections {
		r := c.set.rules[i]
		x, err := c.condition(r.match, "        ")
		if err != nil {
			return fmt.Errorf("%s:%d: %s: %w", r.File, r.Line, r.Title, err)
		}
		if len(c.detections) == 1 {
			any = []string{x}
			if _, ok := r.match.(or); ok {
				any = []string{"(" + x + ")"}
			}
			break
		}
		c.flags[i] = c.named("is_", cmp.Or(r.Name, r.Title), "")
		columns = append(columns, "("+x+") AS "+c.flags[i])
		any = append(any, c.flags[i])
	}
	for _, f := range c.fields {
		c.columns[f.Path] = c.named("event_", f.Path, "")
		columns = append(columns, c.texts(f, true)+" AS "+c.columns[f.Path])
	}
	c.subqueries = append(c.subqueries, "  -- the events that matter; an event's place is by its date and, of those at the same time, by its log_id\n"+
		"  matched AS (\n    SELECT "+strings.Join(columns, ",\n      ")+"\n    FROM events\n    WHERE "+
		c.where("      ", c.query.Since.before(lookback))+"\n      AND "+eitherOf(any)+"\n  )")
	return nil
}

// eitherOf is the condition that one of some holds, to stand beside others.
func eitherOf(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return "(" + strings.Join(list, " OR ") + ")"
}

// source is the condition that an event of matched is one of a rule's.
func (c *sqlChain) source(rule int) (string, error) {
	r := c.set.rules[rule]
	if r.Correlation == nil {
		return cmp.Or(c.flags[rule], "true"), nil
	}
	if c.held[rule] == "" {
		name, holds, err := c.judged(r)
		if err != nil {
			return "", fmt.Errorf("%s:%d: %s: %w", r.File, r.Line, r.Title, err)
		}
		c.held[rule] = "(tenant, log_id) IN (SELECT tenant, log_id FROM " + name + " WHERE " + holds + ")"
	}
	return c.held[rule], nil
}

// judged adds the subqueries for a correlation: the events that it counts with their
// groups, and with each the value up to it. It returns the second one's name and the
// condition on its columns.
func (c *sqlChain) judged(r *Rule) (name, holds string, err error) {
	title := "of_" + cmp.Or(r.Name, r.Title)
	counted, err := c.counted(r.Correlation)
	if err != nil {
		return "", "", err
	}
	hits := c.named("", title, "_counted")
	c.subqueries = append(c.subqueries, fmt.Sprintf("  -- what is counted for: %s\n  %s AS (\n%s\n  )", sqlComment(r.Title), hits, counted))
	v := c.value(r, hits)
	var windows []string
	for _, w := range v.windows {
		windows = append(windows, w.name+" AS ("+v.by+" "+w.frame+")")
	}
	name = c.named("", title, "_judged")
	query := fmt.Sprintf("  %s AS (\n    SELECT *,\n      %s\n    FROM %s", name, strings.Join(v.columns, ",\n      "), v.from)
	if len(windows) > 0 {
		query += "\n    WINDOW " + strings.Join(windows, ",\n      ")
	}
	c.subqueries = append(c.subqueries, query+"\n  )")
	return name, strings.Join(v.holds, " AND "), nil
}

// sourceColumn is the column of what is counted that says whether an event is of a
// source; there is one where that matters.
func sourceColumn(source int) string { return fmt.Sprintf("source%d", source+1) }

func (k *Correlation) tellsSources() bool {
	return k.Type == Temporal || k.Type == TemporalOrdered || k.Type == EventRatio || k.Type == LastEvents
}

// counted is the query for the events that a correlation counts, once for each of
// their groups.
func (c *sqlChain) counted(k *Correlation) (string, error) {
	var is []string
	for _, s := range k.Sources {
		x, err := c.source(s.Rule)
		if err != nil {
			return "", err
		}
		is = append(is, x)
	}
	if slices.ContainsFunc(k.Sources, func(s Source) bool {
		return !slices.Equal(s.GroupBy, k.Sources[0].GroupBy) || !slices.Equal(s.Values, k.Sources[0].Values)
	}) {
		if len(k.Among) > 0 {
			return "", fmt.Errorf("%s with aliases has no SQL", k.Type)
		}
		return c.countedApart(k, is), nil
	}
	columns := []string{"tenant", "at", "log_id", "place"}
	var any, where []string
	for i, x := range is {
		if k.tellsSources() {
			columns = append(columns, x+" AS "+sourceColumn(i))
			x = sourceColumn(i)
		}
		any = append(any, x)
	}
	for _, i := range k.Among {
		any = append(any, cmp.Or(c.flags[i], "true"))
	}
	if len(c.detections) > 1 || len(c.held) > 0 { // else all of matched are
		where = append(where, eitherOf(any))
	}
	for i, f := range k.Sources[0].GroupBy {
		list := "arrayDistinct(" + c.columns[f.Path] + ")"
		for range i - slices.Index(k.Sources[0].GroupBy, f) {
			list = "arrayReverse(" + list + ")" // equal arrays are joined as one
		}
		columns = append(columns, fmt.Sprintf("arrayJoin(%s) AS key%d", list, i+1))
	}
	var values []string
	for _, f := range k.Sources[0].Values {
		values = append(values, c.columns[f.Path])
	}
	if lists := c.valuesOf(k, values); lists != nil {
		columns = append(columns, joinedArrays(lists)+" AS of")
	}
	query := "    SELECT " + strings.Join(columns, ", ") + "\n    FROM matched"
	if len(where) > 0 {
		query += "\n    WHERE " + strings.Join(where, " AND ")
	}
	return query, nil
}

// looksAtValues reports whether the condition is about a field's values.
func (k *Correlation) looksAtValues() bool {
	return k.Type == ValueCount || k.Type == ValueSum || k.Type == ValueAvg || k.Type == ValuePercentile
}

// valuesOf are lists of what is looked at in an event, made of lists of texts; nil where
// events are only counted. They are written otherwise than a key's, for the same reason.
func (c *sqlChain) valuesOf(k *Correlation, texts []string) (lists []string) {
	switch k.Type {
	case ValueCount:
		for _, list := range texts {
			lists = append(lists, "arraySort(arrayDistinct("+list+"))")
		}
	case ValueSum, ValueAvg, ValuePercentile:
		if k.Type != ValuePercentile {
			c.note(noteSum)
		}
		lists = []string{"arrayFilter(x -> NOT isNaN(x), arrayMap(x -> " + c.use("amount") + "(x), " + texts[0] + "))"}
	}
	return lists
}

// joinedArrays stands for each combination of members of some lists.
func joinedArrays(lists []string) string {
	if len(lists) == 1 {
		return "arrayJoin(" + lists[0] + ")"
	}
	var parts []string
	for _, list := range lists {
		parts = append(parts, "arrayJoin("+list+")")
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// countedApart is counted where the sources have their fields in different places:
// an event may be in several groups, in each of them as what it is there.
func (c *sqlChain) countedApart(k *Correlation, is []string) string {
	var rows []string
	for i, s := range k.Sources {
		parts := []string{fmt.Sprintf("if(%s, %d, 0)", is[i], i+1)}
		for _, f := range slices.Concat(s.GroupBy, s.Values) {
			parts = append(parts, c.columns[f.Path])
		}
		rows = append(rows, "("+strings.Join(parts, ", ")+")")
	}
	columns := []string{"tenant", "at", "log_id", "place"}
	inner, by := slices.Clone(columns), slices.Clone(columns)
	part := 2 // the first is the source
	for i := range k.Sources[0].GroupBy {
		key := fmt.Sprintf("key%d", i+1)
		inner = append(inner, fmt.Sprintf("arrayJoin(arrayDistinct(source.%d)) AS %s", part, key))
		by = append(by, key)
		part++
	}
	inner = append(inner, "source")
	columns = slices.Clone(by)
	if k.tellsSources() {
		for i := range is {
			columns = append(columns, fmt.Sprintf("max(source.1 = %d) AS %s", i+1, sourceColumn(i)))
		}
	}

	// Of an event that several sources have, the first that has a value says it.
	var texts, where []string
	for range k.Sources[0].Values {
		texts = append(texts, fmt.Sprintf("source.%d", part))
		part++
	}
	lists := c.valuesOf(k, texts)
	var chosen []string
	for i, list := range lists {
		where = append(where, "notEmpty("+list+")")
		columns = append(columns, fmt.Sprintf("argMin(%s, source.1) AS of%d", list, i+1))
		chosen = append(chosen, fmt.Sprintf("of%d", i+1))
	}
	query := "SELECT " + strings.Join(columns, ", ") +
		"\n    FROM (SELECT " + strings.Join(inner, ", ") +
		"\n      FROM (SELECT *, arrayJoin(arrayFilter(s -> s.1 != 0, [" + strings.Join(rows, ",\n        ") + "])) AS source FROM matched))"
	if len(where) > 0 {
		query += "\n    WHERE " + strings.Join(where, " AND ")
	}
	query += "\n    GROUP BY " + strings.Join(by, ", ")
	if len(lists) > 0 {
		query = "SELECT *, " + joinedArrays(chosen) + " AS of FROM (" + query + ")"
	}
	return "    " + query
}

// sqlValue is how to come from the events that are counted to what the condition is
// about.
type sqlValue struct {
	from    string      // the subquery with them, or one over it
	by      string      // what tells groups apart
	windows []sqlWindow // that the columns are over
	columns []string    // the last is called value
	holds   []string    // conditions on the columns
}

type sqlWindow struct{ name, frame string }

// The frames of windows.
const (
	frameUpTo   = "ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
	frameBefore = "ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
)

// frameOf is a frame of so many milliseconds.
func frameOf(place string, ms float64) string {
	return fmt.Sprintf("ORDER BY %s / %s RANGE BETWEEN 1 PRECEDING AND CURRENT ROW", place, sqlFloat(ms))
}

// sqlTime is a column's time in milliseconds.
func sqlTime(column string) string { return "toUnixTimestamp64Milli(" + column + ")" }

func (c *sqlChain) value(r *Rule, hits string) *sqlValue {
	k := r.Correlation
	v := &sqlValue{from: hits, by: "PARTITION BY tenant"}
	for i := range k.Sources[0].GroupBy {
		v.by += fmt.Sprintf(", key%d", i+1)
	}
	span := k.Timespan.Milliseconds()
	within := frameOf("place", float64(span)-0.5)
	value := "count() OVER w"
	switch k.Type {
	case ValueCount:
		value = "uniqExact(of) OVER w"
	case ValueSum:
		value = "sum(of) OVER w"
	case ValueAvg:
		value = "avg(of) OVER w"
	case ValuePercentile:
		value = v.percentile(k.Percentile)
	case Temporal, TemporalOrdered:
		value = v.temporal(k, hits)
	case EventRatio:
		v.columns = []string{"count() OVER w AS events"}
		v.holds = []string{fmt.Sprintf("events >= %d", k.Least)}
		value = "(countIf(" + anySource(k) + ") OVER w) / events"
	case LastEvents:
		within = fmt.Sprintf("ORDER BY at, log_id ROWS BETWEEN %d PRECEDING AND CURRENT ROW", k.Last-1)
		value = fmt.Sprintf("arrayCount(x -> x > %s - %d, groupArrayIf(%s, %s) OVER w)", sqlTime("at"), span, sqlTime("at"), anySource(k))
	case EventSpike:
		c.note(noteSpike)
		within = frameOf("shifted", float64(span)-0.5)
		value = v.spike(r, hits)
	}
	if k.Type != Temporal && k.Type != TemporalOrdered {
		v.windows = append(v.windows, sqlWindow{"w", within})
	}
	v.columns = append(v.columns, value+" AS value")
	if k.Need == nil {
		for _, b := range k.Bounds {
			v.holds = append(v.holds, "value "+sqlOps[b.Op]+" "+sqlFloat(b.Than))
		}
	}
	return v
}

// anySource is the condition that an event is of a source, not only looked at.
func anySource(k *Correlation) string {
	var list []string
	for i := range k.Sources {
		list = append(list, sourceColumn(i))
	}
	return strings.Join(list, " OR ")
}

// percentile is the smallest number that so many percent are not above. ClickHouse
// rounds down to find it among the sorted ones; where that is a whole number, the one
// before it may be meant, so both neighbours are asked for.
func (v *sqlValue) percentile(percent float64) string {
	const little = 1e-9
	if percent == 100 {
		return "max(of) OVER w"
	}
	low, high := sqlFloat(max(percent/100-little, 0)), sqlFloat(min(percent/100+little, 1))
	v.columns = []string{"count() OVER w AS events", "quantilesExact(" + low + ", " + high + ")(of) OVER w AS near"}
	return fmt.Sprintf("if(ceil(%s * events / 100) - 1 <= floor(%s * events), near[1], near[2])", sqlFloat(percent), low)
}

// temporal is how many of the sources have been seen in the window or, of an order,
// how many one after the other. No window is needed for that, but when each was last
// seen: of an order, when the latest run of its beginning up to there began.
func (v *sqlValue) temporal(k *Correlation, hits string) string {
	span := k.Timespan.Milliseconds()
	seen := make([]string, len(k.Sources))
	for i := range seen {
		if k.Type == Temporal || k.Need != nil {
			seen[i] = fmt.Sprintf("seen%d", i+1)
			v.columns = append(v.columns, fmt.Sprintf("maxIf(%s, %s) OVER up_to > %s - %d AS %s", sqlTime("at"), sourceColumn(i), sqlTime("at"), span, seen[i]))
		}
	}
	if k.Need != nil {
		v.holds = append(v.holds, k.Need.sql(seen))
	}
	if len(v.columns) > 0 || k.Type == TemporalOrdered {
		v.windows = []sqlWindow{{"up_to", frameUpTo}}
	}
	if k.Type == Temporal {
		return strings.Join(seen, " + ")
	}
	var runs []string
	began := sqlTime("at")
	for i := range k.Sources {
		if k.Need != nil && k.Need.Wanted()>>i&1 == 0 {
			continue
		}
		n := len(runs) + 1
		run := fmt.Sprintf("maxIf(%s, %s) OVER", began, sourceColumn(i))
		v.from = fmt.Sprintf("(\n      SELECT *, %s up_to AS began%d, %s before AS began%d_before FROM %s\n      WINDOW up_to AS (%s %s), before AS (%s %s))",
			run, n, run, n, v.from, v.by, frameUpTo, v.by, frameBefore)
		began = fmt.Sprintf("began%d_before", n)
		runs = append(runs, fmt.Sprintf("(began%d > %s - %d)", n, sqlTime("at"), span))
	}
	if len(v.columns) == 0 {
		v.windows = nil
	}
	if k.Need != nil { // an order is about all that is wanted; the rest is to be absent
		v.holds = append(v.holds, "value = "+strconv.Itoa(len(runs)))
	}
	return strings.Join(runs, " + ")
}

// spike is how many times as many events there are as usual, which is the median of
// the counts a day, two days and so on before, of those days since the first event.
// It is known where those are half of the days at least. Every event stands once more
// on each of the days on which it is looked back at, so that one window has the events
// of them all; back says how many days. There they come before what is at that time.
func (v *sqlValue) spike(r *Rule, hits string) string {
	k := r.Correlation
	days := int(k.Over / sqlDay)
	// An engine has kept of a group, at an event, what mattered at the one before.
	known := k.Timespan + k.Over + sqlSlack + keepOf(r)
	v.from = fmt.Sprintf("(\n      SELECT *, arrayJoin(range(%d)) AS back, if(back = 0, place, %s + back * %d) AS shifted\n"+
		"      FROM (SELECT *, if((row_number() OVER up_to) = 1, %s, lagInFrame(kept_at) OVER up_to) AS first_at\n"+
		"        FROM (SELECT *, %s AS kept_at FROM %s\n          WINDOW kept AS (%s %s))\n        WINDOW up_to AS (%s %s))\n    )",
		days+1, sqlTime("at"), sqlDay.Milliseconds(), sqlTime("at"), sqlTime("nth_value(at, 1) OVER kept"),
		hits, v.by, frameOf("place", float64(known.Milliseconds())+0.5), v.by, frameUpTo)
	var counts []string
	for d := range days {
		counts = append(counts, fmt.Sprintf("countIf(back = %d) OVER w", d+1))
	}
	v.columns = []string{
		"countIf(back = 0) OVER w AS events",
		fmt.Sprintf("least(intDiv(greatest(%s - %d - first_at, 0), %d), %d) AS days", sqlTime("at"), k.Timespan.Milliseconds(), sqlDay.Milliseconds(), days),
		"arraySort(arraySlice([" + strings.Join(counts, ", ") + "], 1, days)) AS earlier",
		"(earlier[intDiv(days - 1, 2) + 1] + earlier[intDiv(days, 2) + 1]) / 2 AS usual",
	}
	v.holds = []string{"back = 0", fmt.Sprintf("days > 0 AND 2 * days >= %d", days), fmt.Sprintf("events >= %d", k.Least)}
	return "events / greatest(usual, 1)"
}

// sql is the condition on columns that say which sources were seen.
func (n *Need) sql(seen []string) string {
	switch n.op {
	case "":
		return seen[n.source]
	case "not":
		return "NOT " + n.parts[0].sql(seen)
	}
	var list []string
	for _, p := range n.parts {
		list = append(list, p.sql(seen))
	}
	return "(" + strings.Join(list, " "+strings.ToUpper(n.op)+" ") + ")"
}
