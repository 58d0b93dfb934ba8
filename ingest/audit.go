package ingest

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Kept is where events end up: ClickHouse, or the deadletter topic.
type Kept interface {
	// Stored returns which of the events of a tenant ClickHouse has, by log_id. The
	// events are identified.
	Stored(ctx context.Context, tenant string, events []schema.Event) (map[string]bool, error)
	// Dead returns which dead letters of a tenant are kept, by their id.
	Dead(ctx context.Context, tenant string) (map[string]bool, error)
	// Settled waits until all that was in the events topic when it was called has
	// been written. It fails when the writer does not get there in time.
	Settled(ctx context.Context) error
	// Note keeps what an audit of hours has found.
	Note(ctx context.Context, list []schema.Coverage) error
}

// Tally is what an audit has counted, of an hour or in all.
type Tally struct {
	From     string `json:"from,omitempty"` // the hour's part that was looked at begins after this log_id
	Expected uint64 `json:"expected"`       // the tenant has them
	Stored   uint64 `json:"stored"`         // and so has ClickHouse
	Dead     uint64 `json:"dead"`           // or they are kept as dead letters
	Missing  uint64 `json:"missing"`        // neither: still, after the audit
	Healed   uint64 `json:"healed"`         // they were missing, and have been pulled and stored
}

// Add adds another tally.
func (t *Tally) Add(o *Tally) {
	t.Expected += o.Expected
	t.Stored += o.Stored
	t.Dead += o.Dead
	t.Missing += o.Missing
	t.Healed += o.Healed
}

// NewAudit asks the leader of a tenant to hold ClickHouse against the tenant,
// for what was stored from one time to another, and to pull what is missing when
// repair is set. The times are widened to whole hours.
func NewAudit(tenant, name string, from, until time.Time, repair bool) Checkpoint {
	c := newAudit(tenant, name, from.Truncate(time.Hour), until, repair)
	c.Order = true
	return c
}

func newAudit(tenant, name string, from, until time.Time, repair bool) Checkpoint {
	id := schema.SyntheticID(from)
	return Checkpoint{Tenant: tenant, Chain: chainAudit + name, From: id, LogID: id, Until: schema.SyntheticID(until),
		Repair: repair, Audit: &Tally{}}
}

// The background audits. Both repair.
const (
	auditFresh = "fresh" // each hour once it is over
	auditRound = "round" // all that the tenant still has, again and again
)

// background reports whether a chain is one of the background audits, which never
// come to their end for good.
func background(chain string) bool {
	return chain == chainAudit+auditFresh || chain == chainAudit+auditRound
}

// auditRest is the least time from the beginning of one round to that of the next.
const auditRest = 10 * time.Minute

// auditLag is how long after an event's time it is looked for by the background
// audits: before that it is the overlap's affair.
const auditLag = 15 * time.Minute

// Bounds of what an audit holds against ClickHouse at once.
const (
	auditEvents = 1000
	auditBytes  = 8 << 20
)

// mostAudits is how many may be asked for before the first of them is done. Who
// asks for more waits in vain, and asks again.
const mostAudits = 1024

// audit runs the audits that are asked for.
func (p *Puller) audit(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-p.audits:
			if _, err := p.runAudit(ctx, c, Backfill); err != nil {
				return err
			}
			p.cfg.Log.Info("audit is done", "chain", c.Chain)
		}
	}
}

// watchFresh audits each hour once it is over.
func (p *Puller) watchFresh(ctx context.Context, state Checkpoints) error {
	p.mu.Lock()
	begin := p.at.LiveFrom
	p.mu.Unlock()
	if err := p.accepting(ctx); err != nil {
		return err
	}
	c, known := state.Of(p.cfg.Tenant, chainAudit+auditFresh)
	if !known {
		c = newAudit(p.cfg.Tenant, auditFresh, begin.Truncate(time.Hour), begin, true)
	}
	for {
		// While there is more to backfill, most would only be early.
		if err := p.backfill.idle(ctx); err != nil {
			return err
		}
		over := p.now().Add(-auditLag).Truncate(time.Hour)
		if until := schema.SyntheticID(over); higher(until, c.LogID) {
			c.Until, c.Done = until, false
			done, err := p.runAudit(ctx, c, Audit)
			if err != nil {
				return err
			}
			c = done
		}
		if !sleep(ctx, over.Add(time.Hour+auditLag).Sub(p.now())) {
			return ctx.Err()
		}
	}
}

