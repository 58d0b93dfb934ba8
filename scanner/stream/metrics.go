package stream

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/schema"
)

type streamMetrics struct {
	events     prometheus.Counter
	unreadable prometheus.Counter
	replayed   prometheus.Counter
	alerts     *prometheus.CounterVec
	delay      prometheus.Histogram
	lag        *prometheus.GaugeVec
	groups     *prometheus.GaugeVec
	open       *prometheus.GaugeVec
	late       prometheus.Counter
	evicted    *prometheus.CounterVec
	timeouts   prometheus.Counter
	broken     prometheus.Counter
}

func newStreamMetrics(reg prometheus.Registerer) *streamMetrics {
	factory := promauto.With(reg)
	metrics := &streamMetrics{
		events: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_scan_events_total",
			Help: "Events scanned by the rules.",
		}),
		unreadable: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_scan_unreadable_total",
			Help: "Records that are not events. The writer stores them as dead letters.",
		}),
		replayed: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_scan_replayed_total",
			Help: "Events read again to rebuild the windows of the rules.",
		}),
		alerts: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_scan_alerts_total",
			Help: "State transitions of alerts.",
		}, []string{"state"}),
		delay: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "tenantwatch_scan_alert_delay_seconds",
			Help:    "Time from the pull of an event that changed an alert until Kafka acknowledged the alert.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
		}),
		lag: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantwatch_scan_lag_records",
			Help: "Records of a partition that are not scanned yet.",
		}, []string{"partition"}),
		groups: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantwatch_scan_groups",
			Help: "Group keys that the rules keep in memory.",
		}, []string{"partition"}),
		open: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantwatch_scan_open_alerts",
			Help: "Alerts that have not ended.",
		}, []string{"partition"}),
		late: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_scan_late_total",
			Help: "Events that arrived too late for their complete window to be certain.",
		}),
		evicted: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_scan_evicted_total",
			Help: "Group keys of a rule evicted because there were too many.",
		}, []string{"rule"}),
		broken: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_scan_rules_broken_total",
			Help: "Rules disabled in a partition by a bug in tenantwatch. The log names them.",
		}),
		timeouts: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_scan_regex_timeouts_total",
			Help: "Regular expressions that exceeded their time limit and counted as no match.",
		}),
	}

	// Create the states up front, so that they start at zero.
	metrics.alerts.WithLabelValues(string(schema.StateFiring))
	metrics.alerts.WithLabelValues(string(schema.StateResolved))
	return metrics
}
