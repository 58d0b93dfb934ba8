package pull

import (
	"context"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/schema"
)

// newAuditor returns the auditor of a Run.
func (p *Puller) newAuditor() *audit.Auditor {
	cfg := audit.Config{Tenant: p.cfg.Tenant, Retention: p.cfg.Retention, RequestsOnly: p.cfg.RequestsOnly,
		Log: p.cfg.Log, Metrics: p.cfg.Metrics.audits}
	parts := auditParts{p}
	pull := audit.Pull{Log: parts, Progress: parts, Overlap: parts, Clock: p.clock, Events: parts, Saver: p.saves}
	return audit.New(cfg, pull, p.archive)
}

// auditParts are the parts of a Puller that its audits need.
type auditParts struct{ p *Puller }

// Fetch fetches the page after a cursor, as every chain does.
func (a auditParts) Fetch(
	ctx context.Context, priority pace.Priority, cursor string, take *int,
) ([]schema.Event, string, error) {
	return a.p.fetchPage(ctx, priority, cursor, take)
}

// Oldest returns a cursor just before or at the oldest event that the tenant still has.
func (a auditParts) Oldest(ctx context.Context) (string, error) { return a.p.oldest(ctx) }

// WaitSynthetic blocks until the tenant accepts synthetic ids.
func (a auditParts) WaitSynthetic(ctx context.Context) error { return a.p.waitSynthetic(ctx) }

// LiveFrom returns the time of the tail's first start.
func (a auditParts) LiveFrom() time.Time {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	return a.p.tail.LiveFrom
}

// Reached returns the cursor up to which the tail has pulled all events. For a quiet tenant that is
// about the time when it last had no more events.
func (a auditParts) Reached() string {
	p := a.p
	p.mu.Lock()
	defer p.mu.Unlock()
	quiet := schema.SyntheticID(p.status.CaughtUp.Add(-p.clock.Lead() - time.Minute))
	if !p.status.CaughtUp.IsZero() && checkpoint.Higher(quiet, p.tail.LogID) {
		return quiet
	}
	return p.tail.LogID
}

// WaitIdle blocks until no backfill runs.
func (a auditParts) WaitIdle(ctx context.Context) error { return a.p.backfill.waitIdle(ctx) }

// WaitPast blocks until no backfill has events to pull between two cursors.
func (a auditParts) WaitPast(ctx context.Context, from, until string) error {
	return a.p.backfill.waitPast(ctx, from, until)
}

// ClaimLate returns those of some events that the overlap would produce too: recent, and not known.
func (a auditParts) ClaimLate(events []schema.Event, some []int) (late []int) {
	p := a.p
	edge := p.clock.Now().Add(-p.cfg.Overlap)
	for _, i := range some {
		at, ok := schema.IDTime(events[i].LogID)
		inOverlap := ok && at.After(edge) && at.After(p.recent.since())
		if inOverlap && p.recent.add(events[i].LogID) {
			late = append(late, i)
		}
	}
	return late
}

// Produce makes records durable in Kafka, and counts them.
func (a auditParts) Produce(ctx context.Context, source schema.Source, records []schema.Record) error {
	if err := a.p.produce(ctx, records); err != nil {
		return err
	}
	a.p.count(source, len(records))
	return nil
}