// watchAll audits all that the tenant still has, round after round: what is
// deleted behind our back is found and healed.
func (p *Puller) watchAll(ctx context.Context, state Checkpoints) error {
	if err := p.accepting(ctx); err != nil {
		return err
	}
	c, known := state.Of(p.cfg.Tenant, chainAudit+auditRound)
	c.Done = c.Done || !known
	for {
		if err := p.backfill.idle(ctx); err != nil {
			return err
		}
		began := time.Now()
		if c.Done {
			c = newAudit(p.cfg.Tenant, auditRound, time.Time{}, p.byTenant(began).Add(-auditLag), true)
		}
		var err error
		if c, err = p.runAudit(ctx, c, Audit); err != nil {
			return err
		}
		if !sleep(ctx, auditRest-time.Since(began)) {
			return ctx.Err()
		}
	}
}

// auditFrom is the first hour that can be held against the tenant: it still has
// it, and ClickHouse does not drop it.
func (p *Puller) auditFrom(ctx context.Context) (time.Time, error) {
	oldest, err := p.oldest(ctx)
	if err != nil {
		return time.Time{}, err
	}
	from, ok := schema.IDTime(oldest)
	if !ok {
		from = p.now()
	}
	return p.keptFrom(from).Truncate(time.Hour), nil
}

// keptFrom is t, or when ClickHouse begins to keep events if that is later.
func (p *Puller) keptFrom(t time.Time) time.Time {
	if p.cfg.Retention <= 0 {
		return t
	}
	// ClickHouse drops whole parts when it gets to it, so the edge is left out.
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

// runAudit walks a chain to its end. Its checkpoint is written after each piece,
// with what was counted: if we die, the next start goes on after the last piece.
// An error is only the end of ctx; what cannot be asked is asked again.
func (p *Puller) runAudit(ctx context.Context, c Checkpoint, class Class) (Checkpoint, error) {
	c.Order = false
	if c.Audit == nil {
		c.Audit = &Tally{}
	}
	from, err := p.auditFrom(ctx)
	if err != nil {
		return c, err
	}
	if first := schema.SyntheticID(from); higher(first, c.LogID) {
		c.From, c.LogID, c.Hour = first, first, nil
	}
	if until := p.reached(); !p.cfg.OrdersOnly && higher(c.Until, until) {
		c.Until = max(until, c.LogID) // what comes later is the tail's affair
	}
	var piece piece
	take, cursor := MaxTake, c.LogID
	for {
		events, next, err := p.page(ctx, class, cursor, &take)
		if err != nil {
			return c, err
		}
		end := len(events) == 0 || reached(next, c.Until)
		piece.add(events, cursor, c.Until)
		if cursor = next; end {
			cursor = c.Until
		}
		if !end && len(piece.events) < auditEvents && piece.bytes < auditBytes {
			continue
		}
		if c, err = p.judge(ctx, c, &piece, cursor, end); err != nil {
			return c, err
		}
		p.saves.put(c)
		if end {
			return c, nil
		}
		piece.reset()
	}
}

// reached is up to where the tail has pulled all there was: its cursor, or, of a
// quiet tenant, about when it had last nothing more to pull.
func (p *Puller) reached() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := schema.SyntheticID(p.status.CaughtUp.Add(-p.ahead - time.Minute)); !p.status.CaughtUp.IsZero() && higher(at, p.at.LogID) {
		return at
	}
	return p.at.LogID
}

// auditRetry is the pause before ClickHouse or Kafka is asked again.
const auditRetry = time.Second

// ask repeats a question of an audit until it is answered or ctx ends.
func (p *Puller) ask(ctx context.Context, question func() error) error {
	for said := ""; ; {
		err := question()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.cfg.Metrics.auditFailures.WithLabelValues(p.cfg.Tenant).Inc()
		if err.Error() != said {
			said = err.Error()
			p.cfg.Log.Warn("an audit cannot go on; trying again", "err", err)
		}
		if !sleep(ctx, auditRetry) {
			return ctx.Err()
		}
	}
}

// piece is a run of events that is held against ClickHouse at once.
type piece struct {
	events []schema.Event
	hours  []time.Time // of each
	bytes  int
}

func (p *piece) reset() { p.events, p.hours, p.bytes = p.events[:0], p.hours[:0], 0 }

