package ingest

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

	"github.com/tenantwatch/tenantwatch/schema"
)

// Partition is one partition of the events topic while it is ours.
type Partition interface {
	ID() int
	// Fetch waits for the next record, until ctx ends. Errors of brokers are
	// retried within.
	Fetch(ctx context.Context) (schema.Record, error)
	// Commit notes that all records below next are done with. After an error
	// they may come again.
	Commit(next int64) error
	Lag() int64
}

// Inserter stores rows. Insert returns nil when they are in ClickHouse and on its
// disk. After an error they may be there or not; the same block may be inserted
// again, and its rows are there once.
type Inserter interface {
	Insert(ctx context.Context, b *Block) error
}

// How much goes into one insert. ClickHouse likes few and large ones, people
// like to see events soon, and the process is to stay small.
const (
	chunkRows  = 10_000
	chunkBytes = 12 << 20
	chunkAge   = 500 * time.Millisecond
)

// mostChunks is how many there are at once, of all partitions together, whatever
// has become of them: what is held while ClickHouse is away.
const mostChunks = 3

// A chunk is closed sooner when its partition has waited for its turn, and later in
// a backlog, where what matters is that it is a large one.
const (
	leastAge   = 50 * time.Millisecond
	backlogAge = 2 * time.Second
)

// stopGrace is how long a stop waits for an insert that is under way.
const stopGrace = 2 * time.Second

// Writer carries events from Kafka to ClickHouse.
type Writer struct {
	store   Inserter
	dead    Producer // of the deadletter topic
	log     *slog.Logger
	metrics *writeMetrics
	turns   *semaphore.Weighted // one for each chunk
	spare   spareBlocks
	dates   Dates // nil when dates are taken as they come
	odd     oddDates

	mu     sync.Mutex // guards status
	status WriteStatus
}

// WriteStatus is how a Writer does.
type WriteStatus struct {
	Rows    uint64    // inserted since this start, repeats included
	Dead    uint64    // dead letters since this start
	Newest  time.Time // date of the newest event that was inserted
	Failing string    // why inserts fail right now, empty when they do not
}

// NewWriter returns a writer of the events topic's partitions.
func NewWriter(store Inserter, deadLetters Producer, log *slog.Logger, reg prometheus.Registerer) *Writer {
	return &Writer{store: store, dead: deadLetters, log: log, metrics: newWriteMetrics(reg), turns: semaphore.NewWeighted(mostChunks)}
}

// Status tells how the writer does.
func (w *Writer) Status() WriteStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Consume writes one partition until ctx ends. While chunks are inserted, each
// retried for ever from memory, the next is gathered; they are committed in their
// order. If we die before the commit, the chunk's records come again, perhaps cut
// in another way, and the table drops the repeats.
func (w *Writer) Consume(ctx context.Context, p Partition) error {
	defer w.metrics.lag.DeleteLabelValues(strconv.Itoa(p.ID())) // another process's affair from then on
	if err := w.loadOdd(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	g, part := errgroup.WithContext(ctx)
	g.Go(func() error {
		before := make(chan bool, 1) // whether all that came before is committed
		before <- true
		for {
			c, err := w.gather(part, p)
			if err != nil {
				return err
			}
			earlier, ours := before, make(chan bool, 1)
			before = ours
			g.Go(func() error {
				defer w.turns.Release(1)
				err, ready := error(nil), len(c.unsettled) == 0
				if !ready { // what came before has to be there
					if ready = <-earlier; ready {
						err = w.settleDates(part, c)
					}
					earlier <- ready // for below
				}
				if ready && err == nil {
					err = w.flush(part, c)
				}
				done := err == nil && ready && <-earlier
				if done {
					w.commit(ctx, p, c)
				}
				ours <- done
				return err
			})
		}
	})
	return ignoreEnd(ctx, g.Wait())
}

// commit notes a chunk as done with.
func (w *Writer) commit(ctx context.Context, p Partition, c *chunk) {
	if err := p.Commit(c.next); err != nil {
		w.metrics.commits.Inc()
		if ctx.Err() == nil {
			w.log.Warn("commit failed; the records will be written once more, which does no harm", "err", err)
		}
	}
	w.metrics.lag.WithLabelValues(strconv.Itoa(p.ID())).Set(float64(p.Lag()))
	w.spare.put(c.months)
}

// ignoreEnd is nil when a context's end is all there is to say.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

// spareBlocks keeps the memory of some blocks to be used again.
type spareBlocks struct {
	mu   sync.Mutex // guards list
	list []*Block
}

const mostSpare = 4

func (s *spareBlocks) get() *Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.list)
	if n == 0 {
		return NewBlock()
	}
	b := s.list[n-1]
	s.list = s.list[:n-1]
	return b
}

