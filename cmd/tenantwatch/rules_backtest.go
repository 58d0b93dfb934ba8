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
	Tenant     string   `help:"Name of the tenant. Default: all."`
	MaxPerWeek int      `default:"7" placeholder:"N" help:"Maximum acceptable alerts per week. Default: 7."`
	Against    string   `placeholder:"DIR" help:"Folder with another version of the rules, to compare by their ids."`
	Output     string   `enum:"table,json" default:"table" help:"table, or json (one array)."`
}

// Help describes the suggested thresholds.
func (*rulesBacktestCmd) Help() string {
	return "For a rule with a single threshold and more than --max-per-week alerts per week, " +
		"the lowest threshold that stays within it is suggested."
}

// backtestResult is the outcome of a rule, as rules backtest prints it.
type backtestResult struct {
	RuleID      string             `json:"rule_id"`
	Title       string             `json:"title"`
	Level       string             `json:"level"`
	Since       time.Time          `json:"since"`
	Until       time.Time          `json:"until"`
	Alerts      int                `json:"alerts"`
	PerWeek     float64            `json:"alerts_per_week"`
	Days        []backtestDay      `json:"days"`
	AlertGroups int                `json:"alert_groups"` // groups with an alert
	Groups      int                `json:"groups"`       // groups of which a window was evaluated
	P50         float64            `json:"p50"`          // of the groups' highest values
	P95         float64            `json:"p95"`
	Highest     float64            `json:"highest"`
	TopGroups   []backtestGroup    `json:"top_groups"`
	Threshold   *float64           `json:"threshold,omitempty"` // of a rule with a single one
	Suggested   *backtestThreshold `json:"suggested,omitempty"`
	Against     *backtestVersions  `json:"against,omitempty"`
}

type backtestDay struct {
	Date   string `json:"date"`
	Alerts int    `json:"alerts"`
}

type backtestGroup struct {
	Tenant string            `json:"tenant"`
	Group  map[string]string `json:"group"`
	Value  float64           `json:"value"`
	Alerts int               `json:"alerts"`
}

// backtestThreshold is the lowest threshold that stays within a number of alerts a week.
type backtestThreshold struct {
	MaxPerWeek int     `json:"max_per_week"`
	Threshold  float64 `json:"threshold"`
	Alerts     int     `json:"alerts"` // in the whole range
}

// backtestVersions compares the alerts of a rule with those of another version.
type backtestVersions struct {
	Alerts int             `json:"alerts"` // of the other version
	Both   int             `json:"both"`
	Gone   []backtestAlert `json:"gone"` // that only the other version has
	New    []backtestAlert `json:"new"`  // that only this version has
}

type backtestAlert struct {
	Tenant string            `json:"tenant"`
	At     time.Time         `json:"at"`
	Level  string            `json:"level"`
	Group  map[string]string `json:"group"`
	Count  float64           `json:"count"`
}

// maxListed is how many groups are listed, and how many alerts of a comparison for people.
const maxListed = 10

// Run prints the outcome of the rules over the stored events.
func (c *rulesBacktestCmd) Run(ctx context.Context, a *app) error {
	since, until, err := c.times(time.Now())
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
	// Only rules that alert have an outcome.
	chosen, err := chooseRules(set, report, c.Rule)
	if err != nil {
		return err
	}

	// The other version replaces the folders of --rules only.
	var other *rules.Set
	if c.Against != "" {
		older := ruleSources{Rules: []string{c.Against}, Builtin: c.Builtin, Var: c.Var, AllLogSources: c.AllLogSources}
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

	// The events are read from ClickHouse.
	run := &backtest{
		cmd: c, store: history.NewStore(conn), bar: newConsole(a.stderr).startProgress("backtest"),
		span: history.Span{Tenant: c.Tenant, Since: since, Until: until},
	}
	defer run.bar.done()
	// The bar must be gone before results or errors are printed.
	list, err := run.all(ctx, set.Select(func(r *rules.Rule) bool { return slices.Contains(chosen, r.ID) }), other)
	run.bar.done()
	if err != nil {
		return err
	}
	return c.print(a.stdout, list)
}

// print prints the results: one in detail, several as a table.
func (c *rulesBacktestCmd) print(w io.Writer, list []*backtestResult) error {
	if c.Output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(list)
	}
	if len(list) == 1 {
		list[0].print(w)
		return nil
	}

	rows := newTableRows(w, []string{"rule", "level", "alerts", "a week", "groups", "p50", "p95", "highest",
		"threshold", fmt.Sprintf("for %d a week", c.MaxPerWeek)})
	for _, r := range list {
		// A nil cell is empty.
		threshold, suggested := any(nil), any(nil)
		if r.Threshold != nil {
			threshold = *r.Threshold
		}
		if r.Suggested != nil {
			suggested = r.Suggested.Threshold
		}
		if err := rows.row([]any{r.Title, r.Level, r.Alerts, round(r.PerWeek), r.Groups,
			short(r.P50), short(r.P95), short(r.Highest), threshold, suggested}); err != nil {
			return err
		}
	}
	return rows.end()
}

