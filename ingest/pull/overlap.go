package pull

import (
	"context"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	// maxOverlap is the greatest width of the overlap. Audits find events that are later still.
	maxOverlap = 12 * time.Hour
	// narrowAfter is how long no event may have needed the width before it is halved.
	narrowAfter = 24 * time.Hour
)

// runOverlap re-reads the last minutes of the log behind the tail, since Auth0 may make an
// event visible after others with higher ids. It starts at the place that the checkpoint
// has for it, so a re-read that a crash has prevented is done by the next start.
func (p *Puller) runOverlap(ctx context.Context) error {
	take := auth0.MaxTake
	p.mu.Lock()
	due := p.pendingOverlap
	p.mu.Unlock()

	for first := true; ; first = false {
		if due.from != "" {
			found, _, err := p.reread(ctx, due, &take, first)
			if err != nil {
				return err
			}
			// No id is known before the first pass of a start, so that one finds everything.
			if found > 0 && !first {
				p.cfg.Log.Info("events showed up late", "events", found)
			}
		}

		p.mu.Lock()
		p.pendingOverlap = stretch{}
		p.narrow(time.Now())
		p.overlapRan = true
		width := p.overlapWidth
		p.mu.Unlock()

		// A wide overlap runs less often, so that it needs no more calls.
		wider := float64(width) / float64(p.cfg.Overlap)
		if !sleep.For(ctx, time.Duration(float64(p.cfg.OverlapEvery)*wider)) {
			return ctx.Err()
		}

		due = p.dueOverlap()
	}
}

// dueOverlap returns the stretch to re-read next. The checkpoint has it until that is done.
func (p *Puller) dueOverlap() stretch {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := stretch{p.tail.Behind, p.tail.LogID}
	pending := due

	// After a widening, the tail's marks do not go back far enough yet.
	if p.overlapWidth > p.cfg.Overlap && p.synthetic {
		from := schema.SyntheticID(time.Now().Add(-p.clock.Lead() - p.overlapWidth))
		if checkpoint.Higher(due.from, from) {
			due.from = from
		}
	}

	// Nothing is comparable while the tail itself is far behind.
	if due = p.comparable(due); due.from == "" {
		pending = stretch{}
	}
	p.pendingOverlap = pending
	return due
}

// comparable returns the part of a stretch in which all ids are known that were pulled. It
// has no start if there is none. mu must be held.
func (p *Puller) comparable(due stretch) stretch {
	if at := p.recent.since(); p.synthetic && !at.IsZero() {
		if from := schema.SyntheticID(at.Add(time.Second)); checkpoint.Higher(from, due.from) {
			due.from = from
		}
	}

	// Events before the end of the backfill are not late: it has not pulled them yet.
	if end := p.backfill.end(); checkpoint.Higher(end, due.from) {
		due.from = end
	}
	if p.status.CaughtUp.IsZero() {
		due.from = ""
	}
	return due
}

// The short overlap pulls an event that is late by less than shortWidth within fifteen
// seconds after it becomes visible. The long one would take a minute.
const (
	shortWidth = 30 * time.Second
	shortEvery = 5 * time.Second
	shortShare = 0.25             // of our calls; if a pass needs more, passes are rarer
	shortMost  = 10 * time.Second // greatest interval nevertheless; the limiter stays within the budget
)

// runShortOverlap re-reads the last half minute every few seconds, beside the long overlap
// and within the same budget.
func (p *Puller) runShortOverlap(ctx context.Context) error {
	take := auth0.MaxTake
	for pause := shortEvery; sleep.For(ctx, pause); {
		// The ids of earlier runs are only known after a pass of the long overlap.
		p.mu.Lock()
		due := stretch{until: p.tail.LogID}
		if p.synthetic && p.overlapRan {
			due.from = schema.SyntheticID(time.Now().Add(-p.clock.Lead() - shortWidth - pause))
			due = p.comparable(due)
		}
		p.mu.Unlock()

		calls := 0
		if due.from != "" {
			found, n, err := p.reread(ctx, due, &take, false)
			if err != nil {
				return err
			}
			calls = n
			if found > 0 {
				p.cfg.Log.Debug("events showed up late, by less than half a minute", "events", found)
			}
		}

		pause = shortEvery
		if rate := p.limiter.Use().Rate; rate > 0 {
			pause = min(max(pause, pace.TimeFor(float64(calls)/shortShare, rate)), shortMost)
		}
	}
	return ctx.Err()
}

