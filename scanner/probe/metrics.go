package probe

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the metrics of all probes of a process.
type Metrics struct {
	runs    *prometheus.CounterVec
	latency *prometheus.HistogramVec
	up      *prometheus.GaugeVec
	dropped *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := promauto.With(reg)
	return &Metrics{
		runs: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_probe_runs_total",
			Help: "Runs of the synthetic login.",
		}, []string{"tenant", "result"}),
		latency: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tenantwatch_probe_latency_seconds",
			Help:    "Duration of the synthetic login.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 10),
		}, []string{"tenant"}),
		up: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantwatch_probe_up",
			Help: "Whether the last synthetic login succeeded (1) or failed (0).",
		}, []string{"tenant"}),
		dropped: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_probe_events_dropped_total",
			Help: "Results dropped because Kafka did not accept them for too long.",
		}, []string{"tenant"}),
	}
}
