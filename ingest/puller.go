package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
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
	Backfill     time.Duration // how far back at the first start; negative for all there is, 0 for nothing
	Poll         time.Duration // pause after all there is was pulled; default 1 s
	Overlap      time.Duration // how far back events that show up late are looked for; default 10 min
	OverlapEvery time.Duration // how often; default 1 min
	Log          *slog.Logger
	Metrics      *PullMetrics
}

// Puller pulls one tenant's log: first what is there, then what comes.
type Puller struct {
	cfg         PullerConfig
	tenant      Tenant
	pacer       *Pacer
	events      Producer
	checkpoints Producer
	recent      *recent
	self        chan schema.Record // events about our own failed calls

	mu     sync.Mutex // guards what follows
	at     Checkpoint // acked
	owed   string     // where the last run's overlap stood, until it is looked at; else empty
	status PullStatus
}

// PullStatus is how a pull goes.
type PullStatus struct {
	Tenant    string
	Backfill  bool      // still running
	Events    uint64    // acked since this start
	Total     uint64    // acked by the chain in all
	Oldest    time.Time // the first event that the chain pulled
	Position  time.Time // the newest event that is acked; zero at first
	LiveFrom  time.Time // where the backfill ends
	CaughtUp  time.Time // when the tenant last had nothing more; zero if never
	Limit     Limit
	Failing   string // why calls fail right now, empty when they do not
	LastLogID string
}

// Bounds of what is pulled ahead of Kafka.
const (
	pagesAhead = 16
	bytesAhead = 48 << 20
	coalesce   = 20 // pages in one hand-over
)

// NewPuller returns a puller that goes on from a checkpoint, or starts at the
// beginning when it has no LogID.
func NewPuller(cfg PullerConfig, tenant Tenant, pacer *Pacer, from Checkpoint, events, checkpoints Producer) *Puller {
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.Overlap <= 0 {
		cfg.Overlap = 10 * time.Minute
	}
	if cfg.OverlapEvery <= 0 {
		cfg.OverlapEvery = time.Minute
	}
	from.Tenant, from.Chain = cfg.Tenant, ChainTail
	return &Puller{cfg: cfg, tenant: tenant, pacer: pacer, events: events, checkpoints: checkpoints,
		recent: newRecent(2*cfg.Overlap + cfg.OverlapEvery), self: make(chan schema.Record, 64), at: from}
}

// Run pulls until ctx ends. Failed calls are retried for ever.
func (p *Puller) Run(ctx context.Context) error {
	p.cfg.Metrics.start(p.cfg.Tenant)
	p.begin()
	pages := make(chan pulled, pagesAhead)
	ahead := semaphore.NewWeighted(bytesAhead)
	saves := make(chan Checkpoint, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.pull(ctx, pages, ahead) })
	g.Go(func() error { return p.deliver(ctx, pages, ahead, saves) })
	g.Go(func() error { return p.save(ctx, saves) })
	g.Go(func() error { return p.lookBehind(ctx) })
	return g.Wait()
}

// Status tells how the pull goes.
func (p *Puller) Status() PullStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Tenant, s.Backfill, s.Total, s.LiveFrom, s.LastLogID = p.cfg.Tenant, p.at.Backfill || p.at.LogID == "", p.at.Events, p.at.LiveFrom, p.at.LogID
	s.Limit = p.pacer.Limit()
	s.Oldest, _ = schema.IDTime(p.at.Oldest)
	s.Position, _ = schema.IDTime(p.at.LogID)
	return s
}

// begin finds where the first start goes on from. If we die here, the next
// start is the first one.
func (p *Puller) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.LogID != "" {
		p.cfg.Log.Info("pulling goes on", "log_id", p.at.LogID, "events", p.at.Events)
		p.owed = p.at.Behind
		return
	}
	now := time.Now()
	p.at.LiveFrom = now.UTC()
	p.at.Backfill = p.cfg.Backfill != 0
	start := now.Add(-p.cfg.Backfill)
	if p.cfg.Backfill < 0 {
		start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // before any event
	}
	p.at.LogID = schema.SyntheticID(start)
	p.at.Behind = p.at.LogID
}

