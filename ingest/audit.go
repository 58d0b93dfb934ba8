package ingest

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/schema"
)

// AuditStore is where events are stored in the end: ClickHouse, or the deadletter topic.
type AuditStore interface {
	// Stored returns which of the events of a tenant ClickHouse has, by log_id. The
	// events are identified.
	Stored(ctx context.Context, tenant string, events []schema.Event) (map[string]bool, error)
	// DeadLetters returns the ids of the dead letters of a tenant.
	DeadLetters(ctx context.Context, tenant string) (map[string]bool, error)
	// Drained waits until the writer has written all that was in the events topic when
	// Drained was called. It returns an error if that takes too long.
	Drained(ctx context.Context) error
	// SaveCoverage saves the result of an audit for some hours.
	SaveCoverage(ctx context.Context, list []schema.Coverage) error
}

// chainAudit is the prefix of comparisons with ClickHouse.
const chainAudit = "audit/"

// AuditRequest returns a checkpoint that requests an audit from the leader of a tenant. It
// compares ClickHouse with the tenant's events that were stored between two times, and
// pulls the missing ones if repair is set. The times are widened to whole hours.
func AuditRequest(tenant, name string, from, until time.Time, repair bool) checkpoint.Checkpoint {
	chain := newAudit(tenant, name, from.Truncate(time.Hour), until, repair)
	chain.Requested = true
	return chain
}

// newAudit returns the start of an audit.
func newAudit(tenant, name string, from, until time.Time, repair bool) checkpoint.Checkpoint {
	id := schema.SyntheticID(from)
	return checkpoint.Checkpoint{Tenant: tenant, Chain: chainAudit + name, From: id, LogID: id,
		Until: schema.SyntheticID(until), Repair: repair, Audit: &checkpoint.Tally{}}
}

// The background audits. Both repair.
const (
	auditFreshName = "fresh" // each hour after its end
	auditRoundName = "round" // everything that the tenant still has, again and again
)

// isBackground reports whether a chain is one of the background audits. They never end for
// good.
func isBackground(chain string) bool {
	return chain == chainAudit+auditFreshName || chain == chainAudit+auditRoundName
}

// auditRest is the least time between the starts of two rounds.
const auditRest = 10 * time.Minute

// auditLag is the least age of an event that the background audits look for. Until then,
// the overlap may still pull it.
const auditLag = 15 * time.Minute

// Bounds of the events that are compared with ClickHouse at once.
const (
	auditEvents = 1000
	auditBytes  = 8 << 20
)

// maxAudits is the number of requested audits that can wait. Further requests are dropped;
// their senders repeat them.
const maxAudits = 1024

// audit runs the requested audits.
func (p *Puller) audit(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case chain := <-p.audits:
			if _, err := p.runAudit(ctx, chain, pace.PriorityBackfill); err != nil {
				return err
			}
			p.cfg.Log.Info("audit finished", "chain", chain.Chain)
		}
	}
}

// auditFresh audits each hour after its end.
func (p *Puller) auditFresh(ctx context.Context, state checkpoint.Set) error {
	p.mu.Lock()
	live := p.tail.LiveFrom
	p.mu.Unlock()

	// An audit starts at a time, so it needs synthetic ids.
	if err := p.waitSynthetic(ctx); err != nil {
		return err
	}

	// The first audit of a tenant starts with its first live hour; the rest is for the rounds.
	chain, known := state.Of(p.cfg.Tenant, chainAudit+auditFreshName)
	if !known {
		chain = newAudit(p.cfg.Tenant, auditFreshName, live.Truncate(time.Hour), live, true)
	}
	for {
		// During a backfill, most missing events would only be missing so far.
		if err := p.backfill.waitIdle(ctx); err != nil {
			return err
		}

		ended := p.now().Add(-auditLag).Truncate(time.Hour)
		if until := schema.SyntheticID(ended); checkpoint.Higher(until, chain.LogID) {
			chain.Until, chain.Done = until, false
			next, err := p.runAudit(ctx, chain, pace.PriorityAudit)
			if err != nil {
				return err
			}
			chain = next
		}

		// The next hour ends an hour later, and is audited auditLag after that.
		if !pace.Sleep(ctx, ended.Add(time.Hour+auditLag).Sub(p.now())) {
			return ctx.Err()
		}
	}
}

