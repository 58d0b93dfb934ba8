package pull

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// The plans of the slices that Puller cuts itself.
const (
	planFirst   = "first" // the events from before the first start
	planCatchUp = "after-"
)

// catchUpAfter is the age of a checkpoint from which several chains pull the events since
// then. Rules do not fire on older events, so their order does not matter.
const catchUpAfter = 2 * time.Hour

// start decides where each chain resumes. The decision is saved before start returns.
func (p *Puller) start(ctx context.Context, state checkpoint.Set) error {
	if err := p.forget(ctx, state); err != nil {
		return err
	}
	oldest, err := p.oldest(ctx)
	if err != nil {
		return err
	}

	chains, err := p.planStart(ctx, state, oldest)

	// The names of requested chains start with their time: sorted, the one that was started first
	// is resumed first.
	slices.SortFunc(chains, func(a, b checkpoint.Checkpoint) int { return strings.Compare(a.Chain, b.Chain) })
	for _, c := range chains {
		p.assign(c)
	}
	return err
}

// planStart returns the chains to run beside the tail: those that are not done, and new
// slices. oldest is the first cursor that the tenant still has.
func (p *Puller) planStart(ctx context.Context, state checkpoint.Set, oldest string) ([]checkpoint.Checkpoint, error) {
	now := p.clock.beginning()

	var chains []checkpoint.Checkpoint
	for _, c := range state {
		if c.Tenant == p.cfg.Tenant && c.Chain != checkpoint.ChainTail && !c.Done {
			chains = append(chains, c)
		}
	}
	if p.cfg.RequestsOnly {
		return chains, nil
	}

	tail, known := state.Of(p.cfg.Tenant, checkpoint.ChainTail)
	if !known {
		return p.startFirst(ctx, state, chains, oldest, now)
	}
	return p.startAgain(ctx, state, chains, tail, oldest, now)
}

// startFirst starts the tail of a new tenant, and the slices of its backfill.
func (p *Puller) startFirst(
	ctx context.Context, state checkpoint.Set, chains []checkpoint.Checkpoint, oldest string, now time.Time,
) ([]checkpoint.Checkpoint, error) {
	tail := checkpoint.Checkpoint{Tenant: p.cfg.Tenant, Domain: p.cfg.Domain, Chain: checkpoint.ChainTail,
		LiveFrom: now}
	tail.LogID = schema.SyntheticID(now)
	tail.Behind = tail.LogID

	first := schema.SyntheticID(now.Add(-p.cfg.Backfill))
	if p.cfg.Backfill < 0 || checkpoint.Higher(oldest, first) {
		first = oldest
	}

	switch {
	case p.cfg.Backfill == 0:

	case !p.acceptsSynthetic():
		// The log cannot be cut by time, so the tail pulls all of it.
		p.cfg.Log.Warn("tenant rejects synthetic ids: backfilling serially; live events start when it finishes",
			"retry_every", askAgainEvery)
		tail.LogID, tail.Backfill = beforeAll, true
		if p.cfg.Backfill > 0 {
			tail.LogID = schema.SyntheticID(now.Add(-p.cfg.Backfill))
		}
		tail.Behind = tail.LogID

	default:
		chains = append(chains, p.planSlices(state, planFirst, first, &tail)...)

		// The slices start at the oldest event with a time. The events before it need their own.
		p.mu.Lock()
		untimed := p.untimedFirst
		p.mu.Unlock()
		if untimed && first != "" && p.cfg.Backfill < 0 {
			chains = append(chains, newSlice(p.cfg.Tenant, planFirst, beforeAll, first))
		}

		tail.LiveFrom, _ = schema.IDTime(tail.LogID)
		// Events from just before the tail's start may still show up late.
		tail.Behind = schema.SyntheticID(tail.LiveFrom.Add(-p.cfg.Overlap))
	}
	return chains, p.saveStart(ctx, tail, chains)
}

