package history

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Report is the outcome of a rule over a span, as a person or a program reads it.
type Report struct {
	RuleID      string        `json:"rule_id"`
	Title       string        `json:"title"`
	Level       string        `json:"level"`
	Since       time.Time     `json:"since"`
	Until       time.Time     `json:"until"`
	Alerts      int           `json:"alerts"`
	PerWeek     float64       `json:"alerts_per_week"`
	Days        []reportDay   `json:"days"`
	AlertGroups int           `json:"alert_groups"` // groups with an alert
	Groups      int           `json:"groups"`       // groups of which a window was evaluated
	P50         float64       `json:"p50"`          // of the groups' highest values
	P95         float64       `json:"p95"`
	Highest     float64       `json:"highest"`
	TopGroups   []reportGroup `json:"top_groups"`
	Threshold   *float64      `json:"threshold,omitempty"` // of a rule with a single one
	Suggested   *suggestion   `json:"suggested,omitempty"`
	Against     *comparison   `json:"against,omitempty"`
}

// reportDay is the number of alerts that began on a day.
type reportDay struct {
	Date   string `json:"date"` // as 2026-11-20
	Alerts int    `json:"alerts"`
}

// reportGroup is a group with its highest value.
type reportGroup struct {
	Tenant string            `json:"tenant"`
	Group  map[string]string `json:"group"`
	Value  float64           `json:"value"`
	Alerts int               `json:"alerts"`
}

// suggestion is the lowest threshold that stays within a number of alerts a week.
type suggestion struct {
	MaxPerWeek int     `json:"max_per_week"`
	Threshold  float64 `json:"threshold"`
	Alerts     int     `json:"alerts"` // in the whole range
}

// comparison compares the alerts of a rule with those of another version.
type comparison struct {
	Alerts int           `json:"alerts"` // of the other version
	Both   int           `json:"both"`
	Gone   []ReportAlert `json:"gone"` // that only the other version has
	New    []ReportAlert `json:"new"`  // that only this version has
}

// ReportAlert is an alert that one version of a rule has and the other lacks.
type ReportAlert struct {
	Tenant string            `json:"tenant"`
	At     time.Time         `json:"at"`
	Level  string            `json:"level"`
	Group  map[string]string `json:"group"`
	Count  float64           `json:"count"`
}

// topGroups is how many groups a report lists.
const topGroups = 10

// Trial is what Report runs.
type Trial struct {
	Rules      *rules.Set // each of its rules that alerts gets a report
	Other      *rules.Set // another version to compare with, by the ids of the rules; nil for none
	Span       Span
	MaxPerWeek int // maximum acceptable alerts a week of a rule

	// Progress is called with the number of events read and the part of the span that is done, from 0 to 1.
	Progress func(events int, part float64)
}

// Report runs the rules of a trial over the stored events and returns the outcome of each. A rule with a
// single threshold and more than the acceptable alerts gets a suggestion.
func (s *Store) Report(ctx context.Context, trial Trial) ([]*Report, error) {
	results, err := s.Backtest(ctx, trial.Rules, trial.Span, trial.Progress)
	if err != nil {
		return nil, err
	}

	var before map[string]*Result
	if trial.Other != nil {
		if before, err = s.runOther(ctx, &trial, results); err != nil {
			return nil, err
		}
	}

	weeks := float64(trial.Span.Until.Sub(trial.Span.Since)) / float64(7*24*time.Hour)
	var list []*Report
	for _, r := range results {
		report := newReport(r, trial.Span, weeks)
		if report.PerWeek > float64(trial.MaxPerWeek) && raisable(r.Rule) {
			// Search the threshold with this rule alone.
			single := trial.Rules.Select(func(rule *rules.Rule) bool { return rule.ID == r.Rule.ID })
			maxAlerts := int(float64(trial.MaxPerWeek) * weeks)
			threshold, alerts, err := s.Threshold(ctx, single, trial.Span, r, maxAlerts)
			if err != nil {
				return nil, err
			}
			report.Suggested = &suggestion{trial.MaxPerWeek, threshold, alerts}
		}
		if before != nil {
			report.Against = compareVersions(before[r.Rule.ID], r)
		}
		list = append(list, report)
	}
	return list, nil
}

// runOther runs the other versions of the rules in results, and returns their results by id.
func (s *Store) runOther(ctx context.Context, trial *Trial, results []*Result) (map[string]*Result, error) {
	set := trial.Other.Select(func(rule *rules.Rule) bool {
		return slices.ContainsFunc(results, func(r *Result) bool { return r.Rule.ID == rule.ID })
	})
	older, err := s.Backtest(ctx, set, trial.Span, trial.Progress)
	if err != nil {
		return nil, err
	}

	byID := map[string]*Result{}
	for _, r := range older {
		byID[r.Rule.ID] = r
	}
	return byID, nil
}

// newReport summarizes the outcome of a rule.
func newReport(r *Result, span Span, weeks float64) *Report {
	row := &Report{
		RuleID: r.Rule.ID, Title: r.Rule.Title, Level: r.Rule.Level, Since: span.Since, Until: span.Until,
		Alerts: len(r.Alerts), PerWeek: float64(len(r.Alerts)) / weeks,
		Groups: len(r.Groups), P50: r.Quantile(0.5), P95: r.Quantile(0.95), Highest: r.Quantile(1),
	}
	if raisable(r.Rule) {
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
	for start := span.Since.UTC().Truncate(day); !start.After(span.Until); start = start.Add(day) {
		date := start.Format(time.DateOnly)
		row.Days = append(row.Days, reportDay{date, perDay[date]})
	}

	// Groups are sorted by their highest value.
	for _, g := range r.Groups[:min(len(r.Groups), topGroups)] {
		alerts := perGroup[groupText(g.Tenant, g.Group)]
		row.TopGroups = append(row.TopGroups, reportGroup{g.Tenant, schema.GroupMap(g.Group), g.Value, alerts})
	}
	return row
}

// compareVersions compares the alerts of two versions of a rule. Alerts of the same group that overlap in time
// are the same.
func compareVersions(before, now *Result) *comparison {
	var older []*Alert
	if before != nil {
		older = before.Alerts
	}
	gone, added := alertsWithout(older, now.Alerts), alertsWithout(now.Alerts, older)
	return &comparison{Alerts: len(older), Both: len(now.Alerts) - len(added), Gone: gone, New: added}
}

// alertsWithout returns the alerts of a list that have no equal in another.
func alertsWithout(list, other []*Alert) []ReportAlert {
	byGroup := map[string][]*Alert{}
	for _, alert := range other {
		key := groupText(alert.Tenant, alert.Group)
		byGroup[key] = append(byGroup[key], alert)
	}

	without := []ReportAlert{}
	for _, alert := range list {
		overlaps := func(o *Alert) bool {
			return !alert.Starts.After(o.Ends) && !o.Starts.After(alert.Ends)
		}
		if !slices.ContainsFunc(byGroup[groupText(alert.Tenant, alert.Group)], overlaps) {
			without = append(without,
				ReportAlert{alert.Tenant, alert.Starts, alert.Level, schema.GroupMap(alert.Group), alert.Count})
		}
	}
	return without
}

// groupText identifies a group.
func groupText(tenant string, values []schema.GroupValue) string {
	parts := []string{tenant}
	for _, g := range values {
		parts = append(parts, g.Field+" "+g.Value)
	}
	return strings.Join(parts, ", ")
}
