package alert

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Partition is a partition of the alerts topic while it is assigned to us.
type Partition interface {
	Fetch(ctx context.Context) (schema.Record, error)
	Commit(next int64) error
}

// Notifier delivers the alerts topic to the sinks and to ClickHouse.
type Notifier struct {
	sinks   []Sink
	conn    driver.Conn
	log     *slog.Logger
	count   *prometheus.CounterVec
	retries prometheus.Counter
}

// New returns a notifier. conn must use the database with the table of alerts.
func New(conn driver.Conn, sinks []Sink, log *slog.Logger, reg prometheus.Registerer) *Notifier {
	factory := promauto.With(reg)
	notifier := &Notifier{
		sinks: sinks,
		conn:  conn,
		log:   log,
		count: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_alert_transitions_total",
			Help: "State transitions of alerts that were delivered.",
		}, []string{"state", "level"}),
		retries: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_alert_retries_total",
			Help: "Delivery attempts that failed and were repeated.",
		}),
	}

	// Create the labels up front, so that they start at zero.
	for _, state := range []schema.AlertState{schema.StateFiring, schema.StateResolved} {
		for _, level := range []string{"informational", "low", "medium", "high", "critical"} {
			notifier.count.WithLabelValues(string(state), level)
		}
	}
	return notifier
}

// Consume delivers one partition until ctx ends.
func (n *Notifier) Consume(ctx context.Context, p Partition) error {
	for {
		record, err := p.Fetch(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}

		// deliver returns an error only at the end of ctx.
		if err := n.deliver(ctx, &record); err != nil {
			return nil
		}

		// If we stop here, the alert is delivered again.
		if err := p.Commit(record.Offset + 1); err != nil && ctx.Err() == nil {
			n.log.Warn("offset commit failed; the alert may be delivered again", "err", err)
		}
	}
}

// deliver delivers an alert to every sink and stores it.
func (n *Notifier) deliver(ctx context.Context, r *schema.Record) error {
	// A tombstone.
	if len(r.Value) == 0 {
		return nil
	}
	alert, err := schema.ReadAlert(r.Value)
	if err != nil {
		n.log.Error("skipping a record that is not an alert", "offset", r.Offset, "err", err)
		return nil
	}

	// Sinks come first: people must not wait for a database that is down.
	for _, sink := range n.sinks {
		err := n.retry(ctx, "notify", func() error { return sink.Notify(ctx, &alert) })
		if err != nil {
			return err
		}
	}
	if err := n.retry(ctx, "store", func() error { return n.insert(ctx, &alert) }); err != nil {
		return err
	}
	n.count.WithLabelValues(string(alert.State), alert.Level).Inc()
	return nil
}

// retry repeats a step until it succeeds or ctx ends.
func (n *Notifier) retry(ctx context.Context, name string, step func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 10*time.Second

	logged := ""
	for {
		err := step()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}

		// Log each error once while it does not change.
		n.retries.Inc()
		if err.Error() != logged {
			logged = err.Error()
			n.log.Warn("alert delivery failed; retrying", "step", name, "err", err)
		}

		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// insertTimeout bounds one insert.
const insertTimeout = time.Minute

// insert stores a transition. The table drops repeated ones.
func (n *Notifier) insert(ctx context.Context, a *schema.Alert) error {
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()

	batch, err := n.conn.PrepareBatch(ctx, `INSERT INTO alerts_stored (
		tenant, starts_at, fingerprint, state, level, rule_id, title,
		updated_at, resolved_at, group, count, threshold, window_seconds, summary,
		log_ids, query, tags, prevention, investigation)`)
	if err != nil {
		return fmt.Errorf("insert alert %s: %w", a.Fingerprint, err)
	}
	defer batch.Close()

	// NULL while the alert is firing.
	var resolved *time.Time
	if !a.ResolvedAt.IsZero() {
		at := a.ResolvedAt.UTC()
		resolved = &at
	}

	// The column is a map; its order does not matter.
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