// add takes the events of a page up to an end. What has no id counts for the hour
// of the one before it.
func (p *piece) add(events []schema.Event, cursor, until string) {
	hour := hourOf(cursor)
	for _, e := range events {
		if e.LogID != "" && higher(e.LogID, until) {
			continue
		}
		if at, ok := schema.IDTime(e.LogID); ok {
			hour = at.Truncate(time.Hour)
		}
		p.events, p.hours = append(p.events, e), append(p.hours, hour)
		p.bytes += len(e.Raw)
	}
}

// judge holds a piece against what is kept, has what is missing pulled again when
// that is asked for, and notes the hours that the piece covers up to a cursor. It
// returns the chain's next checkpoint. If we die after a repair and before that
// is written, the piece is judged again and what was healed is not counted.
func (p *Puller) judge(ctx context.Context, c Checkpoint, piece *piece, cursor string, end bool) (Checkpoint, error) {
	left, err := p.missing(ctx, piece.events, piece.all())
	if err == nil && len(left) > 0 { // what a backfill has still to pull is not missing
		err = p.backfill.past(ctx, c.LogID, cursor)
	}
	if err == nil && len(left) > 0 {
		left, err = p.settledMissing(ctx, piece.events, left)
	}
	if err == nil && len(left) > 0 {
		left, err = p.pullLate(ctx, piece.events, left)
	}
	if err != nil {
		return c, err
	}
	lost := left
	if len(lost) > 0 && c.Repair {
		if left, err = p.handOn(ctx, schema.Repair, piece.events, lost); err != nil {
			return c, err
		}
	}
	if len(lost) > 0 {
		if err := p.tellMissing(ctx, c, cursor, len(lost), len(left)); err != nil {
			return c, err
		}
	}
	counts := piece.count(c, cursor, end, lost, left)
	if len(counts.rows) > 0 {
		if err := p.ask(ctx, func() error { return p.kept.Note(ctx, counts.rows) }); err != nil {
			return c, err
		}
	}
	m, tenant := p.cfg.Metrics, p.cfg.Tenant
	m.audited.WithLabelValues(tenant).Add(float64(len(piece.events)))
	m.missing.WithLabelValues(tenant).Add(float64(len(lost)))
	m.healed.WithLabelValues(tenant).Add(float64(len(lost) - len(left)))
	if at, ok := schema.IDTime(cursor); ok {
		m.auditPosition.WithLabelValues(tenant).Set(float64(at.Unix()))
	}
	c.Audit, c.Hour = counts.all, counts.hour
	c.LogID, c.Done, c.Ahead = cursor, end, p.lead().Seconds()
	c.Events += uint64(len(piece.events))
	return c, nil
}

// missing returns which of some of the events are kept nowhere.
func (p *Puller) missing(ctx context.Context, events []schema.Event, some []int) ([]int, error) {
	var identified []schema.Event
	for _, i := range some {
		if events[i].LogID != "" {
			identified = append(identified, events[i])
		}
	}
	var stored, dead map[string]bool
	err := p.ask(ctx, func() (err error) {
		stored, err = p.kept.Stored(ctx, p.cfg.Tenant, identified)
		return err
	})
	if err != nil {
		return nil, err
	}
	var left []int
	for _, i := range some {
		e := &events[i]
		if e.LogID != "" && stored[e.LogID] {
			continue
		}
		if e.LogID == "" { // what cannot be identified cannot be stored either
			if dead == nil {
				err := p.ask(ctx, func() (err error) {
					dead, err = p.kept.Dead(ctx, p.cfg.Tenant)
					return err
				})
				if err != nil {
					return nil, err
				}
			}
			if dead[schema.DeadLetterID(e.Raw)] {
				continue
			}
		}
		left = append(left, i)
	}
	return left, nil
}

// settledMissing asks again once all that is under way has been written.
func (p *Puller) settledMissing(ctx context.Context, events []schema.Event, left []int) ([]int, error) {
	if err := p.ask(ctx, func() error { return p.kept.Settled(ctx) }); err != nil {
		return nil, err
	}
	return p.missing(ctx, events, left)
}

