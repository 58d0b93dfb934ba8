// Package probe logs in to a tenant periodically, as a user would, and produces the
// result of every run as an event, so that a broken login is visible even if the
// tenant logs nothing.
//
// A refused password is never sent again: brute-force protection would lock the user,
// for up to 30 days. After a refusal every run fails without a call, until the process
// is restarted with the right password.
package probe

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Name is the probe's name in events.
const Name = "login"

// grantRealm is Auth0's password grant against a named connection.
const grantRealm = "http://auth0.com/oauth/grant-type/password-realm"

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
	login   clientcredentials.Config
	http    *http.Client
	events  Producer
	results chan Result // not produced yet
	refused string      // error code of the refusal of the password; empty for none

	mu   sync.Mutex // guards last
	last []Result   // newest first, at most verdictRuns
}

// Result is the outcome of one run.
type Result struct {
	At      time.Time
	OK      bool
	Status  int    // of the response, 0 without one
	Error   string // Auth0's error code, or the kind of failure; empty if OK
	Message string
	Latency time.Duration // 0 if no call was made
	Wait    time.Duration // requested by the response before the next run; 0 for none
}

// A verdict is bad if maxFailures of the last verdictRuns runs failed: one failed run
// is not an outage.
const (
	verdictRuns = 5
	maxFailures = 3
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
		cfg: cfg,
		login: clientcredentials.Config{
			ClientID:       cfg.ClientID,
			ClientSecret:   cfg.ClientSecret,
			TokenURL:       cfg.BaseURL.String() + "/oauth/token",
			AuthStyle:      oauth2.AuthStyleInParams,
			EndpointParams: cfg.params(),
		},
		http:    &http.Client{Transport: cfg.Transport, CheckRedirect: stopAtRedirect},
		events:  events,
		results: make(chan Result, 128),
	}
}

// params returns the parameters of the password grant.
func (c *Config) params() url.Values {
	params := url.Values{
		"grant_type": {"password"},
		"username":   {c.Username},
		"password":   {c.Password},
		"scope":      {"openid"},
	}
	if c.Realm != "" {
		params.Set("grant_type", grantRealm)
		params.Set("realm", c.Realm)
	}
	if c.Audience != "" {
		params.Set("audience", c.Audience)
	}
	return params
}

// stopAtRedirect returns the redirect as the response: the password must be sent to
// this tenant only, and once.
func stopAtRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Tenant returns the name of the tenant.
func (p *Probe) Tenant() string { return p.cfg.Tenant }

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
		result := p.run(ctx)
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

// run logs in once.
func (p *Probe) run(ctx context.Context) Result {
	result := Result{At: time.Now()}
	if p.refused != "" {
		result.Error = p.refused
		result.Message = "not tried again, so that brute-force protection does not lock the user: " +
			"correct PROBE_USERNAME and PROBE_PASSWORD and start again"
		return result
	}

	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	observed := &responseObserver{RoundTripper: p.http.Transport}

	// A client for each run, since the observer is of one response.
	client := &http.Client{Transport: observed, CheckRedirect: p.http.CheckRedirect}

	token, err := p.login.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	result.Latency = time.Since(result.At)

	var failure *oauth2.RetrieveError
	switch {
	case err == nil && token.AccessToken != "":
		result.OK, result.Status = true, http.StatusOK
	case err == nil:
		result.Status, result.Error = http.StatusOK, "no_token"
	case errors.As(err, &failure):
		p.setFailure(&result, failure)
	case observed.status == http.StatusOK && ctx.Err() == nil:
		// The page of a proxy, or JSON without a token.
		result.Status, result.Error = http.StatusOK, "no_token"
		result.Message = "the response (200, " + observed.media + ") has no access token"
	case errors.Is(err, context.DeadlineExceeded):
		result.Error, result.Message = "timeout", fmt.Sprintf("no answer within %s", p.cfg.Timeout)
	default:
		result.Error, result.Message = "no_answer", networkError(err)
	}
	return result
}

// setFailure sets the result of a response with an error.
func (p *Probe) setFailure(result *Result, failure *oauth2.RetrieveError) {
	result.Status = failure.Response.StatusCode
	result.Error, result.Message = failure.ErrorCode, failure.ErrorDescription
	if result.Error == "" {
		result.Error = http.StatusText(result.Status)
	}

	if result.Status == http.StatusTooManyRequests || result.Status == http.StatusServiceUnavailable {
		result.Wait = min(retryAfter(failure.Response.Header), maxWait)
	}
	if refusesPassword(*result) {
		p.refused = result.Error
	}
}