// startAgain resumes the tail of a known tenant. If its checkpoint is old, new slices pull
// the events since then.
func (p *Puller) startAgain(
	ctx context.Context, state checkpoint.Set, chains []checkpoint.Checkpoint, tail checkpoint.Checkpoint,
	oldest string, now time.Time,
) ([]checkpoint.Checkpoint, error) {
	tail.Domain = p.cfg.Domain

	// A clock that was ahead made this checkpoint. Until that time, nothing new would be pulled.
	// Audits repair the events from the meantime.
	at, ok := schema.IDTime(tail.LogID)
	if ok && strings.HasSuffix(tail.LogID, syntheticEnd) && at.After(now.Add(time.Minute)) {
		p.cfg.Log.Warn("checkpoint is in the tenant's future; resuming at its present",
			"log_id", tail.LogID, "now", now)
		tail.LiveFrom, tail.LogID = now, schema.SyntheticID(now)
		tail.Behind = schema.SyntheticID(now.Add(-p.cfg.Overlap))
	}
	p.cfg.Log.Info("pull resumed", "log_id", tail.LogID, "events", tail.Events, "chains", len(chains))

	p.mu.Lock()
	p.pendingOverlap = stretch{tail.Behind, tail.LogID}
	p.mu.Unlock()

	if err := p.recordGaps(ctx, gaps(oldest, tail, chains)); err != nil {
		return chains, err
	}

	// Cut the time since an old checkpoint. Behind stays until the pending overlap is re-read.
	at, ok = schema.IDTime(tail.LogID)
	if ok && p.acceptsSynthetic() && !tail.Backfill && now.Sub(at) > catchUpAfter {
		p.cfg.Log.Info("checkpoint is old; catching up with parallel chains", "since", at)
		from := tail.LogID
		tail.LogID = schema.SyntheticID(now.Add(-catchUpAfter))
		chains = append(chains, p.planSlices(state, planCatchUp+at.Format("20060102150405"), from, &tail)...)
	}
	return chains, p.saveStart(ctx, tail, chains)
}

// planSlices cuts the log between a cursor and the tail into slices.
//
// If an earlier start crashed after it saved slices of the plan and before it saved the
// tail, those slices are in state: the tail, or more slices, then start at their end.
func (p *Puller) planSlices(
	state checkpoint.Set, plan, from string, tail *checkpoint.Checkpoint,
) []checkpoint.Checkpoint {
	end := ""
	for _, c := range state {
		name, ok := BackfillPlan(c.Chain)
		if ok && name == plan && c.Tenant == p.cfg.Tenant && checkpoint.Higher(c.Until, end) {
			end = c.Until
		}
	}

	if end != "" {
		if span(end, tail.LogID) <= catchUpAfter {
			tail.LogID = end
			return nil
		}
		from = end // only some of the slices were saved, or the crash was long ago
	}

	// A tenant without events may only not show them yet: one chain checks again.
	chains := p.cfg.Chains
	if from == "" {
		from, chains = beforeAll, 1
	}
	if !checkpoint.Higher(tail.LogID, from) {
		return nil
	}
	return cut(p.cfg.Tenant, plan, from, tail.LogID, chains)
}

// saveStart saves the start of the tail, after the slices before it. If we stop here, the
// next start finds none, some or all of the slices; planSlices continues from there.
func (p *Puller) saveStart(ctx context.Context, tail checkpoint.Checkpoint, chains []checkpoint.Checkpoint) error {
	// The ids before Behind were pulled by other runs, so they are not known here.
	if at, ok := schema.IDTime(tail.Behind); ok {
		p.recent.forget(at)
	}

	// The tail's checkpoint must not be durable before its slices: it does not cover their events.
	p.mu.Lock()
	p.tail = tail
	p.mu.Unlock()
	return p.saves.SaveNow(ctx, append(chains[:len(chains):len(chains)], tail)...)
}

// oldest returns a cursor just before or at the oldest event that the tenant still has,
// or an empty one if there are no events. It also finds out whether the tenant accepts
// synthetic ids.
func (p *Puller) oldest(ctx context.Context) (string, error) {
	page, accepted, err := p.fetchFirst(ctx)
	if err != nil {
		return "", err
	}
	if !accepted {
		p.setSynthetic(false)
		one := 1
		page, err = p.callUntilAnswered(ctx, pace.PriorityTail, &one, func() (auth0.Page, error) {
			return p.tenant.Oldest(ctx)
		})
		if rejected := new(auth0.Error); err != nil && !errors.As(err, &rejected) {
			return "", err
		}
	}

	// Find the lowest id with a time. If no event has one, the tenant's link may.
	events := identify(page.Events)
	lowest, found := nextCursor("", timed(events), "")
	if _, ok := schema.IDTime(page.Next); !found && ok {
		lowest = page.Next
	}
	at, ok := schema.IDTime(lowest)

	// Slices start at the lowest id with a time. Note whether there are events before it.
	p.mu.Lock()
	p.untimedFirst = accepted && ok && len(events) > 0 && events[0].LogID != "" && events[0].LogID != lowest
	p.mu.Unlock()

	if accepted {
		p.setSynthetic(ok || len(events) == 0)
		if ok {
			return schema.SyntheticID(at), nil
		}
	}
	if lowest, ok := nextCursor("", events, ""); ok {
		return lowest, nil
	}
	return lowest, nil
}

