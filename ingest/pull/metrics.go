package pull

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Metrics are the metrics of all pullers of a process.
type Metrics struct {
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
	gaps       *prometheus.CounterVec
	gapSeconds *prometheus.CounterVec
	streams    *prometheus.GaugeVec
	clock      *prometheus.GaugeVec
	audits     *audit.Metrics
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Name: name, Help: help}
		return factory.NewCounterVec(opts, append([]string{"tenant"}, labels...))
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		opts := prometheus.GaugeOpts{Name: name, Help: help}
		return factory.NewGaugeVec(opts, append([]string{"tenant"}, labels...))
	}

	return &Metrics{
		events: counter("tenantwatch_pull_events_total",
			"Events pulled and acknowledged by Kafka.", "source"),
		pages: counter("tenantwatch_pull_pages_total",
			"Pages of events received from the tenant."),
		failures: counter("tenantwatch_pull_call_failures_total",
			"Failed calls to the tenant.", "kind"),
		retries: counter("tenantwatch_pull_produce_retries_total",
			"Failed attempts to produce events to Kafka; each was retried."),
		lateness: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tenantwatch_pull_lateness_seconds",
			Help:    "Time from an event's date until it was pulled, without the backfill.",
			Buckets: prometheus.ExponentialBuckets(0.25, 2, 14),
		}, []string{"tenant"}),
		position: gauge("tenantwatch_pull_position_timestamp_seconds",
			"Time at which Auth0 stored the newest pulled event."),
		checkpoint: gauge("tenantwatch_pull_checkpoint_timestamp_seconds",
			"Time at which a checkpoint was last saved."),

		// As the last answer has them. Collector has the rates.
		limit: gauge("tenantwatch_pull_ratelimit_limit",
			"Size of the rate limit's bucket, from the last answer."),
		remaining: gauge("tenantwatch_pull_ratelimit_remaining",
			"Calls left in the rate limit's bucket, from the last answer."),
		caughtUp: gauge("tenantwatch_pull_caught_up",
			"1 if the tenant had no more events after the last page."),
		dropped: counter("tenantwatch_pull_self_events_dropped_total",
			"Events about our own failed calls that were dropped because Kafka was down for too long."),

		// Problems of the tenant, or of our clock.
		gaps: counter("tenantwatch_pull_gaps_total",
			"Gaps in the pulled log: times of which the tenant dropped events before they were pulled."),
		gapSeconds: counter("tenantwatch_pull_gap_seconds_total",
			"Total length of gaps in the pulled log, in seconds."),
		clock: gauge("tenantwatch_pull_clock_skew_seconds",
			"Lead of our clock over the tenant's, by the Date of its last answer; negative if it is behind."),
		streams: gauge("tenantwatch_log_stream_active",
			"1 if a log stream of the tenant is active.", "stream"),

		audits: audit.NewMetrics(reg),
	}
}

// start creates the series of a tenant, so that they are zero rather than absent.
func (m *Metrics) start(tenant string) {
	for _, source := range []schema.Source{
		schema.SourceTail, schema.SourceBackfill, schema.SourceOverlap, schema.SourceRepair, schema.SourceSelf,
	} {
		m.events.WithLabelValues(tenant, string(source))
	}
	for _, kind := range auth0.Kinds {
		m.failures.WithLabelValues(tenant, string(kind))
	}

	m.pages.WithLabelValues(tenant)
	m.retries.WithLabelValues(tenant)
	for _, counter := range []*prometheus.CounterVec{
		m.dropped, m.gaps, m.gapSeconds,
	} {
		counter.WithLabelValues(tenant)
	}
	m.audits.Start(tenant)
}

// stop deletes the gauges of a tenant that this process no longer leads. Otherwise its
// position would seem to stand still.
func (m *Metrics) stop(tenant string) {
	labels := prometheus.Labels{"tenant": tenant}
	for _, gauge := range []*prometheus.GaugeVec{
		m.position, m.checkpoint, m.limit, m.remaining, m.caughtUp, m.streams, m.clock,
	} {
		gauge.DeletePartialMatch(labels)
	}
	m.audits.Stop(tenant)
}