// pulled is a page on its way to Kafka.
type pulled struct {
	events []schema.Event
	next   string // the cursor after them
	fresh  bool   // nothing more was there
	bytes  int64
	at     time.Time
}

// pull is the chain: page after page from the checkpoint on. It runs ahead of
// Kafka by a bounded number of pages and bytes.
func (p *Puller) pull(ctx context.Context, pages chan<- pulled, ahead *semaphore.Weighted) error {
	p.mu.Lock()
	cursor := p.at.LogID
	p.mu.Unlock()
	take := MaxTake
	for {
		events, next, err := p.page(ctx, cursor, &take)
		if err != nil {
			return err
		}
		at := time.Now()
		got := pulled{events: events, next: next, at: at, fresh: caughtUp(len(events), next, at)}
		for i := range events {
			got.bytes += int64(len(events[i].Raw))
		}
		got.bytes = min(got.bytes, bytesAhead)
		if err := ahead.Acquire(ctx, got.bytes); err != nil {
			return err
		}
		select {
		case pages <- got:
		case <-ctx.Done():
			return ctx.Err()
		}
		cursor = next
		if got.fresh && !sleep(ctx, p.cfg.Poll) {
			return ctx.Err()
		}
	}
}

// nearNow is how recent the last event of a short page is when there is no
// reason to ask for more at once.
const nearNow = 10 * time.Second

// caughtUp reports whether a page had all there was. Some tenants answer with
// fewer than we ask for although there is more: half a page or more may be one
// of these, and so may any page whose events are old.
func caughtUp(n int, last string, now time.Time) bool {
	switch {
	case n == 0:
		return true
	case n >= MaxTake/2:
		return false
	}
	at, ok := schema.IDTime(last)
	return !ok || now.Sub(at) < nearNow
}

// page pulls the page after cursor, whatever it takes, and returns its events,
// identified as far as they can be, and the cursor after them. It only fails when
// ctx ends.
func (p *Puller) page(ctx context.Context, cursor string, take *int) ([]schema.Event, string, error) {
	for attempt := 0; ; attempt++ {
		page, err := p.retry(ctx, take, func() (Page, error) {
			if cursor == "" {
				return p.tenant.Oldest(ctx)
			}
			return p.tenant.Logs(ctx, cursor, *take)
		})
		var refused *CallError
		switch {
		case errors.As(err, &refused): // the cursor itself is refused
			if p.setFailing(refused.Error()) {
				p.cfg.Log.Warn("the tenant refuses a call", "err", refused)
			}
			if cursor == "" && !sleep(ctx, refusedPause) {
				return nil, "", ctx.Err()
			}
			cursor = p.otherWay(cursor)
			continue
		case err != nil:
			return nil, "", err
		}
		events := identify(page.Events)
		next, ok := after(cursor, events, page.Next)
		if ok || len(events) == 0 {
			if cursor == "" && len(events) == 0 { // an empty tenant that refuses our ids
				if !sleep(ctx, p.cfg.Poll) {
					return nil, "", ctx.Err()
				}
				continue
			}
			return events, next, nil
		}
		if attempt == 0 {
			p.cfg.Log.Error("a page has neither ids nor a next link; asking for it until it has", "log_id", cursor, "events", len(events))
		}
		if !sleep(ctx, 10*time.Second) {
			return nil, "", ctx.Err()
		}
	}
}

// refusedPause is the pause after a refusal that leaves no other way.
const refusedPause = 30 * time.Second

// otherWay is what to ask for when the tenant refuses a cursor. Either place
// lies before it, so nothing is skipped.
func (p *Puller) otherWay(cursor string) string {
	at, ok := schema.IDTime(cursor)
	if !ok || strings.HasSuffix(cursor, strings.Repeat("0", 39)) {
		if cursor != "" {
			p.cfg.Log.Warn("the tenant takes no ids that it has not issued; pulling begins with its oldest event", "log_id", cursor)
		}
		return ""
	}
	p.cfg.Log.Warn("the tenant refuses the checkpoint; going on from its time", "log_id", cursor)
	return schema.SyntheticID(at)
}

// identify makes events of a page. One that cannot be identified has no LogID:
// it goes its way all the same, since the writer is the one that judges.
func identify(raws [][]byte) []schema.Event {
	events := make([]schema.Event, len(raws))
	for i, raw := range raws {
		events[i].Raw = raw
		if events[i].Identify() != nil {
			events[i] = schema.Event{Raw: raw}
		}
	}
	return events
}

