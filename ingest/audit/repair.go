package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// produceLate produces the events that became visible after the tail had passed them, and
// returns which events are still missing. Late events are not lost events.
func (a *Auditor) produceLate(ctx context.Context, events []schema.Event, left []int) ([]int, error) {
	if a.cfg.RequestsOnly {
		return left, nil
	}

	late := a.pull.Overlap.ClaimLate(events, left)
	if len(late) == 0 {
		return left, nil
	}

	// Other events may have been inserted in the meantime, so compare all of them again.
	if _, err := a.produceMissing(ctx, schema.SourceOverlap, events, late); err != nil {
		return nil, err
	}
	return a.missing(ctx, events, left)
}

// produceMissing produces events and returns which of them are still missing once the writer
// has drained.
func (a *Auditor) produceMissing(
	ctx context.Context, source schema.Source, events []schema.Event, some []int,
) ([]int, error) {
	records := make([]schema.Record, len(some))
	for n, i := range some {
		event := events[i]
		event.Tenant, event.Source, event.FetchedAt = a.cfg.Tenant, source, a.pull.Clock.Now()
		records[n] = event.Record()
	}
	if err := a.pull.Events.Produce(ctx, source, records); err != nil {
		return nil, fmt.Errorf("produce events of tenant %s: %w", a.cfg.Tenant, err)
	}

	// An event counts as healed only once it is stored.
	return a.missingAfterDrain(ctx, events, some)
}

// reportMissing produces an event of missing events, on which a rule alerts.
func (a *Auditor) reportMissing(
	ctx context.Context, chain checkpoint.Checkpoint, cursor string, missing, left int,
) error {
	from, _ := schema.IDTime(chain.LogID)
	until, _ := schema.IDTime(cursor)
	details := missingDetails{From: from, Until: until, Missing: left, Healed: missing - left, Repair: chain.Repair}
	a.cfg.Log.Error("events were missing in ClickHouse",
		"missing", details.Missing, "healed", details.Healed, "from", from, "until", until)

	text := fmt.Sprintf("%d events that Auth0 has were missing in ClickHouse; %d of them were recovered",
		missing, details.Healed)
	event := schema.NewOwnEvent(a.cfg.Tenant, schema.TypeAudit, text, details)
	if err := a.pull.Events.Produce(ctx, schema.SourceSelf, []schema.Record{event.Record()}); err != nil {
		return fmt.Errorf("produce the event of an audit of tenant %s: %w", a.cfg.Tenant, err)
	}
	return nil
}

type missingDetails struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Missing int       `json:"missing"` // even after the audit
	Healed  int       `json:"healed"`
	Repair  bool      `json:"repair"`
}
