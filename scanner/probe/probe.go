// Package probe logs in to a tenant as a user would, again and again, and makes
// an event of every run, so that a broken login shows up beside the tenant's own
// log and even when the tenant logs nothing.
//
// A run never repeats a password that was refused: brute-force protection would
// lock the user, for up to 30 days. From then on every run fails without a call,
// until the process is started with the right one.
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

// Name is the probe's name in events: a login with a password.
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
	Interval     time.Duration // default 1 min; every run comes up to a tenth sooner or later
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
	results chan Result // on their way to Kafka
	refused string      // why the password was refused; empty while it was not

	mu   sync.Mutex // guards last
	last []Result   // newest first, at most considered
}

// Result is the outcome of one run.
type Result struct {
	At      time.Time
	OK      bool
	Status  int    // of the answer, 0 without one
	Error   string // Auth0's error code, or what went wrong; empty when OK
	Message string
	Latency time.Duration // 0 when no call was made
	Wait    time.Duration // what the answer asks for before the next run; 0 when nothing
}

// A verdict looks at this many runs, and as many failures are bad: one failed
// run is no outage.
const (
	considered = 5
	failures   = 3
)

// Metrics are the figures of all probes of a process.
type Metrics struct {
	runs    *prometheus.CounterVec
	latency *prometheus.HistogramVec
	up      *prometheus.GaugeVec
	dropped *prometheus.CounterVec
}

// NewMetrics registers the figures.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	tenant := []string{"tenant"}
	return &Metrics{
		runs:    f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_probe_runs_total", Help: "Runs of the synthetic login."}, []string{"tenant", "result"}),
		latency: f.NewHistogramVec(prometheus.HistogramOpts{Name: "tenantwatch_probe_latency_seconds", Help: "Duration of the synthetic login.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 10)}, tenant),
		up:      f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_probe_up", Help: "1 when the last synthetic login succeeded."}, tenant),
		dropped: f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_probe_events_dropped_total", Help: "Results that were dropped because Kafka was away for long."}, tenant),
	}
}

// New returns a probe. Its events go to Kafka.
func New(cfg Config, events Producer) *Probe {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	cfg.Timeout = min(cfg.Timeout, cfg.Interval)
	if cfg.Transport == nil {
		// A new connection for every run: a user has none either.
		cfg.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	}
	params := url.Values{"grant_type": {"password"}, "username": {cfg.Username}, "password": {cfg.Password}, "scope": {"openid"}}
	if cfg.Realm != "" {
		params.Set("grant_type", grantRealm)
		params.Set("realm", cfg.Realm)
	}
	if cfg.Audience != "" {
		params.Set("audience", cfg.Audience)
	}
	cfg.Metrics.runs.WithLabelValues(cfg.Tenant, "ok")
	cfg.Metrics.runs.WithLabelValues(cfg.Tenant, "failed")
	cfg.Metrics.dropped.WithLabelValues(cfg.Tenant)
	cfg.Metrics.up.WithLabelValues(cfg.Tenant)
	return &Probe{
		cfg: cfg,
		login: clientcredentials.Config{ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret,
			TokenURL: cfg.BaseURL.String() + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams, EndpointParams: params},
		http: &http.Client{Transport: cfg.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the password is for this tenant alone, and once
		}},
		events:  events,
		results: make(chan Result, 128),
	}
}

// Tenant is the name of the tenant that is probed.
func (p *Probe) Tenant() string { return p.cfg.Tenant }

// Run probes until ctx ends.
func (p *Probe) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.loop(ctx) })
	g.Go(func() error { return p.send(ctx) })
	return g.Wait()
}

func (p *Probe) loop(ctx context.Context) error {
	for {
		r := p.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err() // what was broken off by a stop tells nothing
		}
		p.note(r)
		jitter := time.Duration((rand.Float64() - 0.5) * 0.2 * float64(p.cfg.Interval))
		pause := p.cfg.Interval + jitter
		if wait := r.Latency + r.Wait; r.Wait > 0 && wait > pause {
			p.cfg.Log.Warn("the tenant asks to wait with the next synthetic login", "status", r.Status, "pause", r.Wait.Round(time.Second))
			pause = wait
		}
		t := time.NewTimer(time.Until(r.At.Add(pause)))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// run logs in once.
func (p *Probe) run(ctx context.Context) Result {
	r := Result{At: time.Now()}
	if p.refused != "" {
		r.Error = p.refused
		r.Message = "not tried again, so that brute-force protection does not lock the user: correct PROBE_USERNAME and PROBE_PASSWORD and start again"
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	answered := &answered{RoundTripper: p.http.Transport}
	client := &http.Client{Transport: answered, CheckRedirect: p.http.CheckRedirect}
	token, err := p.login.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	r.Latency = time.Since(r.At)
	var answer *oauth2.RetrieveError
	switch {
	case err == nil && token.AccessToken != "":
		r.OK, r.Status = true, http.StatusOK
	case err == nil:
		r.Status, r.Error = http.StatusOK, "no_token"
	case errors.As(err, &answer):
		r.Status, r.Error, r.Message = answer.Response.StatusCode, answer.ErrorCode, answer.ErrorDescription
		if r.Error == "" {
			r.Error = http.StatusText(r.Status)
		}
		if r.Status == http.StatusTooManyRequests || r.Status == http.StatusServiceUnavailable {
			r.Wait = min(retryAfter(answer.Response.Header), longestHold)
		}
		if refusesPassword(r) {
			p.refused = r.Error
		}
	case answered.status == http.StatusOK && ctx.Err() == nil: // a page of a proxy, or JSON without what was asked for
		r.Status, r.Error = http.StatusOK, "no_token"
		r.Message = "the answer (200, " + answered.media + ") has no access token in it"
	case errors.Is(err, context.DeadlineExceeded):
		r.Error, r.Message = "timeout", fmt.Sprintf("no answer within %s", p.cfg.Timeout)
	default:
		r.Error, r.Message = "no_answer", networkError(err)
	}
	return r
}

// answered notes what came back of a call: x/oauth2 hides it where there is no token
// in a 200.
type answered struct {
	http.RoundTripper
	status int
	media  string
}

func (a *answered) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := a.RoundTripper.RoundTrip(r)
	if err == nil {
		a.status = res.StatusCode
		a.media, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
		a.media = cmp.Or(a.media, "of no type")
	}
	return res, err
}

// longestHold is how long an answer can hold the next run: beyond that nobody would
// know whether login works.
const longestHold = 2 * time.Minute

// retryAfter reads the Retry-After header, in seconds or as a date by the server's
// clock.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(min(max(seconds, 0), longestHold.Seconds()) * float64(time.Second))
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(at.Sub(now), 0)
}

