package scanner

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// emit notes a transition of g's alert. end is the index of the occurrence with
// which its window ends; -1 where there is none.
func (e *Engine) emit(g *group, state schema.AlertState, count float64, end int) {
	t := g.rule
	r := t.rule
	level, values := r.Alert.Levels[g.level], g.values()
	a := schema.Alert{
		Fingerprint: schema.Fingerprint(g.tenant.name, r.ID, values),
		Tenant:      g.tenant.name,
		RuleID:      r.ID,
		Title:       r.Title,
		Level:       level.Name,
		State:       state,
		StartsAt:    time.UnixMicro(g.starts).UTC(),
		UpdatedAt:   time.UnixMicro(g.updated).UTC(),
		Group:       slices.Clone(values),
		Count:       count,
		Threshold:   level.Count,
		Window:      schema.Seconds(time.Duration(t.span) * time.Microsecond),
		Tags:        r.Tags,
		Prevention:  r.Prevention,
	}
	slices.SortFunc(a.Group, func(x, y schema.GroupValue) int { return strings.Compare(x.Field, y.Field) })
	if state == schema.Resolved {
		a.ResolvedAt = a.UpdatedAt
	}
	if end >= 0 {
		first := 0
		if t.leads != 0 { // what came before the first of the order has no part in it
			first = g.window.begin(end, t.span)
			for first < end && g.window[first].seen>>t.ordered[0]&1 == 0 {
				first++
			}
		}
		a.LogIDs = g.window[first:end+1].ids(end-first, e.cfg.Samples, t.span, t.last > 0)
		a.Query = g.query(values, end)
	}
	a.Summary = summary(r, &a)
	a.Investigation = a.InvestigationCommand(r.Alert.Investigation)
	e.out = append(e.out, a)
}

// summary fills in the rule's template, or says what is known without one.
func summary(r *rules.Rule, a *schema.Alert) string {
	window := shortDuration(time.Duration(a.Window))
	template := r.Alert.Summary
	switch {
	case a.State == schema.Resolved && a.Window == 0:
		return "over"
	case a.State == schema.Resolved:
		return fmt.Sprintf("over, %s in the last %s", number(a.Count), window)
	}
	if template == "" {
		var b strings.Builder
		if r.Correlation != nil {
			fmt.Fprintf(&b, "%s in %s, from %s on", number(a.Count), window, number(a.Threshold))
		}
		for i, g := range a.Group {
			if i > 0 || b.Len() > 0 {
				b.WriteString(", ")
			}
			b.WriteString(g.Field + " " + g.Value)
		}
		return b.String()
	}
	pairs := []string{"{count}", number(a.Count), "{percent}", number(math.Round(100 * a.Count)), "{threshold}", number(a.Threshold),
		"{window}", window, "{level}", a.Level, "{tenant}", a.Tenant}
	for _, g := range a.Group {
		pairs = append(pairs, "{"+g.Field+"}", g.Value)
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// number writes a count, or a value with up to three digits behind the point.
func number(f float64) string { return strconv.FormatFloat(math.Round(f*1e3)/1e3, 'f', -1, 64) }

// shortDuration writes 1h30m rather than 1h30m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// query is SQL over the view events that lists what the window holds: the
// events of the rule's types and group. Where the rule asks for more than that,
// it lists more than was counted.
func (g *group) query(values []schema.GroupValue, end int) string {
	t := g.rule
	until := g.window[end].at
	since := until - t.span
	if t.last > 0 && end-t.last+1 >= 0 {
		since = max(since, g.window[end-t.last+1].at-1)
	}
	where := []string{"tenant = " + schema.Literal(g.tenant.name)}
	if t.span == 0 {
		where = append(where, "date = "+sqlTime(until), "log_id = "+schema.Literal(g.window[end].id))
	} else {
		where = append(where, "date > "+sqlTime(since), "date <= "+sqlTime(until))
	}
	if types := sqlTypes(t.rule.Types); types != "" {
		where = append(where, types)
	}
	for i, v := range values {
		if v.Value != "" {
			where = append(where, sqlEqual(v, g.quoted>>i&1 == 1))
		}
	}
	return "SELECT date, type, log_id, ip, user_id, user_name, client_id, description, details FROM events WHERE " +
		strings.Join(where, " AND ") + " ORDER BY date"
}

func sqlTime(us int64) string {
	return "toDateTime64('" + time.UnixMicro(us).UTC().Format("2006-01-02 15:04:05.000") + "', 3, 'UTC')"
}

// sqlTypes is a condition on the type, which may have wildcards.
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

// sqlEqual compares a field with its value: a column, or a path in the JSON of
// details or of the rest.
func sqlEqual(v schema.GroupValue, quoted bool) string {
	if slices.Contains(schema.TextColumns[:], v.Field) {
		return v.Field + " = " + schema.Literal(v.Value)
	}
	column, path := "rest", strings.Split(v.Field, ".")
	if path[0] == "details" && len(path) > 1 {
		column, path = "details", path[1:]
	}
	args := column
	for _, step := range path {
		args += ", " + schema.Literal(step)
	}
	if quoted {
		return "JSONExtractString(" + args + ") = " + schema.Literal(v.Value)
	}
	return "JSONExtractRaw(" + args + ") = " + schema.Literal(v.Value)
}
