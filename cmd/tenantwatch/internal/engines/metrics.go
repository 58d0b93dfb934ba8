package engines

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the metrics of the engines of a process.
type Metrics struct {
	damaged *prometheus.CounterVec // by topic
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	return &Metrics{
		damaged: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_kafka_damaged_records_total",
			Help: "Total number of damaged records in Kafka that were skipped, by topic.",
		}, []string{"topic"}),
	}
}
