package pull

import "github.com/prometheus/client_golang/prometheus"

// Collector exports the state of pullers as metrics.
type Collector struct {
	pullers []*Puller
	metrics []statusMetric
}

// statusMetric is one metric of a Status.
type statusMetric struct {
	desc  *prometheus.Desc
	value func(*Status) float64
}

// NewCollector returns a collector of pullers.
func NewCollector(pullers []*Puller) *Collector {
	collector := &Collector{pullers: pullers}
	add := func(name, help string, value func(*Status) float64) {
		desc := prometheus.NewDesc(name, help, []string{"tenant"}, nil)
		collector.metrics = append(collector.metrics, statusMetric{desc, value})
	}

	// The pull.
	add("tenantwatch_pull_leading", "1 if this process pulls the tenant.",
		func(s *Status) float64 { return oneIf(s.Running) })
	add("tenantwatch_pull_failing", "1 while calls to the tenant fail.",
		func(s *Status) float64 { return oneIf(s.Failing != "") })

	// The backfill. Without one, its share is 1 and the rest 0.
	add("tenantwatch_backfill_running", "1 while a backfill is not finished.",
		func(s *Status) float64 { return oneIf(s.Backfill) })
	add("tenantwatch_backfill_chains", "Slices of the past that are not finished.",
		func(s *Status) float64 { return float64(s.Slices.Chains) })
	add("tenantwatch_backfill_events", "Events of the current backfill that Kafka has acknowledged.",
		func(s *Status) float64 { return float64(s.Slices.Events) })
	add("tenantwatch_backfill_expected_events", "Estimated events that the current backfill still has to pull.",
		func(s *Status) float64 { return s.Slices.Expected })
	add("tenantwatch_backfill_done_ratio", "Share of the current backfill that is finished, from 0 to 1.",
		func(s *Status) float64 { return s.Slices.Share })

	// The rate limit, beside its state in the last answer; see Metrics.
	add("tenantwatch_pull_ratelimit_rate", "Calls a second that we may make; 0 if the tenant reports no limit.",
		func(s *Status) float64 { return s.Use.Rate })
	add("tenantwatch_pull_ratelimit_calls", "Calls a second that we made over the last ten seconds.",
		func(s *Status) float64 { return s.Use.Calls })
	add("tenantwatch_pull_ratelimit_refill", "Calls a second that refill the tenant's limit, measured or assumed.",
		func(s *Status) float64 { return s.Use.Refill })
	return collector
}

// oneIf returns 1 for true and 0 for false.
func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Describe sends the descriptions of the metrics.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, metric := range c.metrics {
		ch <- metric.desc
	}
}

// Collect sends the metrics.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	// One status for all metrics of a tenant, so that they agree.
	for _, p := range c.pullers {
		status := p.Status()
		for _, metric := range c.metrics {
			value := metric.value(&status)
			ch <- prometheus.MustNewConstMetric(metric.desc, prometheus.GaugeValue, value, status.Tenant)
		}
	}
}
