package audit

import (
	"context"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// piece has the events that are compared with ClickHouse at once.
type piece struct {
	events []schema.Event
	hours  []time.Time // of each event
	bytes  int
}

func (p *piece) reset() { p.events, p.hours, p.bytes = p.events[:0], p.hours[:0], 0 }

// add adds the events of a page up to an end. An event without an id counts for the hour of
// the one before it.
func (p *piece) add(events []schema.Event, cursor, until string) {
	hour := hourOf(cursor)
	for _, event := range events {
		if event.LogID != "" && checkpoint.Higher(event.LogID, until) {
			continue
		}

		// Events are in the order of their ids, so hours only move forward.
		if at, ok := schema.IDTime(event.LogID); ok {
			hour = at.Truncate(time.Hour)
		}
		p.events, p.hours = append(p.events, event), append(p.hours, hour)
		p.bytes += len(event.Raw)
	}
}

// comparePiece compares a piece with the stored events, pulls the missing ones again if the
// audit repairs, and saves the coverage of the hours up to a cursor. It returns the next
// checkpoint of the chain.
func (a *Auditor) comparePiece(
	ctx context.Context, chain checkpoint.Checkpoint, piece *piece, cursor string, end bool,
) (checkpoint.Checkpoint, error) {
	missing, err := a.confirmMissing(ctx, chain, piece, cursor)
	if err != nil {
		return chain, err
	}

	// If we stop here, the piece is audited again, and the repaired events are not counted as healed.
	left := missing
	if len(missing) > 0 && chain.Repair {
		if left, err = a.produceMissing(ctx, schema.SourceRepair, piece.events, missing); err != nil {
			return chain, err
		}
	}

	// Report missing events even if all are repaired: something has lost them.
	if len(missing) > 0 {
		if err := a.reportMissing(ctx, chain, cursor, len(missing), len(left)); err != nil {
			return chain, err
		}
	}

	// If we stop here, the piece is audited again, and the rows of its hours are written again.
	counts := piece.count(chain, cursor, end, missing, left)
	if len(counts.rows) > 0 {
		if err := a.ask(ctx, func() error { return a.store.SaveCoverage(ctx, counts.rows) }); err != nil {
			return chain, err
		}
	}

	metrics, tenant := a.cfg.Metrics, a.cfg.Tenant
	metrics.audited.WithLabelValues(tenant).Add(float64(len(piece.events)))
	metrics.missing.WithLabelValues(tenant).Add(float64(len(missing)))
	metrics.healed.WithLabelValues(tenant).Add(float64(len(missing) - len(left)))
	if at, ok := schema.IDTime(cursor); ok {
		metrics.position.WithLabelValues(tenant).Set(float64(at.Unix()))
	}

	chain.Audit, chain.Hour = counts.all, counts.hour
	chain.LogID, chain.Done, chain.Ahead = cursor, end, a.pull.Clock.Lead().Seconds()
	chain.Events += uint64(len(piece.events))
	return chain, nil
}

// confirmMissing returns the events of a piece that are missing. Each step waits for a
// harmless reason for events to be missing to end, and compares again.
func (a *Auditor) confirmMissing(
	ctx context.Context, chain checkpoint.Checkpoint, piece *piece, cursor string,
) (missing []int, err error) {
	if missing, err = a.missing(ctx, piece.events, piece.all()); err != nil || len(missing) == 0 {
		return missing, err
	}

	// A backfill may still have to pull the events, or the writer to insert them.
	if err = a.pull.Progress.WaitPast(ctx, chain.LogID, cursor); err != nil {
		return nil, err
	}
	if missing, err = a.missingAfterDrain(ctx, piece.events, missing); err != nil || len(missing) == 0 {
		return missing, err
	}

	// Events that became visible late were never produced.
	return a.produceLate(ctx, piece.events, missing)
}

// missing returns the indexes of some of the events that are not stored.
func (a *Auditor) missing(ctx context.Context, events []schema.Event, some []int) ([]int, error) {
	// Only an event with an id can be in ClickHouse.
	var identified []schema.Event
	for _, i := range some {
		if events[i].LogID != "" {
			identified = append(identified, events[i])
		}
	}

	var stored, dead map[string]bool
	err := a.ask(ctx, func() (err error) {
		stored, err = a.store.Stored(ctx, a.cfg.Tenant, identified)
		return err
	})
	if err != nil {
		return nil, err
	}

	var left []int
	for _, i := range some {
		event := &events[i]
		if event.LogID != "" {
			if !stored[event.LogID] {
				left = append(left, i)
			}
			continue
		}

		// An event that cannot be identified is a dead letter. The topic is only read if there is one.
		if dead == nil {
			err := a.ask(ctx, func() (err error) {
				dead, err = a.store.DeadLetters(ctx, a.cfg.Tenant)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		if !dead[schema.DeadLetterID(event.Raw)] {
			left = append(left, i)
		}
	}
	return left, nil
}

// missingAfterDrain returns which events are missing once the writer has drained.
func (a *Auditor) missingAfterDrain(ctx context.Context, events []schema.Event, left []int) ([]int, error) {
	if err := a.ask(ctx, func() error { return a.store.Drained(ctx) }); err != nil {
		return nil, err
	}
	return a.missing(ctx, events, left)
}
