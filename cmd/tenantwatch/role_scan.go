package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/rulefiles"
	"github.com/tenantwatch/tenantwatch/ingest/deadletter"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/lead"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/scanner/silence"
	"github.com/tenantwatch/tenantwatch/scanner/stream"
)

// buildScan runs the rules: on the stream, those with long windows on ClickHouse, and beside them the health
// monitor. Rules are compiled before the engines start, so that their warnings come first in the log.
func buildScan(p *pipeline) (func(context.Context) error, error) {
	files := rulefiles.New(p.cfg, p.log.With("part", "rules"), p.reg)
	set := files.Load()

	return func(context.Context) error {
		topics := p.engines.Topics
		past := p.engines.ReadAll(topics.Alerts)
		// Both engines restore their open alerts from the topic.
		alerts := p.engines.NewProducer(topics.Alerts)

		live := stream.New(streamRules(set), scanner.Config{}, past, alerts,
			p.log.With("part", "scan"), p.reg)
		store := history.NewStore(p.engines.Conn)
		long := history.NewLive(store, set, past, alerts, p.log.With("part", "history"), p.reg)

		observe := func(ctx context.Context, partition *kafka.Partition) error {
			return live.Consume(ctx, partition)
		}
		p.add(part{
			role: roleScan, stops: stopsSecond, run: p.consumer(topics.Events, groupScanner, observe),
			ready: p.progresses(groupScanner),
		})
		p.add(part{
			name: "history", role: roleScan, stops: stopsSecond,
			run:   p.consumer(topics.Alerts, groupHistory, onePartition(long.Run, p.newSilence().Run)),
			ready: p.progresses(groupHistory),
		})
		p.add(part{name: "rules", role: roleScan, stops: stopsLast, run: func(ctx context.Context) error {
			return files.Watch(ctx, func(set *rules.Set) {
				live.Reload(streamRules(set))
				long.Reload(set)
			})
		}})
		return nil
	}, nil
}

// streamRules returns the rules of a set that run on the stream. The others have long windows and run on
// ClickHouse.
func streamRules(set *rules.Set) *rules.Set {
	return set.Select(func(r *rules.Rule) bool { return !history.Long(set, r) })
}

// onePartition runs what one process does for all: the one that is assigned the first partition of a topic.
func onePartition(runs ...func(context.Context) error) consume {
	return func(ctx context.Context, partition *kafka.Partition) error {
		if partition.ID() != 0 {
			<-ctx.Done()
			return ctx.Err()
		}

		// One that fails ends the others; then the group is joined again after a pause.
		g, ctx := errgroup.WithContext(ctx)
		for _, run := range runs {
			g.Go(func() error { return run(ctx) })
		}
		return g.Wait()
	}
}

// newSilence returns the monitor of the tenants' health.
func (p *pipeline) newSilence() *silence.Monitor {
	var tenants []silence.Tenant
	for _, cfg := range p.cfg.Tenants {
		tenant := silence.Tenant{Name: cfg.Name}
		if cfg.Probe.Enabled() {
			tenant.ProbeEvery = p.cfg.Parsed.ProbeEvery
		}
		tenants = append(tenants, tenant)
	}

	letters := deadletter.New(p.engines.Kafka, p.engines.Topics, p.log)
	sources := silence.Sources{Store: p.seen, Checkpoints: p.tails, DeadLetters: letters.Follow, Roles: p.problem}
	events := p.engines.NewProducer(p.engines.Topics.Events)
	return silence.New(tenants, sources, events, p.log.With("part", "silence"), p.reg)
}

// seen returns what ClickHouse knows, by the tenants' clocks, which may be ahead of ours.
func (p *pipeline) seen(ctx context.Context) (map[string]silence.Seen, error) {
	newest, err := p.tails(ctx)
	if err != nil {
		p.log.Warn("read checkpoints failed; assuming that the tenants' clocks agree with ours", "err", err)
	}

	// One query for all tenants allows for the clock that is furthest ahead.
	var ahead time.Duration
	for _, tail := range newest {
		ahead = max(ahead, -tail.Ahead)
	}
	return silence.NewStore(p.engines.Conn).Seen(ctx, ahead)
}

// tails returns the newest checkpoint of each tenant's tail.
func (p *pipeline) tails(ctx context.Context) (map[string]silence.Tail, error) {
	newest, err := lead.Tails(ctx, p.engines.Kafka, p.engines.Topics.Checkpoints)
	found := map[string]silence.Tail{}
	for tenant, tail := range newest {
		ahead := time.Duration(tail.Ahead * float64(time.Second))
		found[tenant] = silence.Tail{Written: tail.UpdatedAt, Ahead: ahead}
	}
	return found, err
}
