package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Destination is where events are stored in the end: ClickHouse, or the deadletter topic.
type Destination interface {
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

// Log is the tenant's log, as the pull reads it.
type Log interface {
	// Fetch returns the events after a cursor, and the cursor after them. It retries until it has
	// a page; an empty one means that there are no events yet. take is the size of a page, which
	// Fetch adapts. An error is the end of ctx, or of Kafka.
	Fetch(ctx context.Context, priority pace.Priority, cursor string, take *int) ([]schema.Event, string, error)
	// Oldest returns a cursor just before or at the oldest event that the tenant still has, or an
	// empty one if there are no events.
	Oldest(ctx context.Context) (string, error)
	// WaitSynthetic blocks until the tenant accepts synthetic ids.
	WaitSynthetic(ctx context.Context) error
}

// Progress is how far the pull has come.
type Progress interface {
	// LiveFrom returns the time of the tail's first start.
	LiveFrom() time.Time
	// Reached returns the cursor up to which the tail has pulled all events.
	Reached() string
	// WaitIdle blocks until no backfill runs.
	WaitIdle(ctx context.Context) error
	// WaitPast blocks until no backfill has events to pull between two cursors.
	WaitPast(ctx context.Context, from, until string) error
}

// Overlap knows the events that were pulled recently.
type Overlap interface {
	// ClaimLate returns those of some events that the overlap would pull too: recent ones that
	// nobody has pulled yet. From then on the overlap knows them.
	ClaimLate(events []schema.Event, some []int) (late []int)
}

// Clock is the tenant's clock.
type Clock interface {
	Now() time.Time
	// Lead returns how far our clock is ahead of it.
	Lead() time.Duration
}

// Producer makes records durable in the events topic. It retries until ctx ends, and counts them by
// their source.
type Producer interface {
	Produce(ctx context.Context, source schema.Source, records []schema.Record) error
}

// Pull has the parts of a tenant's pull that its audits need.
type Pull struct {
	Log      Log
	Progress Progress
	Overlap  Overlap
	Clock    Clock
	Events   Producer
	Saver    *checkpoint.Saver
}

// Config configures the audits of one tenant.
type Config struct {
	Tenant       string
	Retention    time.Duration // age at which ClickHouse drops events; 0 for never
	RequestsOnly bool          // no tail runs beside the audits
	Log          *slog.Logger
	Metrics      *Metrics
}

// roundRest is the least time between the starts of two rounds.
const roundRest = 10 * time.Minute

// leastAge is the least age of an event that the background audits look for. Until then,
// the overlap may still pull it.
const leastAge = 15 * time.Minute

// Bounds of the events that are compared with ClickHouse at once.
const (
	pieceEvents = 1000
	pieceBytes  = 8 << 20
)

// maxRequests is the number of requested audits that can wait. Further requests are dropped;
// their senders repeat them.
const maxRequests = 1024

// Auditor runs the audits of one tenant.
type Auditor struct {
	cfg      Config
	pull     Pull
	store    Destination
	requests chan checkpoint.Checkpoint
}

// New returns the auditor of a tenant. It starts nothing.
func New(cfg Config, pull Pull, store Destination) *Auditor {
	return &Auditor{cfg: cfg, pull: pull, store: store, requests: make(chan checkpoint.Checkpoint, maxRequests)}
}

// Accept queues a requested audit for RunRequests. If the queue is full, the request is dropped:
// its sender repeats it.
func (a *Auditor) Accept(c checkpoint.Checkpoint) {
	select {
	case a.requests <- c:
	default:
	}
}

// RunRequests runs the requested audits until ctx ends.
func (a *Auditor) RunRequests(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case chain := <-a.requests:
			if _, err := a.run(ctx, chain, pace.PriorityBackfill); err != nil {
				return err
			}
			a.cfg.Log.Info("audit finished", "chain", chain.Chain)
		}
	}
}

// RunFresh audits each hour after its end.
func (a *Auditor) RunFresh(ctx context.Context, state checkpoint.Set) error {
	live := a.pull.Progress.LiveFrom()

	// An audit starts at a time, so it needs synthetic ids.
	if err := a.pull.Log.WaitSynthetic(ctx); err != nil {
		return err
	}

	// The first audit of a tenant starts with its first live hour; the rest is for the rounds.
	chain, known := state.Of(a.cfg.Tenant, chainPrefix+nameFresh)
	if !known {
		chain = newChain(a.cfg.Tenant, nameFresh, live.Truncate(time.Hour), live, true)
	}
	for {
		// During a backfill, most missing events would only be missing so far.
		if err := a.pull.Progress.WaitIdle(ctx); err != nil {
			return err
		}

		ended := a.pull.Clock.Now().Add(-leastAge).Truncate(time.Hour)
		if until := schema.SyntheticID(ended); checkpoint.Higher(until, chain.LogID) {
			chain.Until, chain.Done = until, false
			next, err := a.run(ctx, chain, pace.PriorityAudit)
			if err != nil {
				return err
			}
			chain = next
		}

		// The next hour ends an hour later, and is audited leastAge after that.
		if !sleep.For(ctx, ended.Add(time.Hour+leastAge).Sub(a.pull.Clock.Now())) {
			return ctx.Err()
		}
	}
}

