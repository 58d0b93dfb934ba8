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
	Tenant string `help:"The tenant's name. Default: all of the settings, or the only one that is pulled."`
}

// Run has a stretch of the past pulled again. What is kept already stays single.
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
	return withOrders(ctx, a, func(ctx context.Context, o *orders) error {
		tenants, err := o.tenants(ctx, c, b.Tenant)
		if err != nil {
			return err
		}
		var list []checkpoint.Checkpoint
		name := newOrderName()
		for _, tenant := range tenants {
			list = append(list, pull.BackfillRequest(tenant, name, since, until))
		}
		out := newConsole(a.stdout)
		bar := out.startProgress("backfill")
		began := time.Now()
		var seen chainProgress
		o.update = func(c checkpoint.Checkpoint) {
			bar.show(seen.add(c, float64(len(tenants))*until.Sub(since).Seconds()), 0)
		}
		done, err := o.give(ctx, list)
		bar.done()
		if err != nil {
			return err
		}
		var events uint64
		for _, c := range done {
			events += c.Events
		}
		out.printf("backfill done: %s events from %s to %s in %s", thousands(events), since.Format(time.RFC3339), until.Format(time.RFC3339),
			time.Since(began).Round(100*time.Millisecond))
		return nil
	})
}

// chainProgress adds up what chains tell of themselves.
type chainProgress struct {
	chains map[string]checkpoint.Checkpoint
}

// add notes a chain; whole is the seconds of all chains together.
func (p *chainProgress) add(c checkpoint.Checkpoint, whole float64) pullStatus {
	if p.chains == nil {
		p.chains = map[string]checkpoint.Checkpoint{}
	}
	p.chains[c.Tenant+"/"+c.Chain] = c
	var s pullStatus
	var left float64
	for _, c := range p.chains {
		s.done += c.Events
		if !c.Done {
			at, _ := schema.IDTime(c.LogID)
			end, _ := schema.IDTime(c.Until)
			left += max(end.Sub(at).Seconds(), 0)
		}
	}
	s.share = min(max(1-left/whole, 0), 1)
	return s
}
