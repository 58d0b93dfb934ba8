package ingest

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/tenantwatch/tenantwatch/schema"
)

// deliver hands pages to Kafka in order, several at once when they wait, and
// moves the checkpoint after the acks. If we die before the acks, the next start
// pulls the pages again; if between acks and checkpoint, it produces them again.
func (p *Puller) deliver(ctx context.Context, pages <-chan pulled, ahead *semaphore.Weighted, saves chan Checkpoint) error {
	marks := newMarks(p.cfg.Overlap)
	marks.add(p.at.Behind, time.Now()) // what the last run left unseen is looked for as long as usual
	for {
		var batch []pulled
		var records []schema.Record
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-p.self:
			records = append(records, r)
		case got := <-pages:
			batch = append(batch, got)
		}
	more:
		for len(batch) < coalesce {
			select {
			case got := <-pages:
				batch = append(batch, got)
			case r := <-p.self:
				records = append(records, r)
			default:
				break more
			}
		}
		self := len(records)
		next, counts := p.at, map[schema.Source]int{schema.Self: self}
		for _, got := range batch {
			for i := range got.events {
				e := &got.events[i]
				p.settle(e, got.at, &next)
				records = append(records, e.Record())
				counts[e.Source]++
				if e.LogID != "" && !higher(e.LogID, got.next) {
					marks.add(e.LogID, got.at) // a quiet tenant's page spans hours
				}
			}
			next.Events += uint64(len(got.events))
			next.LogID = got.next
			next.Backfill = next.Backfill && !got.fresh && !passed(got.next, next.LiveFrom)
			marks.add(got.next, got.at)
		}
		if len(records) > 0 {
			if err := p.produce(ctx, records); err != nil {
				return p.describe("delivery of events", err)
			}
		}
		for source, n := range counts {
			p.cfg.Metrics.events.WithLabelValues(p.cfg.Tenant, string(source)).Add(float64(n))
		}
		var bytes int64
		for _, got := range batch {
			bytes += got.bytes
		}
		ahead.Release(bytes)
		if len(batch) == 0 {
			continue
		}
		next.Behind = marks.behind(next.LogID)
		p.acked(next, batch, len(records)-self, saves)
	}
}

// settle fills in what the chain knows of an event.
func (p *Puller) settle(e *schema.Event, at time.Time, next *Checkpoint) {
	e.Tenant, e.Source, e.FetchedAt = p.cfg.Tenant, schema.Tail, at
	switch {
	case e.LogID == "":
		if next.Backfill {
			e.Source = schema.Backfill
		}
		return
	case !passed(e.LogID, next.LiveFrom):
		e.Source = schema.Backfill
	default:
		p.cfg.Metrics.lateness.WithLabelValues(p.cfg.Tenant).Observe(at.Sub(e.Date).Seconds())
	}
	if next.Oldest == "" {
		next.Oldest = e.LogID
	}
	p.recent.add(e.LogID, at)
}

// passed reports whether an event was stored after t. Of an id that does not
// tell we assume it.
func passed(logID string, t time.Time) bool {
	at, ok := schema.IDTime(logID)
	return !ok || at.After(t)
}

func (p *Puller) produce(ctx context.Context, records []schema.Record) error {
	said := false
	err := p.events.Produce(ctx, records, func(err error) {
		p.cfg.Metrics.retries.WithLabelValues(p.cfg.Tenant).Inc()
		if !said {
			said = true
			p.cfg.Log.Warn("events cannot be handed to Kafka; trying again, nothing more is pulled", "err", err)
		}
	})
	if said && err == nil {
		p.cfg.Log.Info("events are handed to Kafka again")
	}
	return err
}

// acked moves the chain forward and has its checkpoint written, unless a newer
// one comes before that is done.
func (p *Puller) acked(next Checkpoint, batch []pulled, events int, saves chan Checkpoint) {
	next.UpdatedAt = time.Now().UTC()
	p.mu.Lock()
	if p.owed != "" {
		next.Behind = p.owed
	}
	moved := next.LogID != p.at.LogID || next.Backfill != p.at.Backfill || next.Behind != p.at.Behind
	done := p.at.Backfill && !next.Backfill
	p.at = next
	p.status.Events += uint64(events)
	fresh := batch[len(batch)-1].fresh
	if fresh {
		p.status.CaughtUp = batch[len(batch)-1].at
	}
	p.mu.Unlock()

	m := p.cfg.Metrics
	m.caughtUp.WithLabelValues(p.cfg.Tenant).Set(map[bool]float64{true: 1}[fresh])
	if at, ok := schema.IDTime(next.LogID); ok {
		m.position.WithLabelValues(p.cfg.Tenant).Set(float64(at.UnixMilli()) / 1000)
	}
	if done {
		p.cfg.Log.Info("backfill is done", "events", next.Events)
	}
	if !moved {
		return
	}
	select {
	case <-saves: // an older one that nobody needs any more
	default:
	}
	saves <- next
}

// save writes checkpoints. If we die before one is written, the next start goes
// on from an older one and pulls again what was pulled since.
func (p *Puller) save(ctx context.Context, saves <-chan Checkpoint) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-saves:
			r, err := c.Record()
			if err != nil {
				return err
			}
			said := false
			err = p.checkpoints.Produce(ctx, []schema.Record{r}, func(err error) {
				if !said {
					said = true
					p.cfg.Log.Warn("checkpoint cannot be written; trying again", "err", err)
				}
			})
			if err != nil {
				return p.describe("checkpoint", err)
			}
			p.cfg.Metrics.checkpoint.WithLabelValues(p.cfg.Tenant).SetToCurrentTime()
		}
	}
}

// marks remember where the chain stood among recent events.
type marks struct {
	back time.Duration
	list []mark
}

type mark struct {
	logID string
	at    time.Time // when Auth0 stored the event
}

// markEvery keeps the list short.
const markEvery = 5 * time.Second

func newMarks(back time.Duration) *marks { return &marks{back: back} }

// add notes a cursor.
func (m *marks) add(logID string, now time.Time) {
	at, ok := schema.IDTime(logID)
	if !ok {
		at = now
	}
	if now.Sub(at) >= m.back { // nothing before it is of use any more
		m.list = append(m.list[:0], mark{logID, at})
		return
	}
	if n := len(m.list); n == 0 || at.Sub(m.list[n-1].at) >= markEvery {
		m.list = append(m.list, mark{logID, at})
	}
	// Of those that are old enough only the newest is of use.
	old := 0
	for old+1 < len(m.list) && now.Sub(m.list[old+1].at) >= m.back {
		old++
	}
	m.list = slices.Delete(m.list, 0, old)
}

// behind is the newest cursor that is old enough for nothing before it to show
// up any more, or the oldest there is.
func (m *marks) behind(current string) string {
	if len(m.list) == 0 {
		return current
	}
	return m.list[0].logID
}
