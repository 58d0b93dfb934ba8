package tosql

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// The SQL of a correlation is a chain of subqueries. "matched" has the events that any of the
// detections match. Then follow two subqueries for each correlation, those that others count
// first: the events that it counts, and its value at each of them. The windows are those of
// package scanner: a window ends at an event, and of the events at the same time it has those
// up to that event by log_id.

// Windows are RANGE frames over an event's place: its date in milliseconds plus a fraction that
// orders the events of the same time. The length of a frame must be a whole number of 32 bits, so
// places are divided by the timespan and every frame has length 1. The timespan is reduced by half
// a millisecond: a window (t - d, t] starts after every event at t - d and has all later ones.
const (
	ties   = 1024 // parts of a millisecond
	maxTie = 255  // so that the events of one time are close together
)

// chain is the SQL of a correlation and of everything that it counts.
type chain struct {
	*builder
	detections []int // as indexes into Set.Rules
	// flags has, by detection, the column of matched that says whether it matches. It is empty
	// if there is only one detection.
	flags      map[int]string
	fields     []expr.Field      // that are read
	columns    map[string]string // by path: the column of matched that has the texts there
	held       map[int]string    // by correlation: the condition that it holds at an event
	subqueries []string
}

// correlation returns the query for the events at which a correlation's condition holds.
func (b *builder) correlation(rule *rules.Rule) (string, error) {
	all := &chain{builder: b, flags: map[int]string{}, columns: map[string]string{}, held: map[int]string{}}
	all.collect(rule)
	if err := all.matched(b.set.Span(rule) + slackOf(b.set, rule)); err != nil {
		return "", err
	}
	name, holds, err := all.evaluated(rule)
	if err != nil {
		return "", err
	}

	// Name the group's columns as an alert does, by their aliases.
	groupBy := rule.Correlation.Sources[0].GroupBy
	if rule.Alert != nil {
		groupBy = rule.Alert.GroupBy
	}

	names := []string{"at", "log_id", "tenant"}
	columns := slices.Clone(names)
	for i, field := range groupBy {
		// Two columns must not have the same name.
		alias := field.Path
		for alias == "value" || slices.Contains(names, alias) {
			alias = "group_" + alias
		}
		names = append(names, alias)
		columns = append(columns, fmt.Sprintf("key%d AS %s", i+1, columnName(alias)))
	}

	distinct := ""
	if rule.Correlation.Type.Traits().Value.OfField() {
		distinct = "DISTINCT " // there is one row for each of an event's values
	}

	return b.with(all.subqueries...) + "SELECT " + distinct + strings.Join(columns, ", ") + ", value" +
		"\nFROM " + name + "\nWHERE at > " + b.within.Since.sql() + " AND " + holds + "\nORDER BY at, log_id\n", nil
}

// slackOf returns how much must be read in addition to the spans of a rule.
func slackOf(set *rules.Set, rule *rules.Rule) (slack time.Duration) {
	if rule.Correlation == nil {
		return 0
	}

	for _, source := range rule.Correlation.Sources {
		slack = max(slack, slackOf(set, set.Rules()[source.Rule]))
	}

	// What is compared with other days depends on how long the engine keeps them.
	if rule.Correlation.Over > 0 {
		slack += correlation.SpikeSlack + keepOf(rule)
	}
	return slack
}

// keepOf returns how long the engine keeps a group because its alert may still be firing.
func keepOf(r *rules.Rule) time.Duration {
	if r.Alert != nil && r.Alert.Class == rules.ClassCondition {
		return r.Alert.KeepFiringFor
	}
	return 0
}

// collect finds the detections and fields that a correlation needs, and everything that it counts.
func (c *chain) collect(rule *rules.Rule) {
	addDetection := func(i int) {
		if !slices.Contains(c.detections, i) {
			c.detections = append(c.detections, i)
		}
	}

	for _, source := range rule.Correlation.Sources {
		if inner := c.set.Rules()[source.Rule]; inner.Correlation != nil {
			c.collect(inner)
		} else {
			addDetection(source.Rule)
		}

		for _, field := range slices.Concat(source.GroupBy, source.Values) {
			if !slices.ContainsFunc(c.fields, func(known expr.Field) bool { return known.Path == field.Path }) {
				c.fields = append(c.fields, field)
			}
		}
	}

	for _, i := range rule.Correlation.Among {
		addDetection(i)
	}
}

