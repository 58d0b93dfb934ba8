package lead

import (
	"context"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Leader pulls the tenants that fall to this process.
type Leader struct {
	Kafka   *kafka.Client
	Topic   string         // the checkpoints
	Pullers []*pull.Puller // of every tenant, whichever process pulls it
	Log     *slog.Logger
}

// Lead pulls the tenants whose checkpoints are in a partition for as long as the partition is assigned to
// this process. So one process pulls a tenant, and when it dies, another one gets the partition. While a
// process that was cut off has not noticed it, two pull the same tenant: that causes repeats and loses
// nothing.
func (l *Leader) Lead(ctx context.Context, part *kafka.Partition) error {
	var led []*pull.Puller
	for _, puller := range l.Pullers {
		id, err := l.Kafka.PartitionOf(ctx, l.Topic, []byte(puller.Tenant()))
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
	state, err := l.readCheckpoints(ctx)
	if err != nil {
		return err
	}

	// A puller that fails ends the others; then the group is joined again after a pause.
	g, ctx := errgroup.WithContext(ctx)
	requests := map[string]chan checkpoint.Checkpoint{}
	for _, puller := range led {
		queue := make(chan checkpoint.Checkpoint)
		requests[puller.Tenant()] = queue
		l.Log.Info("this process pulls the tenant", "tenant", puller.Tenant())
		g.Go(func() error { return puller.Run(ctx, state, queue) })
	}
	g.Go(func() error { return forwardRequests(ctx, part, requests) })
	return g.Wait()
}

// readCheckpoints reads the checkpoints of all chains.
func (l *Leader) readCheckpoints(ctx context.Context) (checkpoint.Set, error) {
	readAll := func(ctx context.Context, yield func(schema.Record) error) error {
		return l.Kafka.ReadAll(ctx, l.Topic, yield)
	}
	return checkpoint.ReadAll(ctx, readAll, func(err error) {
		l.Log.Error("invalid checkpoint; the chain resumes from the one before, audits find missing events",
			"part", "pull", "err", err)
	})
}

// forwardRequests passes requests of other processes to the pullers of their tenants.
func forwardRequests(
	ctx context.Context, part *kafka.Partition, requests map[string]chan checkpoint.Checkpoint,
) error {
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

// NewProducer returns a producer of checkpoints. Those of a tenant go to one partition, that of its leader.
func NewProducer(client *kafka.Client, topic string) *kafka.Producer {
	return client.NewProducerBy(topic, func(key []byte) []byte { return []byte(checkpoint.TenantOf(key)) })
}

// Tails returns the newest checkpoint of each tenant's tail. Damaged checkpoints are skipped: the pull logs
// them when it starts.
func Tails(ctx context.Context, k *kafka.Client, topic string) (map[string]checkpoint.Checkpoint, error) {
	readAll := func(ctx context.Context, yield func(schema.Record) error) error {
		return k.ReadAll(ctx, topic, yield)
	}
	all, err := checkpoint.ReadAll(ctx, readAll, func(error) {})

	found := map[string]checkpoint.Checkpoint{}
	for _, chain := range all {
		if chain.Chain == checkpoint.ChainTail {
			found[chain.Tenant] = chain
		}
	}
	return found, err
}