// chooseRules returns the ids of the named rules, which must alert; of all rules that alert without names.
func chooseRules(set *rules.Set, report *rules.Report, names []string) ([]string, error) {
	var alerting, chosen []string
	for _, rule := range set.Rules() {
		if rule.Alert != nil {
			alerting = append(alerting, rule.ID)
		}
	}
	if len(names) == 0 {
		return alerting, nil
	}

	for _, name := range names {
		doc, err := findRule(set, report, name)
		switch {
		case err != nil:
			return nil, err
		case !doc.Runs():
			return nil, usageError(fmt.Sprintf("--rule %s does not run: it is %s: %s", name, doc.Status, doc.Reason))
		case !slices.Contains(alerting, doc.ID):
			return nil, usageError(fmt.Sprintf("--rule %s fires no alerts: it is only counted by other rules", name))
		}
		chosen = append(chosen, doc.ID)
	}
	return chosen, nil
}

// backtest is one run of rules backtest.
type backtest struct {
	cmd   *rulesBacktestCmd
	store *history.Store
	bar   *progress
	span  history.Span
}

// all returns the outcome of each rule of a set, compared with the other set unless that is nil.
func (b *backtest) all(ctx context.Context, set, other *rules.Set) ([]*backtestResult, error) {
	results, err := b.run(ctx, set)
	if err != nil {
		return nil, err
	}

	var before map[string]*history.Result
	if other != nil {
		if before, err = b.runOther(ctx, other, results); err != nil {
			return nil, err
		}
	}

	weeks := float64(b.span.Until.Sub(b.span.Since)) / float64(7*24*time.Hour)
	var list []*backtestResult
	for _, r := range results {
		row := b.newResult(r, weeks)
		if row.PerWeek > float64(b.cmd.MaxPerWeek) && history.Raisable(r.Rule) {
			// Search the threshold with this rule alone.
			single := set.Select(func(rule *rules.Rule) bool { return rule.ID == r.Rule.ID })
			maxAlerts := int(float64(b.cmd.MaxPerWeek) * weeks)
			threshold, alerts, err := b.store.Threshold(ctx, single, b.span, r, maxAlerts)
			if err != nil {
				return nil, err
			}
			row.Suggested = &backtestThreshold{b.cmd.MaxPerWeek, threshold, alerts}
		}
		if before != nil {
			row.Against = compareVersions(before[r.Rule.ID], r)
		}
		list = append(list, row)
	}
	return list, nil
}

// run runs a set over the time range once.
func (b *backtest) run(ctx context.Context, set *rules.Set) ([]*history.Result, error) {
	return b.store.Backtest(ctx, set, b.span, func(events int, part float64) {
		b.bar.show(pullStatus{done: uint64(events), share: part}, 0)
	})
}

// runOther runs the other versions of the rules in results, and returns their results by id.
func (b *backtest) runOther(ctx context.Context, other *rules.Set,
	results []*history.Result) (map[string]*history.Result, error) {
	older, err := b.run(ctx, other.Select(func(rule *rules.Rule) bool {
		return slices.ContainsFunc(results, func(r *history.Result) bool { return r.Rule.ID == rule.ID })
	}))
	if err != nil {
		return nil, err
	}

	byID := map[string]*history.Result{}
	for _, r := range older {
		byID[r.Rule.ID] = r
	}
	return byID, nil
}

// newResult summarizes the outcome of a rule.
func (b *backtest) newResult(r *history.Result, weeks float64) *backtestResult {
	row := &backtestResult{
		RuleID: r.Rule.ID, Title: r.Rule.Title, Level: r.Rule.Level, Since: b.span.Since, Until: b.span.Until,
		Alerts: len(r.Alerts), PerWeek: float64(len(r.Alerts)) / weeks,
		Groups: len(r.Groups), P50: r.Quantile(0.5), P95: r.Quantile(0.95), Highest: r.Quantile(1),
	}
	if history.Raisable(r.Rule) {
		row.Threshold = &r.Rule.Correlation.Bounds[0].Than
	}

	// Count the alerts by day and by group.
	perDay, perGroup := map[string]int{}, map[string]int{}
	for _, alert := range r.Alerts {
		perDay[alert.Starts.Format(time.DateOnly)]++
		perGroup[groupText(alert.Tenant, alert.Group)]++
	}
	row.AlertGroups = len(perGroup)

	// Days without alerts are listed too.
	const day = 24 * time.Hour
	for start := b.span.Since.UTC().Truncate(day); !start.After(b.span.Until); start = start.Add(day) {
		date := start.Format(time.DateOnly)
		row.Days = append(row.Days, backtestDay{date, perDay[date]})
	}

	// Groups are sorted by their highest value.
	for _, g := range r.Groups[:min(len(r.Groups), maxListed)] {
		alerts := perGroup[groupText(g.Tenant, g.Group)]
		row.TopGroups = append(row.TopGroups, backtestGroup{g.Tenant, groupMap(g.Group), g.Value, alerts})
	}
	return row
}

