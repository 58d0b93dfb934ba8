package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Requests sends requests to the process that pulls a tenant, and follows their progress. A request is the
// first checkpoint of a chain, in the topic checkpoints; the answer is the later ones.
type Requests struct {
	kafka *kafka.Client
	topic string
	log   *slog.Logger

	mu     sync.Mutex                  // held while update is called
	update func(checkpoint.Checkpoint) // called for each answer
}

// NewRequests returns the requests of the instances that share a topic of checkpoints.
func NewRequests(client *kafka.Client, topic string, log *slog.Logger) *Requests {
	return &Requests{kafka: client, topic: topic, log: log}
}

// OnAnswer has update called for each answer, by one goroutine at a time. Call it before Submit.
func (r *Requests) OnAnswer(update func(checkpoint.Checkpoint)) { r.update = update }

// Pulled returns the names of the tenants that are pulled, or were pulled once, in order. There are none while
// the first instance starts.
func (r *Requests) Pulled(ctx context.Context) ([]string, error) {
	found, err := Tails(ctx, r.kafka, r.topic)
	return slices.Sorted(maps.Keys(found)), err
}

// NewName returns a name that no other request has.
func NewName() string {
	return fmt.Sprintf("%s-%04x", time.Now().UTC().Format("20060102T150405"), rand.IntN(1<<16))
}

// remindInterval is how long a request is without an answer before that is logged.
const remindInterval = 30 * time.Second

// Submit requests chains and waits until each is done, with all slices that were cut off from it. It returns
// the last checkpoint of each chain and slice.
func (r *Requests) Submit(ctx context.Context, list []checkpoint.Checkpoint) ([]checkpoint.Checkpoint, error) {
	var all []checkpoint.Checkpoint
	g, ctx := errgroup.WithContext(ctx)
	for _, request := range list {
		g.Go(func() error {
			done, err := r.submitOne(ctx, request)
			r.mu.Lock()
			defer r.mu.Unlock()
			all = append(all, done...)
			return err
		})
	}
	return all, g.Wait()
}

// errDone ends the reading of a topic.
var errDone = errors.New("done")

func (r *Requests) submitOne(ctx context.Context, request checkpoint.Checkpoint) ([]checkpoint.Checkpoint, error) {
	partition, err := r.kafka.PartitionOf(ctx, r.topic, []byte(request.Tenant))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan struct{}, 1)
	go r.remind(ctx, request.Tenant, answered)

	// The request is produced once the topic is followed, so that no answer is missed.
	chains := map[string]checkpoint.Checkpoint{}
	send := func() error { return r.send(ctx, request) }
	err = r.kafka.Follow(ctx, r.topic, partition, send, func(record schema.Record) error {
		answer, err := checkpoint.Read(&record)
		if err != nil || len(record.Value) == 0 || !answers(answer, request) {
			return nil
		}
		select {
		// Never block on the reminder, which is asleep most of the time.
		case answered <- struct{}{}:
		default:
		}

		chains[answer.Chain] = answer
		r.mu.Lock()
		if r.update != nil {
			r.update(answer)
		}
		r.mu.Unlock()

		// The requested chain answers before its slices are done.
		if _, known := chains[request.Chain]; !known {
			return nil
		}
		for _, chain := range chains {
			if !chain.Done {
				return nil
			}
		}
		return errDone
	})
	if !errors.Is(err, errDone) {
		return nil, err
	}
	return slices.Collect(maps.Values(chains)), nil
}

// answers reports whether a checkpoint is of the requested chain, or of a slice of the requested backfill.
func answers(answer, request checkpoint.Checkpoint) bool {
	if answer.Tenant != request.Tenant || answer.Requested {
		return false
	}
	if answer.Chain == request.Chain {
		return true
	}
	plan, isBackfill := pull.BackfillPlan(request.Chain)
	other, isSlice := pull.BackfillPlan(answer.Chain)
	return isBackfill && isSlice && other == plan
}

// send produces a request.
func (r *Requests) send(ctx context.Context, request checkpoint.Checkpoint) error {
	record, err := request.Record()
	if err != nil {
		return err
	}
	producer := NewProducer(r.kafka, r.topic)
	defer producer.Close()
	return producer.Produce(ctx, []schema.Record{record}, func(err error) {
		r.log.Warn("produce request failed; retrying", "err", err)
	})
}

// remind logs when no answer has come for remindInterval.
func (r *Requests) remind(ctx context.Context, tenant string, answered <-chan struct{}) {
	timer := time.NewTimer(remindInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-answered:
		case <-timer.C:
			r.log.Warn("no progress of the instance that pulls the tenant; still waiting, see its log",
				"tenant", tenant)
		}
		timer.Reset(remindInterval)
	}
}
