// Package alert delivers alerts to people and keeps them in ClickHouse.
//
// It promises that every transition in the alerts topic is delivered at least
// once: its offset is committed only after both. If we die in between, a
// transition is shown once more; in the table it is the same row.
package alert

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Sink tells people. Notify blocks until the alert is delivered; after an error
// it is called again with the same alert.
type Sink interface {
	Notify(ctx context.Context, a *schema.Alert) error
}

// Partition is one partition of the alerts topic while it is ours.
type Partition interface {
	Fetch(ctx context.Context) (schema.Record, error)
	Commit(next int64) error
}

// Notifier takes alerts from their topic to the sinks and to ClickHouse.
type Notifier struct {
	sinks   []Sink
	conn    driver.Conn
	log     *slog.Logger
	count   *prometheus.CounterVec
	retries prometheus.Counter
}

// New returns a notifier. conn is to the database with the alerts' table.
func New(conn driver.Conn, sinks []Sink, log *slog.Logger, reg prometheus.Registerer) *Notifier {
	f := promauto.With(reg)
	n := &Notifier{sinks: sinks, conn: conn, log: log,
		count:   f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_alert_transitions_total", Help: "Transitions of alerts that were delivered."}, []string{"state", "level"}),
		retries: f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_alert_retries_total", Help: "Deliveries that failed and were repeated."})}
	for _, state := range []schema.AlertState{schema.Firing, schema.Resolved} {
		for _, level := range []string{"informational", "low", "medium", "high", "critical"} {
			n.count.WithLabelValues(string(state), level)
		}
	}
	return n
}

// Consume delivers one partition until ctx ends.
func (n *Notifier) Consume(ctx context.Context, p Partition) error {
	for {
		r, err := p.Fetch(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := n.deliver(ctx, &r); err != nil {
			return nil // only the end of ctx
		}
		if err := p.Commit(r.Offset + 1); err != nil && ctx.Err() == nil {
			n.log.Warn("commit failed; the alert may be shown once more", "err", err)
		}
	}
}

// deliver tells people first: they are not to wait for a database that is away.
func (n *Notifier) deliver(ctx context.Context, r *schema.Record) error {
	if len(r.Value) == 0 {
		return nil // a tombstone
	}
	a, err := schema.ReadAlert(r.Value)
	if err != nil {
		n.log.Error("a record of the alerts topic is not an alert; it is passed over", "offset", r.Offset, "err", err)
		return nil
	}
	for _, s := range n.sinks {
		if err := n.retry(ctx, "notify", func() error { return s.Notify(ctx, &a) }); err != nil {
			return err
		}
	}
	if err := n.retry(ctx, "keep", func() error { return n.insert(ctx, &a) }); err != nil {
		return err
	}
	n.count.WithLabelValues(string(a.State), a.Level).Inc()
	return nil
}

// retry repeats f until it succeeds or ctx ends.
func (n *Notifier) retry(ctx context.Context, what string, f func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 10*time.Second
	said := ""
	for {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.retries.Inc()
		if err.Error() != said {
			said = err.Error()
			n.log.Warn("alert delivery failed; trying again", "step", what, "err", err)
		}
		t := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// insertTimeout bounds one insert.
const insertTimeout = time.Minute

// insert keeps a transition. The table drops repeats.
func (n *Notifier) insert(ctx context.Context, a *schema.Alert) error {
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()
	batch, err := n.conn.PrepareBatch(ctx, `INSERT INTO alerts_stored (tenant, starts_at, fingerprint, state, level, rule_id, title,
		updated_at, resolved_at, group, count, threshold, window_seconds, summary, log_ids, query, tags, prevention, investigation)`)
	if err != nil {
		return fmt.Errorf("insert alert %s: %w", a.Fingerprint, err)
	}
	defer batch.Close()
	var resolved *time.Time
	if !a.ResolvedAt.IsZero() {
		at := a.ResolvedAt.UTC()
		resolved = &at
	}
	group := map[string]string{}
	for _, g := range a.Group {
		group[g.Field] = g.Value
	}
	err = batch.Append(a.Tenant, a.StartsAt.UTC(), a.Fingerprint, string(a.State), a.Level, a.RuleID, a.Title,
		a.UpdatedAt.UTC(), resolved, group, a.Count, a.Threshold, time.Duration(a.Window).Seconds(), a.Summary,
		orEmpty(a.LogIDs), a.Query, orEmpty(a.Tags), a.Prevention, a.Investigation)
	if err == nil {
		err = batch.Send()
	}
	if err != nil {
		return fmt.Errorf("insert alert %s: %w", a.Fingerprint, err)
	}
	return nil
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// Family is the part of the watch that an alert belongs to, from its rule's tag
// tenantwatch.FAMILY; empty for rules that have none.
func Family(a *schema.Alert) string {
	for _, tag := range a.Tags {
		if family, ok := strings.CutPrefix(tag, "tenantwatch."); ok {
			return strings.ReplaceAll(family, "_", " ")
		}
	}
	return ""
}