// timed returns the events whose ids have a time.
func timed(events []schema.Event) []schema.Event {
	return slices.DeleteFunc(slices.Clone(events), func(event schema.Event) bool {
		_, ok := schema.IDTime(event.LogID)
		return !ok
	})
}

// hasTime reports whether a page has an id with a time.
func hasTime(page auth0.Page) bool {
	_, ok := schema.IDTime(page.Next)
	return ok || len(timed(identify(page.Events))) > 0
}

// fetchFirst returns a page with the oldest event. accepted is false if the tenant rejects
// the synthetic id before it. An empty page or a rejection counts only if it is repeated.
func (p *Puller) fetchFirst(ctx context.Context) (page auth0.Page, accepted bool, err error) {
	take, rejections := 1, 0
	for empties := 0; ; {
		asked := take
		page, err = p.callUntilAnswered(ctx, pace.PriorityTail, &take, func() (auth0.Page, error) {
			return p.tenant.Logs(ctx, beforeAll, asked)
		})

		pause := rejectedRetry
		switch rejected := new(auth0.Error); {
		case errors.As(err, &rejected):
			if rejections++; rejections >= rejectionsBelieved {
				return auth0.Page{}, false, nil
			}
		case err != nil:
			return auth0.Page{}, false, err
		case len(page.Events) == 0 && empties < emptyBelieved:
			pause = emptyPause << empties
			empties++
		case len(page.Events) > 0 && asked < auth0.MaxTake && !hasTime(page):
			// The oldest event may be an exception: look for an id with a time behind it.
			take, pause = auth0.MaxTake, 0
		default:
			return page, true, nil
		}

		if !sleep.For(ctx, pause) {
			return auth0.Page{}, false, ctx.Err()
		}
	}
}

// beforeAll is lower than every id that Auth0 has issued.
var beforeAll = schema.SyntheticID(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))

func (p *Puller) acceptsSynthetic() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.synthetic
}

func (p *Puller) setSynthetic(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synthetic = ok
	if ok && p.acceptsIDs != nil {
		close(p.acceptsIDs)
		p.acceptsIDs = nil
	}
}

// waitSynthetic waits until the tenant accepts synthetic ids.
func (p *Puller) waitSynthetic(ctx context.Context) error {
	p.mu.Lock()
	accepted := p.acceptsIDs
	p.mu.Unlock()
	if accepted == nil {
		return ctx.Err()
	}

	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-accepted:
		return nil
	}
}

// askAgainEvery is the interval at which the findings of a start are checked again, so
// that one wrong answer does not disable anything until the next start.
const askAgainEvery = 5 * time.Minute

// watchAcceptance checks again whether a tenant that rejected synthetic ids accepts them.
func (p *Puller) watchAcceptance(ctx context.Context) error {
	for sleep.For(ctx, askAgainEvery) {
		if p.acceptsSynthetic() {
			continue
		}
		if _, err := p.oldest(ctx); err != nil {
			return err
		}
		if p.acceptsSynthetic() {
			p.cfg.Log.Info("tenant accepts synthetic ids now: starting audits, backfilling the rest in parallel")
		}
	}
	return ctx.Err()
}

// forgetAfter is how long the checkpoint of a finished chain is kept.
const forgetAfter = time.Hour

// forget deletes the checkpoints of chains that are done. If we stop here, the next start
// deletes them.
func (p *Puller) forget(ctx context.Context, state checkpoint.Set) error {
	var records []schema.Record
	for _, c := range state {
		if c.Tenant == p.cfg.Tenant && c.Done && !audit.IsBackground(c.Chain) && time.Since(c.UpdatedAt) > forgetAfter {
			records = append(records, schema.Record{Key: []byte(c.Key())})
		}
	}
	if len(records) == 0 {
		return nil
	}

	if err := p.checkpoints.Produce(ctx, records, func(error) {}); err != nil {
		return p.describe("delete checkpoints", err)
	}
	return nil
}
