package pull

import (
	"context"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/schema"
)

// fill is one chain of the backfill. It pulls slice after slice, until ctx ends.
func (p *Puller) fill(ctx context.Context) error {
	for {
		claimed, err := p.backfill.claim(ctx, p.saves)
		if err != nil {
			return err
		}
		if err := p.pullSlice(ctx, claimed); err != nil {
			return err
		}
	}
}

// pullSlice pulls a slice to its end.
func (p *Puller) pullSlice(ctx context.Context, s *slice) error {
	cursor, room, take := s.at.LogID, int64(minRoom), auth0.MaxTake
	for {
		// Reserve memory before the page is fetched: many chains may fetch large pages at once.
		if err := p.room.Acquire(ctx, room); err != nil {
			return err
		}
		events, next, err := p.fetchPage(ctx, pace.PriorityBackfill, cursor, &take)
		if err != nil {
			return err
		}

		// If we stop here, the next start pulls the page again.
		records, bytes := p.sliceRecords(s, events, next)
		if len(records) > 0 {
			if err := p.produce(ctx, records); err != nil {
				return p.describe("produce events", err)
			}
		}
		p.room.Release(room)

		// The next page probably has the same size.
		if bytes > largePage {
			take = max(take/2, 1)
		}
		room = min(max(bytes, minRoom), bytesAhead)
		p.count(schema.SourceBackfill, len(records))

		// If we stop here, the next start produces the page again.
		saved, left := p.backfill.advance(s, next, len(records), len(events) == 0)
		p.saves.Save(saved)
		if saved.Done {
			if left == 0 {
				p.cfg.Log.Info("backfill finished", "events", p.backfill.status().Events)
			}
			return nil
		}
		cursor = next
	}
}

// sliceRecords returns the records of the events of a page that belong to a slice, and the
// size of the page. next is the cursor after it. Events after the slice belong to the next one.
func (p *Puller) sliceRecords(s *slice, events []schema.Event, next string) (records []schema.Record, bytes int64) {
	now, until := p.clock.Now(), p.backfill.begin(s, next)
	for i := range events {
		event := &events[i]
		bytes += int64(len(event.Raw))
		if event.LogID != "" && checkpoint.Higher(event.LogID, until) {
			continue
		}
		event.Tenant, event.Source, event.FetchedAt = p.cfg.Tenant, schema.SourceBackfill, now
		p.recent.addPast(event.LogID, now)
		records = append(records, event.Record())
	}
	return records, bytes
}

// Sizes of pages in memory.
const (
	minRoom   = 512 << 10
	largePage = 8 << 20
)
