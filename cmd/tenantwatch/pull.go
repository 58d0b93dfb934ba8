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
	groupHistory  = "history" // of topic alerts: who has its first partition runs the rules with long windows
	groupNotifier = "notifier"
)

func (c *Config) group(name string) string { return c.Kafka.Prefix + name }

// settlePatience is how long an audit waits for the writer before it says that it
// waits.
const settlePatience = time.Minute

// makePullers makes a puller for each tenant. With ordersOnly they do what they
// are asked for and nothing else.
func (p *pipeline) makePullers(ordersOnly bool) error {
	c, topics := p.cfg, p.backend.topics
	events := p.producer(topics.Events)
	checkpoints := p.keep(p.backend.kafka.NewProducerBy(topics.Checkpoints, func(key []byte) []byte { return []byte(checkpoint.TenantOf(key)) }))
	archive := audit.NewArchive(p.backend.conn,
		func(ctx context.Context) error {
			return p.backend.kafka.Drained(ctx, topics.Events, c.group(groupWriter), settlePatience)
		},
		func(ctx context.Context, yield func(schema.Record) error) error {
			return p.backend.kafka.ReadAll(ctx, topics.DeadLetter, yield)
		})
	metrics := pull.NewMetrics(p.reg)
	for _, t := range c.Tenants {
		tenant, err := auth0.New(auth0.Config{BaseURL: t.baseURL, Audience: t.Audience, ClientID: t.ClientID,
			ClientSecret: string(t.ClientSecret), PrivateKey: string(t.PrivateKey), UserAgent: "tenantwatch/" + version()})
		if err != nil {
			return err
		}
		p.pulls = append(p.pulls, pull.New(pull.Config{Tenant: t.Name, Domain: t.baseURL.Host, Backfill: c.backfill, Poll: c.poll, RequestsOnly: ordersOnly,
			Retention: c.retention, Log: p.log.With("part", "pull", "tenant", t.Name), Metrics: metrics},
			tenant, pace.New(c.rateShare), events, checkpoints, archive))
	}
	p.reg.MustRegister(pull.NewCollector(p.pulls))
	return nil
}

// lead pulls tenants for as long as their partition of the checkpoints topic is
// ours. So each tenant is pulled by one process; when that dies, its partitions
// go to another one. If we are cut off without noticing, two pull for a while,
// which makes repeats and loses nothing.
func (p *pipeline) lead(ctx context.Context, part *kafka.Partition) error {
	topic := p.backend.topics.Checkpoints
	var ours []*pull.Puller
	for _, pull := range p.pulls {
		id, err := p.backend.kafka.PartitionOf(ctx, topic, []byte(pull.Tenant()))
		if err != nil {
			return err
		}
		if id == part.ID() {
			ours = append(ours, pull)
		}
	}
	if len(ours) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	// From here on no order is missed: the checkpoints are read afterwards.
	if err := part.SeekEnd(ctx); err != nil {
		return err
	}
	state, err := checkpoint.ReadAll(ctx, func(ctx context.Context, yield func(schema.Record) error) error {
		return p.backend.kafka.ReadAll(ctx, topic, yield)
	}, func(err error) {
		p.log.Error("a checkpoint cannot be used; the chain continues from the one before it, audits find what is missing", "part", "pull", "err", err)
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	orders := map[string]chan checkpoint.Checkpoint{}
	for _, pull := range ours {
		taken := make(chan checkpoint.Checkpoint)
		orders[pull.Tenant()] = taken
		p.log.Info("this process pulls the tenant", "tenant", pull.Tenant())
		g.Go(func() error { return pull.Run(ctx, state, taken) })
	}
	g.Go(func() error { return takeOrders(ctx, part, orders) })
	return g.Wait()
}

// takeOrders hands chains that other processes ask for to the pullers.
func takeOrders(ctx context.Context, part *kafka.Partition, orders map[string]chan checkpoint.Checkpoint) error {
	for {
		r, err := part.Fetch(ctx)
		if err != nil {
			return err
		}
		c, err := checkpoint.Read(&r)
		if err != nil {
			continue // no order that could be followed; who reads the checkpoints names it
		}
		taken, ours := orders[c.Tenant]
		if !ours || !c.Requested {
			continue
		}
		select {
		case taken <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pullStatus is how the pulls of this process go, all tenants together.
type pullStatus struct {
	backfill    bool
	rounds      int     // backfills that are done
	events      uint64  // acked since this start
	done        uint64  // events of the backfill
	share       float64 // of the backfill that is done
	expected    float64 // events that are still to come
	calls, rate float64 // calls a second that are made, and that may be
}

func (p *pipeline) pullStatus() pullStatus {
	var all pullStatus
	var shares, serial float64
	for _, pull := range p.pulls {
		s := pull.Status()
		all.backfill = all.backfill || s.Backfill
		all.events += s.Events
		all.rounds += s.Slices.Rounds + s.Serial
		all.calls += s.Use.Calls
		all.rate += s.Use.Rate
		all.done += s.Slices.Events
		if s.Slices.Rounds == 0 && s.Slices.Chains == 0 {
			all.done += s.Total // of one chain
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
		serial++
	}
	if serial > 0 {
		all.share = shares / serial
	}
	return all
}

// serialShare is how much of the time from the oldest event to the first start
// one chain has pulled.
func serialShare(s pull.Status) float64 {
	whole := s.LiveFrom.Sub(s.Oldest)
	if s.Oldest.IsZero() || whole <= 0 {
		return 0
	}
	return min(max(float64(s.Position.Sub(s.Oldest))/float64(whole), 0), 1)
}

// showBackfill shows how far the backfill is, then says that it is done; and
// again when there is one more.
func (p *pipeline) showBackfill(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var bar *progress
	began := time.Now() // of the backfill at hand, or when we last looked before it
	var first uint64
	rounds := 0
	for {
		s := p.pullStatus()
		switch {
		case s.backfill && bar == nil:
			first = s.done
			bar = p.out.startProgress("backfill")
		case s.backfill:
			bar.show(s, first)
		case s.rounds > rounds: // one may come and go between two looks
			if bar != nil {
				bar.done()
				bar = nil
			}
			rounds = s.rounds
			spent, pulled := time.Since(began), s.done-min(first, s.done)
			p.out.printf("backfill done: %s events in %s, %s events/s", thousands(s.done), spent.Round(100*time.Millisecond),
				thousands(uint64(float64(pulled)/max(spent.Seconds(), 0.001))))
			first = 0
		case bar != nil: // another process goes on with it
			bar.done()
			bar = nil
		}
		if bar == nil {
			began = time.Now()
		}
		select {
		case <-ctx.Done():
			if bar != nil {
				bar.done()
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// failing is why a puller's calls fail, of any tenant.
func (p *pipeline) failing() string {
	for _, pull := range p.pulls {
		if s := pull.Status(); s.Failing != "" {
			return fmt.Sprintf("tenant %s: %s", s.Tenant, s.Failing)
		}
	}
	return ""
}