// auditRounds audits everything that the tenant still has, round after round. It finds and
// repairs rows that somebody has deleted.
func (p *Puller) auditRounds(ctx context.Context, state checkpoint.Set) error {
	if err := p.waitSynthetic(ctx); err != nil {
		return err
	}

	// Resume the round that the last run has not finished.
	chain, known := state.Of(p.cfg.Tenant, chainAudit+auditRoundName)
	chain.Done = chain.Done || !known
	for {
		if err := p.backfill.waitIdle(ctx); err != nil {
			return err
		}
		started := time.Now()
		if chain.Done {
			until := p.byTenant(started).Add(-auditLag)
			chain = newAudit(p.cfg.Tenant, auditRoundName, time.Time{}, until, true)
		}

		// A round of a small tenant is short: rest before the next one.
		var err error
		if chain, err = p.runAudit(ctx, chain, pace.PriorityAudit); err != nil {
			return err
		}
		if !pace.Sleep(ctx, auditRest-time.Since(started)) {
			return ctx.Err()
		}
	}
}

// auditFrom returns the first hour that can be audited: the tenant still has it, and
// ClickHouse does not drop it.
func (p *Puller) auditFrom(ctx context.Context) (time.Time, error) {
	oldest, err := p.oldest(ctx)
	if err != nil {
		return time.Time{}, err
	}

	// A tenant without events has nothing to audit before now.
	from, ok := schema.IDTime(oldest)
	if !ok {
		from = p.now()
	}
	return p.keptFrom(from).Truncate(time.Hour), nil
}

// keptFrom returns t, or the time from which ClickHouse keeps events if that is later.
func (p *Puller) keptFrom(t time.Time) time.Time {
	if p.cfg.Retention <= 0 {
		return t
	}
	// ClickHouse drops whole parts at some time after their retention: leave a margin.
	kept := time.Now().Add(-p.cfg.Retention + time.Hour).Truncate(time.Hour)
	if kept.After(t) {
		return kept
	}
	return t
}

func hourOf(logID string) time.Time {
	at, _ := schema.IDTime(logID)
	return at.Truncate(time.Hour)
}

// runAudit runs an audit to its end and returns its last checkpoint. It retries everything
// that fails. An error is only the end of ctx, or of Kafka.
func (p *Puller) runAudit(
	ctx context.Context, chain checkpoint.Checkpoint, priority pace.Priority,
) (checkpoint.Checkpoint, error) {
	chain.Requested = false
	if chain.Audit == nil {
		chain.Audit = &checkpoint.Tally{}
	}

	// Skip the hours that the tenant or ClickHouse has dropped, and stop at the tail.
	from, err := p.auditFrom(ctx)
	if err != nil {
		return chain, err
	}
	if first := schema.SyntheticID(from); checkpoint.Higher(first, chain.LogID) {
		chain.From, chain.LogID, chain.Hour = first, first, nil
	}
	if until := p.reached(); !p.cfg.RequestsOnly && checkpoint.Higher(chain.Until, until) {
		chain.Until = max(until, chain.LogID)
	}

	var piece piece
	take, cursor := auth0.MaxTake, chain.LogID
	for {
		events, next, err := p.fetchPage(ctx, priority, cursor, &take)
		if err != nil {
			return chain, err
		}

		// Collect pages until there is enough for one query.
		end := len(events) == 0 || chain.EndsAt(next)
		piece.add(events, cursor, chain.Until)
		cursor = next
		if end {
			cursor = chain.Until
		}
		if !end && len(piece.events) < auditEvents && piece.bytes < auditBytes {
			continue
		}

		// If we stop here, the next start resumes after the last saved piece, with its counts.
		if chain, err = p.auditPiece(ctx, chain, &piece, cursor, end); err != nil {
			return chain, err
		}
		p.saves.Save(chain)
		if end {
			return chain, nil
		}
		piece.reset()
	}
}

// reached returns the cursor up to which the tail has pulled all events. For a quiet tenant
// that is about the time when it last had no more events.
func (p *Puller) reached() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	quiet := schema.SyntheticID(p.status.CaughtUp.Add(-p.clockAhead - time.Minute))
	if !p.status.CaughtUp.IsZero() && checkpoint.Higher(quiet, p.tail.LogID) {
		return quiet
	}
	return p.tail.LogID
}

// auditRetry is the pause before a failed request to ClickHouse or Kafka is repeated.
const auditRetry = time.Second

// ask repeats a request of an audit until it succeeds or ctx ends.
func (p *Puller) ask(ctx context.Context, request func() error) error {
	for logged := ""; ; {
		err := request()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}

		// The same error again is counted, but not logged.
		p.cfg.Metrics.auditFailures.WithLabelValues(p.cfg.Tenant).Inc()
		if err.Error() != logged {
			logged = err.Error()
			p.cfg.Log.Warn("audit cannot continue; retrying", "err", err)
		}
		if !pace.Sleep(ctx, auditRetry) {
			return ctx.Err()
		}
	}
}

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

