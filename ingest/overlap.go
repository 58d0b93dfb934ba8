package ingest

import (
	"context"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// The overlap is never wider than maxOverlap, and narrow again when nothing has
// been that late for narrowAfter. What comes later still is found by audits.
const (
	maxOverlap  = 12 * time.Hour
	narrowAfter = 24 * time.Hour
)

// lookBehind re-reads what the tail has passed within the last minutes: Auth0
// may make an event visible after others with higher ids. It begins at the
// place that the checkpoint keeps for it, so what was due when we died is looked
// at by the next start.
func (p *Puller) lookBehind(ctx context.Context) error {
	take := MaxTake
	p.mu.Lock()
	due := p.owed
	p.mu.Unlock()
	for first := true; ; first = false {
		if due.from != "" {
			found, _, err := p.walk(ctx, due, &take, first)
			if err != nil {
				return err
			}
			// The first walk of a start meets everything again: no id is known yet.
			if found > 0 && !first {
				p.cfg.Log.Info("events showed up late", "events", found)
			}
		}
		p.mu.Lock()
		p.owed = stretch{}
		p.narrow(time.Now())
		p.looked = true
		back := p.back
		p.mu.Unlock()
		// A wider overlap comes less often, and so costs as much.
		if !sleep(ctx, time.Duration(float64(p.cfg.OverlapEvery)*float64(back)/float64(p.cfg.Overlap))) {
			return ctx.Err()
		}
		p.mu.Lock()
		due = stretch{p.at.Behind, p.at.LogID}
		owed := due // the checkpoint keeps it until it is done
		if p.back > p.cfg.Overlap && p.synthetic {
			// The marks of a wider overlap are not there yet.
			if from := schema.SyntheticID(time.Now().Add(-p.ahead - p.back)); higher(due.from, from) {
				due.from = from
			}
		}
		if due = p.known(due); due.from == "" {
			owed = stretch{} // the tail itself is still far behind
		}
		p.owed = owed
		p.mu.Unlock()
	}
}

// known is what of a stretch can be compared with the ids of what was pulled; it has
// no beginning when that is nothing. mu must be held.
func (p *Puller) known(due stretch) stretch {
	if at := p.recent.since(); p.synthetic && !at.IsZero() {
		if from := schema.SyntheticID(at.Add(time.Second)); higher(from, due.from) {
			due.from = from
		}
	}
	if end := p.backfill.end(); higher(end, due.from) {
		due.from = end // not late: the backfill has not come so far
	}
	if p.status.CaughtUp.IsZero() {
		due.from = ""
	}
	return due
}

// The short look behind. An event that is late by less than shortBack is there within
// fifteen seconds of being visible; the long look would take a minute.
const (
	shortBack  = 30 * time.Second
	shortEvery = 5 * time.Second
	shortShare = 0.25             // of our calls; looks that take more are rarer
	shortMost  = 10 * time.Second // between looks all the same; the pacer keeps them within the budget
)

// lookShortlyBehind re-reads the last half minute every few seconds, beside the long
// look and within the same budget.
func (p *Puller) lookShortlyBehind(ctx context.Context) error {
	take := MaxTake
	for pause := shortEvery; sleep(ctx, pause); {
		p.mu.Lock()
		due := stretch{until: p.at.LogID}
		// What was pulled before this start is only known after a long look.
		if p.synthetic && p.looked {
			due.from = schema.SyntheticID(time.Now().Add(-p.ahead - shortBack - pause))
			due = p.known(due)
		}
		p.mu.Unlock()
		var calls int
		if due.from != "" {
			found, n, err := p.walk(ctx, due, &take, false)
			if err != nil {
				return err
			}
			if calls = n; found > 0 {
				p.cfg.Log.Debug("events showed up late, by less than half a minute", "events", found)
			}
		}
		pause = shortEvery
		if rate := p.pacer.Use().Rate; rate > 0 {
			pause = min(max(pause, timeFor(float64(calls)/shortShare, rate)), shortMost)
		}
	}
	return ctx.Err()
}

// walk re-reads a stretch and hands on what is new. calls is how many pages it was. If we die before the acks,
// the next start walks the same way.
func (p *Puller) walk(ctx context.Context, due stretch, take *int, first bool) (found, calls int, err error) {
	for cursor := due.from; higher(due.until, cursor); {
		calls++
		events, next, err := p.page(ctx, Overlap, cursor, take)
		if err != nil {
			return found, calls, err
		}
		var late []schema.Record
		now, tenantNow, known := time.Now(), p.now(), p.recent.since()
		for i := range events {
			e := &events[i]
			if e.LogID == "" || higher(e.LogID, due.until) {
				continue // the tail's own affair
			}
			at, ok := schema.IDTime(e.LogID)
			if ok && !first && !at.After(known) {
				continue // forgotten since the walk began
			}
			e.Tenant, e.Source, e.FetchedAt = p.cfg.Tenant, schema.Overlap, tenantNow
			if p.recent.add(e.LogID) {
				late = append(late, e.Record())
				p.cfg.Metrics.lateness.WithLabelValues(p.cfg.Tenant).Observe(tenantNow.Sub(e.Date).Seconds())
				if ok && !first {
					p.widen(now, tenantNow.Sub(at))
				}
			}
		}
		if len(late) > 0 {
			if err := p.produce(ctx, late); err != nil {
				return found, calls, p.describe("delivery of late events", err)
			}
			p.count(schema.Overlap, len(late))
			found += len(late)
		}
		if len(events) == 0 || !higher(next, cursor) {
			return found, calls, nil
		}
		cursor = next
	}
	return found, calls, nil
}

// width is how far back the overlap reaches.
func (p *Puller) width() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.back
}

// widen is called for each event that showed up late, by how much. Once that is
// more than half of the overlap, the overlap is doubled: the next one may be
// later still.
func (p *Puller) widen(now time.Time, late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if late > p.back/4 && p.back > p.cfg.Overlap || late > p.back/2 {
		p.lateAt = now // as wide as it is, it is needed
	}
	if late > p.back/2 && p.back < maxOverlap {
		p.setBack(min(2*p.back, maxOverlap))
		p.cfg.Log.Warn("events show up later than they did; they are looked for further back", "late", late.Round(time.Second), "overlap", p.back)
	}
}

// narrow takes half of a wide overlap back that has not been needed. mu must be
// held.
func (p *Puller) narrow(now time.Time) {
	if p.back > p.cfg.Overlap && now.Sub(p.lateAt) > narrowAfter {
		p.lateAt = now
		p.setBack(max(p.back/2, p.cfg.Overlap))
		p.cfg.Log.Info("events show up in time again", "overlap", p.back)
	}
}

// setBack needs mu.
func (p *Puller) setBack(d time.Duration) {
	p.back = d
	p.recent.widen(2*d + p.cfg.OverlapEvery)
	p.cfg.Metrics.overlap.WithLabelValues(p.cfg.Tenant).Set(d.Seconds())
}
