package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/lead"
	"github.com/tenantwatch/tenantwatch/schema"
)

type auditCmd struct {
	span
	Repair bool `help:"Pull missing events, and wait until they are stored."`
	tenantFlag
	Hours bool `help:"List every hour, not only those with missing or healed events."`
	output.Format
}

// Help describes the output.
func (*auditCmd) Help() string {
	return "The running instance audits the time range; without one, this command does it. " +
		"The exit code is 3 when events are missing. The formats json and csv list every hour."
}

// Run audits the time range and prints the result. Its error is a foundError while events are missing.
func (u *auditCmd) Run(ctx context.Context, a *app) error {
	now := time.Now()
	since, until, err := u.times(now)
	if err != nil {
		return err
	}

	// A time in the future cannot be audited yet.
	if until.After(now) {
		until = now
	}

	return u.withRequests(ctx, a, func(ctx context.Context, q *requests, tenants []string) error {
		// Ids that are made from times are cut to seconds, so the range ends a second later. Without an
		// instance it ends at until: our own login, which is an event too, comes after that.
		end := until.Add(time.Second)
		if q.alone {
			end = until
		}
		name := lead.NewName()
		var list []checkpoint.Checkpoint
		for _, tenant := range tenants {
			list = append(list, audit.Request(tenant, name, since, end, u.Repair))
		}

		done, err := q.submit(ctx, output.NewConsole(a.stderr).StartProgress("audit"), list, until.Sub(since))
		if err != nil {
			return err
		}
		return u.report(ctx, a, tenants, since, until, done)
	})
}

// report prints the hours and their sums.
func (u *auditCmd) report(ctx context.Context, a *app, tenants []string, since, until time.Time,
	done []checkpoint.Checkpoint) error {
	if err := u.printHours(ctx, a, tenants, since, until); err != nil {
		return err
	}

	// The hours may lie partly outside the range, so the sums come from the answers.
	var all checkpoint.Tally
	var behind []string
	for _, chain := range done {
		if chain.Audit != nil {
			all.Add(chain.Audit)
		}
		from, _ := schema.IDTime(chain.From)
		to, _ := schema.IDTime(chain.Until)
		if u.Output == "table" {
			fmt.Fprintf(a.stdout, "%s: compared with what Auth0 still has, from %s to %s\n",
				chain.Tenant, from.Format(time.RFC3339), to.Format(time.RFC3339))
		}
		// Compare in the tenant's time.
		ahead := time.Duration(chain.Ahead * float64(time.Second)) // ids hold the tenant's time
		if until.Add(-ahead).Sub(to) > maxLag {
			behind = append(behind, fmt.Sprintf("%s is pulled up to %s only; later events are not stored yet",
				chain.Tenant, to.Format(time.RFC3339)))
		}
	}

	if u.Output == "table" {
		fmt.Fprintf(a.stdout, "%s expected, %s stored, %s dead letters, %s missing, %s healed\n",
			output.Thousands(all.Expected), output.Thousands(all.Stored), output.Thousands(all.Dead),
			output.Thousands(all.Missing), output.Thousands(all.Healed))
	}

	// A pull that is behind has not stored everything, although nothing that was pulled is missing.
	switch {
	case all.Missing == 0 && len(behind) > 0:
		return foundError(strings.Join(behind, "; "))
	case all.Missing == 0:
		return nil
	case u.Repair:
		return foundError(output.Thousands(all.Missing) + " events are still missing after the repair: " +
			"see the log of the instance that pulls, and tenantwatch deadletter list")
	}
	return foundError(output.Thousands(all.Missing) + " events are missing: --repair pulls them")
}

// maxLag is how far a healthy pull may be behind.
const maxLag = 5 * time.Minute

// printHours prints the coverage of the hours in the range.
func (u *auditCmd) printHours(ctx context.Context, a *app, tenants []string,
	since, until time.Time) error {
	conn, end, err := a.openReader(ctx)
	if err != nil {
		return err
	}
	defer end()

	rows, err := u.Rows(a.stdout, "tenant", "hour", "expected", "stored", "dead_letters",
		"missing", "healed", "checked_from", "checked_to", "checked_at")
	if err != nil {
		return err
	}

	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339) }
	everyHour := u.Hours || u.Output != "table"
	listed := 0
	for _, tenant := range tenants {
		hours, err := audit.ReadCoverage(ctx, conn, tenant, since.Truncate(time.Hour), until.Add(time.Second))
		if err != nil {
			return err
		}
		for _, h := range hours {
			if !everyHour && h.Missing == 0 && h.Healed == 0 {
				continue
			}
			listed++
			if err := rows.Row(h.Tenant, stamp(h.Hour), h.Expected, h.Stored, h.Dead, h.Missing, h.Healed,
				stamp(h.From), stamp(h.Until), stamp(h.CheckedAt)); err != nil {
				return err
			}
		}
	}

	// An empty table would only distract from the sums.
	if listed == 0 && u.Output == "table" {
		return nil
	}
	return rows.End()
}
