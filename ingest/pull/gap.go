package pull

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// stretch is a part of a log, between two log_ids.
type stretch struct{ from, until string }

// gap is a time whose events, if there were any, Auth0 has dropped before they were pulled.
type gap struct{ from, until time.Time }

// lapseAfter is the length of an outage in which the retention may have passed the
// checkpoint.
const lapseAfter = time.Hour

// gaps compares chains with the oldest cursor that the tenant still has.
func gaps(oldest string, tail checkpoint.Checkpoint, slices []checkpoint.Checkpoint) []gap {
	first, ok := schema.IDTime(oldest)
	if !ok {
		return nil
	}

	var list []gap
	for _, c := range append(slices[:len(slices):len(slices)], tail) {
		pulls := c.Chain == checkpoint.ChainTail || strings.HasPrefix(c.Chain, chainBackfill)
		from, ok := schema.IDTime(c.LogID)
		if !ok || c.Requested || !pulls {
			continue
		}

		// A quiet tenant had no events up to SeenAt.
		if c.SeenAt.After(from) {
			from = c.SeenAt
		}

		// The gap ends with the chain, or with the oldest event.
		until := first
		if at, ok := schema.IDTime(c.Until); ok && at.Before(until) {
			until = at
		}
		if from = from.Truncate(time.Second); from.Before(until) && checkpoint.Higher(oldest, c.LogID) {
			list = append(list, gap{from, until})
		}
	}
	return list
}

// findGap records a gap if the retention has passed the tail while calls failed.
func (p *Puller) findGap(ctx context.Context, cursor string, seen time.Time) error {
	oldest, err := p.oldest(ctx)
	if err != nil {
		return err
	}
	tail := checkpoint.Checkpoint{Chain: checkpoint.ChainTail, LogID: cursor, SeenAt: seen}
	return p.recordGaps(ctx, gaps(oldest, tail, nil))
}

// recordGaps produces an event for each gap, on which a rule alerts. If we stop here, the
// chain's checkpoint has not moved, and the next start finds the gap again.
func (p *Puller) recordGaps(ctx context.Context, list []gap) error {
	var records []schema.Record
	for _, g := range list {
		length := g.until.Sub(g.from)
		p.cfg.Log.Error("tenant dropped events before they were pulled",
			"from", g.from, "until", g.until, "gap", length)
		p.cfg.Metrics.gaps.WithLabelValues(p.cfg.Tenant).Inc()
		p.cfg.Metrics.gapSeconds.WithLabelValues(p.cfg.Tenant).Add(length.Seconds())

		// Readers see the text, rules the details.
		text := fmt.Sprintf("Events of %s, from %s to %s, were dropped by Auth0 before they were pulled",
			length.Round(time.Second), g.from.Format(time.RFC3339), g.until.Format(time.RFC3339))
		details := gapDetails{g.from, g.until, length.Seconds()}
		event := schema.NewOwnEvent(p.cfg.Tenant, schema.TypeGap, text, details)
		records = append(records, event.Record())
	}
	if len(records) == 0 {
		return nil
	}

	if err := p.produce(ctx, records); err != nil {
		return p.describe("produce the event of a gap", err)
	}
	p.count(schema.SourceSelf, len(records))
	return nil
}

type gapDetails struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Seconds float64   `json:"seconds"`
}