// refusesPassword reports whether an answer says that user and password are
// wrong, or locked already.
func refusesPassword(r Result) bool {
	switch r.Error {
	case "invalid_grant", "invalid_user_password", "too_many_attempts", "password_leaked", "unauthorized":
		return r.Status < 500
	}
	return false
}

// networkError is an error without the request, whose body has the password.
func networkError(err error) string {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return err.Error()
}

// note keeps a result for the verdict and hands it on.
func (p *Probe) note(r Result) {
	p.mu.Lock()
	before := len(p.last) > 0 && !p.last[0].OK
	p.last = append([]Result{r}, p.last...)
	p.last = p.last[:min(len(p.last), considered)]
	p.mu.Unlock()

	if r.OK {
		p.cfg.Metrics.runs.WithLabelValues(p.cfg.Tenant, "ok").Inc()
		p.cfg.Metrics.up.WithLabelValues(p.cfg.Tenant).Set(1)
	} else {
		p.cfg.Metrics.runs.WithLabelValues(p.cfg.Tenant, "failed").Inc()
		p.cfg.Metrics.up.WithLabelValues(p.cfg.Tenant).Set(0)
	}
	if r.Latency > 0 {
		p.cfg.Metrics.latency.WithLabelValues(p.cfg.Tenant).Observe(r.Latency.Seconds())
	}
	switch {
	case !r.OK && !before:
		p.cfg.Log.Warn("synthetic login failed", "status", r.Status, "error", r.Error, "message", r.Message)
	case r.OK && before:
		p.cfg.Log.Info("synthetic login succeeds again", "latency", r.Latency.Round(time.Millisecond))
	}
	select {
	case p.results <- r:
	default: // Kafka has been away for more than a hundred runs
		p.cfg.Metrics.dropped.WithLabelValues(p.cfg.Tenant).Inc()
	}
}

// send hands results to Kafka. If we die with some at hand they are lost: a
// probe tells of now, and the next start probes at once.
func (p *Probe) send(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-p.results:
			e, err := p.event(r)
			if err != nil {
				return err
			}
			if err := p.events.Produce(ctx, []schema.Record{e.Record()}, nil); err != nil {
				return fmt.Errorf("probe result: %w", err)
			}
		}
	}
}

// event is a result in the form of a tenant log event.
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
	raw, err := json.Marshal(map[string]any{
		"log_id": id, "date": at.Format("2006-01-02T15:04:05.000Z"), "type": schema.TypeProbe, "description": description,
		"tenant_name": p.cfg.Tenant, "hostname": p.cfg.BaseURL.Host, "connection": p.cfg.Realm,
		"details": map[string]any{"probe": Name, "ok": r.OK, "status": r.Status, "error": r.Error, "message": r.Message,
			"latency_ms": float64(r.Latency.Microseconds()) / 1000},
	})
	if err != nil {
		return schema.Event{}, fmt.Errorf("probe result: %w", err)
	}
	return schema.Event{Tenant: p.cfg.Tenant, Source: schema.Probe, FetchedAt: r.At, LogID: id, Type: schema.TypeProbe, Date: at, Raw: raw}, nil
}

// Verdict says whether login works. It is bad when 3 of the last 5 runs failed,
// or when there was none for a while; reasons say why, newest first.
func (p *Probe) Verdict() (ok bool, reasons []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.last) == 0 {
		return false, []string{"login: no run has ended yet"}
	}
	if age := time.Since(p.last[0].At); age > max(3*p.cfg.Interval, p.last[0].Wait)+p.cfg.Timeout {
		return false, []string{fmt.Sprintf("login: the last run was %s ago", age.Round(time.Second))}
	}
	for _, r := range p.last {
		if !r.OK {
			reasons = append(reasons, fmt.Sprintf("login: %s: %d %s %s", r.At.UTC().Format(time.RFC3339), r.Status, r.Error, r.Message))
		}
	}
	return len(reasons) < failures, reasons
}