// RunRounds audits everything that the tenant still has, round after round. It finds and
// repairs rows that somebody has deleted.
func (a *Auditor) RunRounds(ctx context.Context, state checkpoint.Set) error {
	if err := a.pull.Log.WaitSynthetic(ctx); err != nil {
		return err
	}

	// Resume the round that the last run has not finished.
	chain, known := state.Of(a.cfg.Tenant, chainPrefix+nameRound)
	chain.Done = chain.Done || !known
	for {
		if err := a.pull.Progress.WaitIdle(ctx); err != nil {
			return err
		}
		started := time.Now()
		if chain.Done {
			until := started.Add(-a.pull.Clock.Lead()).Add(-leastAge)
			chain = newChain(a.cfg.Tenant, nameRound, time.Time{}, until, true)
		}

		// A round of a small tenant is short: rest before the next one.
		var err error
		if chain, err = a.run(ctx, chain, pace.PriorityAudit); err != nil {
			return err
		}
		if !sleep.For(ctx, roundRest-time.Since(started)) {
			return ctx.Err()
		}
	}
}

// firstHour returns the first hour that can be audited: the tenant still has it, and
// ClickHouse does not drop it.
func (a *Auditor) firstHour(ctx context.Context) (time.Time, error) {
	oldest, err := a.pull.Log.Oldest(ctx)
	if err != nil {
		return time.Time{}, err
	}

	// A tenant without events has nothing to audit before now.
	from, ok := schema.IDTime(oldest)
	if !ok {
		from = a.pull.Clock.Now()
	}
	return a.keptFrom(from).Truncate(time.Hour), nil
}

// keptFrom returns t, or the time from which ClickHouse keeps events if that is later.
func (a *Auditor) keptFrom(t time.Time) time.Time {
	if a.cfg.Retention <= 0 {
		return t
	}
	// ClickHouse drops whole parts at some time after their retention: leave a margin.
	kept := time.Now().Add(-a.cfg.Retention + time.Hour).Truncate(time.Hour)
	if kept.After(t) {
		return kept
	}
	return t
}

func hourOf(logID string) time.Time {
	at, _ := schema.IDTime(logID)
	return at.Truncate(time.Hour)
}

// run runs an audit to its end and returns its last checkpoint. It retries everything
// that fails. An error is only the end of ctx, or of Kafka.
func (a *Auditor) run(
	ctx context.Context, chain checkpoint.Checkpoint, priority pace.Priority,
) (checkpoint.Checkpoint, error) {
	chain.Requested = false
	if chain.Audit == nil {
		chain.Audit = &checkpoint.Tally{}
	}

	// Skip the hours that the tenant or ClickHouse has dropped, and stop at the tail.
	from, err := a.firstHour(ctx)
	if err != nil {
		return chain, err
	}
	if first := schema.SyntheticID(from); checkpoint.Higher(first, chain.LogID) {
		chain.From, chain.LogID, chain.Hour = first, first, nil
	}
	if until := a.pull.Progress.Reached(); !a.cfg.RequestsOnly && checkpoint.Higher(chain.Until, until) {
		chain.Until = max(until, chain.LogID)
	}

	var piece piece
	take, cursor := auth0.MaxTake, chain.LogID
	for {
		events, next, err := a.pull.Log.Fetch(ctx, priority, cursor, &take)
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
		if !end && len(piece.events) < pieceEvents && piece.bytes < pieceBytes {
			continue
		}

		// If we stop here, the next start resumes after the last saved piece, with its counts.
		if chain, err = a.comparePiece(ctx, chain, &piece, cursor, end); err != nil {
			return chain, err
		}
		a.pull.Saver.Save(chain)
		if end {
			return chain, nil
		}
		piece.reset()
	}
}

// retryPause is the pause before a failed request to ClickHouse or Kafka is repeated.
const retryPause = time.Second

// ask repeats a request of an audit until it succeeds or ctx ends.
func (a *Auditor) ask(ctx context.Context, request func() error) error {
	for logged := ""; ; {
		err := request()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}

		// The same error again is counted, but not logged.
		a.cfg.Metrics.failures.WithLabelValues(a.cfg.Tenant).Inc()
		if err.Error() != logged {
			logged = err.Error()
			a.cfg.Log.Warn("audit cannot continue; retrying", "err", err)
		}
		if !sleep.For(ctx, retryPause) {
			return ctx.Err()
		}
	}
}
