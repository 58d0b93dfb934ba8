package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/scanner/health"
	"github.com/tenantwatch/tenantwatch/schema"
)

// runHistory runs the rules with long windows and the health monitor. One process does that for all: the one
// that is assigned the first partition of the topic alerts.
func (p *pipeline) runHistory(ctx context.Context, part *kafka.Partition) error {
	if part.ID() != 0 {
		<-ctx.Done()
		return ctx.Err()
	}

	// One that fails ends the other; then the group is joined again after a pause.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.history.Run(ctx) })
	g.Go(func() error { return p.health.Run(ctx) })
	return g.Wait()
}

func (p *pipeline) makeHealth() *health.Monitor {
	var tenants []health.Tenant
	for _, cfg := range p.cfg.Tenants {
		tenant := health.Tenant{Name: cfg.Name}
		if cfg.Probe.enabled() {
			tenant.ProbeEvery = p.cfg.probeEvery
		}
		tenants = append(tenants, tenant)
	}

	sources := health.Sources{
		Store: p.seenNow, Checkpoints: p.tails, DeadLetters: p.followDeadLetters, Roles: p.problem,
	}
	events := p.producer(p.backend.topics.Events)
	return health.New(tenants, sources, events, p.log.With("part", "health"), p.reg)
}

// seenNow is seen by the tenants' clocks, which may be ahead of ours.
func (p *pipeline) seenNow(ctx context.Context) (map[string]health.Seen, error) {
	newest, err := p.tails(ctx)
	if err != nil {
		p.log.Warn("read checkpoints failed; assuming that the tenants' clocks agree with ours", "err", err)
	}

	// One query for all tenants allows for the clock that is furthest ahead.
	var ahead time.Duration
	for _, tail := range newest {
		ahead = max(ahead, -tail.Ahead)
	}
	return p.seen(ctx, ahead)
}

// seenQuery selects a tenant's first and newest event, the number of events in the current hour of the last
// seven days, and the newest probe. Dates more than five minutes in the future are ignored: an event may hold
// any date.
const seenQuery = `SELECT tenant,
		minIf(date, source NOT IN ('self', 'probe')), maxIf(date, source NOT IN ('self', 'probe')),
		countIf(source NOT IN ('self', 'probe') AND toHour(date) = toHour(now('UTC'))),
		maxIf(date, type = 'tenantwatch_probe')
	FROM events_stored
	WHERE date > now() - INTERVAL 7 DAY AND date < now() + INTERVAL 5 MINUTE + toIntervalSecond(?)
	GROUP BY tenant`

// seen returns a summary of the tenants' stored events of the last seven days. The tenants' clocks are ahead
// of ours by so much.
func (p *pipeline) seen(ctx context.Context, ahead time.Duration) (map[string]health.Seen, error) {
	rows, err := p.backend.conn.Query(ctx, seenQuery, int64(ahead.Seconds()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()

	found := map[string]health.Seen{}
	for rows.Next() {
		var tenant string
		var seen health.Seen
		if err := rows.Scan(&tenant, &seen.First, &seen.Newest, &seen.SameHour, &seen.Probe); err != nil {
			return nil, err
		}

		// ClickHouse returns 1970 for the minimum and maximum of no rows.
		for _, at := range []*time.Time{&seen.First, &seen.Newest, &seen.Probe} {
			if at.Unix() == 0 {
				*at = time.Time{}
			}
		}
		found[tenant] = seen
	}
	return found, rows.Err()
}

// tails returns the newest checkpoint of each tenant's tail.
func (p *pipeline) tails(ctx context.Context) (map[string]health.Tail, error) {
	newest, err := tails(ctx, p.backend.kafka, p.backend.topics.Checkpoints)
	found := map[string]health.Tail{}
	for tenant, tail := range newest {
		ahead := time.Duration(tail.Ahead * float64(time.Second))
		found[tenant] = health.Tail{Written: tail.UpdatedAt, Ahead: ahead}
	}
	return found, err
}

// followDeadLetters calls yield with the tenant of each new dead letter until ctx ends.
func (p *pipeline) followDeadLetters(ctx context.Context, yield func(tenant string)) error {
	ready := func() error { return nil }
	return p.backend.kafka.Follow(ctx, p.backend.topics.DeadLetter, 0, ready, func(r schema.Record) error {
		if letter := schema.DeadLetterOf(&r); !letter.Retried {
			yield(letter.Tenant)
		}
		return nil
	})
}
