package scanner

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/schema"
)

// emit appends a transition of g's alert to the output. end is the index of the last
// occurrence of its window, or -1 if there is none.
func (e *Engine) emit(g *group, state schema.AlertState, count float64, end int) {
	rule := g.rule.rule
	level, values := rule.Alert.Levels[g.level], g.values()

	alert := schema.Alert{
		Fingerprint: schema.Fingerprint(g.clock.tenant, rule.ID, values),
		Tenant:      g.clock.tenant,
		RuleID:      rule.ID,
		Title:       rule.Title,
		Level:       level.Name,
		State:       state,
		StartsAt:    time.UnixMicro(g.starts).UTC(),
		UpdatedAt:   time.UnixMicro(g.updated).UTC(),
		Group:       slices.Clone(values),
		Count:       count,
		Threshold:   level.Count,
		Window:      schema.Seconds(time.Duration(g.rule.span) * time.Microsecond),
		Tags:        rule.Tags,
		Prevention:  rule.Prevention,
	}
	slices.SortFunc(alert.Group, func(x, y schema.GroupValue) int { return strings.Compare(x.Field, y.Field) })
	if state == schema.Resolved {
		alert.ResolvedAt = alert.UpdatedAt
	}

	if end >= 0 {
		alert.LogIDs = g.sampleIDs(end, e.cfg.Samples)
		alert.Query = g.query(values, end)
	}
	alert.Summary = summary(rule, &alert)
	alert.Investigation = alert.InvestigationCommand(rule.Alert.Investigation)
	e.out = append(e.out, alert)
}

// sampleIDs returns up to n log_ids of the window that ends at an index.
func (g *group) sampleIDs(end, n int) []string {
	state, first := g.rule, 0
	if state.leads != 0 { // occurrences before the first of the order are not part of the alert

		first = g.window.Begin(end, state.span)
		for first < end && g.window[first].Seen>>state.ordered[0]&1 == 0 {
			first++
		}
	}
	return g.window[first:end+1].IDs(end-first, n, state.span, state.last > 0)
}

// summary fills in the rule's template. Without one, it lists the count and the group.
func summary(r *rules.Rule, a *schema.Alert) string {
	window := shortDuration(time.Duration(a.Window))
	switch {
	case a.State == schema.Resolved && a.Window == 0:
		return "over"
	case a.State == schema.Resolved:
		return fmt.Sprintf("over, %s in the last %s", number(a.Count), window)
	case r.Alert.Summary == "":
		return plainSummary(r, a, window)
	}

	pairs := []string{
		"{count}", number(a.Count),
		"{percent}", number(math.Round(100 * a.Count)),
		"{threshold}", number(a.Threshold),
		"{window}", window,
		"{level}", a.Level,
		"{tenant}", a.Tenant,
	}
	for _, value := range a.Group {
		pairs = append(pairs, "{"+value.Field+"}", value.Value)
	}
	return strings.NewReplacer(pairs...).Replace(r.Alert.Summary)
}

func plainSummary(r *rules.Rule, a *schema.Alert, window string) string {
	var b strings.Builder
	if r.Correlation != nil {
		fmt.Fprintf(&b, "%s in %s, from %s on", number(a.Count), window, number(a.Threshold))
	}
	for i, value := range a.Group {
		if i > 0 || b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(value.Field + " " + value.Value)
	}
	return b.String()
}

// number formats a value with up to three decimal places.
func number(f float64) string { return strconv.FormatFloat(math.Round(f*1e3)/1e3, 'f', -1, 64) }

// shortDuration formats a duration as 1h30m rather than 1h30m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// query returns SQL over the view events that lists the window: the events of the
// rule's types and group. If the rule has further conditions, it lists more events
// than were counted.
func (g *group) query(values []schema.GroupValue, end int) string {
	state := g.rule
	until := g.window[end].At
	since := until - state.span

	// Of last_events, only the last ones are in the window.
	if state.last > 0 && end-state.last+1 >= 0 {
		since = max(since, g.window[end-state.last+1].At-1)
	}

	where := []string{"tenant = " + schema.Literal(g.clock.tenant)}
	if state.span == 0 {
		where = append(where, "date = "+sqlTime(until), "log_id = "+schema.Literal(g.window[end].ID))
	} else {
		where = append(where, "date > "+sqlTime(since), "date <= "+sqlTime(until))
	}

	// Narrow it down by what is known without evaluating the rule.
	if types := sqlTypes(state.rule.Types); types != "" {
		where = append(where, types)
	}
	for i, value := range values {
		if value.Value != "" {
			where = append(where, sqlEqual(value, g.quoted>>i&1 == 1))
		}
	}

	return "SELECT date, type, log_id, ip, user_id, user_name, client_id, description, details FROM events WHERE " +
		strings.Join(where, " AND ") + " ORDER BY date"
}

func sqlTime(us int64) string {
	return "toDateTime64('" + time.UnixMicro(us).UTC().Format("2006-01-02 15:04:05.000") + "', 3, 'UTC')"
}

// sqlTypes returns a condition on the type; types may have wildcards.
func sqlTypes(types []string) string {
	var plain, all []string
	for _, name := range types {
		if strings.ContainsAny(name, "*?") {
			all = append(all, "type ILIKE "+schema.Like(name))
		} else {
			plain = append(plain, schema.Literal(name))
		}
	}

	if len(plain) > 0 {
		all = append(all, "type IN ("+strings.Join(plain, ", ")+")")
	}
	if len(all) > 1 {
		return "(" + strings.Join(all, " OR ") + ")"
	}
	return strings.Join(all, "")
}

// sqlEqual returns a condition that compares a field with its value. The field is a
// column, or a path in the JSON of details or rest.
func sqlEqual(v schema.GroupValue, quoted bool) string {
	place := tosql.Locate(v.Field)
	switch {
	case place.Plain():
		return place.Column + " = " + schema.Literal(v.Value)
	case place.Own() || quoted:
		return place.Text + " = " + schema.Literal(v.Value)
	}
	return place.Raw() + " = " + schema.Literal(v.Value)
}
