package main

import (
	"context"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/scanner/alert"
)

// buildNotify sends alerts to people.
func buildNotify(p *pipeline) (func(context.Context) error, error) {
	return func(context.Context) error {
		sinks := append([]alert.Sink{alert.NewTerminal(p.out, p.out.Terminal())}, p.setup.sinks...)
		notifier := alert.New(p.engines.Conn, sinks, p.log.With("part", "notify"), p.reg)

		send := func(ctx context.Context, partition *kafka.Partition) error {
			return notifier.Consume(ctx, partition)
		}
		p.add(part{
			role: roleNotify, stops: stopsSecond, run: p.consumer(p.engines.Topics.Alerts, groupNotifier, send),
			ready: firstOf(p.engines.ClickHouseProblem, p.progresses(groupNotifier)),
		})
		return nil
	}, nil
}
