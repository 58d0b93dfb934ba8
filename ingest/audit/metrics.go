package audit

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the metrics of all audits of a process.
type Metrics struct {
	audited  *prometheus.CounterVec
	missing  *prometheus.CounterVec
	healed   *prometheus.CounterVec
	position *prometheus.GaugeVec
	failures *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := promauto.With(reg)
	labels := []string{"tenant"}
	counter := func(name, help string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}

	return &Metrics{
		audited: counter("tenantwatch_audit_events_total",
			"Events of the tenant that audits compared with ClickHouse."),
		missing: counter("tenantwatch_audit_missing_total",
			"Audited events that were missing in ClickHouse."),
		healed: counter("tenantwatch_audit_healed_total",
			"Missing events that were pulled again and stored."),
		position: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantwatch_audit_position_timestamp_seconds",
			Help: "Time in the log that the current audit has reached.",
		}, labels),
		failures: counter("tenantwatch_audit_failures_total",
			"Failed requests of audits to ClickHouse or Kafka; each was retried."),
	}
}

// Start creates the series of a tenant, so that they are zero rather than absent.
func (m *Metrics) Start(tenant string) {
	for _, counter := range []*prometheus.CounterVec{m.audited, m.missing, m.healed, m.failures} {
		counter.WithLabelValues(tenant)
	}
}

// Stop deletes the gauge of a tenant that this process no longer leads.
func (m *Metrics) Stop(tenant string) {
	m.position.DeleteLabelValues(tenant)
}