// after is the cursor behind a page: the highest id in it. The tenant's own
// word, link, is taken where events have none, and never leads backwards.
func after(cursor string, events []schema.Event, link string) (next string, ok bool) {
	next = cursor
	low, last := "", cursor
	for i := range events {
		id := events[i].LogID
		if id == "" {
			continue
		}
		if low == "" || id < low {
			low = id
		}
		if higher(id, next) {
			next = id
		}
		last = id
	}
	if cursor == "" { // oldest by date, which is not the order of the ids
		return low, low != ""
	}
	if higher(link, next) {
		next = link
	}
	if next == cursor && len(last) != len(cursor) {
		next = last // ids of another kind, which have no order that we know
	}
	return next, next != cursor
}

// higher compares ids. Auth0's have one length, so text order is their order;
// one of another length is only higher than nothing.
func higher(a, b string) bool {
	if len(a) != len(b) {
		return b == ""
	}
	return a > b
}

// retry calls until there is a page. It returns a *CallError only for a 400,
// which no repetition will cure, and otherwise only the end of ctx.
func (p *Puller) retry(ctx context.Context, take *int, call func() (Page, error)) (Page, error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 500*time.Millisecond, 30*time.Second
	said := ""
	for failures := 0; ; {
		if err := p.pacer.Wait(ctx); err != nil {
			return Page{}, err
		}
		page, err := call()
		if err == nil {
			p.pacer.Observe(page.Limit)
			p.observe(page)
			if failures > 0 {
				p.cfg.Log.Info("calls to the tenant succeed again", "after_failures", failures)
			}
			p.setFailing("")
			*take = min(2**take, MaxTake)
			return page, nil
		}
		if ctx.Err() != nil {
			return Page{}, ctx.Err()
		}
		failures++
		var failed *CallError
		if !errors.As(err, &failed) {
			failed = &CallError{Method: "GET", Path: "/api/v2/logs", Kind: KindNetwork, Err: err}
		}
		p.cfg.Metrics.failures.WithLabelValues(p.cfg.Tenant, string(failed.Kind)).Inc()
		p.tell(failed)
		p.pacer.Observe(failed.Limit)
		wait := pause.NextBackOff()
		switch failed.Kind {
		case KindRateLimit:
			wait = max(failed.RetryAfter, failed.Limit.Reset, wait)
			p.pacer.Hold(wait) // everybody's calls
		case KindClient:
			if failed.Status == 400 {
				return Page{}, failed
			}
		case KindAnswer, KindTimeout, KindTooLarge:
			// What always breaks off may be too much at once.
			if failed.Kind == KindTooLarge || failures%3 == 0 {
				*take = max(*take/2, 1)
			}
		}
		wait = max(failed.RetryAfter, wait)
		if text := failed.Error(); text != said {
			said = text
			p.cfg.Log.Warn("call to the tenant failed; trying again", "err", failed, "pause", wait.Round(time.Millisecond))
			p.setFailing(text)
		}
		if !sleep(ctx, wait) {
			return Page{}, ctx.Err()
		}
	}
}

// setFailing notes why calls fail, and reports whether that is news.
func (p *Puller) setFailing(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.status.Failing != text
	p.status.Failing = text
	return news
}

// observe notes a page that came.
func (p *Puller) observe(page Page) {
	m := p.cfg.Metrics
	m.pages.WithLabelValues(p.cfg.Tenant).Inc()
	if page.Limit.Known {
		m.limit.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Limit))
		m.remaining.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Remaining))
	}
}

// tell makes an event of a failed call of our own: Auth0 logs none of them.
// While Kafka is away only so many are kept.
func (p *Puller) tell(failed *CallError) {
	e := selfEvent(p.cfg.Tenant, failed, time.Now())
	select {
	case p.self <- e.Record():
	default:
		p.cfg.Metrics.dropped.WithLabelValues(p.cfg.Tenant).Inc()
	}
}

// describe is for errors that end Run.
func (p *Puller) describe(what string, err error) error {
	return fmt.Errorf("%s of tenant %s: %w", what, p.cfg.Tenant, err)
}
