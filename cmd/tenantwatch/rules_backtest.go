package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/schema"
)

type rulesBacktestCmd struct {
	ruleSources
	span
	Rule       []string `placeholder:"RULE" help:"Ids, names or titles of rules. Default: all."`
	Tenant     string   `help:"The tenant's name. Default: all that there are."`
	MaxPerWeek int      `default:"7" placeholder:"N" help:"How many alerts a week are to be borne: a threshold is looked for that gives no more."`
	Against    string   `placeholder:"DIR" help:"A folder with another version of the rules: what it would have done, by the rules' ids."`
	Output     string   `enum:"table,json" default:"table" help:"table, or json: an array of objects."`
}

// tested is what a rule would have done, as rules backtest tells it.
type tested struct {
	RuleID      string          `json:"rule_id"`
	Title       string          `json:"title"`
	Level       string          `json:"level"`
	Since       time.Time       `json:"since"`
	Until       time.Time       `json:"until"`
	Alerts      int             `json:"alerts"`
	PerWeek     float64         `json:"alerts_per_week"`
	Days        []testedDay     `json:"days"`
	AlertGroups int             `json:"alert_groups"` // with an alert
	Groups      int             `json:"groups"`       // of which a window was judged
	P50         float64         `json:"p50"`          // of the groups' highest values
	P95         float64         `json:"p95"`
	Highest     float64         `json:"highest"`
	TopGroups   []testedGroup   `json:"top_groups"`
	Threshold   *float64        `json:"threshold,omitempty"` // where it has a single one
	Suggested   *testedOther    `json:"suggested,omitempty"`
	Against     *testedVersions `json:"against,omitempty"`
}

type testedDay struct {
	Date   string `json:"date"`
	Alerts int    `json:"alerts"`
}

type testedGroup struct {
	Tenant string            `json:"tenant"`
	Group  map[string]string `json:"group"`
	Value  float64           `json:"value"`
	Alerts int               `json:"alerts"`
}

// testedOther is a threshold that keeps to so many alerts a week.
type testedOther struct {
	MaxPerWeek int     `json:"max_per_week"`
	Threshold  float64 `json:"threshold"`
	Alerts     int     `json:"alerts"` // in all of the time
}

// testedVersions is what another version of a rule would have done.
type testedVersions struct {
	Alerts int           `json:"alerts"`
	Both   int           `json:"both"`
	Gone   []testedAlert `json:"gone"` // that only the other version has
	New    []testedAlert `json:"new"`  // that it does not have
}

type testedAlert struct {
	Tenant string            `json:"tenant"`
	At     time.Time         `json:"at"`
	Level  string            `json:"level"`
	Group  map[string]string `json:"group"`
	Count  float64           `json:"count"`
}

// mostTop is how many groups are listed, and how many alerts of a comparison in a
// table.
const mostTop = 10

// Run prints what the rules would have done.
func (c *rulesBacktestCmd) Run(ctx context.Context, a *app) error {
	now := time.Now()
	since, until, err := c.times(now)
	if err != nil {
		return err
	}
	if c.MaxPerWeek < 0 {
		return usageError("--max-per-week: want 0 or more")
	}
	set, report, _, err := c.load(a)
	if err != nil {
		return err
	}
	chosen, err := chooseRules(set, report, c.Rule)
	if err != nil {
		return err
	}
	var other *rules.Set
	if c.Against != "" {
		older := ruleSources{Rules: []string{c.Against}, Builtin: c.Builtin, Var: c.Var}
		if other, _, _, err = older.load(a); err != nil {
			return err
		}
	}
	cfg, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}
	conn, end, err := connectReader(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	t := &backtest{cmd: c, store: history.NewStore(conn), bar: newConsole(a.stderr).startProgress("backtest"), span: history.Span{Tenant: c.Tenant, Since: since, Until: until}}
	defer t.bar.done()
	list, err := t.run(ctx, set.Select(func(r *rules.Rule) bool { return slices.Contains(chosen, r.ID) }), other)
	t.bar.done()
	if err != nil {
		return err
	}
	if c.Output == "json" {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(list)
	}
	if len(list) == 1 {
		list[0].print(a.stdout)
		return nil
	}
	rows := newTableRows(a.stdout, []string{"rule", "level", "alerts", "a week", "groups", "p50", "p95", "highest", "threshold", fmt.Sprintf("for %d a week", c.MaxPerWeek)})
	for _, r := range list {
		threshold, suggested := any(nil), any(nil)
		if r.Threshold != nil {
			threshold = *r.Threshold
		}
		if r.Suggested != nil {
			suggested = r.Suggested.Threshold
		}
		err := rows.row([]any{r.Title, r.Level, r.Alerts, round(r.PerWeek), r.Groups, short(r.P50), short(r.P95), short(r.Highest), threshold, suggested})
		if err != nil {
			return err
		}
	}
	return rows.end()
}