func (s *spareBlocks) put(months []month) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range months {
		if len(s.list) < mostSpare {
			m.block.Reset()
			s.list = append(s.list, m.block)
		}
	}
}

// chunk is a run of records of one partition.
type chunk struct {
	next      int64   // offset after its last record
	months    []month // nearly always one
	rows      int
	dated     []dated     // the rows in months
	unsettled []unsettled // rows that are not, since they may be there under another date
	dead      []schema.Record
	bytes     int
}

// month is the rows of one: the table's partitions are months, and an insert into
// several is not one unit.
type month struct {
	name  string // 200601
	block *Block
}

// block is the one for rows of a date.
func (c *chunk) block(date time.Time, spare *spareBlocks) *Block {
	var name [6]byte
	date.AppendFormat(name[:0], "200601")
	for i := range c.months {
		if c.months[i].name == string(name[:]) {
			return c.months[i].block
		}
	}
	m := month{string(name[:]), spare.get()}
	c.months = append(c.months, m)
	return m.block
}

// gather waits for a record and for its turn, and takes what follows. After an
// error the turn is over.
func (w *Writer) gather(ctx context.Context, p Partition) (_ *chunk, err error) {
	r, err := p.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := w.turns.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.turns.Release(1)
		}
	}()
	age := max(chunkAge-time.Since(began), leastAge)
	if p.Lag() > chunkRows {
		age = backlogAge
	}
	c := &chunk{}
	w.add(c, &r)
	young, cancel := context.WithTimeout(ctx, age)
	defer cancel()
	for c.rows < chunkRows && c.bytes < chunkBytes {
		r, err := p.Fetch(young)
		if err != nil {
			if errors.Is(young.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
				break
			}
			return nil, err
		}
		w.add(c, &r)
	}
	return c, nil
}

// add judges a record: it becomes a row or a dead letter.
func (w *Writer) add(c *chunk, r *schema.Record) {
	c.next = r.Offset + 1
	c.bytes += len(r.Value)
	e := schema.EventOf(r)
	row, err := schema.ParseRow(e.Raw)
	if err != nil {
		d := schema.NewDeadLetter(&e, err)
		w.log.Warn("event cannot be stored; it goes to the deadletter topic", "tenant", e.Tenant, "id", d.ID, "reason", d.Reason)
		c.dead = append(c.dead, d.Record())
		return
	}
	if c.rows++; w.isUnsettled(c, &e, &row) {
		c.unsettled = append(c.unsettled, unsettled{e, row})
		return
	}
	c.block(row.Date, &w.spare).Add(&e, &row)
}

// flush makes a chunk durable.
func (w *Writer) flush(ctx context.Context, c *chunk) error {
	if len(c.dead) > 0 {
		err := w.dead.Produce(ctx, c.dead, func(err error) { w.log.Warn("dead letter cannot be kept; trying again", "err", err) })
		if err != nil {
			return err
		}
		w.metrics.dead.Add(float64(len(c.dead)))
	}
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

// insert retries one insert until ClickHouse has acknowledged it or ctx ends.
func (w *Writer) insert(ctx context.Context, b *Block) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 10*time.Second
	said := ""
	for {
		start := time.Now()
		// A stop does not break an insert off: its outcome would be unknown.
		insertCtx, cancel := graceful(ctx, stopGrace)
		err := w.store.Insert(insertCtx, b)
		cancel()
		if err == nil {
			w.metrics.inserts.Inc()
			w.metrics.rows.Add(float64(b.rows))
			w.metrics.insertSec.Observe(time.Since(start).Seconds())
			w.metrics.delay.Observe(time.Since(b.oldest).Seconds())
			if said != "" {
				w.log.Info("inserts succeed again")
				w.setFailing("")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.metrics.failures.Inc()
		if err.Error() != said {
			said = err.Error()
			w.log.Warn("insert failed; trying again, nothing is lost", "rows", b.rows, "err", err)
			w.setFailing(said)
		}
		if !sleep(ctx, pause.NextBackOff()) {
			return ctx.Err()
		}
	}
}

func (w *Writer) setFailing(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Failing = text
}

// graceful is a context that ends some time after its parent.
func graceful(parent context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		if sleep(ctx, grace) {
			cancel()
		}
	})
	return ctx, func() { stop(); cancel() }
}
