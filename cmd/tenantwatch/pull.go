package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// The consumer groups, after the prefix of the topics.
const (
	groupPuller   = "puller"
	groupWriter   = "writer"
	groupScanner  = "scanner"
	groupHistory  = "history" // of the topic alerts; see runHistory
	groupNotifier = "notifier"
)

func (c *Config) group(name string) string { return c.Kafka.Prefix + name }

// drainTimeout is how long an audit waits for the writer to drain before it logs that it waits.
const drainTimeout = time.Minute

// makePullers creates a puller for each tenant. With requestsOnly they serve requests and do nothing else.
func (p *pipeline) makePullers(ctx context.Context, requestsOnly bool) error {
	c, topics := p.cfg, p.backend.topics
	known, err := tails(ctx, p.backend.kafka, topics.Checkpoints)
	if err != nil {
		return err
	}
	if err := c.checkNames(known); err != nil {
		return err
	}

	// All tenants share the producers. The checkpoints of a tenant go to one partition, that of its leader.
	events := p.producer(topics.Events)
	byTenant := func(key []byte) []byte { return []byte(checkpoint.TenantOf(key)) }
	checkpoints := p.keep(p.backend.kafka.NewProducerBy(topics.Checkpoints, byTenant))

	// An audit reads what is stored once the writer has drained.
	archive := audit.NewArchive(p.backend.conn,
		func(ctx context.Context) error {
			return p.backend.kafka.Drained(ctx, topics.Events, c.group(groupWriter), drainTimeout)
		},
		func(ctx context.Context, yield func(schema.Record) error) error {
			return p.backend.kafka.ReadAll(ctx, topics.DeadLetter, yield)
		})
	metrics := pull.NewMetrics(p.reg)

	for _, t := range c.Tenants {
		tenant, err := auth0.New(auth0.Config{
			BaseURL: t.baseURL, Audience: t.Audience, ClientID: t.ClientID,
			ClientSecret: string(t.ClientSecret), PrivateKey: string(t.PrivateKey),
			UserAgent: "tenantwatch/" + version(),
		})
		if err != nil {
			return err
		}
		cfg := pull.Config{
			Tenant: t.Name, Domain: t.baseURL.Host, Backfill: c.backfill, Poll: c.poll, RequestsOnly: requestsOnly,
			Retention: c.retention, Log: p.log.With("part", "pull", "tenant", t.Name), Metrics: metrics,
		}
		pacer := pace.New(c.rateShare)
		p.pulls = append(p.pulls, pull.New(cfg, tenant, pacer, events, checkpoints, archive))
	}
	p.reg.MustRegister(pull.NewCollector(p.pulls))
	return nil
}

// lead pulls the tenants whose checkpoints are in a partition for as long as the partition is assigned to
// this process. So one process pulls a tenant, and when it dies, another one gets the partition. While a
// process that was cut off has not noticed it, two pull the same tenant: that causes repeats and loses
// nothing.
func (p *pipeline) lead(ctx context.Context, part *kafka.Partition) error {
	topic := p.backend.topics.Checkpoints
	var led []*pull.Puller
	for _, puller := range p.pulls {
		id, err := p.backend.kafka.PartitionOf(ctx, topic, []byte(puller.Tenant()))
		if err != nil {
			return err
		}
		if id == part.ID() {
			led = append(led, puller)
		}
	}

	// Keep the assignment, so that the group does not rebalance.
	if len(led) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}

	// Seek first, then read the checkpoints: a request that arrives in between is fetched, not missed.
	if err := part.SeekEnd(ctx); err != nil {
		return err
	}
	state, err := p.readCheckpoints(ctx)
	if err != nil {
		return err
	}

	// A puller that fails ends the others; then the group is joined again after a pause.
	g, ctx := errgroup.WithContext(ctx)
	requests := map[string]chan checkpoint.Checkpoint{}
	for _, puller := range led {
		queue := make(chan checkpoint.Checkpoint)
		requests[puller.Tenant()] = queue
		p.log.Info("this process pulls the tenant", "tenant", puller.Tenant())
		g.Go(func() error { return puller.Run(ctx, state, queue) })
	}
	g.Go(func() error { return forwardRequests(ctx, part, requests) })
	return g.Wait()
}

