package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/schema"
)

type investigateCmd struct {
	Name          string `arg:"" optional:"" help:"The investigation. Default: list them."`
	Value         string `placeholder:"TEXT" help:"The user_id, address or other value to look for."`
	Tenant        string `help:"Name of the tenant. Default: all."`
	Since         string `default:"24h" help:"Start of the range: a duration ago (24h, 7d) or a time in RFC 3339."`
	Until         string `help:"End of the range, in the same form. Default: now."`
	SQL           bool   `name:"sql" help:"Print the query instead of running it."`
	output.Answer `embed:""`
	queryBounds   `embed:""`
}

// Run runs an investigation.
func (v *investigateCmd) Run(ctx context.Context, a *app) error {
	if v.Name == "" {
		return v.list(a)
	}

	found, ok := schema.FindInvestigation(v.Name)
	switch {
	case !ok:
		return usageError(fmt.Sprintf("unknown investigation %q; run tenantwatch investigate to list them", v.Name))
	case v.SQL:
		_, err := fmt.Fprint(a.stdout, found.SQL)
		return err
	case len(found.Fields) > 0 && v.Value == "":
		return usageError(fmt.Sprintf("investigate %s needs --value: %s", v.Name, strings.Join(found.Fields, " or ")))
	case len(found.Fields) == 0 && v.Value != "":
		return usageError(fmt.Sprintf("investigate %s is about the whole tenant; remove --value", v.Name))
	}

	// --since has a default here, unlike in span.
	since, until, err := (&span{Since: v.Since, Until: v.Until}).times(time.Now())
	if err != nil {
		return err
	}
	conn, end, err := a.openReader(ctx)
	if err != nil {
		return err
	}
	defer end()

	// Values are passed as parameters, never as a part of the query.
	const layout = "2006-01-02 15:04:05.000"
	ctx = clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{
		"tenant": v.Tenant,
		"value":  v.Value,
		"since":  since.UTC().Format(layout),
		"until":  until.UTC().Format(layout),
	}))
	if ctx, err = v.apply(ctx); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, found.SQL)
	if err != nil {
		return explainBounds(fmt.Errorf("investigate %s: %w", v.Name, err))
	}
	defer rows.Close()
	return explainBounds(v.Print(a.stdout, a.stderr, rows))
}

// list prints the investigations.
func (v *investigateCmd) list(a *app) error {
	rows, err := v.Rows(a.stdout, "name", "about", "value")
	if err != nil {
		return err
	}
	for _, each := range schema.Investigations() {
		if err := rows.Row(each.Name, each.About, strings.Join(each.Fields, " or ")); err != nil {
			return err
		}
	}
	return rows.End()
}
