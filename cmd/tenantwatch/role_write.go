package main

import (
	"context"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/write"
)

// buildWrite moves events from Kafka to ClickHouse.
func buildWrite(p *pipeline) (func(context.Context) error, error) {
	return func(context.Context) error {
		topics := p.engines.Topics
		deadLetters := p.engines.NewProducer(topics.DeadLetter)
		p.writer = write.NewWriter(p.engines.Store, deadLetters, p.log.With("part", "write"), p.reg)
		p.writer.KeepFirstDates(write.NewStoredDates(p.engines.Conn))

		failing := func(context.Context) string { return p.writer.Status().Failing }
		insert := func(ctx context.Context, partition *kafka.Partition) error {
			return p.writer.Consume(ctx, partition)
		}
		p.add(part{
			role: roleWrite, stops: stopsSecond, run: p.consumer(topics.Events, groupWriter, insert),
			ready: firstOf(failing, p.progresses(groupWriter)),
		})
		return nil
	}, nil
}
