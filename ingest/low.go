package ingest

import (
	"context"
	"strings"

	"github.com/tenantwatch/tenantwatch/schema"
)

// chainLow is the chain of events whose ids sort below all that we know: no other
// chain asks for them, since each begins at a time, and such an id tells none.
const chainLow = "low"

// belowAll is below every id.
var belowAll = strings.Repeat("0", len(beforeAll))

// watchLowIDs pulls events whose ids sort below 900…, which is where Auth0's begin,
// and looks for new ones from time to time.
func (p *Puller) watchLowIDs(ctx context.Context, state Checkpoints) error {
	c, known := state.Of(p.cfg.Tenant, chainLow)
	if !known {
		c = Checkpoint{Tenant: p.cfg.Tenant, Chain: chainLow, From: belowAll, LogID: belowAll}
	}
	for {
		for more := true; more; {
			var err error
			if more, err = p.pullLowIDs(ctx, &c); err != nil {
				return err
			}
		}
		if !sleep(ctx, askAgainEvery) {
			return ctx.Err()
		}
	}
}

// pullLowIDs pulls a page of such events. A tenant that does not answer is asked
// again later: it may not take an id like that. If we die between the acks and the
// checkpoint, the next start pulls the page again.
func (p *Puller) pullLowIDs(ctx context.Context, c *Checkpoint) (more bool, err error) {
	// One event tells whether there are any; nearly always there are none.
	events, err := p.lowPage(ctx, c.LogID, 1)
	if err == nil && len(events) > 0 {
		events, err = p.lowPage(ctx, c.LogID, MaxTake)
	}
	if err != nil || len(events) == 0 {
		return false, err
	}
	records := make([]schema.Record, len(events))
	for i := range events {
		e := &events[i]
		e.Tenant, e.Source, e.FetchedAt = p.cfg.Tenant, schema.Backfill, p.now()
		records[i] = e.Record()
	}
	if err := p.produce(ctx, records); err != nil {
		return false, p.describe("delivery of events", err)
	}
	p.count(schema.Backfill, len(records))
	p.cfg.Log.Warn("the tenant has events whose ids sort below all others; they are pulled on their own", "events", len(events),
		"from", events[0].LogID, "until", events[len(events)-1].LogID)
	c.LogID = events[len(events)-1].LogID
	c.Events += uint64(len(events))
	p.saves.put(*c)
	return true, nil
}

// lowPage is the events after a cursor whose ids sort below all that we know.
func (p *Puller) lowPage(ctx context.Context, cursor string, take int) ([]schema.Event, error) {
	granted, err := p.pacer.Wait(ctx, Audit)
	if err != nil {
		return nil, err
	}
	page, err := p.tenant.Logs(ctx, cursor, take)
	p.pacer.Observe(page.Limit, granted)
	p.holdFor(err)
	if err != nil {
		p.cfg.Log.Debug("the tenant cannot be asked for ids that sort below all others", "err", err)
		return nil, ctx.Err()
	}
	var low []schema.Event
	for _, e := range identify(page.Events) {
		if e.LogID != "" && e.LogID < beforeAll && e.LogID > cursor {
			low = append(low, e)
		}
	}
	return low, nil
}