// chooseRules are the ids of the alerting rules that are meant by names; all of
// them where there are none.
func chooseRules(set *rules.Set, report *rules.Report, names []string) ([]string, error) {
	var alerting, chosen []string
	for _, r := range set.Rules() {
		if r.Alert != nil {
			alerting = append(alerting, r.ID)
		}
	}
	if len(names) == 0 {
		return alerting, nil
	}
	for _, name := range names {
		d, err := findRule(set, report, name)
		switch {
		case err != nil:
			return nil, err
		case !d.Runs():
			return nil, usageError(fmt.Sprintf("--rule %s does not run: it is %s: %s", name, d.Status, d.Reason))
		case !slices.Contains(alerting, d.ID):
			return nil, usageError(fmt.Sprintf("--rule %s does not alert: it only serves others", name))
		}
		chosen = append(chosen, d.ID)
	}
	return chosen, nil
}

// backtest is a run of rules backtest.
type backtest struct {
	cmd   *rulesBacktestCmd
	store *history.Store
	bar   *progress
	span  history.Span
}

func (t *backtest) run(ctx context.Context, set, other *rules.Set) ([]*tested, error) {
	results, err := t.pass(ctx, set)
	if err != nil {
		return nil, err
	}
	weeks := float64(t.span.Until.Sub(t.span.Since)) / float64(7*24*time.Hour)
	var before map[string]*history.Result
	if other != nil {
		older, err := t.pass(ctx, other.Select(func(r *rules.Rule) bool {
			return slices.ContainsFunc(results, func(x *history.Result) bool { return x.Rule.ID == r.ID })
		}))
		if err != nil {
			return nil, err
		}
		before = map[string]*history.Result{}
		for _, r := range older {
			before[r.Rule.ID] = r
		}
	}
	var list []*tested
	for _, r := range results {
		row := t.tell(r, weeks)
		if row.PerWeek > float64(t.cmd.MaxPerWeek) && history.Raisable(r.Rule) {
			own := set.Select(func(x *rules.Rule) bool { return x.ID == r.Rule.ID })
			than, alerts, err := t.store.Threshold(ctx, own, t.span, r, int(float64(t.cmd.MaxPerWeek)*weeks))
			if err != nil {
				return nil, err
			}
			row.Suggested = &testedOther{t.cmd.MaxPerWeek, than, alerts}
		}
		if before != nil {
			row.Against = compareVersions(before[r.Rule.ID], r)
		}
		list = append(list, row)
	}
	return list, nil
}

// pass runs a set over the time once.
func (t *backtest) pass(ctx context.Context, set *rules.Set) ([]*history.Result, error) {
	return t.store.Backtest(ctx, set, t.span, func(events int, part float64) {
		t.bar.show(pullStatus{done: uint64(events), share: part}, 0)
	})
}

func (t *backtest) tell(r *history.Result, weeks float64) *tested {
	row := &tested{RuleID: r.Rule.ID, Title: r.Rule.Title, Level: r.Rule.Level, Since: t.span.Since, Until: t.span.Until,
		Alerts: len(r.Alerts), PerWeek: float64(len(r.Alerts)) / weeks, Groups: len(r.Groups), P50: r.Quantile(0.5), P95: r.Quantile(0.95), Highest: r.Quantile(1)}
	if history.Raisable(r.Rule) {
		row.Threshold = &r.Rule.Correlation.Bounds[0].Than
	}
	perDay, perGroup := map[string]int{}, map[string]int{}
	for _, a := range r.Alerts {
		perDay[a.Starts.Format(time.DateOnly)]++
		perGroup[groupText(a.Tenant, a.Group)]++
	}
	row.AlertGroups = len(perGroup)
	for day := t.span.Since.UTC().Truncate(24 * time.Hour); !day.After(t.span.Until); day = day.Add(24 * time.Hour) {
		date := day.Format(time.DateOnly)
		row.Days = append(row.Days, testedDay{date, perDay[date]})
	}
	for _, g := range r.Groups[:min(len(r.Groups), mostTop)] {
		row.TopGroups = append(row.TopGroups, testedGroup{g.Tenant, groupMap(g.Group), g.Value, perGroup[groupText(g.Tenant, g.Group)]})
	}
	return row
}

