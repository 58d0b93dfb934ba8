package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Producer makes records durable in one topic.
type Producer interface {
	// Produce returns nil when every record is durable. It retries until ctx
	// ends; failed hears of every failed attempt. After an error records may or
	// may not have been written.
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// PullerConfig is how one tenant is pulled.
type PullerConfig struct {
	Tenant       string        // its name in the data
	Domain       string        // where it is called; kept, so that it is not pulled under another name too
	Backfill     time.Duration // how far back at the first start; negative for all there is, 0 for nothing
	Chains       int           // that pull the past side by side; default 16
	Poll         time.Duration // pause after all there is was pulled; default 1 s
	Overlap      time.Duration // how far back, at least, events that show up late are looked for; default 10 min
	OverlapEvery time.Duration // how often; default 1 min
	OrdersOnly   bool          // do what others ask for, and pull nothing else
	Retention    time.Duration // what is older is not missed in an audit: ClickHouse drops it; 0 for never
	Log          *slog.Logger
	Metrics      *PullMetrics
}

// Puller pulls one tenant's log: what is there by several chains side by side,
// what comes by one, the tail.
type Puller struct {
	cfg         PullerConfig
	tenant      Tenant
	pacer       *Pacer
	events      Producer
	checkpoints Producer
	kept        Kept
	self        chan schema.Record // events about what we found out ourselves

	usedUp atomic.Bool // the limit, for longer than we wait at once

	// What follows is made anew by each Run.

	recent   *recent
	saves    *saver
	backfill *backfill
	room     *semaphore.Weighted // bytes of pages that Kafka does not have yet
	audits   chan Checkpoint     // that others ask for
	taken    map[string]bool     // chains, of the goroutine that takes them

	mu        sync.Mutex // guards what follows
	at        Checkpoint // the tail's; acked
	owed      stretch    // what the last run's overlap had still to look at, until it is done
	back      time.Duration
	lateAt    time.Time     // when an event last was so late that back had to be as it is
	synthetic bool          // the tenant takes ids that it has not issued
	accepts   chan struct{} // closed once it does
	newest    string        // the highest id that an event of this run had
	oddFirst  bool          // before the tenant's oldest id that tells a time there are others, when it was last asked
	looked    bool          // behind the tail, as far as the overlap reaches
	lost      string        // the cursor that was last answered with 404, while its time was not

	failing      int       // chains whose calls fail right now
	failingAs    string    // what the last failure was like
	failingSince time.Time // and when it began
	failingSaid  time.Time // and when it was last said

	ahead      time.Duration // our clock's lead over the tenant's
	aheadSaid  time.Duration // as it was last said
	tenantDate time.Time     // of the tenant's last answer
	status     PullStatus
}

// PullStatus is how a pull goes.
type PullStatus struct {
	Tenant    string
	Running   bool           // this process leads the tenant
	Backfill  bool           // not all that was there is pulled yet
	Slices    BackfillStatus // of the backfill, when it is cut into slices
	Serial    int            // how often the tail itself has done a backfill
	Events    uint64         // acked since this start
	Total     uint64         // acked by the tail in all
	Oldest    time.Time      // the first event that the tail pulled
	Position  time.Time      // the newest event that is acked; zero at first
	LiveFrom  time.Time      // where the backfill ends
	CaughtUp  time.Time      // when the tenant last had nothing more; zero if never
	Limit     Limit
	Use       Use
	Failing   string // why calls fail right now, empty when they do not
	LastLogID string
}

// Bounds of what is pulled ahead of Kafka.
const (
	pagesAhead = 16
	bytesAhead = 24 << 20
	coalesce   = 20 // pages in one hand-over
)

// NewPuller returns a puller of a tenant. kept is what audits look at; without
// it there are none.
func NewPuller(cfg PullerConfig, tenant Tenant, pacer *Pacer, events, checkpoints Producer, kept Kept) *Puller {
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.Overlap <= 0 {
		cfg.Overlap = 10 * time.Minute
	}
	if cfg.OverlapEvery <= 0 {
		cfg.OverlapEvery = time.Minute
	}
	if cfg.Chains <= 0 {
		cfg.Chains = backfillChains
	}
	cfg.Metrics.start(cfg.Tenant)
	p := &Puller{cfg: cfg, tenant: tenant, pacer: pacer, events: events, checkpoints: checkpoints, kept: kept,
		self: make(chan schema.Record, 64), backfill: newBackfill(), back: cfg.Overlap}
	return p
}

// Run leads the tenant until ctx ends: it goes on where the checkpoints say, or
// begins at the beginning when they have none of the tenant, and takes up the
// chains that orders brings. Failed calls are retried for ever. Only one Run of a
// tenant at a time goes on without repeats; two do no harm.
func (p *Puller) Run(ctx context.Context, state Checkpoints, orders <-chan Checkpoint) error {
	g, ctx := errgroup.WithContext(ctx)
	p.recent = newRecent(2*p.width() + p.cfg.OverlapEvery)
	p.saves = newSaver(p.checkpoints, p.cfg.Log, func() { p.cfg.Metrics.checkpoint.WithLabelValues(p.cfg.Tenant).SetToCurrentTime() })
	p.backfill.reset()
	p.room = semaphore.NewWeighted(bytesAhead)
	p.audits = make(chan Checkpoint, mostAudits)
	p.taken = map[string]bool{}
	p.mu.Lock()
	p.failing, p.status.Failing = 0, ""
	p.synthetic, p.accepts = false, make(chan struct{})
	p.newest, p.lost, p.looked, p.tenantDate, p.ahead = "", "", false, time.Time{}, 0
	p.at, p.owed, p.status.Running, p.status.CaughtUp = Checkpoint{}, stretch{}, true, time.Time{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		// What fails or lags from now on is another process's affair.
		p.status.Running, p.status.Failing = false, ""
		p.cfg.Metrics.stop(p.cfg.Tenant)
	}()
	g.Go(func() error { return p.describe("checkpoints", p.saves.run(ctx)) })
	g.Go(func() error { return p.deliverSelf(ctx) })
	g.Go(func() error {
		if err := p.begin(ctx, state); err != nil {
			return err
		}
		for range p.cfg.Chains {
			g.Go(func() error { return p.fill(ctx) })
		}
		g.Go(func() error { return p.takeOrders(ctx, orders) })
		if p.kept != nil {
			g.Go(func() error { return p.audit(ctx) })
		}
		if p.cfg.OrdersOnly {
			return nil
		}
		if p.kept != nil {
			g.Go(func() error { return p.watchFresh(ctx, state) })
			g.Go(func() error { return p.watchAll(ctx, state) })
		}
		pages := make(chan pulled, pagesAhead)
		g.Go(func() error { return p.pull(ctx, pages) })
		g.Go(func() error { return p.deliver(ctx, pages) })
		g.Go(func() error { return p.lookBehind(ctx) })
		g.Go(func() error { return p.lookShortlyBehind(ctx) })
		g.Go(func() error { return p.watchStreams(ctx) })
		g.Go(func() error { return p.watchAcceptance(ctx) })
		g.Go(func() error { return p.watchLowIDs(ctx, state) })
		return nil
	})
	return g.Wait()
}

// Tenant is the tenant's name in the data.
func (p *Puller) Tenant() string { return p.cfg.Tenant }

// Status tells how the pull goes.
func (p *Puller) Status() PullStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Tenant, s.Total, s.LiveFrom, s.LastLogID = p.cfg.Tenant, p.at.Events, p.at.LiveFrom, p.at.LogID
	s.Slices = p.backfill.status()
	s.Backfill = p.at.Backfill || s.Running && p.at.LogID == "" && !p.cfg.OrdersOnly || s.Slices.Chains > 0
	s.Limit, s.Use = p.pacer.Limit(), p.pacer.Use()
	s.Oldest, _ = schema.IDTime(p.at.Oldest)
	s.Position, _ = schema.IDTime(p.at.LogID)
	return s
}