// auditPiece compares a piece with the stored events, pulls the missing ones again if the
// audit repairs, and saves the coverage of the hours up to a cursor. It returns the next
// checkpoint of the chain.
func (p *Puller) auditPiece(
	ctx context.Context, chain checkpoint.Checkpoint, piece *piece, cursor string, end bool,
) (checkpoint.Checkpoint, error) {
	missing, err := p.confirmMissing(ctx, chain, piece, cursor)
	if err != nil {
		return chain, err
	}

	// If we stop here, the piece is audited again, and the repaired events are not counted as healed.
	left := missing
	if len(missing) > 0 && chain.Repair {
		if left, err = p.produceMissing(ctx, schema.Repair, piece.events, missing); err != nil {
			return chain, err
		}
	}

	// Report missing events even if all are repaired: something has lost them.
	if len(missing) > 0 {
		if err := p.reportMissing(ctx, chain, cursor, len(missing), len(left)); err != nil {
			return chain, err
		}
	}

	// If we stop here, the piece is audited again, and the rows of its hours are written again.
	counts := piece.count(chain, cursor, end, missing, left)
	if len(counts.rows) > 0 {
		if err := p.ask(ctx, func() error { return p.archive.SaveCoverage(ctx, counts.rows) }); err != nil {
			return chain, err
		}
	}

	metrics, tenant := p.cfg.Metrics, p.cfg.Tenant
	metrics.audited.WithLabelValues(tenant).Add(float64(len(piece.events)))
	metrics.missing.WithLabelValues(tenant).Add(float64(len(missing)))
	metrics.healed.WithLabelValues(tenant).Add(float64(len(missing) - len(left)))
	if at, ok := schema.IDTime(cursor); ok {
		metrics.auditPosition.WithLabelValues(tenant).Set(float64(at.Unix()))
	}

	chain.Audit, chain.Hour = counts.all, counts.hour
	chain.LogID, chain.Done, chain.Ahead = cursor, end, p.lead().Seconds()
	chain.Events += uint64(len(piece.events))
	return chain, nil
}

// confirmMissing returns the events of a piece that are missing. Each step waits for a
// harmless reason for events to be missing to end, and compares again.
func (p *Puller) confirmMissing(
	ctx context.Context, chain checkpoint.Checkpoint, piece *piece, cursor string,
) (missing []int, err error) {
	if missing, err = p.missing(ctx, piece.events, piece.all()); err != nil || len(missing) == 0 {
		return missing, err
	}

	// A backfill may still have to pull the events, or the writer to insert them.
	if err = p.backfill.waitPast(ctx, chain.LogID, cursor); err != nil {
		return nil, err
	}
	if missing, err = p.missingAfterDrain(ctx, piece.events, missing); err != nil || len(missing) == 0 {
		return missing, err
	}

	// Events that became visible late were never produced.
	return p.produceLate(ctx, piece.events, missing)
}

