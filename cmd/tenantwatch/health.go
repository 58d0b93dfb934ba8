package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/scanner/health"
	"github.com/tenantwatch/tenantwatch/schema"
)

// runHistory does what one process does for all: it runs the rules with long windows
// and looks at the tenants' health, where it has the first partition of the alerts.
func (p *pipeline) runHistory(ctx context.Context, part *kafka.Partition) error {
	if part.ID() != 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.history.Run(ctx) })
	g.Go(func() error { return p.health.Run(ctx) })
	return g.Wait()
}

func (p *pipeline) makeHealth() *health.Monitor {
	var tenants []health.Tenant
	for _, t := range p.cfg.Tenants {
		one := health.Tenant{Name: t.Name}
		if t.Probe.on() {
			one.ProbeEvery = p.cfg.probeEvery
		}
		tenants = append(tenants, one)
	}
	return health.New(tenants, health.Sources{Store: p.seenNow, Checkpoints: p.tails, DeadLetters: p.followDeadLetters, Roles: p.trouble},
		p.producer(p.backend.topics.Events), p.log.With("part", "health"), p.reg)
}

// seenNow is seen by the tenants' clocks: theirs may be ahead of ours.
func (p *pipeline) seenNow(ctx context.Context) (map[string]health.Seen, error) {
	newest, err := p.tails(ctx)
	if err != nil {
		p.log.Warn("clocks are not known; the tenants' are taken for right", "err", err)
	}
	var ahead time.Duration
	for _, tail := range newest {
		ahead = max(ahead, -tail.Ahead)
	}
	return p.seen(ctx, ahead)
}

// seen is what ClickHouse knows of the tenants' last seven days. Dates that are later
// than some minutes after now are not believed; ahead is how far a tenant's now is.
func (p *pipeline) seen(ctx context.Context, ahead time.Duration) (map[string]health.Seen, error) {
	rows, err := p.backend.conn.Query(ctx, `SELECT tenant,
			minIf(date, source NOT IN ('self', 'probe')), maxIf(date, source NOT IN ('self', 'probe')),
			countIf(source NOT IN ('self', 'probe') AND toHour(date) = toHour(now('UTC'))), maxIf(date, type = 'tenantwatch_probe')
		FROM events_stored WHERE date > now() - INTERVAL 7 DAY AND date < now() + INTERVAL 5 MINUTE + toIntervalSecond(?) GROUP BY tenant`, int64(ahead.Seconds()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[string]health.Seen{}
	for rows.Next() {
		var tenant string
		var s health.Seen
		if err := rows.Scan(&tenant, &s.First, &s.Newest, &s.SameHour, &s.Probe); err != nil {
			return nil, err
		}
		for _, at := range []*time.Time{&s.First, &s.Newest, &s.Probe} {
			if at.Unix() == 0 { // of nothing at all
				*at = time.Time{}
			}
		}
		found[tenant] = s
	}
	return found, rows.Err()
}

// tails are the newest checkpoints of the tenants' tails.
func (p *pipeline) tails(ctx context.Context) (map[string]health.Tail, error) {
	newest, err := tails(ctx, p.backend.kafka, p.backend.topics.Checkpoints)
	found := map[string]health.Tail{}
	for tenant, c := range newest {
		found[tenant] = health.Tail{Written: c.UpdatedAt, Ahead: time.Duration(c.Ahead * float64(time.Second))}
	}
	return found, err
}

// followDeadLetters tells of each dead letter that comes.
func (p *pipeline) followDeadLetters(ctx context.Context, yield func(tenant string)) error {
	return p.backend.kafka.Follow(ctx, p.backend.topics.DeadLetter, 0, func() error { return nil }, func(r schema.Record) error {
		if d := schema.DeadLetterOf(&r); !d.Retried {
			yield(d.Tenant)
		}
		return nil
	})
}
