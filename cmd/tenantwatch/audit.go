package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

type auditCmd struct {
	span
	Repair bool   `help:"Pull what is missing, and wait until it is stored."`
	Tenant string `help:"The tenant's name. Default: all of the settings, or the only one that is pulled."`
	Hours  bool   `help:"List every hour, not only those where something is missing or was healed."`
	Output string `enum:"table,json,csv" default:"table" help:"table, json (an array of objects) or csv (with a header); these two list every hour."`
}

// Run has the time audited by the running instance, or does it itself, and prints
// what was found. Its error is a foundError while something is missing.
func (u *auditCmd) Run(ctx context.Context, a *app) error {
	now := time.Now()
	since, until, err := u.times(now)
	if err != nil {
		return err
	}
	if until.After(now) {
		until = now
	}
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}
	if err := c.checkTenant(u.Tenant); err != nil {
		return err
	}
	return withOrders(ctx, a, func(ctx context.Context, o *orders) error {
		tenants, err := o.tenants(ctx, c, u.Tenant)
		if err != nil {
			return err
		}
		var list []checkpoint.Checkpoint
		name := newOrderName()
		end := until.Add(time.Second) // ids made from times are cut to seconds
		if o.alone {
			end = until // our own login, which is an event too, comes later
		}
		for _, tenant := range tenants {
			list = append(list, audit.Request(tenant, name, since, end, u.Repair))
		}
		bar := newConsole(a.stderr).startProgress("audit")
		var seen chainProgress
		o.update = func(c checkpoint.Checkpoint) {
			bar.show(seen.add(c, float64(len(tenants))*until.Sub(since).Seconds()), 0)
		}
		done, err := o.give(ctx, list)
		bar.done()
		if err != nil {
			return err
		}
		return u.report(ctx, a, c, tenants, since, until, done)
	})
}

// farBehind is how far a pull may be behind when all is well.
const farBehind = 5 * time.Minute

// report prints the hours and what they add up to.
func (u *auditCmd) report(ctx context.Context, a *app, c *Config, tenants []string, since, until time.Time, done []checkpoint.Checkpoint) error {
	conn, end, err := connectReader(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	rows, err := newPrinter(a.stdout, u.Output, []string{"tenant", "hour", "expected", "stored", "dead_letters", "missing", "healed", "checked_from", "checked_to", "checked_at"})
	if err != nil {
		return err
	}
	listed := 0
	for _, tenant := range tenants {
		hours, err := audit.ReadCoverage(ctx, conn, tenant, since.Truncate(time.Hour), until.Add(time.Second))
		if err != nil {
			return err
		}
		for _, h := range hours {
			if u.Output == "table" && !u.Hours && h.Missing == 0 && h.Healed == 0 {
				continue
			}
			listed++
			stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
			if err := rows.row([]any{h.Tenant, stamp(h.Hour), h.Expected, h.Stored, h.Dead, h.Missing, h.Healed, stamp(h.From), stamp(h.Until), stamp(h.CheckedAt)}); err != nil {
				return err
			}
		}
	}
	if listed > 0 || u.Output != "table" {
		if err := rows.end(); err != nil {
			return err
		}
	}
	var all checkpoint.Tally
	var behind []string
	for _, c := range done {
		if c.Audit != nil {
			all.Add(c.Audit)
		}
		from, _ := schema.IDTime(c.From)
		to, _ := schema.IDTime(c.Until)
		if u.Output == "table" {
			fmt.Fprintf(a.stdout, "%s: looked at what Auth0 still has, from %s to %s\n", c.Tenant, from.Format(time.RFC3339), to.Format(time.RFC3339))
		}
		ahead := time.Duration(c.Ahead * float64(time.Second)) // ids tell the tenant's time
		if until.Add(-ahead).Sub(to) > farBehind {
			behind = append(behind, fmt.Sprintf("%s has been pulled up to %s only; what came later is not stored yet", c.Tenant, to.Format(time.RFC3339)))
		}
	}
	if u.Output == "table" {
		fmt.Fprintf(a.stdout, "%s expected, %s stored, %s dead letters, %s missing, %s healed\n", thousands(all.Expected), thousands(all.Stored),
			thousands(all.Dead), thousands(all.Missing), thousands(all.Healed))
	}
	switch {
	case all.Missing == 0 && len(behind) > 0:
		return foundError(strings.Join(behind, "; "))
	case all.Missing == 0:
		return nil
	case u.Repair:
		return foundError(fmt.Sprintf("%s events are still missing after the repair: see the log of the instance that pulls, and tenantwatch deadletter list", thousands(all.Missing)))
	}
	return foundError(fmt.Sprintf("%s events are missing: --repair pulls them", thousands(all.Missing)))
}
