package main

import (
	"context"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

type backfillCmd struct {
	span
	Tenant string `help:"Name of the tenant. Default: all in the settings, or the only one that is pulled."`
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
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}
	if err := c.checkTenant(b.Tenant); err != nil {
		return err
	}

	return withRequests(ctx, a, func(ctx context.Context, q *requests) error {
		tenants, err := q.tenants(ctx, c, b.Tenant)
		if err != nil {
			return err
		}

		// One request a tenant, all with one name.
		name := newRequestName()
		var list []checkpoint.Checkpoint
		for _, tenant := range tenants {
			list = append(list, pull.BackfillRequest(tenant, name, since, until))
		}

		out := newConsole(a.stdout)
		started := time.Now()
		done, err := q.submitWithProgress(ctx, out.startProgress("backfill"), list, until.Sub(since))
		if err != nil {
			return err
		}

		var events uint64
		for _, chain := range done {
			events += chain.Events
		}
		out.printf("backfill done: %s events from %s to %s in %s", thousands(events), since.Format(time.RFC3339),
			until.Format(time.RFC3339), time.Since(started).Round(100*time.Millisecond))
		return nil
	})
}

// submitWithProgress is submit with a progress bar. Each of the requests covers the time range.
func (q *requests) submitWithProgress(ctx context.Context, bar *progress, list []checkpoint.Checkpoint,
	timeRange time.Duration) ([]checkpoint.Checkpoint, error) {
	chains := chainProgress{}
	q.update = func(c checkpoint.Checkpoint) {
		bar.show(chains.add(c, float64(len(list))*timeRange.Seconds()), 0)
	}
	defer bar.done()
	return q.submit(ctx, list)
}

// chainProgress is the newest checkpoint of each chain, by tenant and chain.
type chainProgress map[string]checkpoint.Checkpoint

// add records a checkpoint and returns the progress of all chains, which cover so many seconds together.
func (p chainProgress) add(c checkpoint.Checkpoint, seconds float64) pullStatus {
	p[c.Tenant+"/"+c.Chain] = c

	var status pullStatus

	// What is left of a chain is the time from its position to its end.
	var left float64
	for _, chain := range p {
		status.done += chain.Events
		if !chain.Done {
			at, _ := schema.IDTime(chain.LogID)
			end, _ := schema.IDTime(chain.Until)
			left += max(end.Sub(at).Seconds(), 0)
		}
	}
	status.share = min(max(1-left/seconds, 0), 1)
	return status
}
