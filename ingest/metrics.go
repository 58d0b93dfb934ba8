package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/schema"
)

// PullMetrics are the figures of all pullers of a process.
type PullMetrics struct {
	events     *prometheus.CounterVec
	pages      *prometheus.CounterVec
	failures   *prometheus.CounterVec
	retries    *prometheus.CounterVec
	lateness   *prometheus.HistogramVec
	position   *prometheus.GaugeVec
	checkpoint *prometheus.GaugeVec
	limit      *prometheus.GaugeVec
	remaining  *prometheus.GaugeVec
	caughtUp   *prometheus.GaugeVec
	dropped    *prometheus.CounterVec
	overlap    *prometheus.GaugeVec
	gaps       *prometheus.CounterVec
	gapSeconds *prometheus.CounterVec
	streams    *prometheus.GaugeVec
	clock      *prometheus.GaugeVec

	audited       *prometheus.CounterVec
	missing       *prometheus.CounterVec
	healed        *prometheus.CounterVec
	auditPosition *prometheus.GaugeVec
	auditFailures *prometheus.CounterVec
}

// NewPullMetrics registers the figures.
func NewPullMetrics(reg prometheus.Registerer) *PullMetrics {
	f := promauto.With(reg)
	tenant := []string{"tenant"}
	return &PullMetrics{
		events:     f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_pull_events_total", Help: "Events pulled and acked by Kafka."}, []string{"tenant", "source"}),
		pages:      f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_pull_pages_total", Help: "Pages of events that the tenant answered."}, tenant),
		failures:   f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_pull_call_failures_total", Help: "Calls to the tenant that failed."}, []string{"tenant", "kind"}),
		retries:    f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_pull_produce_retries_total", Help: "Attempts to hand events to Kafka that failed and were repeated."}, tenant),
		lateness:   f.NewHistogramVec(prometheus.HistogramOpts{Name: "tenantwatch_pull_lateness_seconds", Help: "From an event's date until it was pulled, without the backfill.", Buckets: prometheus.ExponentialBuckets(0.25, 2, 14)}, tenant),
		position:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_pull_position_timestamp_seconds", Help: "When Auth0 stored the newest event that was pulled."}, tenant),
		checkpoint: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_pull_checkpoint_timestamp_seconds", Help: "When the checkpoint was last written."}, tenant),
		limit:      f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_pull_ratelimit_limit", Help: "Size of the rate limit's bucket, as last told."}, tenant),
		remaining:  f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_pull_ratelimit_remaining", Help: "What was left in the bucket, as last told."}, tenant),
		caughtUp:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_pull_caught_up", Help: "1 when the last answer had all there was."}, tenant),
		dropped:    f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_pull_self_events_dropped_total", Help: "Events about our own failed calls that were dropped because Kafka was away for long."}, tenant),
		overlap:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_pull_overlap_seconds", Help: "How far back events that show up late are looked for."}, tenant),
		gaps:       f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_pull_gaps_total", Help: "Times of which the tenant dropped events before they were pulled."}, tenant),
		gapSeconds: f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_pull_gap_seconds_total", Help: "Their length."}, tenant),
		clock:      f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_pull_clock_skew_seconds", Help: "How far our clock is ahead of the tenant's, by the Date of its last answer; below 0 when it is behind."}, tenant),
		streams:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_log_stream_active", Help: "1 when a log stream of the tenant is active."}, []string{"tenant", "stream"}),

		audited:       f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_audit_events_total", Help: "Events of the tenant that ClickHouse was held against."}, tenant),
		missing:       f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_audit_missing_total", Help: "Of these, those that were missing."}, tenant),
		healed:        f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_audit_healed_total", Help: "Of these, those that were pulled again and stored."}, tenant),
		auditPosition: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_audit_position_timestamp_seconds", Help: "Up to where the audit at hand has come."}, tenant),
		auditFailures: f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_audit_failures_total", Help: "Times that an audit could not ask ClickHouse or Kafka and tried again."}, tenant),
	}
}

// start makes the series of a tenant, so that absent is not zero.
func (m *PullMetrics) start(tenant string) {
	for _, s := range []schema.Source{schema.Tail, schema.Backfill, schema.Overlap, schema.Repair, schema.Self} {
		m.events.WithLabelValues(tenant, string(s))
	}
	for _, k := range kinds {
		m.failures.WithLabelValues(tenant, string(k))
	}
	m.pages.WithLabelValues(tenant)
	m.retries.WithLabelValues(tenant)
	for _, c := range []*prometheus.CounterVec{m.dropped, m.gaps, m.gapSeconds, m.audited, m.missing, m.healed, m.auditFailures} {
		c.WithLabelValues(tenant)
	}
}

// stop takes away what was true of a tenant as long as we led it: the position of
// one that another process leads by now would seem to stand still.
func (m *PullMetrics) stop(tenant string) {
	labels := prometheus.Labels{"tenant": tenant}
	for _, g := range []*prometheus.GaugeVec{m.position, m.checkpoint, m.limit, m.remaining, m.caughtUp, m.overlap, m.auditPosition, m.streams, m.clock} {
		g.DeletePartialMatch(labels)
	}
}

// writeMetrics are the figures of a Writer.
type writeMetrics struct {
	rows      prometheus.Counter
	inserts   prometheus.Counter
	failures  prometheus.Counter
	dead      prometheus.Counter
	commits   prometheus.Counter
	insertSec prometheus.Histogram
	delay     prometheus.Histogram
	newest    prometheus.Gauge
	lag       *prometheus.GaugeVec
}

func newWriteMetrics(reg prometheus.Registerer) *writeMetrics {
	f := promauto.With(reg)
	return &writeMetrics{
		rows:      f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_write_rows_total", Help: "Rows inserted into ClickHouse, repeats included."}),
		inserts:   f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_write_inserts_total", Help: "Inserts that ClickHouse acknowledged."}),
		failures:  f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_write_insert_failures_total", Help: "Inserts that failed and were repeated."}),
		dead:      f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_write_dead_letters_total", Help: "Events that could not be stored and went to the deadletter topic."}),
		commits:   f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_write_commit_failures_total", Help: "Offset commits that failed; their records are written again."}),
		insertSec: f.NewHistogram(prometheus.HistogramOpts{Name: "tenantwatch_write_insert_seconds", Help: "Duration of acknowledged inserts.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 12)}),
		delay:     f.NewHistogram(prometheus.HistogramOpts{Name: "tenantwatch_write_delay_seconds", Help: "From the pull of an event until its row was there.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 14)}),
		newest:    f.NewGauge(prometheus.GaugeOpts{Name: "tenantwatch_write_newest_event_timestamp_seconds", Help: "Date of the newest event in ClickHouse that this process wrote."}),
		lag:       f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_write_lag_records", Help: "Records in a partition that are not written yet."}, []string{"partition"}),
	}
}