// compareVersions compares the alerts of two versions of a rule. Alerts of the same group that overlap in time
// are the same.
func compareVersions(before, now *history.Result) *backtestVersions {
	var older []*history.Alert
	if before != nil {
		older = before.Alerts
	}
	gone, added := alertsWithout(older, now.Alerts), alertsWithout(now.Alerts, older)
	return &backtestVersions{Alerts: len(older), Both: len(now.Alerts) - len(added), Gone: gone, New: added}
}

// alertsWithout returns the alerts of a list that have no equal in another.
func alertsWithout(list, other []*history.Alert) []backtestAlert {
	byGroup := map[string][]*history.Alert{}
	for _, alert := range other {
		key := groupText(alert.Tenant, alert.Group)
		byGroup[key] = append(byGroup[key], alert)
	}

	without := []backtestAlert{}
	for _, alert := range list {
		overlaps := func(o *history.Alert) bool {
			return !alert.Starts.After(o.Ends) && !o.Starts.After(alert.Ends)
		}
		if !slices.ContainsFunc(byGroup[groupText(alert.Tenant, alert.Group)], overlaps) {
			without = append(without,
				backtestAlert{alert.Tenant, alert.Starts, alert.Level, groupMap(alert.Group), alert.Count})
		}
	}
	return without
}

func groupMap(values []schema.GroupValue) map[string]string {
	group := map[string]string{}
	for _, g := range values {
		group[g.Field] = g.Value
	}
	return group
}

// groupText formats a group for people.
func groupText(tenant string, values []schema.GroupValue) string {
	parts := []string{tenant}
	for _, g := range values {
		parts = append(parts, g.Field+" "+g.Value)
	}
	return strings.Join(parts, ", ")
}

// mapText is groupText for a map.
func mapText(tenant string, group map[string]string) string {
	var values []schema.GroupValue
	for _, name := range slices.Sorted(keysOf(group)) {
		values = append(values, schema.GroupValue{Field: name, Value: group[name]})
	}
	return groupText(tenant, values)
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// short rounds a value for people: ratios have many digits.
func short(f float64) float64 { return math.Round(f*1e4) / 1e4 }

// barWidth is the length of the bar for the day with most alerts.
const barWidth = 40

// print prints a result in detail.
func (r *backtestResult) print(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("%s (%s, %s)", printable(r.Title), r.Level, r.RuleID)
	line("%s to %s", r.Since.Format(time.RFC3339), r.Until.Format(time.RFC3339))
	line("")
	line("alerts     %d, %v a week, of %d groups", r.Alerts, round(r.PerWeek), r.AlertGroups)
	line("groups     %d; highest values: p50 %v, p95 %v, all %v",
		r.Groups, short(r.P50), short(r.P95), short(r.Highest))
	if r.Threshold != nil {
		line("threshold  %v", *r.Threshold)
	}
	if s := r.Suggested; s != nil {
		line("           %v would have given %d alerts: at most %d a week", s.Threshold, s.Alerts, s.MaxPerWeek)
	}

	// A bar for each day, relative to the day with most alerts.
	highest := 1
	for _, day := range r.Days {
		highest = max(highest, day.Alerts)
	}
	line("\nalerts a day")
	for _, day := range r.Days {
		width := (day.Alerts*barWidth + highest - 1) / highest // rounded up
		line("  %s %6d %s", day.Date, day.Alerts, strings.Repeat("▇", width))
	}

	if len(r.TopGroups) > 0 {
		line("\ngroups with the highest values")
		for _, g := range r.TopGroups {
			line("  %10v %s, %d alerts", g.Value, printable(mapText(g.Tenant, g.Group)), g.Alerts)
		}
	}

	if v := r.Against; v != nil {
		line("\nthe other version: %d alerts; %d in both, %d only there, %d only here",
			v.Alerts, v.Both, len(v.Gone), len(v.New))
		printAlerts(w, "-", v.Gone)
		printAlerts(w, "+", v.New)
	}
}

// printAlerts prints the first alerts of a comparison.
func printAlerts(w io.Writer, sign string, list []backtestAlert) {
	for i, alert := range list {
		if i == maxListed {
			fmt.Fprintf(w, "%s … %d more\n", sign, len(list)-i)
			return
		}
		fmt.Fprintf(w, "%s %s %s %s, %v\n", sign, alert.At.Format(time.RFC3339), alert.Level,
			printable(mapText(alert.Tenant, alert.Group)), alert.Count)
	}
}