// missing returns the indexes of some of the events that are not stored.
func (p *Puller) missing(ctx context.Context, events []schema.Event, some []int) ([]int, error) {
	// Only an event with an id can be in ClickHouse.
	var identified []schema.Event
	for _, i := range some {
		if events[i].LogID != "" {
			identified = append(identified, events[i])
		}
	}

	var stored, dead map[string]bool
	err := p.ask(ctx, func() (err error) {
		stored, err = p.archive.Stored(ctx, p.cfg.Tenant, identified)
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
			err := p.ask(ctx, func() (err error) {
				dead, err = p.archive.DeadLetters(ctx, p.cfg.Tenant)
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
func (p *Puller) missingAfterDrain(ctx context.Context, events []schema.Event, left []int) ([]int, error) {
	if err := p.ask(ctx, func() error { return p.archive.Drained(ctx) }); err != nil {
		return nil, err
	}
	return p.missing(ctx, events, left)
}

// produceLate produces the events that became visible after the tail had passed them, and
// returns which events are still missing. Late events are not lost events.
func (p *Puller) produceLate(ctx context.Context, events []schema.Event, left []int) ([]int, error) {
	if p.cfg.RequestsOnly {
		return left, nil
	}

	// Late are those that the overlap would produce too: recent, and not known.
	var late []int
	now := time.Now()
	edge := p.byTenant(now).Add(-p.width())
	for _, i := range left {
		at, ok := schema.IDTime(events[i].LogID)
		inOverlap := ok && at.After(edge) && at.After(p.recent.since())
		if inOverlap && p.recent.add(events[i].LogID) {
			late = append(late, i)
		}
	}
	if len(late) == 0 {
		return left, nil
	}

	// Other events may have been inserted in the meantime, so compare all of them again.
	if _, err := p.produceMissing(ctx, schema.Overlap, events, late); err != nil {
		return nil, err
	}
	return p.missing(ctx, events, left)
}

// produceMissing produces events and returns which of them are still missing once the writer
// has drained.
func (p *Puller) produceMissing(
	ctx context.Context, source schema.Source, events []schema.Event, some []int,
) ([]int, error) {
	records := make([]schema.Record, len(some))
	for n, i := range some {
		event := events[i]
		event.Tenant, event.Source, event.FetchedAt = p.cfg.Tenant, source, p.now()
		records[n] = event.Record()
	}
	if err := p.produce(ctx, records); err != nil {
		return nil, p.describe("produce events", err)
	}
	p.count(source, len(records))

	// An event counts as healed only once it is stored.
	return p.missingAfterDrain(ctx, events, some)
}

// reportMissing produces an event of missing events, on which a rule alerts.
func (p *Puller) reportMissing(
	ctx context.Context, chain checkpoint.Checkpoint, cursor string, missing, left int,
) error {
	from, _ := schema.IDTime(chain.LogID)
	until, _ := schema.IDTime(cursor)
	details := auditDetails{From: from, Until: until, Missing: left, Healed: missing - left, Repair: chain.Repair}
	p.cfg.Log.Error("events were missing in ClickHouse",
		"missing", details.Missing, "healed", details.Healed, "from", from, "until", until)

	text := fmt.Sprintf("%d events that Auth0 has were missing in ClickHouse; %d of them were recovered",
		missing, details.Healed)
	event := schema.NewOwnEvent(p.cfg.Tenant, schema.TypeAudit, text, details)
	if err := p.produce(ctx, []schema.Record{event.Record()}); err != nil {
		return p.describe("produce the event of an audit", err)
	}
	p.count(schema.Self, 1)
	return nil
}

type auditDetails struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Missing int       `json:"missing"` // even after the audit
	Healed  int       `json:"healed"`
	Repair  bool      `json:"repair"`
}

// counts are the counts of a chain after a piece.
type counts struct {
	all, hour *checkpoint.Tally
	rows      []schema.Coverage // of the hours that are over
}

// count adds a piece to the counts of a chain. missing are the events that were missing,
// left those that still are.
func (p *piece) count(chain checkpoint.Checkpoint, cursor string, end bool, missing, left []int) counts {
	n := counts{all: &checkpoint.Tally{}, hour: &checkpoint.Tally{From: chain.LogID}}
	n.all.Add(chain.Audit)
	if chain.Hour != nil {
		*n.hour = *chain.Hour
	}

	// An hour that is over gets a row, with the counts of the pieces before.
	hour, now := hourOf(chain.LogID), time.Now().UTC().Truncate(time.Millisecond)
	part := checkpoint.Tally{} // of the piece, in the current hour
	closeHour := func(until string) {
		n.hour.Add(&part)
		n.all.Add(&part)
		from, _ := schema.IDTime(n.hour.From)
		to, _ := schema.IDTime(until)
		n.rows = append(n.rows, schema.Coverage{
			Tenant: chain.Tenant, Hour: hour, From: from, Until: to,
			Expected: n.hour.Expected, Stored: n.hour.Stored, Dead: n.hour.Dead,
			Missing: n.hour.Missing, Healed: n.hour.Healed, CheckedAt: now,
		})
	}
	advance := func(to time.Time) {
		for hour.Before(to) {
			next := schema.SyntheticID(hour.Add(time.Hour))
			closeHour(next)
			hour, part, *n.hour = hour.Add(time.Hour), checkpoint.Tally{}, checkpoint.Tally{From: next}
		}
	}

	// Hours without events get rows too: advance closes each.
	wasMissing, isMissing := indexes(missing), indexes(left)
	for i := range p.events {
		advance(p.hours[i])
		part.Expected++
		switch {
		case isMissing[i]:
			part.Missing++
		case p.events[i].LogID == "":
			part.Dead++
		default:
			part.Stored++
		}
		if wasMissing[i] && !isMissing[i] {
			part.Healed++
		}
	}

	// The last hour of the audit has a row, even if the audit ends within it.
	advance(hourOf(cursor))
	if end && checkpoint.Higher(cursor, n.hour.From) {
		closeHour(cursor)
	} else {
		n.hour.Add(&part)
		n.all.Add(&part)
	}
	return n
}

// all returns the indexes of all events.
func (p *piece) all() []int {
	list := make([]int, len(p.events))
	for i := range list {
		list[i] = i
	}
	return list
}

// indexes returns a list as a set.
func indexes(list []int) map[int]bool {
	set := map[int]bool{}
	for _, i := range list {
		set[i] = true
	}
	return set
}
