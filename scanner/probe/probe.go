package probe

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Name is the probe's name in events.
const Name = "login"

// Config is the synthetic login of one tenant.
type Config struct {
	Tenant       string   // its name in the data
	BaseURL      *url.URL // of the tenant
	ClientID     string
	ClientSecret string // empty for a public application
	Username     string
	Password     string
	Realm        string        // connection; empty for the tenant's default directory
	Audience     string        // empty for none
	Interval     time.Duration // default 1 min, with a jitter of 10 %
	Timeout      time.Duration // of a run; default 30 s, at most Interval
	Transport    http.RoundTripper
	Log          *slog.Logger
	Metrics      *Metrics
}

// Producer makes records durable in the events topic. It retries until ctx ends.
type Producer interface {
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Probe is the synthetic login.
type Probe struct {
	cfg     Config
	login   *login
	events  Producer
	results chan Result // not produced yet

	mu   sync.Mutex // guards last
	last []Result   // newest first, at most verdictRuns
}

// New returns a probe that produces its results to events.
func New(cfg Config, events Producer) *Probe {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	cfg.Timeout = min(cfg.Timeout, cfg.Interval)
	if cfg.Transport == nil {
		// Every run opens a connection, as a user does.
		cfg.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	}

	// Create the labels up front, so that they start at zero.
	cfg.Metrics.runs.WithLabelValues(cfg.Tenant, "ok")
	cfg.Metrics.runs.WithLabelValues(cfg.Tenant, "failed")
	cfg.Metrics.dropped.WithLabelValues(cfg.Tenant)
	cfg.Metrics.up.WithLabelValues(cfg.Tenant)

	return &Probe{
		cfg:     cfg,
		login:   newLogin(&cfg),
		events:  events,
		results: make(chan Result, 128),
	}
}

// Run probes until ctx ends.
func (p *Probe) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.loop(ctx) })
	g.Go(func() error { return p.produceResults(ctx) })
	return g.Wait()
}

// loop runs the login at the interval until ctx ends.
func (p *Probe) loop(ctx context.Context) error {
	for {
		// A run that was canceled by the end of ctx says nothing about the tenant.
		result := p.login.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.record(result)

		timer := time.NewTimer(time.Until(result.At.Add(p.pause(&result))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// pause returns the time from the start of a run to the start of the next one.
func (p *Probe) pause(r *Result) time.Duration {
	// Jitter, so that probes of many tenants spread out.
	jitter := time.Duration((rand.Float64() - 0.5) * 0.2 * float64(p.cfg.Interval))
	pause := p.cfg.Interval + jitter

	// The response counts its wait from the end of the run.
	if wait := r.Latency + r.Wait; r.Wait > 0 && wait > pause {
		p.cfg.Log.Warn("tenant delays the next synthetic login",
			"status", r.Status, "pause", r.Wait.Round(time.Second))
		pause = wait
	}
	return pause
}

// record adds a result to the verdict and the metrics, and queues it for Kafka.
func (p *Probe) record(r Result) {
	p.mu.Lock()
	failing := len(p.last) > 0 && !p.last[0].OK
	p.last = append([]Result{r}, p.last...)
	p.last = p.last[:min(len(p.last), verdictRuns)]
	p.mu.Unlock()

	outcome, up := "failed", 0.0
	if r.OK {
		outcome, up = "ok", 1
	}
	p.cfg.Metrics.runs.WithLabelValues(p.cfg.Tenant, outcome).Inc()
	p.cfg.Metrics.up.WithLabelValues(p.cfg.Tenant).Set(up)
	if r.Latency > 0 {
		p.cfg.Metrics.latency.WithLabelValues(p.cfg.Tenant).Observe(r.Latency.Seconds())
	}

	// Log changes only.
	switch {
	case !r.OK && !failing:
		p.cfg.Log.Warn("synthetic login failed", "status", r.Status, "error", r.Error, "message", r.Message)
	case r.OK && failing:
		p.cfg.Log.Info("synthetic login succeeds again", "latency", r.Latency.Round(time.Millisecond))
	}

	// The queue is full if Kafka has not accepted more than a hundred results.
	select {
	case p.results <- r:
	default:
		p.cfg.Metrics.dropped.WithLabelValues(p.cfg.Tenant).Inc()
	}
}