// The plans of the slices that we make ourselves.
const (
	planFirst   = "first" // what was there at the first start
	planCatchUp = "after-"
)

// catchUpAfter is how old a checkpoint is when what has come since is pulled by
// several chains. Rules do not fire on what is older, so its order is of no use.
const catchUpAfter = 2 * time.Hour

// begin finds out where to go on. What it decides is durable before it returns.
func (p *Puller) begin(ctx context.Context, state Checkpoints) error {
	if err := p.forget(ctx, state); err != nil {
		return err
	}
	oldest, err := p.oldest(ctx)
	if err != nil {
		return err
	}
	now := p.beginning()
	var undone []Checkpoint
	for _, c := range state {
		if c.Tenant == p.cfg.Tenant && c.Chain != ChainTail && !c.Done {
			undone = append(undone, c)
		}
	}
	defer func() {
		// In the order of their names, so the one that was begun is gone on with: those
		// of orders begin with the time.
		slices.SortFunc(undone, func(a, b Checkpoint) int { return strings.Compare(a.Chain, b.Chain) })
		for _, c := range undone {
			p.take(c)
		}
	}()
	if p.cfg.OrdersOnly {
		return nil
	}
	tail, known := state.Of(p.cfg.Tenant, ChainTail)
	if !known {
		tail = Checkpoint{Tenant: p.cfg.Tenant, Domain: p.cfg.Domain, Chain: ChainTail, LiveFrom: now}
		tail.LogID = schema.SyntheticID(now)
		tail.Behind = tail.LogID
		first := schema.SyntheticID(now.Add(-p.cfg.Backfill))
		if p.cfg.Backfill < 0 || higher(oldest, first) {
			first = oldest
		}
		switch {
		case p.cfg.Backfill == 0:
		case !p.takesSynthetic():
			p.cfg.Log.Warn("the tenant takes no ids that it has not issued: the backfill is one chain, and events come live once it is done; it is asked again from time to time")
			tail.LogID, tail.Backfill = beforeAll, true
			if p.cfg.Backfill > 0 {
				tail.LogID = schema.SyntheticID(now.Add(-p.cfg.Backfill))
			}
			tail.Behind = tail.LogID
		default:
			undone = append(undone, p.cut(state, planFirst, first, &tail)...)
			p.mu.Lock()
			odd := p.oddFirst
			p.mu.Unlock()
			if odd && first != "" && p.cfg.Backfill < 0 {
				undone = append(undone, newSlice(p.cfg.Tenant, planFirst, beforeAll, first))
			}
			tail.LiveFrom, _ = schema.IDTime(tail.LogID)
			tail.Behind = schema.SyntheticID(tail.LiveFrom.Add(-p.cfg.Overlap)) // it may still come late
		}
		return p.settleBegin(ctx, tail, undone)
	}
	tail.Domain = p.cfg.Domain
	if at, ok := schema.IDTime(tail.LogID); ok && strings.HasSuffix(tail.LogID, madeUp) && at.After(now.Add(time.Minute)) {
		// Begun by a clock that was ahead: nothing new would be pulled until then. Audits
		// bring back what came meanwhile.
		p.cfg.Log.Warn("the checkpoint lies in the tenant's future; pulling goes on at its now", "log_id", tail.LogID, "now", now)
		tail.LiveFrom, tail.LogID = now, schema.SyntheticID(now)
		tail.Behind = schema.SyntheticID(now.Add(-p.cfg.Overlap))
	}
	p.cfg.Log.Info("pulling goes on", "log_id", tail.LogID, "events", tail.Events, "chains", len(undone))
	p.mu.Lock()
	p.owed = stretch{tail.Behind, tail.LogID}
	p.mu.Unlock()
	if err := p.recordGaps(ctx, gaps(oldest, tail, undone)); err != nil {
		return err
	}
	if at, ok := schema.IDTime(tail.LogID); ok && p.takesSynthetic() && !tail.Backfill && now.Sub(at) > catchUpAfter {
		p.cfg.Log.Info("the checkpoint is old: what has come since is pulled by several chains", "since", at)
		from := tail.LogID
		tail.LogID = schema.SyntheticID(now.Add(-catchUpAfter))
		undone = append(undone, p.cut(state, planCatchUp+at.Format("20060102150405"), from, &tail)...)
		// Behind stays until what is owed has been looked at.
	}
	return p.settleBegin(ctx, tail, undone)
}

