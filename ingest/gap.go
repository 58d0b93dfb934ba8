package ingest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// stretch is a part of a log, between two log_ids.
type stretch struct{ from, until string }

// gap is a time whose events Auth0 has dropped before we pulled them, as far as
// there were any.
type gap struct{ from, until time.Time }

// lapseAfter is how long calls have failed when a retention may have passed the
// checkpoint meanwhile.
const lapseAfter = time.Hour

// gaps holds chains against the oldest place that the tenant still has.
func gaps(oldest string, tail Checkpoint, slices []Checkpoint) []gap {
	first, ok := schema.IDTime(oldest)
	if !ok {
		return nil
	}
	var list []gap
	for _, c := range append(slices[:len(slices):len(slices)], tail) {
		from, ok := schema.IDTime(c.LogID)
		if !ok || c.Order || c.Chain != ChainTail && !strings.HasPrefix(c.Chain, chainBackfill) {
			continue
		}
		if c.SeenAt.After(from) {
			from = c.SeenAt
		}
		until := first
		if at, ok := schema.IDTime(c.Until); ok && at.Before(until) {
			until = at
		}
		if from = from.Truncate(time.Second); from.Before(until) && higher(oldest, c.LogID) {
			list = append(list, gap{from, until})
		}
	}
	return list
}

// findGap looks whether the retention has passed the tail while calls failed.
func (p *Puller) findGap(ctx context.Context, cursor string, seen time.Time) error {
	oldest, err := p.oldest(ctx)
	if err != nil {
		return err
	}
	return p.recordGaps(ctx, gaps(oldest, Checkpoint{Chain: ChainTail, LogID: cursor, SeenAt: seen}, nil))
}

// recordGaps makes an event of each gap, which a rule alerts on, before the chain
// goes on. If we die before it has, the next start finds the gap again.
func (p *Puller) recordGaps(ctx context.Context, list []gap) error {
	var records []schema.Record
	for _, g := range list {
		p.cfg.Log.Error("the tenant has dropped events before they were pulled; what is left is pulled", "from", g.from, "until", g.until, "gap", g.until.Sub(g.from))
		p.cfg.Metrics.gaps.WithLabelValues(p.cfg.Tenant).Inc()
		p.cfg.Metrics.gapSeconds.WithLabelValues(p.cfg.Tenant).Add(g.until.Sub(g.from).Seconds())
		e := schema.NewOwnEvent(p.cfg.Tenant, schema.TypeGap, fmt.Sprintf("Events of %s, from %s to %s, were dropped by Auth0 before they were pulled",
			g.until.Sub(g.from).Round(time.Second), g.from.Format(time.RFC3339), g.until.Format(time.RFC3339)),
			gapDetails{g.from, g.until, g.until.Sub(g.from).Seconds()})
		records = append(records, e.Record())
	}
	if len(records) == 0 {
		return nil
	}
	if err := p.produce(ctx, records); err != nil {
		return p.describe("delivery of a gap's event", err)
	}
	p.count(schema.Self, len(records))
	return nil
}

type gapDetails struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Seconds float64   `json:"seconds"`
}
