package pull

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Producer makes records durable in one topic.
type Producer interface {
	// Produce returns nil once every record is durable. It retries until ctx ends
	// and calls failed after each failed attempt. After an error, some records may
	// have been written.
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Puller pulls the log of one tenant. Several chains pull the past in parallel, and
// one chain, the tail, pulls new events.
type Puller struct {
	cfg         Config
	tenant      Tenant
	limiter     *pace.Limiter
	events      Producer
	checkpoints Producer
	archive     audit.Destination  // nil for no audits
	ownEvents   chan schema.Record // events that describe our own observations
	clock       *clock
	outage      *outage

	limitExhausted atomic.Bool // the rate limit is used up for longer than pace.LongestHold

	// Run sets these at its start.

	recent   *recent
	saves    *checkpoint.Saver
	backfill *backfill
	room     *semaphore.Weighted // bytes of pages that Kafka has not acknowledged
	audits   *audit.Auditor
	assigned map[string]bool // chains that assign has seen; only its goroutine uses it

	mu             sync.Mutex            // guards the fields below
	tail           checkpoint.Checkpoint // acknowledged
	pendingOverlap stretch               // the part that the overlap still has to re-read; from the last run at first
	synthetic      bool                  // the tenant accepts synthetic ids
	acceptsIDs     chan struct{}         // closed once synthetic is true; then nil
	highestID      string                // of all events of this run
	untimedFirst   bool                  // the tenant's oldest event has an id without a time
	overlapRan     bool                  // at least once in this run
	notFound       string                // the last cursor that was answered with 404, although its time was not

	status Status
}

// Bounds of the pages that are fetched but not acknowledged by Kafka.
const (
	pagesAhead = 16
	bytesAhead = 24 << 20
	coalesce   = 20 // pages that are produced together
)

// New returns a puller of a tenant. Audits use archive; if it is nil, there are
// none.
func New(
	cfg Config, tenant Tenant, limiter *pace.Limiter, events, checkpoints Producer, archive audit.Destination,
) *Puller {
	cfg = cfg.withDefaults()
	cfg.Metrics.start(cfg.Tenant)
	return &Puller{
		cfg: cfg, tenant: tenant, limiter: limiter,
		events: events, checkpoints: checkpoints, archive: archive,
		ownEvents: make(chan schema.Record, 64), backfill: newBackfill(),
		clock:  &clock{tenant: cfg.Tenant, log: cfg.Log, skew: cfg.Metrics.clock},
		outage: &outage{log: cfg.Log},
	}
}

// Run pulls the tenant until ctx ends. It resumes at the checkpoints in state, or starts
// from the beginning if they have none of the tenant, and works on the chains that it
// receives from requests. Failed calls are retried forever. Two Runs of a tenant at the
// same time do no harm, but pull everything twice.
func (p *Puller) Run(ctx context.Context, state checkpoint.Set, requests <-chan checkpoint.Checkpoint) error {
	g, ctx := errgroup.WithContext(ctx)
	p.reset()
	defer p.stopped()

	g.Go(func() error { return p.describe("save checkpoints", p.saves.Run(ctx)) })
	g.Go(func() error { return p.produceOwn(ctx) })

	g.Go(func() error {
		// No chain may pull before the start is saved.
		if err := p.start(ctx, state); err != nil {
			return err
		}

		// Requested chains need these too.
		for range p.cfg.Chains {
			g.Go(func() error { return p.fill(ctx) })
		}
		g.Go(func() error { return p.acceptRequests(ctx, requests) })
		if p.archive != nil {
			g.Go(func() error { return p.audits.RunRequests(ctx) })
		}
		if p.cfg.RequestsOnly {
			return nil
		}

		if p.archive != nil {
			g.Go(func() error { return p.audits.RunFresh(ctx, state) })
			g.Go(func() error { return p.audits.RunRounds(ctx, state) })
		}

		// The tail and its overlap. The tail fetches while earlier pages are produced.
		pages := make(chan fetchedPage, pagesAhead)
		g.Go(func() error { return p.fetchTail(ctx, pages) })
		g.Go(func() error { return p.produceTail(ctx, pages) })
		g.Go(func() error { return p.runOverlap(ctx) })
		g.Go(func() error { return p.runShortOverlap(ctx) })
		g.Go(func() error { return p.watchStreams(ctx) })
		g.Go(func() error { return p.watchAcceptance(ctx) })
		g.Go(func() error { return p.watchLowIDs(ctx, state) })
		return nil
	})
	return g.Wait()
}

// reset prepares the state of a Run.
func (p *Puller) reset() {
	p.recent = newRecent(2*p.cfg.Overlap + p.cfg.OverlapEvery)
	p.saves = checkpoint.NewSaver(p.checkpoints, p.cfg.Log, func() {
		p.cfg.Metrics.checkpoint.WithLabelValues(p.cfg.Tenant).SetToCurrentTime()
	})
	p.backfill.reset()
	p.clock.reset()
	p.outage.reset()
	p.room = semaphore.NewWeighted(bytesAhead)
	p.audits = p.newAuditor()
	p.assigned = map[string]bool{}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.synthetic, p.acceptsIDs = false, make(chan struct{})
	p.highestID, p.notFound, p.overlapRan = "", "", false
	p.tail, p.pendingOverlap = checkpoint.Checkpoint{}, stretch{}
	p.status.Running, p.status.CaughtUp = true, time.Time{}
}

// stopped updates the status at the end of a Run. From then on another process leads the
// tenant, and its failures and lag are reported there.
func (p *Puller) stopped() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Running = false
	p.outage.reset()
	p.cfg.Metrics.stop(p.cfg.Tenant)
}

// Tenant returns the tenant's name in the data.
func (p *Puller) Tenant() string { return p.cfg.Tenant }

// acceptRequests assigns the chains that other processes request.
func (p *Puller) acceptRequests(ctx context.Context, requests <-chan checkpoint.Checkpoint) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-requests:
			if c.Requested && !c.Done && c.Tenant == p.cfg.Tenant {
				p.assign(c)
			}
		}
	}
}

// assign gives a chain to the goroutines that do its kind of work. It does so once: a
// request may come again.
func (p *Puller) assign(c checkpoint.Checkpoint) {
	if p.assigned[c.Chain] {
		return
	}
	p.assigned[c.Chain] = true

	switch {
	case strings.HasPrefix(c.Chain, chainBackfill):
		p.backfill.add(c)
	case audit.IsRequest(c.Chain):
		p.audits.Accept(c)
	}
}

// produce makes events durable in Kafka.
func (p *Puller) produce(ctx context.Context, records []schema.Record) error {
	logged := false
	err := p.events.Produce(ctx, records, func(err error) {
		p.cfg.Metrics.retries.WithLabelValues(p.cfg.Tenant).Inc()
		if !logged {
			logged = true
			p.cfg.Log.Warn("produce to Kafka failed; retrying, the pull waits", "err", err)
		}
	})

	if logged && err == nil {
		p.cfg.Log.Info("produce to Kafka succeeds again")
	}
	return err
}

// count counts events that Kafka has acknowledged.
func (p *Puller) count(source schema.Source, n int) {
	p.cfg.Metrics.events.WithLabelValues(p.cfg.Tenant, string(source)).Add(float64(n))
	if source == schema.SourceSelf {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Events += uint64(n)
}

// describe adds the tenant and the operation to an error that ends Run.
func (p *Puller) describe(operation string, err error) error {
	return fmt.Errorf("%s of tenant %s: %w", operation, p.cfg.Tenant, err)
}