// reread fetches a stretch again and produces the events that are not known. It returns
// their number and the number of calls. first is set for the first pass of a start.
func (p *Puller) reread(
	ctx context.Context, due stretch, take *int, first bool,
) (found, calls int, err error) {
	for cursor := due.from; checkpoint.Higher(due.until, cursor); {
		calls++
		events, next, err := p.fetchPage(ctx, pace.PriorityOverlap, cursor, take)
		if err != nil {
			return found, calls, err
		}

		// If we stop here, the next start re-reads the same stretch.
		if late := p.lateRecords(events, due, first); len(late) > 0 {
			if err := p.produce(ctx, late); err != nil {
				return found, calls, p.describe("produce late events", err)
			}
			p.count(schema.SourceOverlap, len(late))
			found += len(late)
		}

		if len(events) == 0 || !checkpoint.Higher(next, cursor) {
			return found, calls, nil
		}
		cursor = next
	}
	return found, calls, nil
}

// lateRecords returns the records of the events of a page that are not known.
func (p *Puller) lateRecords(events []schema.Event, due stretch, first bool) []schema.Record {
	var late []schema.Record
	now, tenantNow, known := time.Now(), p.clock.Now(), p.recent.since()
	for i := range events {
		event := &events[i]
		if event.LogID == "" || checkpoint.Higher(event.LogID, due.until) {
			continue // the tail pulls it
		}
		at, ok := schema.IDTime(event.LogID)
		if ok && !first && !at.After(known) {
			continue // it was forgotten after the pass had started
		}

		// An unknown id is a late event. From now on it is known.
		event.Tenant, event.Source, event.FetchedAt = p.cfg.Tenant, schema.SourceOverlap, tenantNow
		if !p.recent.add(event.LogID) {
			continue
		}
		late = append(late, event.Record())
		p.cfg.Metrics.lateness.WithLabelValues(p.cfg.Tenant).Observe(tenantNow.Sub(event.Date).Seconds())
		if ok && !first {
			p.widen(now, tenantNow.Sub(at))
		}
	}
	return late
}

// width returns the width of the overlap.
func (p *Puller) width() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.overlapWidth
}

// widen is called with the lateness of each late event. If that is more than half of the
// width, the width is doubled: the next event may be later still.
func (p *Puller) widen(now time.Time, late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if late > p.overlapWidth/4 && p.overlapWidth > p.cfg.Overlap || late > p.overlapWidth/2 {
		p.widthNeededAt = now
	}

	if late > p.overlapWidth/2 && p.overlapWidth < maxOverlap {
		p.setWidth(min(2*p.overlapWidth, maxOverlap))
		p.cfg.Log.Warn("events show up later than before; widening the overlap",
			"late", late.Round(time.Second), "overlap", p.overlapWidth)
	}
}

// narrow halves a wide overlap that has not been needed for narrowAfter. mu must be held.
func (p *Puller) narrow(now time.Time) {
	if p.overlapWidth > p.cfg.Overlap && now.Sub(p.widthNeededAt) > narrowAfter {
		p.widthNeededAt = now
		p.setWidth(max(p.overlapWidth/2, p.cfg.Overlap))
		p.cfg.Log.Info("events show up in time again; narrowing the overlap", "overlap", p.overlapWidth)
	}
}

// setWidth sets the width of the overlap. mu must be held.
func (p *Puller) setWidth(width time.Duration) {
	p.overlapWidth = width
	p.recent.widen(2*width + p.cfg.OverlapEvery)
	p.cfg.Metrics.overlap.WithLabelValues(p.cfg.Tenant).Set(width.Seconds())
}