// responseObserver keeps the status and the media type of the last response. x/oauth2
// hides them if a 200 has no token.
type responseObserver struct {
	http.RoundTripper
	status int
	media  string
}

// RoundTrip implements http.RoundTripper.
func (o *responseObserver) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := o.RoundTripper.RoundTrip(r)
	if err == nil {
		o.status = response.StatusCode
		o.media, _, _ = mime.ParseMediaType(response.Header.Get("Content-Type"))
		o.media = cmp.Or(o.media, "no media type")
	}
	return response, err
}

// maxWait bounds how long a response can delay the next run. Without a run, it is
// unknown whether login works.
const maxWait = 2 * time.Minute

// retryAfter returns the duration in the Retry-After header, which has seconds or a
// date by the server's clock.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")

	// Out of range numbers are clamped before the conversion.
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(min(max(seconds, 0), maxWait.Seconds()) * float64(time.Second))
	}

	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}

	// A date is compared with the server's own, so that our clock does not matter.
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(at.Sub(now), 0)
}

// refusesPassword reports whether a response says that user or password is wrong, or
// that the user is locked.
func refusesPassword(r Result) bool {
	switch r.Error {
	case "invalid_grant", "invalid_user_password", "too_many_attempts", "password_leaked", "unauthorized":
		return r.Status < 500
	}
	return false
}

// networkError returns an error's text without the request, whose body has the password.
func networkError(err error) string {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return err.Error()
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

// produceResults produces queued results until ctx ends. Results that are queued at the
// end are lost: the next start probes at once.
func (p *Probe) produceResults(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case result := <-p.results:
			event, err := p.event(result)
			if err != nil {
				return err
			}
			if err := p.events.Produce(ctx, []schema.Record{event.Record()}, nil); err != nil {
				return fmt.Errorf("probe result: %w", err)
			}
		}
	}
}

// event returns a result in the form of a tenant log event.
func (p *Probe) event(r Result) (schema.Event, error) {
	at := r.At.UTC().Truncate(time.Millisecond)
	id := fmt.Sprintf("tenantwatch-probe-%s-%s-%d", p.cfg.Tenant, Name, r.At.UnixNano())
	description := "Synthetic login succeeded"
	if !r.OK {
		description = "Synthetic login failed: " + r.Error
		if r.Message != "" {
			description += ": " + r.Message
		}
	}

	// A log_id of our own, so that a repeated record is the same event.
	raw, err := json.Marshal(map[string]any{
		"log_id":      id,
		"date":        at.Format("2006-01-02T15:04:05.000Z"),
		"type":        schema.TypeProbe,
		"description": description,
		"tenant_name": p.cfg.Tenant,
		"hostname":    p.cfg.BaseURL.Host,
		"connection":  p.cfg.Realm,
		"details": map[string]any{
			"probe":      Name,
			"ok":         r.OK,
			"status":     r.Status,
			"error":      r.Error,
			"message":    r.Message,
			"latency_ms": float64(r.Latency.Microseconds()) / 1000,
		},
	})
	if err != nil {
		return schema.Event{}, fmt.Errorf("probe result: %w", err)
	}
	return schema.Event{
		Tenant:    p.cfg.Tenant,
		Source:    schema.SourceProbe,
		FetchedAt: r.At,
		LogID:     id,
		Type:      schema.TypeProbe,
		Date:      at,
		Raw:       raw,
	}, nil
}

// Verdict reports whether login works. It does not if 3 of the last 5 runs failed, or
// if there was no run for a while. The reasons come newest first.
func (p *Probe) Verdict() (ok bool, reasons []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.last) == 0 {
		return false, []string{"login: no run has ended yet"}
	}

	// Three missed runs, or one that a response delayed.
	overdue := max(3*p.cfg.Interval, p.last[0].Wait) + p.cfg.Timeout
	if age := time.Since(p.last[0].At); age > overdue {
		return false, []string{fmt.Sprintf("login: the last run was %s ago", age.Round(time.Second))}
	}

	for _, r := range p.last {
		if !r.OK {
			at := r.At.UTC().Format(time.RFC3339)
			reasons = append(reasons, fmt.Sprintf("login: %s: %d %s %s", at, r.Status, r.Error, r.Message))
		}
	}
	return len(reasons) < maxFailures, reasons
}