// compareVersions holds two versions of a rule against each other. An alert is the same
// where there is one of the same group at the same time.
func compareVersions(before, now *history.Result) *testedVersions {
	v := &testedVersions{Gone: []testedAlert{}, New: []testedAlert{}}
	var older []*history.Alert
	if before != nil {
		older = before.Alerts
	}
	v.Alerts = len(older)
	missing := func(from, in []*history.Alert) []testedAlert {
		byGroup := map[string][]*history.Alert{}
		for _, a := range in {
			key := groupText(a.Tenant, a.Group)
			byGroup[key] = append(byGroup[key], a)
		}
		list := []testedAlert{}
		for _, a := range from {
			same := slices.ContainsFunc(byGroup[groupText(a.Tenant, a.Group)], func(b *history.Alert) bool {
				return !a.Starts.After(b.Ends) && !b.Starts.After(a.Ends)
			})
			if !same {
				list = append(list, testedAlert{a.Tenant, a.Starts, a.Level, groupMap(a.Group), a.Count})
			}
		}
		return list
	}
	v.Gone, v.New = missing(older, now.Alerts), missing(now.Alerts, older)
	v.Both = len(now.Alerts) - len(v.New)
	return v
}

func groupMap(values []schema.GroupValue) map[string]string {
	group := map[string]string{}
	for _, g := range values {
		group[g.Field] = g.Value
	}
	return group
}

// groupText names a group for people.
func groupText(tenant string, values []schema.GroupValue) string {
	parts := []string{tenant}
	for _, g := range values {
		parts = append(parts, g.Field+" "+g.Value)
	}
	return strings.Join(parts, ", ")
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// short is a value for people: ratios have many digits.
func short(f float64) float64 { return math.Round(f*1e4) / 1e4 }

// print shows all that is known of one rule.
func (r *tested) print(w io.Writer) {
	out := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	out("%s (%s, %s)", printable(r.Title), r.Level, r.RuleID)
	out("%s to %s", r.Since.Format(time.RFC3339), r.Until.Format(time.RFC3339))
	out("")
	out("alerts     %d, %v a week, of %d groups", r.Alerts, round(r.PerWeek), r.AlertGroups)
	out("groups     %d; highest values: p50 %v, p95 %v, all %v", r.Groups, short(r.P50), short(r.P95), short(r.Highest))
	if r.Threshold != nil {
		out("threshold  %v", *r.Threshold)
	}
	if s := r.Suggested; s != nil {
		out("           %v would have given %d alerts: at most %d a week", s.Threshold, s.Alerts, s.MaxPerWeek)
	}
	most := 1
	for _, d := range r.Days {
		most = max(most, d.Alerts)
	}
	out("\nalerts a day")
	for _, d := range r.Days {
		out("  %s %6d %s", d.Date, d.Alerts, strings.Repeat("▇", (d.Alerts*40+most-1)/most))
	}
	if len(r.TopGroups) > 0 {
		out("\ngroups with the highest values")
		for _, g := range r.TopGroups {
			out("  %10v %s, %d alerts", g.Value, printable(mapText(g.Tenant, g.Group)), g.Alerts)
		}
	}
	if v := r.Against; v != nil {
		out("\nthe other version: %d alerts; %d in both, %d only there, %d only here", v.Alerts, v.Both, len(v.Gone), len(v.New))
		for _, x := range []struct {
			sign string
			list []testedAlert
		}{{"-", v.Gone}, {"+", v.New}} {
			for i, a := range x.list {
				if i == mostTop {
					out("%s … %d more", x.sign, len(x.list)-i)
					break
				}
				out("%s %s %s %s, %v", x.sign, a.At.Format(time.RFC3339), a.Level, printable(mapText(a.Tenant, a.Group)), a.Count)
			}
		}
	}
}

// mapText is groupText for a map.
func mapText(tenant string, group map[string]string) string {
	var values []schema.GroupValue
	for _, name := range slices.Sorted(keysOf(group)) {
		values = append(values, schema.GroupValue{Field: name, Value: group[name]})
	}
	return groupText(tenant, values)
}
