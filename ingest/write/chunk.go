package write

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Bounds of a chunk. ClickHouse prefers few large inserts, people want to see events soon,
// and the process must stay small.
const (
	chunkRows  = 10_000
	chunkBytes = 12 << 20
	chunkAge   = 500 * time.Millisecond
)

const (
	// leastAge is the age of a chunk whose partition had to wait for its turn.
	leastAge = 50 * time.Millisecond
	// backlogAge is the age in a backlog, where large chunks matter most.
	backlogAge = 2 * time.Second
)

// chunk is a run of records of one partition.
type chunk struct {
	next    int64   // offset after its last record
	months  []month // nearly always one
	rows    int
	dated   []dated   // the rows in months
	undated []undated // rows that are not in months, since they may be stored under another date
	dead    []schema.Record
	bytes   int
}

// month has the rows of one month. A month is a partition of the table, and an insert into
// several partitions is not atomic.
type month struct {
	name  string // 200601
	block *Block
}

// block returns the block for rows of a date.
func (c *chunk) block(date time.Time, spare *spareBlocks) *Block {
	var name [6]byte
	date.AppendFormat(name[:0], "200601")
	for i := range c.months {
		if c.months[i].name == string(name[:]) {
			return c.months[i].block
		}
	}

	added := month{string(name[:]), spare.get()}
	c.months = append(c.months, added)
	return added.block
}

// gather waits for a record and for a turn, and adds the records that follow until the
// chunk is full or old. The caller must release the turn, unless there is an error.
func (w *Writer) gather(ctx context.Context, p Partition) (_ *chunk, err error) {
	record, err := p.Fetch(ctx)
	if err != nil {
		return nil, err
	}

	// While ClickHouse is down, all turns are taken.
	started := time.Now()
	if err := w.turns.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.turns.Release(1)
		}
	}()

	// The wait for the turn is part of the age.
	age := max(chunkAge-time.Since(started), leastAge)
	if p.Lag() > chunkRows {
		age = backlogAge
	}
	c := &chunk{}
	w.add(c, &record)

	// Add records until the chunk is large or old.
	young, cancel := context.WithTimeout(ctx, age)
	defer cancel()
	for c.rows < chunkRows && c.bytes < chunkBytes {
		record, err := p.Fetch(young)
		if err != nil {
			isOld := errors.Is(young.Err(), context.DeadlineExceeded) && ctx.Err() == nil
			if isOld {
				break
			}
			return nil, err
		}
		w.add(c, &record)
	}
	return c, nil
}

// add adds a record to a chunk, as a row or as a dead letter.
func (w *Writer) add(c *chunk, r *schema.Record) {
	c.next = r.Offset + 1
	c.bytes += len(r.Value)

	event := schema.EventOf(r)
	row, err := schema.ParseRow(event.Raw)
	if err != nil {
		letter := schema.NewDeadLetter(&event, err)
		w.log.Warn("event cannot be stored; moving it to the deadletter topic",
			"tenant", event.Tenant, "id", letter.ID, "reason", letter.Reason)
		c.dead = append(c.dead, letter.Record())
		return
	}

	// An undated row is added once its date is known.
	if c.rows++; w.isUndated(c, &event, &row) {
		c.undated = append(c.undated, undated{event, row})
		return
	}
	c.block(row.Date, &w.spare).Add(&event, &row)
}

// spareBlocks keeps some blocks, so that their memory is used again.
type spareBlocks struct {
	mu   sync.Mutex // guards list
	list []*Block
}

const maxSpare = 4

func (s *spareBlocks) get() *Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.list) - 1
	if last < 0 {
		return NewBlock()
	}
	block := s.list[last]
	s.list = s.list[:last]
	return block
}

func (s *spareBlocks) put(months []month) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range months {
		if len(s.list) < maxSpare {
			m.block.Reset()
			s.list = append(s.list, m.block)
		}
	}
}
