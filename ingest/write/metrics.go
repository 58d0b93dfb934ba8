package write

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the metrics of a Writer.
type metrics struct {
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

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}

	return &metrics{
		rows: counter("tenantwatch_write_rows_total",
			"Rows inserted into ClickHouse, repeats included."),
		inserts: counter("tenantwatch_write_inserts_total",
			"Inserts that ClickHouse acknowledged."),
		failures: counter("tenantwatch_write_insert_failures_total",
			"Failed inserts; each was retried."),
		dead: counter("tenantwatch_write_dead_letters_total",
			"Events that could not be stored and went to the deadletter topic."),
		commits: counter("tenantwatch_write_commit_failures_total",
			"Failed offset commits; their records are written again."),
		insertSec: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "tenantwatch_write_insert_seconds",
			Help:    "Duration of acknowledged inserts.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}),
		delay: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "tenantwatch_write_delay_seconds",
			Help:    "Time from the pull of an event until its row was stored.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 14),
		}),
		newest: factory.NewGauge(prometheus.GaugeOpts{
			Name: "tenantwatch_write_newest_event_timestamp_seconds",
			Help: "Date of the newest event that this process has inserted.",
		}),
		lag: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantwatch_write_lag_records",
			Help: "Records of a partition that are not written yet.",
		}, []string{"partition"}),
	}
}