// cut makes slices of what lies between a place and the tail. If we died after
// slices of the plan were made and before the tail was written, they are there,
// and the tail, or more slices, go on where they end.
func (p *Puller) cut(state Checkpoints, plan, from string, tail *Checkpoint) []Checkpoint {
	end := ""
	for _, c := range state {
		if name, ok := BackfillPlan(c.Chain); ok && name == plan && c.Tenant == p.cfg.Tenant && higher(c.Until, end) {
			end = c.Until
		}
	}
	if end != "" && span(end, tail.LogID) <= catchUpAfter {
		tail.LogID = end
		return nil
	}
	if end != "" { // we died half-way, or long ago
		from = end
	}
	n := p.cfg.Chains
	if from == "" { // nothing is there, or does not show yet: one chain looks once more
		from, n = beforeAll, 1
	}
	if !higher(tail.LogID, from) {
		return nil
	}
	return cut(p.cfg.Tenant, plan, from, tail.LogID, n)
}

// settleBegin makes the tail's beginning durable, after the slices before it.
func (p *Puller) settleBegin(ctx context.Context, tail Checkpoint, slices []Checkpoint) error {
	if at, ok := schema.IDTime(tail.Behind); ok {
		p.recent.forget(at) // what others have pulled
	}
	p.mu.Lock()
	p.at = tail
	p.mu.Unlock()
	return p.saves.settle(ctx, append(slices[:len(slices):len(slices)], tail)...)
}