// matched adds the subquery for the events that any of the detections match.
func (c *chain) matched(lookback time.Duration) error {
	columns := []string{"tenant", "date AS at", "log_id", fmt.Sprintf("toUnixTimestamp64Milli(date) + "+
		"least(row_number() OVER (PARTITION BY tenant, date ORDER BY log_id), %d) / %d AS place", maxTie, ties)}

	// With several detections, a column for each says whether it matches.
	var matches []string
	for _, i := range c.detections {
		rule := c.set.Rules()[i]
		condition, err := c.condition(rule.Match, "        ")
		if err != nil {
			return fmt.Errorf("%s:%d: %s: %w", rule.File, rule.Line, rule.Title, err)
		}
		if len(c.detections) == 1 {
			if rule.Match.Op == expr.OpOr {
				condition = "(" + condition + ")"
			}
			matches = []string{condition}
			break
		}
		c.flags[i] = c.named("is_", cmp.Or(rule.Name, rule.Title), "")
		columns = append(columns, "("+condition+") AS "+c.flags[i])
		matches = append(matches, c.flags[i])
	}

	for _, field := range c.fields {
		c.columns[field.Path] = c.named("event_", field.Path, "")
		columns = append(columns, c.texts(field, true)+" AS "+c.columns[field.Path])
	}

	c.subqueries = append(c.subqueries, "  -- the events that matter; "+
		"place orders them by date and, at the same time, by log_id\n"+
		"  matched AS (\n    SELECT "+strings.Join(columns, ",\n      ")+"\n    FROM events\n    WHERE "+
		c.where("      ", c.within.Since.before(lookback))+"\n      AND "+eitherOf(matches)+"\n  )")
	return nil
}

// eitherOf returns the condition that one of several holds, in parentheses if needed beside an and.
func eitherOf(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return "(" + strings.Join(list, " OR ") + ")"
}

// source returns the condition that an event of matched is one of a rule.
func (c *chain) source(rule int) (string, error) {
	counted := c.set.Rules()[rule]
	if counted.Correlation == nil {
		return cmp.Or(c.flags[rule], "true"), nil
	}
	if c.held[rule] == "" {
		name, holds, err := c.evaluated(counted)
		if err != nil {
			return "", fmt.Errorf("%s:%d: %s: %w", counted.File, counted.Line, counted.Title, err)
		}
		c.held[rule] = "(tenant, log_id) IN (SELECT tenant, log_id FROM " + name + " WHERE " + holds + ")"
	}
	return c.held[rule], nil
}

// evaluated adds the two subqueries of a correlation: the events that it counts with their
// groups, and its value at each of them. It returns the name of the second one and the
// condition on its columns.
func (c *chain) evaluated(rule *rules.Rule) (name, holds string, err error) {
	title := "of_" + cmp.Or(rule.Name, rule.Title)
	counted, err := c.counted(rule.Correlation)
	if err != nil {
		return "", "", err
	}
	hits := c.named("", title, "_counted")
	c.subqueries = append(c.subqueries, fmt.Sprintf("  -- the events counted for: %s\n  %s AS (\n%s\n  )",
		oneLine(rule.Title), hits, counted))

	groupBy := "PARTITION BY tenant"
	for i := range rule.Correlation.Sources[0].GroupBy {
		groupBy += fmt.Sprintf(", key%d", i+1)
	}

	value := rule.Correlation.SQL(hits, groupBy, keepOf(rule))
	for _, note := range value.Notes {
		if !slices.Contains(c.extra, note) {
			c.extra = append(c.extra, note)
		}
	}

	var windows []string
	for _, window := range value.Windows {
		windows = append(windows, window.Name+" AS ("+groupBy+" "+window.Frame+")")
	}

	name = c.named("", title, "_evaluated")
	query := fmt.Sprintf("  %s AS (\n    SELECT *,\n      %s\n    FROM %s",
		name, strings.Join(value.Columns, ",\n      "), value.From)
	if len(windows) > 0 {
		query += "\n    WINDOW " + strings.Join(windows, ",\n      ")
	}

	c.subqueries = append(c.subqueries, query+"\n  )")
	return name, strings.Join(value.Holds, " AND "), nil
}

