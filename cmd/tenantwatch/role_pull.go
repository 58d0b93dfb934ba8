package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/version"
	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/lead"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
)

// buildPull pulls the tenants, and shows the progress of backfills.
func buildPull(p *pipeline) (func(context.Context) error, error) {
	return func(ctx context.Context) error {
		topics := p.engines.Topics
		if err := p.makePullers(ctx); err != nil {
			return err
		}

		// Which process pulls a tenant follows from the partition of its checkpoints.
		leader := &lead.Leader{Kafka: p.engines.Kafka, Topic: topics.Checkpoints, Pullers: p.pulls, Log: p.log}
		p.add(part{
			role: rolePull, stops: stopsFirst, run: p.consumer(topics.Checkpoints, groupPuller, leader.Lead),
			ready: firstOf(p.failingPull, p.progresses(groupPuller)),
		})
		p.add(part{name: "progress", role: rolePull, stops: stopsLast, run: p.showBackfill})
		return nil
	}, nil
}

// drainTimeout is how long an audit waits for the writer to drain before it logs that it waits.
const drainTimeout = time.Minute

// makePullers creates a puller for each tenant.
func (p *pipeline) makePullers(ctx context.Context) error {
	c, topics := p.cfg, p.engines.Topics
	tails, err := lead.Tails(ctx, p.engines.Kafka, topics.Checkpoints)
	if err != nil {
		return err
	}
	stored := map[string]string{}
	for tenant, tail := range tails {
		stored[tenant] = tail.Domain
	}
	if err := c.CheckNames(stored); err != nil {
		return err
	}

	// All tenants share the producers.
	events := p.engines.NewProducer(topics.Events)
	checkpoints := p.engines.Keep(lead.NewProducer(p.engines.Kafka, topics.Checkpoints))

	// An audit reads what is stored once the writer has drained.
	archive := audit.NewArchive(p.engines.Conn,
		func(ctx context.Context) error {
			return p.engines.Kafka.Drained(ctx, topics.Events, c.Group(groupWriter), drainTimeout)
		},
		p.engines.ReadAll(topics.DeadLetter))
	metrics := pull.NewMetrics(p.reg)

	for _, t := range c.Tenants {
		tenant, err := auth0.New(auth0.Config{
			BaseURL: t.BaseURL, Audience: t.Audience, ClientID: t.ClientID,
			ClientSecret: string(t.ClientSecret), PrivateKey: string(t.PrivateKey),
			UserAgent: "tenantwatch/" + version.String(),
		})
		if err != nil {
			return err
		}
		cfg := pull.Config{
			Tenant: t.Name, Domain: t.BaseURL.Host, Backfill: c.Parsed.Backfill, Poll: c.Parsed.Poll,
			RequestsOnly: p.setup.requestsOnly, Retention: c.Parsed.Retention,
			Log: p.log.With("part", "pull", "tenant", t.Name), Metrics: metrics,
		}
		pacer := pace.New(c.Parsed.RateShare)
		p.pulls = append(p.pulls, pull.New(cfg, tenant, pacer, events, checkpoints, archive))
	}
	p.reg.MustRegister(pull.NewCollector(p.pulls))
	return nil
}

// backfillEvery is how often the progress of a backfill is updated.
const backfillEvery = 200 * time.Millisecond

// showBackfill shows the progress of each backfill, and its result when it is done, until ctx ends.
func (p *pipeline) showBackfill(ctx context.Context) error {
	tick := time.NewTicker(backfillEvery)
	defer tick.Stop()

	var bar *output.Progress
	closeBar := func() {
		if bar != nil {
			bar.Done()
			bar = nil
		}
	}
	defer closeBar()

	started := time.Now() // of the running backfill; without one, the last tick
	var first uint64      // events that were pulled when we began to show it
	rounds := 0
	for {
		s := pull.Sum(p.pulls)
		switch {
		case s.Backfill && bar == nil:
			first = s.Done
			bar = p.out.StartProgress("backfill")
		case s.Backfill:
			bar.Show(progressOf(s), first)
		case s.Rounds > rounds: // also one that began and ended between two ticks
			closeBar()
			rounds = s.Rounds
			spent, pulled := time.Since(started), s.Done-min(first, s.Done)
			rate := float64(pulled) / max(spent.Seconds(), 0.001)
			p.out.Printf("backfill done: %s events in %s, %s events/s", output.Thousands(s.Done),
				spent.Round(100*time.Millisecond), output.Thousands(uint64(rate)))
			first = 0
		default: // none, or another process continues it
			closeBar()
		}
		if bar == nil {
			started = time.Now()
		}

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// progressOf returns the progress of a backfill as people see it.
func progressOf(s pull.Overall) output.State {
	return output.State{Done: s.Done, Share: s.Share, Expected: s.Expected, Calls: s.Calls, Rate: s.Rate}
}

// failingPull returns why the calls of a puller fail, for the first tenant that has failures.
func (p *pipeline) failingPull(context.Context) string {
	for _, puller := range p.pulls {
		if s := puller.Status(); s.Failing != "" {
			return fmt.Sprintf("tenant %s: %s", s.Tenant, s.Failing)
		}
	}
	return ""
}