// oldest is a place just before the oldest event that the tenant still has, or
// at it; empty when there is none. It also finds out whether the tenant takes ids
// that it has not issued.
func (p *Puller) oldest(ctx context.Context) (string, error) {
	page, accepted, err := p.first(ctx)
	if err != nil {
		return "", err
	}
	if !accepted {
		p.setSynthetic(false)
		one := 1
		page, err = p.retry(ctx, Tail, &one, func() (Page, error) { return p.tenant.Oldest(ctx) })
		if refused := new(CallError); err != nil && !errors.As(err, &refused) {
			return "", err
		}
	}

	events := identify(page.Events)
	lowest, ok := after("", ours(events), "")
	if _, known := schema.IDTime(page.Next); !ok && known {
		lowest = page.Next // an event that cannot be identified
	}
	at, ok := schema.IDTime(lowest)
	p.mu.Lock()
	p.oddFirst = accepted && ok && len(events) > 0 && events[0].LogID != "" && events[0].LogID != lowest
	p.mu.Unlock()
	if accepted {
		p.setSynthetic(ok || len(events) == 0)
		if ok {
			return schema.SyntheticID(at), nil
		}
	}
	if lowest, ok := after("", events, ""); ok {
		return lowest, nil
	}
	return lowest, nil
}

// ours are the events whose ids tell a time.
func ours(events []schema.Event) []schema.Event {
	return slices.DeleteFunc(slices.Clone(events), func(e schema.Event) bool {
		_, ok := schema.IDTime(e.LogID)
		return !ok
	})
}

// tellsTime reports whether a page has an id that tells a time.
func tellsTime(page Page) bool {
	_, ok := schema.IDTime(page.Next)
	return ok || len(ours(identify(page.Events))) > 0
}

// first is a page with the oldest event, when the tenant accepts an id that it has
// not issued. That there is none is only believed when it is said again.
func (p *Puller) first(ctx context.Context) (page Page, accepted bool, err error) {
	take, refusals := 1, 0
	for empties := 0; ; {
		asked := take
		page, err = p.retry(ctx, Tail, &take, func() (Page, error) { return p.tenant.Logs(ctx, beforeAll, asked) })
		pause := refusedAgain
		switch refused := new(CallError); {
		case errors.As(err, &refused):
			if refusals++; refusals >= refusalsBelieved {
				return Page{}, false, nil
			}
		case err != nil:
			return Page{}, false, err
		case len(page.Events) == 0 && empties < emptyBelieved:
			pause = emptyPause << empties
			empties++
		case len(page.Events) > 0 && asked < MaxTake && !tellsTime(page):
			take, pause = MaxTake, 0 // an odd one out, perhaps: one of ours is looked for behind it
		default:
			return page, true, nil
		}
		if !sleep(ctx, pause) {
			return Page{}, false, ctx.Err()
		}
	}
}