// counted returns the query for the events that a correlation counts, once for each of
// their groups.
func (c *chain) counted(corr *rules.Correlation) (string, error) {
	// The condition of each source.
	var isSource []string
	for _, source := range corr.Sources {
		condition, err := c.source(source.Rule)
		if err != nil {
			return "", err
		}
		isSource = append(isSource, condition)
	}

	// Sources with the same fields share one query; with aliases, each needs its own.
	first := corr.Sources[0]
	if corr.HasAliases() {
		if len(corr.Among) > 0 {
			return "", fmt.Errorf("%s with aliases has no SQL", corr.Type.Name())
		}
		return c.countedApart(corr, isSource), nil
	}

	columns := []string{"tenant", "at", "log_id", "place"}
	var counts, where []string
	for i, condition := range isSource {
		if corr.Type.Traits().BySource {
			columns = append(columns, condition+" AS "+correlation.SourceColumn(i))
			condition = correlation.SourceColumn(i)
		}
		counts = append(counts, condition)
	}

	for _, i := range corr.Among {
		counts = append(counts, cmp.Or(c.flags[i], "true"))
	}

	// With a single detection, all events of matched count.
	if len(c.detections) > 1 || len(c.held) > 0 {
		where = append(where, eitherOf(counts))
	}

	// One row for each combination of the group's values, and of the field's values.
	for i, field := range first.GroupBy {
		list := "arrayDistinct(" + c.columns[field.Path] + ")"
		for range i - slices.Index(first.GroupBy, field) {
			list = "arrayReverse(" + list + ")" // ClickHouse joins equal arrays as one
		}
		columns = append(columns, fmt.Sprintf("arrayJoin(%s) AS key%d", list, i+1))
	}

	var values []string
	for _, field := range first.Values {
		values = append(values, c.columns[field.Path])
	}

	if lists := c.valuesOf(corr, values); lists != nil {
		columns = append(columns, joinedArrays(lists)+" AS of")
	}

	query := "    SELECT " + strings.Join(columns, ", ") + "\n    FROM matched"
	if len(where) > 0 {
		query += "\n    WHERE " + strings.Join(where, " AND ")
	}

	return query, nil
}

// valuesOf returns lists of the values that a correlation uses, made from lists of texts; nil if
// it only counts events. The expressions differ from those of the group's keys, since
// ClickHouse joins equal arrays as one.
func (c *chain) valuesOf(corr *rules.Correlation, texts []string) (lists []string) {
	switch corr.Type.Traits().Value {
	case correlation.ValueHash:
		for _, list := range texts {
			lists = append(lists, "arraySort(arrayDistinct("+list+"))")
		}
	case correlation.ValueNumber:
		numbers := "arrayMap(x -> " + c.use("amount") + "(x), " + texts[0] + ")"
		lists = []string{"arrayFilter(x -> NOT isNaN(x), " + numbers + ")"}
	}
	return lists
}

// joinedArrays returns an expression that makes one row for each combination of the lists' members.
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

// countedApart is counted for sources whose fields differ: an event may be in several groups, and
// in each of them with other values.
func (c *chain) countedApart(corr *rules.Correlation, isSource []string) string {
	// A tuple for each source: its number, or 0 if the event is not of it, and its fields.
	var tuples []string
	for i, source := range corr.Sources {
		parts := []string{fmt.Sprintf("if(%s, %d, 0)", isSource[i], i+1)}
		for _, field := range slices.Concat(source.GroupBy, source.Values) {
			parts = append(parts, c.columns[field.Path])
		}
		tuples = append(tuples, "("+strings.Join(parts, ", ")+")")
	}

	// The inner query has a row for each source and group of an event.
	inner := []string{"tenant", "at", "log_id", "place"}
	by := slices.Clone(inner)

	// The next part of the tuple; the first is the number.
	part := 2
	for i := range corr.Sources[0].GroupBy {
		key := fmt.Sprintf("key%d", i+1)
		inner = append(inner, fmt.Sprintf("arrayJoin(arrayDistinct(source.%d)) AS %s", part, key))
		by = append(by, key)
		part++
	}

	inner = append(inner, "source")

	// The outer query has one for each group.
	columns := slices.Clone(by)
	if corr.Type.Traits().BySource {
		for i := range isSource {
			columns = append(columns, fmt.Sprintf("max(source.1 = %d) AS %s", i+1, correlation.SourceColumn(i)))
		}
	}

	// If an event is of several sources, the first one that has a value provides it.
	var texts, where, chosen []string
	for range corr.Sources[0].Values {
		texts = append(texts, fmt.Sprintf("source.%d", part))
		part++
	}

	lists := c.valuesOf(corr, texts)
	for i, list := range lists {
		where = append(where, "notEmpty("+list+")")
		columns = append(columns, fmt.Sprintf("argMin(%s, source.1) AS of%d", list, i+1))
		chosen = append(chosen, fmt.Sprintf("of%d", i+1))
	}

	query := "SELECT " + strings.Join(columns, ", ") +
		"\n    FROM (SELECT " + strings.Join(inner, ", ") +
		"\n      FROM (SELECT *, arrayJoin(arrayFilter(s -> s.1 != 0, [" + strings.Join(tuples, ",\n        ") +
		"])) AS source FROM matched))"
	if len(where) > 0 {
		query += "\n    WHERE " + strings.Join(where, " AND ")
	}

	query += "\n    GROUP BY " + strings.Join(by, ", ")
	if len(lists) > 0 {
		query = "SELECT *, " + joinedArrays(chosen) + " AS of FROM (" + query + ")"
	}

	return "    " + query
}
