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

// runOverlap re-reads the last minutes of the log behind the tail, since Auth0 may make an
// event visible after others with higher ids. Audits find events that are later still. It
// starts at the place that the checkpoint has for it, so a re-read that a crash has prevented
// is done by the next start.
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
		p.overlapRan = true
		p.mu.Unlock()

		if !sleep.For(ctx, p.cfg.OverlapEvery) {
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
	tenantNow, known := p.clock.Now(), p.recent.since()
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
	}
	return late
}
