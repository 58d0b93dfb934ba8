package ingest

import (
	"context"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// lookBehind re-reads what the chain has passed within the last minutes: Auth0
// may make an event visible after others with higher ids. It begins at the
// place that the checkpoint keeps for it, so what was due when we died is looked
// at by the next start.
func (p *Puller) lookBehind(ctx context.Context) error {
	take, first := MaxTake, true
	p.mu.Lock()
	from, to := p.owed, p.at.LogID
	p.mu.Unlock()
	for {
		if from != "" {
			found, err := p.walk(ctx, from, to, &take)
			if err != nil {
				return err
			}
			// The first walk of a start meets everything again: no id is known yet.
			if found > 0 && !first {
				p.cfg.Log.Info("events showed up late", "events", found)
			}
		}
		first = false
		p.mu.Lock()
		p.owed = ""
		p.mu.Unlock()
		if !sleep(ctx, p.cfg.OverlapEvery) {
			return ctx.Err()
		}
		p.mu.Lock()
		from, to = p.at.Behind, p.at.LogID
		if p.status.CaughtUp.IsZero() {
			from = "" // the chain itself is still far behind
		}
		p.mu.Unlock()
	}
}

// walk re-reads from one cursor to another and hands on what is new. If we die
// before the acks, the next start walks the same way.
func (p *Puller) walk(ctx context.Context, cursor, end string, take *int) (found int, err error) {
	for higher(end, cursor) {
		events, next, err := p.page(ctx, cursor, take)
		if err != nil {
			return found, err
		}
		var late []schema.Record
		now := time.Now()
		for i := range events {
			e := &events[i]
			if e.LogID == "" || higher(e.LogID, end) {
				continue // the chain's own affair
			}
			e.Tenant, e.Source, e.FetchedAt = p.cfg.Tenant, schema.Overlap, now
			if p.recent.add(e.LogID, now) {
				late = append(late, e.Record())
				p.cfg.Metrics.lateness.WithLabelValues(p.cfg.Tenant).Observe(now.Sub(e.Date).Seconds())
			}
		}
		if len(late) > 0 {
			if err := p.produce(ctx, late); err != nil {
				return found, p.describe("delivery of late events", err)
			}
			p.cfg.Metrics.events.WithLabelValues(p.cfg.Tenant, string(schema.Overlap)).Add(float64(len(late)))
			found += len(late)
		}
		if len(events) == 0 || !higher(next, cursor) {
			return found, nil
		}
		cursor = next
	}
	return found, nil
}
