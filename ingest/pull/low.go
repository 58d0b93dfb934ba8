package pull

import (
	"context"
	"strings"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// chainLow is the chain of events whose ids sort below all ids with a time. No other chain
// fetches them, since each starts at a time.
const chainLow = "low"

// belowAll is below every id.
var belowAll = strings.Repeat("0", len(beforeAll))

// watchLowIDs pulls the events whose ids sort below 900…, where Auth0's ids start, and
// checks for new ones from time to time.
func (p *Puller) watchLowIDs(ctx context.Context, state checkpoint.Set) error {
	c, known := state.Of(p.cfg.Tenant, chainLow)
	if !known {
		c = checkpoint.Checkpoint{Tenant: p.cfg.Tenant, Chain: chainLow, From: belowAll, LogID: belowAll}
	}

	for {
		for more := true; more; {
			var err error
			if more, err = p.pullLowIDs(ctx, &c); err != nil {
				return err
			}
		}
		if !sleep.For(ctx, askAgainEvery) {
			return ctx.Err()
		}
	}
}

// pullLowIDs pulls one page of such events. If the call fails, it reports no more events,
// so that the tenant is asked again later: it may reject such an id.
func (p *Puller) pullLowIDs(ctx context.Context, c *checkpoint.Checkpoint) (more bool, err error) {
	// One event is enough to see whether there are any. Nearly always there are none.
	events, err := p.fetchLowIDs(ctx, c.LogID, 1)
	if err == nil && len(events) > 0 {
		events, err = p.fetchLowIDs(ctx, c.LogID, auth0.MaxTake)
	}
	if err != nil || len(events) == 0 {
		return false, err
	}

	records := make([]schema.Record, len(events))
	for i := range events {
		event := &events[i]
		event.Tenant, event.Source, event.FetchedAt = p.cfg.Tenant, schema.SourceBackfill, p.clock.Now()
		records[i] = event.Record()
	}
	if err := p.produce(ctx, records); err != nil {
		return false, p.describe("produce events", err)
	}
	p.count(schema.SourceBackfill, len(records))

	last := events[len(events)-1].LogID
	p.cfg.Log.Warn("tenant has events whose ids sort below all others; pulling them separately",
		"events", len(events), "from", events[0].LogID, "until", last)

	// If we stop here, the next start pulls the page again.
	c.LogID = last
	c.Events += uint64(len(events))
	p.saves.Save(*c)
	return true, nil
}

// fetchLowIDs returns the events after a cursor whose ids sort below all ids with a time.
func (p *Puller) fetchLowIDs(ctx context.Context, cursor string, take int) ([]schema.Event, error) {
	granted, err := p.limiter.Wait(ctx, pace.PriorityAudit)
	if err != nil {
		return nil, err
	}
	page, err := p.tenant.Logs(ctx, cursor, take)
	p.limiter.Observe(page.Limit, granted)
	p.holdFor(err)
	if err != nil {
		p.cfg.Log.Debug("fetch ids that sort below all others failed", "err", err)
		return nil, ctx.Err()
	}

	var low []schema.Event
	for _, event := range identify(page.Events) {
		if event.LogID != "" && event.LogID < beforeAll && event.LogID > cursor {
			low = append(low, event)
		}
	}
	return low, nil
}
