package main

import (
	"context"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/lead"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
)

type backfillCmd struct {
	span
	tenantFlag
}

// Help describes the effect.
func (*backfillCmd) Help() string {
	return "The running instance pulls the time range; without one, this command does it. " +
		"Events that are stored already are not duplicated."
}

// Run pulls a time range again.
func (b *backfillCmd) Run(ctx context.Context, a *app) error {
	since, until, err := b.times(time.Now())
	if err != nil {
		return err
	}

	return b.withRequests(ctx, a, func(ctx context.Context, q *requests, tenants []string) error {
		// One request a tenant, all with one name.
		name := lead.NewName()
		var list []checkpoint.Checkpoint
		for _, tenant := range tenants {
			list = append(list, pull.BackfillRequest(tenant, name, since, until))
		}

		out := output.NewConsole(a.stdout)
		started := time.Now()
		done, err := q.submit(ctx, out.StartProgress("backfill"), list, until.Sub(since))
		if err != nil {
			return err
		}

		var events uint64
		for _, chain := range done {
			events += chain.Events
		}
		out.Printf("backfill done: %s events from %s to %s in %s", output.Thousands(events),
			since.Format(time.RFC3339), until.Format(time.RFC3339), time.Since(started).Round(100*time.Millisecond))
		return nil
	})
}
