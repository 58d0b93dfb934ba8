package output

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/scanner/history"
)

// maxListed is how many alerts of a comparison are listed for people.
const maxListed = 10

// Backtest prints the outcomes of rules: one in detail, several as a table. maxPerWeek heads the column of
// suggestions.
func Backtest(w io.Writer, list []*history.Report, maxPerWeek int) error {
	if len(list) == 1 {
		printReport(w, list[0])
		return nil
	}

	rows := NewTable(w, "rule", "level", "alerts", "a week", "groups", "p50", "p95", "highest",
		"threshold", fmt.Sprintf("for %d a week", maxPerWeek))
	for _, r := range list {
		// A nil cell is empty.
		threshold, suggested := any(nil), any(nil)
		if r.Threshold != nil {
			threshold = *r.Threshold
		}
		if r.Suggested != nil {
			suggested = r.Suggested.Threshold
		}
		if err := rows.Row(r.Title, r.Level, r.Alerts, round(r.PerWeek), r.Groups,
			short(r.P50), short(r.P95), short(r.Highest), threshold, suggested); err != nil {
			return err
		}
	}
	return rows.End()
}

// groupText formats a group for people.
func groupText(tenant string, group map[string]string) string {
	parts := []string{tenant}
	for _, name := range slices.Sorted(maps.Keys(group)) {
		parts = append(parts, name+" "+group[name])
	}
	return strings.Join(parts, ", ")
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// short rounds a value for people: ratios have many digits.
func short(f float64) float64 { return math.Round(f*1e4) / 1e4 }

// barWidth is the length of the bar for the day with most alerts.
const barWidth = 40

// printReport prints the outcome of a rule in detail.
func printReport(w io.Writer, r *history.Report) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("%s (%s, %s)", Printable(r.Title), r.Level, r.RuleID)
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
			line("  %10v %s, %d alerts", g.Value, Printable(groupText(g.Tenant, g.Group)), g.Alerts)
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
func printAlerts(w io.Writer, sign string, list []history.ReportAlert) {
	for i, alert := range list {
		if i == maxListed {
			fmt.Fprintf(w, "%s … %d more\n", sign, len(list)-i)
			return
		}
		fmt.Fprintf(w, "%s %s %s %s, %v\n", sign, alert.At.Format(time.RFC3339), alert.Level,
			Printable(groupText(alert.Tenant, alert.Group)), alert.Count)
	}
}
