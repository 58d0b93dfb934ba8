package ingest

import "github.com/prometheus/client_golang/prometheus"

// Collector tells the state of pullers as metrics.
type Collector struct {
	pullers []*Puller
	figures []figure
}

// figure is one metric and where it comes from.
type figure struct {
	desc *prometheus.Desc
	of   func(*PullStatus) float64
}

// NewCollector returns a collector of pullers.
func NewCollector(pullers []*Puller) *Collector {
	c := &Collector{pullers: pullers}
	add := func(name, help string, of func(*PullStatus) float64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc(name, help, []string{"tenant"}, nil), of})
	}
	one := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	add("tenantwatch_pull_leading", "1 when this process is the one that pulls the tenant.", func(s *PullStatus) float64 { return one(s.Running) })
	add("tenantwatch_pull_failing", "1 while calls to the tenant fail.", func(s *PullStatus) float64 { return one(s.Failing != "") })
	add("tenantwatch_backfill_running", "1 while not all that was there is pulled.", func(s *PullStatus) float64 { return one(s.Backfill) })
	add("tenantwatch_backfill_chains", "Slices of the past that are still to be pulled.", func(s *PullStatus) float64 { return float64(s.Slices.Chains) })
	add("tenantwatch_backfill_events", "Events of the backfill at hand that Kafka has acked.", func(s *PullStatus) float64 { return float64(s.Slices.Events) })
	add("tenantwatch_backfill_expected_events", "Events that the backfill at hand still expects, by what it has seen.", func(s *PullStatus) float64 { return s.Slices.Expected })
	add("tenantwatch_backfill_done_ratio", "Share of the backfill at hand that is done.", func(s *PullStatus) float64 { return s.Slices.Share })
	add("tenantwatch_pull_ratelimit_rate", "Calls a second that we may make; 0 when the tenant tells no limit.", func(s *PullStatus) float64 { return s.Use.Rate })
	add("tenantwatch_pull_ratelimit_calls", "Calls a second that we make, over the last ten seconds.", func(s *PullStatus) float64 { return s.Use.Calls })
	add("tenantwatch_pull_ratelimit_refill", "Calls a second that flow into the tenant's limit, measured or assumed.", func(s *PullStatus) float64 { return s.Use.Refill })
	return c
}

// Describe sends the metrics' descriptions.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		ch <- f.desc
	}
}

// Collect sends the metrics.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.pullers {
		s := p.Status()
		for _, f := range c.figures {
			ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, f.of(&s), s.Tenant)
		}
	}
}