// pullLate hands on what has shown up since the tail went by: that is no fault of
// the store's.
func (p *Puller) pullLate(ctx context.Context, events []schema.Event, left []int) ([]int, error) {
	if p.cfg.OrdersOnly {
		return left, nil
	}
	var late []int
	now := time.Now()
	edge := p.byTenant(now).Add(-p.width())
	for _, i := range left {
		if at, ok := schema.IDTime(events[i].LogID); ok && at.After(edge) && at.After(p.recent.since()) && p.recent.add(events[i].LogID) {
			late = append(late, i)
		}
	}
	if len(late) == 0 {
		return left, nil
	}
	if _, err := p.handOn(ctx, schema.Overlap, events, late); err != nil {
		return nil, err
	}
	return p.missing(ctx, events, left)
}

// handOn produces events and returns which of them are still missing when all
// has been written.
func (p *Puller) handOn(ctx context.Context, source schema.Source, events []schema.Event, some []int) ([]int, error) {
	records := make([]schema.Record, len(some))
	for n, i := range some {
		e := events[i]
		e.Tenant, e.Source, e.FetchedAt = p.cfg.Tenant, source, p.now()
		records[n] = e.Record()
	}
	if err := p.produce(ctx, records); err != nil {
		return nil, p.describe("delivery of events", err)
	}
	p.count(source, len(records))
	return p.settledMissing(ctx, events, some)
}

// tellMissing makes an event of what was missing, which a rule alerts on.
func (p *Puller) tellMissing(ctx context.Context, c Checkpoint, cursor string, lost, left int) error {
	from, _ := schema.IDTime(c.LogID)
	until, _ := schema.IDTime(cursor)
	d := auditDetails{From: from, Until: until, Missing: left, Healed: lost - left, Repair: c.Repair}
	text := fmt.Sprintf("%d events that Auth0 has were missing in ClickHouse; %d of them were brought back", lost, d.Healed)
	p.cfg.Log.Error("events were missing in ClickHouse", "missing", d.Missing, "healed", d.Healed, "from", from, "until", until)
	e := schema.NewOwnEvent(p.cfg.Tenant, schema.TypeAudit, text, d)
	if err := p.produce(ctx, []schema.Record{e.Record()}); err != nil {
		return p.describe("delivery of an audit's event", err)
	}
	p.count(schema.Self, 1)
	return nil
}

type auditDetails struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Missing int       `json:"missing"` // still
	Healed  int       `json:"healed"`
	Repair  bool      `json:"repair"`
}

// counts are what a piece adds up to.
type counts struct {
	all, hour *Tally
	rows      []schema.Coverage // of the hours that are over
}

// count adds a piece to what a chain has counted so far: lost are the events that
// were missing, left those that still are.
func (p *piece) count(c Checkpoint, cursor string, end bool, lost, left []int) counts {
	n := counts{all: &Tally{}, hour: &Tally{From: c.LogID}}
	n.all.Add(c.Audit)
	if c.Hour != nil {
		*n.hour = *c.Hour
	}
	hour, now := hourOf(c.LogID), time.Now().UTC().Truncate(time.Millisecond)
	part := Tally{}
	over := func(until string) {
		n.hour.Add(&part)
		n.all.Add(&part)
		from, _ := schema.IDTime(n.hour.From)
		to, _ := schema.IDTime(until)
		n.rows = append(n.rows, schema.Coverage{Tenant: c.Tenant, Hour: hour, From: from, Until: to, Expected: n.hour.Expected,
			Stored: n.hour.Stored, Dead: n.hour.Dead, Missing: n.hour.Missing, Healed: n.hour.Healed, CheckedAt: now})
	}
	advance := func(to time.Time) {
		for hour.Before(to) {
			next := schema.SyntheticID(hour.Add(time.Hour))
			over(next)
			hour, part, *n.hour = hour.Add(time.Hour), Tally{}, Tally{From: next}
		}
	}
	was, is := indexes(lost), indexes(left)
	for i := range p.events {
		advance(p.hours[i])
		part.Expected++
		switch {
		case is[i]:
			part.Missing++
		case p.events[i].LogID == "":
			part.Dead++
		default:
			part.Stored++
		}
		if was[i] && !is[i] {
			part.Healed++
		}
	}
	advance(hourOf(cursor))
	if end && higher(cursor, n.hour.From) {
		over(cursor)
	} else {
		n.hour.Add(&part)
		n.all.Add(&part)
	}
	return n
}

func (p *piece) all() []int {
	list := make([]int, len(p.events))
	for i := range list {
		list[i] = i
	}
	return list
}

func indexes(list []int) map[int]bool {
	m := map[int]bool{}
	for _, i := range list {
		m[i] = true
	}
	return m
}
