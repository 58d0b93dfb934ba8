package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/schema"
)

type investigateCmd struct {
	Name        string `arg:"" optional:"" help:"The investigation. Default: list them."`
	Value       string `placeholder:"TEXT" help:"Whom or what it is about, such as a user_id or an address."`
	Tenant      string `help:"The tenant's name. Default: all that there are."`
	Since       string `default:"24h" help:"From when on: a time ago such as 24h or 7d, or a time such as 2026-11-20T10:00:00Z."`
	Until       string `help:"Up to when, in the same way. Default: now."`
	SQL         bool   `name:"sql" help:"Print the query instead."`
	rowsOutput  `embed:""`
	queryBounds `embed:""`
}

// Run asks an investigation.
func (v *investigateCmd) Run(ctx context.Context, a *app) error {
	if v.Name == "" {
		return v.list(a)
	}
	i, ok := schema.FindInvestigation(v.Name)
	switch {
	case !ok:
		return usageError(fmt.Sprintf("there is no investigation %q; tenantwatch investigate lists them", v.Name))
	case v.SQL:
		_, err := fmt.Fprint(a.stdout, i.SQL)
		return err
	case len(i.Fields) > 0 && v.Value == "":
		return usageError(fmt.Sprintf("investigate %s needs --value: %s", v.Name, strings.Join(i.Fields, " or ")))
	case len(i.Fields) == 0 && v.Value != "":
		return usageError(fmt.Sprintf("investigate %s is about the tenant; it has no use for --value", v.Name))
	}
	since, until, err := (&span{Since: v.Since, Until: v.Until}).times(time.Now())
	if err != nil {
		return err
	}
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}
	conn, end, err := connectReader(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	const layout = "2006-01-02 15:04:05.000"
	ctx = clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{
		"tenant": v.Tenant, "value": v.Value, "since": since.UTC().Format(layout), "until": until.UTC().Format(layout)}))
	if ctx, err = v.apply(ctx); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, i.SQL)
	if err != nil {
		return fmt.Errorf("investigate %s: %w", v.Name, explainBounds(err))
	}
	defer rows.Close()
	return v.print(a, rows)
}

// list prints what there is.
func (v *investigateCmd) list(a *app) error {
	rows, err := newPrinter(a.stdout, v.Output, []string{"name", "about", "value"})
	if err != nil {
		return err
	}
	for _, i := range schema.Investigations() {
		if err := rows.row([]any{i.Name, i.About, strings.Join(i.Fields, " or ")}); err != nil {
			return err
		}
	}
	return rows.end()
}