// readCheckpoints reads the checkpoints of all chains.
func (p *pipeline) readCheckpoints(ctx context.Context) (checkpoint.Set, error) {
	readAll := func(ctx context.Context, yield func(schema.Record) error) error {
		return p.backend.kafka.ReadAll(ctx, p.backend.topics.Checkpoints, yield)
	}
	return checkpoint.ReadAll(ctx, readAll, func(err error) {
		p.log.Error("invalid checkpoint; the chain resumes from the one before, audits find missing events",
			"part", "pull", "err", err)
	})
}

// forwardRequests passes requests of other processes to the pullers of their tenants.
func forwardRequests(ctx context.Context, part *kafka.Partition, requests map[string]chan checkpoint.Checkpoint) error {
	for {
		r, err := part.Fetch(ctx)
		if err != nil {
			return err
		}
		c, err := checkpoint.Read(&r)
		if err != nil {
			continue // not a request; readCheckpoints logs it at the next start
		}
		queue, ours := requests[c.Tenant]
		// Most records are checkpoints of our own.
		if !ours || !c.Requested {
			continue
		}
		select {
		case queue <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pullStatus is the state of this process's pulls, for all tenants together.
type pullStatus struct {
	backfill    bool
	rounds      int     // finished backfills
	events      uint64  // acknowledged by Kafka since the start
	done        uint64  // events of the backfill
	share       float64 // finished part of the backfill, from 0 to 1
	expected    float64 // events that the backfill has yet to pull
	calls, rate float64 // calls a second: made, and allowed
}

func (p *pipeline) pullStatus() pullStatus {
	var all pullStatus
	var shares, tenants float64
	for _, puller := range p.pulls {
		s := puller.Status()
		all.backfill = all.backfill || s.Backfill
		all.events += s.Events
		all.rounds += s.Slices.Rounds + s.Serial
		all.calls += s.Use.Calls
		all.rate += s.Use.Rate

		// A tenant is backfilled in slices or, if it rejects synthetic ids, by one serial chain.
		all.done += s.Slices.Events
		if s.Slices.Rounds == 0 && s.Slices.Chains == 0 {
			all.done += s.Total
		}
		switch {
		case s.Slices.Chains > 0:
			all.expected += s.Slices.Expected
			shares += s.Slices.Share
		case s.Backfill:
			shares += serialShare(s)
		default:
			shares++
		}
		tenants++
	}

	if tenants > 0 {
		all.share = shares / tenants
	}
	return all
}

// serialShare returns the part of the time from the oldest event to the first start that a serial chain has
// pulled.
func serialShare(s pull.Status) float64 {
	whole := s.LiveFrom.Sub(s.Oldest)
	if s.Oldest.IsZero() || whole <= 0 {
		return 0
	}
	return min(max(float64(s.Position.Sub(s.Oldest))/float64(whole), 0), 1)
}

// backfillEvery is how often the progress of a backfill is updated.
const backfillEvery = 200 * time.Millisecond

// showBackfill shows the progress of each backfill, and its result when it is done, until ctx ends.
func (p *pipeline) showBackfill(ctx context.Context) error {
	tick := time.NewTicker(backfillEvery)
	defer tick.Stop()

	var bar *progress
	closeBar := func() {
		if bar != nil {
			bar.done()
			bar = nil
		}
	}
	defer closeBar()

	started := time.Now() // of the running backfill; without one, the last tick
	var first uint64      // events that were pulled when we began to show it
	rounds := 0
	for {
		s := p.pullStatus()
		switch {
		case s.backfill && bar == nil:
			first = s.done
			bar = p.out.startProgress("backfill")
		case s.backfill:
			bar.show(s, first)
		case s.rounds > rounds: // also one that began and ended between two ticks
			closeBar()
			rounds = s.rounds
			spent, pulled := time.Since(started), s.done-min(first, s.done)
			rate := float64(pulled) / max(spent.Seconds(), 0.001)
			p.out.printf("backfill done: %s events in %s, %s events/s", thousands(s.done),
				spent.Round(100*time.Millisecond), thousands(uint64(rate)))
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

// failingPull returns why the calls of a puller fail, for the first tenant that has failures.
func (p *pipeline) failingPull() string {
	for _, puller := range p.pulls {
		if s := puller.Status(); s.Failing != "" {
			return fmt.Sprintf("tenant %s: %s", s.Tenant, s.Failing)
		}
	}
	return ""
}