// beforeAll is below every id that Auth0 has issued.
var beforeAll = schema.SyntheticID(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))

func (p *Puller) takesSynthetic() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.synthetic
}

func (p *Puller) setSynthetic(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synthetic = ok
	if ok && p.accepts != nil {
		close(p.accepts)
		p.accepts = nil
	}
}

// accepting waits until the tenant takes ids that it has not issued.
func (p *Puller) accepting(ctx context.Context) error {
	p.mu.Lock()
	accepts := p.accepts
	p.mu.Unlock()
	if accepts == nil {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-accepts:
		return nil
	}
}

// askAgainEvery is how often what a start found out is asked again: one bad answer
// is not to turn anything off until the next one.
const askAgainEvery = 5 * time.Minute

// watchAcceptance asks a tenant that refused ids that it has not issued again.
func (p *Puller) watchAcceptance(ctx context.Context) error {
	for sleep(ctx, askAgainEvery) {
		if p.takesSynthetic() {
			continue
		}
		if _, err := p.oldest(ctx); err != nil {
			return err
		}
		if p.takesSynthetic() {
			p.cfg.Log.Info("the tenant takes ids that it has not issued after all: audits begin, and what is left of a backfill is pulled by several chains")
		}
	}
	return ctx.Err()
}

// forgetAfter is how long a chain that has come to its end can be read.
const forgetAfter = time.Hour

// forget takes chains away that have come to their end. If we die meanwhile, the
// next start does it.
func (p *Puller) forget(ctx context.Context, state Checkpoints) error {
	var records []schema.Record
	for _, c := range state {
		if c.Tenant == p.cfg.Tenant && c.Done && !background(c.Chain) && time.Since(c.UpdatedAt) > forgetAfter {
			records = append(records, schema.Record{Key: []byte(c.key())})
		}
	}
	if len(records) == 0 {
		return nil
	}
	if err := p.checkpoints.Produce(ctx, records, func(error) {}); err != nil {
		return p.describe("checkpoints", err)
	}
	return nil
}

// takeOrders takes up the chains that others ask for.
func (p *Puller) takeOrders(ctx context.Context, orders <-chan Checkpoint) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-orders:
			if c.Order && !c.Done && c.Tenant == p.cfg.Tenant {
				p.take(c)
			}
		}
	}
}

// take gives a chain to those who do its kind of work, once.
func (p *Puller) take(c Checkpoint) {
	if p.taken[c.Chain] {
		return
	}
	p.taken[c.Chain] = true
	switch {
	case strings.HasPrefix(c.Chain, chainBackfill):
		p.backfill.add(c)
	case strings.HasPrefix(c.Chain, chainAudit) && !background(c.Chain): // those are taken up by who runs them
		select {
		case p.audits <- c:
		default:
		}
	}
}

// produce hands events to Kafka.
func (p *Puller) produce(ctx context.Context, records []schema.Record) error {
	said := false
	err := p.events.Produce(ctx, records, func(err error) {
		p.cfg.Metrics.retries.WithLabelValues(p.cfg.Tenant).Inc()
		if !said {
			said = true
			p.cfg.Log.Warn("events cannot be handed to Kafka; trying again, nothing more is pulled", "err", err)
		}
	})
	if said && err == nil {
		p.cfg.Log.Info("events are handed to Kafka again")
	}
	return err
}

// count notes events that Kafka has acked.
func (p *Puller) count(source schema.Source, n int) {
	p.cfg.Metrics.events.WithLabelValues(p.cfg.Tenant, string(source)).Add(float64(n))
	if source == schema.Self {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Events += uint64(n)
}

// describe is for errors that end Run.
func (p *Puller) describe(what string, err error) error {
	return fmt.Errorf("%s of tenant %s: %w", what, p.cfg.Tenant, err)
}
