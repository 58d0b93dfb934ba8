package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner/history"
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

	conn, end, err := a.openReader(ctx)
	if err != nil {
		return err
	}
	defer end()

	// The events are read from ClickHouse.
	bar := output.NewConsole(a.stderr).StartProgress("backtest")
	defer bar.Done()
	list, err := history.NewStore(conn).Report(ctx, history.Trial{
		Rules: set.Select(func(r *rules.Rule) bool { return slices.Contains(chosen, r.ID) }), Other: other,
		Span:       history.Span{Tenant: c.Tenant, Since: since, Until: until},
		MaxPerWeek: c.MaxPerWeek,
		Progress: func(events int, part float64) {
			bar.Show(output.State{Done: uint64(events), Share: part}, 0)
		},
	})
	// The bar must be gone before results or errors are printed.
	bar.Done()
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return output.Object(a.stdout, list)
	}
	return output.Backtest(a.stdout, list, c.MaxPerWeek)
}

// chooseRules returns the ids of the named rules, which must alert; of all rules that alert without names.
func chooseRules(set *rules.Set, report *rules.Report, names []string) ([]string, error) {
	var chosen []string
	for _, rule := range set.Rules() {
		if len(names) == 0 && rule.Alert != nil {
			chosen = append(chosen, rule.ID)
		}
	}
	for _, name := range names {
		doc, rule, err := findRule(set, report, name)
		switch {
		case err != nil:
			return nil, err
		case rule == nil:
			return nil, usageError(fmt.Sprintf("--rule %s does not run: it is %s: %s", name, doc.Status, doc.Reason))
		case rule.Alert == nil:
			return nil, usageError(fmt.Sprintf("--rule %s fires no alerts: it is only counted by other rules", name))
		}
		chosen = append(chosen, doc.ID)
	}
	return chosen, nil
}
