package write

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Partition is one partition of the events topic that is assigned to this process.
type Partition interface {
	ID() int
	// Fetch waits for the next record, until ctx ends. It retries errors of brokers.
	Fetch(ctx context.Context) (schema.Record, error)
	// Commit commits all records below next. After an error they may be fetched again.
	Commit(next int64) error
	Lag() int64
}

// Producer makes records durable in one topic.
type Producer interface {
	// Produce returns nil once every record is durable. It retries until ctx ends
	// and calls failed after each failed attempt. After an error, some records may
	// have been written.
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Inserter stores rows. Insert returns nil once they are in ClickHouse and on its disk.
// After an error the rows may be there or not. The same block may be inserted again; its
// rows are there once.
type Inserter interface {
	Insert(ctx context.Context, b *Block) error
}

// maxChunks is the number of chunks of all partitions together, in any state. It bounds the
// memory while ClickHouse is down.
const maxChunks = 3

// stopGrace is how long a stop waits for a running insert.
const stopGrace = 2 * time.Second

// Writer moves events from Kafka to ClickHouse.
type Writer struct {
	store   Inserter
	dead    Producer // of the deadletter topic
	log     *slog.Logger
	metrics *metrics
	turns   *semaphore.Weighted // one for each chunk
	spare   spareBlocks
	dates   Dates // nil if the date of each record counts
	odd     oddDates

	mu     sync.Mutex // guards status
	status Status
}

// Status is the state of a Writer.
type Status struct {
	Rows    uint64    // inserted since this start, repeats included
	Dead    uint64    // dead letters since this start
	Newest  time.Time // date of the newest inserted event
	Failing string    // why inserts fail at the moment; empty if they succeed
}

// NewWriter returns a writer for partitions of the events topic.
func NewWriter(store Inserter, deadLetters Producer, log *slog.Logger, reg prometheus.Registerer) *Writer {
	return &Writer{store: store, dead: deadLetters, log: log, metrics: newMetrics(reg),
		turns: semaphore.NewWeighted(maxChunks)}
}

// Status returns the state of the writer.
func (w *Writer) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Consume writes one partition until ctx ends. While chunks are inserted, each retried
// from memory forever, it gathers the next one. Chunks are committed in their order.
func (w *Writer) Consume(ctx context.Context, p Partition) error {
	// After the end, another process reports the lag.
	defer w.metrics.lag.DeleteLabelValues(strconv.Itoa(p.ID()))
	if err := w.loadOdd(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}

	g, chunkCtx := errgroup.WithContext(ctx)
	g.Go(func() error {
		// Each chunk waits for this value of the chunk before it: whether it, and so all before it,
		// is committed.
		earlier := make(chan bool, 1)
		earlier <- true
		for {
			next, err := w.gather(chunkCtx, p)
			if err != nil {
				return err
			}
			before, committed := earlier, make(chan bool, 1)
			earlier = committed
			g.Go(func() error {
				defer w.turns.Release(1)
				return w.write(ctx, chunkCtx, p, next, before, committed)
			})
		}
	})
	return ignoreEnd(ctx, g.Wait())
}

// write inserts and commits a chunk. before has one value: whether the chunk before it is
// committed. committed receives the same of this chunk.
func (w *Writer) write(
	ctx, chunkCtx context.Context, p Partition, c *chunk, before, committed chan bool,
) error {
	// To find the first date of an event, all chunks before must have been inserted.
	ready, err := len(c.undated) == 0, error(nil)
	if !ready {
		if ready = <-before; ready {
			err = w.resolveDates(chunkCtx, c)
		}
		before <- ready // it is received once more below
	}

	if ready && err == nil {
		err = w.insertChunk(chunkCtx, c)
	}

	// If we stop here, the records are fetched again, perhaps in other chunks. The table drops the
	// repeats.
	done := ready && err == nil && <-before
	if done {
		w.commit(ctx, p, c)
	}
	committed <- done
	return err
}

// commit commits the records of a chunk.
func (w *Writer) commit(ctx context.Context, p Partition, c *chunk) {
	if err := p.Commit(c.next); err != nil {
		w.metrics.commits.Inc()
		if ctx.Err() == nil {
			w.log.Warn("commit failed; its records will be written again, which is harmless", "err", err)
		}
	}
	w.metrics.lag.WithLabelValues(strconv.Itoa(p.ID())).Set(float64(p.Lag()))
	w.spare.put(c.months)
}

// ignoreEnd returns nil if err is only the end of ctx.
func ignoreEnd(ctx context.Context, err error) error {
	isEnd := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if ctx.Err() != nil && isEnd {
		return nil
	}
	return err
}

// insertChunk makes the dead letters and the rows of a chunk durable.
func (w *Writer) insertChunk(ctx context.Context, c *chunk) error {
	if len(c.dead) > 0 {
		err := w.dead.Produce(ctx, c.dead, func(err error) {
			w.log.Warn("produce dead letters failed; retrying", "err", err)
		})
		if err != nil {
			return err
		}
		w.metrics.dead.Add(float64(len(c.dead)))
	}

	// If we stop here, or between two months, the whole chunk is fetched and inserted again.
	for _, m := range c.months {
		if err := w.insert(ctx, m.block); err != nil {
			return err
		}
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Dead += uint64(len(c.dead))
	w.status.Rows += uint64(c.rows)
	for _, m := range c.months {
		if m.block.newest.After(w.status.Newest) {
			w.status.Newest = m.block.newest
		}
	}
	if !w.status.Newest.IsZero() {
		w.metrics.newest.Set(float64(w.status.Newest.UnixMilli()) / 1000)
	}
	return nil
}

// insert retries an insert until ClickHouse has acknowledged it or ctx ends.
func (w *Writer) insert(ctx context.Context, b *Block) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 10*time.Second

	logged := ""
	for {
		// A stop does not abort a running insert at once: its outcome would be unknown.
		start := time.Now()
		insertCtx, cancel := graceful(ctx, stopGrace)
		err := w.store.Insert(insertCtx, b)
		cancel()

		if err == nil {
			w.metrics.inserts.Inc()
			w.metrics.rows.Add(float64(b.rows))
			w.metrics.insertSec.Observe(time.Since(start).Seconds())
			w.metrics.delay.Observe(time.Since(b.oldest).Seconds())
			if logged != "" {
				w.log.Info("inserts succeed again")
				w.setFailing("")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}

		// The same error again is counted, but not logged.
		w.metrics.failures.Inc()
		if err.Error() != logged {
			logged = err.Error()
			w.log.Warn("insert failed; retrying, no event is lost", "rows", b.rows, "err", err)
			w.setFailing(logged)
		}
		if !sleep.For(ctx, pause.NextBackOff()) {
			return ctx.Err()
		}
	}
}

func (w *Writer) setFailing(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Failing = text
}

// graceful returns a context that ends some time after its parent.
func graceful(parent context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		if sleep.For(ctx, grace) {
			cancel()
		}
	})
	return ctx, func() { stop(); cancel() }
}
