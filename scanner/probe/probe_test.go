package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/schema"
)

// What must never be seen outside the request.
const (
	password    = "Geheim \"ß&=%+"
	secret      = "client-secret"
	accessToken = "access-token-eyJ"
	mfaToken    = "mfa-token-Fe26"
)

// answer is one answer of the tenant.
type answer struct {
	status int
	body   string
	header http.Header
}

func token() answer {
	return answer{status: 200, body: `{"access_token":"` + accessToken + `","id_token":"` + accessToken + `","token_type":"Bearer","expires_in":86400}`}
}

func refusal(status int, code, description string) answer {
	return answer{status: status, body: fmt.Sprintf(`{"error":%q,"error_description":%q,"mfa_token":%q}`, code, description, mfaToken)}
}

// tenant answers in turn, the last answer again and again.
type tenant struct {
	mu      sync.Mutex
	answers []answer
	at      []time.Time
	forms   []url.Values
	paths   []string
}

func (s *tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	a := s.answers[min(len(s.at), len(s.answers)-1)]
	s.at = append(s.at, time.Now())
	_ = r.ParseForm()
	s.forms, s.paths = append(s.forms, r.PostForm), append(s.paths, r.Method+" "+r.URL.String())
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	for k, v := range a.header {
		w.Header()[k] = v
	}
	if a.status == 0 {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

// RoundTrip serves without a network, so that a test can have the time it likes.
func (s *tenant) RoundTrip(r *http.Request) (_ *http.Response, err error) {
	defer func() {
		if recover() != nil {
			err = context.Cause(r.Context())
		}
	}()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

// kafka keeps the records it is given.
type kafka struct {
	mu      sync.Mutex
	records []schema.Record
	err     error
	away    bool
}

func (k *kafka) Produce(ctx context.Context, records []schema.Record, _ func(error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		k.mu.Unlock()
		<-ctx.Done()
		k.mu.Lock()
		return ctx.Err()
	}
	k.records = append(k.records, records...)
	return k.err
}

// fixture is a probe with what is around it.
type fixture struct {
	*Probe
	tenant *tenant
	kafka  *kafka
	log    *bytes.Buffer
	reg    *prometheus.Registry
}

func newFixture(t *testing.T, change func(*Config), answers ...answer) *fixture {
	t.Helper()
	f := &fixture{tenant: &tenant{answers: answers}, kafka: &kafka{}, log: &bytes.Buffer{}, reg: prometheus.NewPedanticRegistry()}
	base, err := url.Parse("https://acme.eu.auth0.com")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Tenant: "acme", BaseURL: base, ClientID: "client", ClientSecret: secret, Username: "probe@example.com", Password: password, Realm: "Users",
		Interval: time.Minute, Timeout: 10 * time.Second, Transport: f.tenant,
		Log: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: NewMetrics(f.reg)}
	if change != nil {
		change(&cfg)
	}
	f.Probe = New(cfg, f.kafka)
	t.Cleanup(func() { f.keepsSecrets(t) })
	return f
}

// keepsSecrets looks for what must not be there, also as JSON or a form has it.
func (f *fixture) keepsSecrets(t *testing.T) {
	t.Helper()
	_, reasons := f.Verdict()
	seen := f.log.String() + strings.Join(reasons, "\n")
	for _, r := range f.kafka.records {
		seen += fmt.Sprintf("%s %s %s", r.Key, r.Value, r.Headers)
	}
	for _, word := range []string{password, "Geheim", url.QueryEscape(password), secret, accessToken, mfaToken} {
		if strings.Contains(seen, word) {
			at := strings.Index(seen, word)
			t.Errorf("%q is seen in %s", word, seen[max(0, at-200):min(len(seen), at+200)])
		}
	}
}

// runFor runs the probe for a time in a bubble that the caller is in.
func (f *fixture) runFor(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := f.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
}

func (f *fixture) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// TestAnswers runs once against each way a tenant answers, over a real
// connection.
func TestAnswers(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html"}}
	for _, tt := range []struct {
		name    string
		answer  answer
		want    Result // without At and Latency
		refused bool
	}{
		{"token", token(), Result{OK: true, Status: 200}, false},
		{"wrong password", refusal(403, "invalid_grant", "Wrong email or password."), Result{Status: 403, Error: "invalid_grant", Message: "Wrong email or password."}, true},
		{"wrong password, as older tenants say it", refusal(401, "invalid_user_password", "Wrong email or password."), Result{Status: 401, Error: "invalid_user_password", Message: "Wrong email or password."}, true},
		{"blocked user", refusal(401, "unauthorized", "user is blocked"), Result{Status: 401, Error: "unauthorized", Message: "user is blocked"}, true},
		{"brute force", refusal(429, "too_many_attempts", "Your account has been blocked."), Result{Status: 429, Error: "too_many_attempts", Message: "Your account has been blocked."}, true},
		{"leaked password", refusal(401, "password_leaked", "This login has been blocked."), Result{Status: 401, Error: "password_leaked", Message: "This login has been blocked."}, true},
		{"second factor", refusal(403, "mfa_required", "Multifactor authentication required"), Result{Status: 403, Error: "mfa_required", Message: "Multifactor authentication required"}, false},
		{"client", refusal(401, "access_denied", "Unauthorized"), Result{Status: 401, Error: "access_denied", Message: "Unauthorized"}, false},
		{"grant is off", refusal(403, "unauthorized_client", "Grant type 'password' not allowed for the client."), Result{Status: 403, Error: "unauthorized_client", Message: "Grant type 'password' not allowed for the client."}, false},
		{"rate limit", refusal(429, "too_many_requests", "Global limit has been reached"), Result{Status: 429, Error: "too_many_requests", Message: "Global limit has been reached"}, false},
		{"rate limit in HTML", answer{429, "<html>slow down", html}, Result{Status: 429, Error: "Too Many Requests"}, false},
		{"server error", refusal(500, "server_error", "oops"), Result{Status: 500, Error: "server_error", Message: "oops"}, false},
		{"server error that names the password", refusal(503, "invalid_grant", "x"), Result{Status: 503, Error: "invalid_grant", Message: "x"}, false},
		{"bad gateway in HTML", answer{502, "<html>" + secret, html}, Result{Status: 502, Error: "Bad Gateway"}, false},
		{"nothing but a status", answer{status: 504}, Result{Status: 504, Error: "Gateway Timeout"}, false},
		{"error in a 200", refusal(200, "invalid_grant", "Wrong email or password."), Result{Status: 200, Error: "invalid_grant", Message: "Wrong email or password."}, true},
		{"a redirect, which is not to get the password", answer{307, "", http.Header{"Location": {"/elsewhere"}}}, Result{Status: 307, Error: "Temporary Redirect"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil, tt.answer)
			server := httptest.NewServer(f.tenant)
			defer server.Close()
			f.over(t, server)
			got := f.login.run(t.Context())
			if got.At.IsZero() || got.Latency <= 0 {
				t.Errorf("at %v for %v", got.At, got.Latency)
			}
			first := got
			got.At, got.Latency = time.Time{}, 0
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			f.record(first)
			second := f.login.run(t.Context())
			if calls := len(f.tenant.at); (calls == 1) != tt.refused {
				t.Errorf("%d calls in two runs", calls)
			}
			if tt.refused && (second.OK || second.Latency != 0 || second.Error != tt.want.Error || !strings.Contains(second.Message, "not tried again")) {
				t.Errorf("after the refusal: %+v", second)
			}
		})
	}
}

// over makes the probe talk to a server on a real connection.
func (f *fixture) over(t *testing.T, server *httptest.Server) {
	t.Helper()
	cfg := f.cfg
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.BaseURL, cfg.Transport, cfg.Metrics = base, nil, NewMetrics(prometheus.NewRegistry())
	f.Probe = New(cfg, f.kafka)
}

// TestOddAnswers are answers that are none.
func TestOddAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer answer
		media  string
	}{
		{"HTML with 200", answer{200, "<html>" + secret + "</html>", http.Header{"Content-Type": {"text/html; charset=utf-8"}}}, "text/html"},
		{"HTML that is called JSON", answer{200, "<html>" + secret + "</html>", nil}, "application/json"},
		{"no token", answer{200, `{"token_type":"Bearer"}`, nil}, "application/json"},
		{"an empty token", answer{200, `{"access_token":""}`, nil}, "application/json"},
		{"nothing", answer{200, ``, nil}, "application/json"},
		{"text", answer{200, "OK", http.Header{"Content-Type": {"text/plain"}}}, "text/plain"},
	} {
		f := newFixture(t, nil, tt.answer)
		r := f.login.run(t.Context())
		if r.OK || r.Status != 200 || r.Error != "no_token" || !strings.Contains(r.Message, "200, "+tt.media) {
			t.Errorf("%s: got %+v", tt.name, r)
		}
		f.record(r)
		if f.login.refused != "" {
			t.Errorf("%s: counts as a refusal", tt.name)
		}
	}
}

// TestNoServer has nobody listening.
func TestNoServer(t *testing.T) {
	f := newFixture(t, nil, token())
	server := httptest.NewServer(f.tenant)
	server.Close()
	f.over(t, server)
	r := f.login.run(t.Context())
	if r.OK || r.Status != 0 || r.Error != "no_answer" || !strings.Contains(r.Message, "refused") {
		t.Errorf("got %+v", r)
	}
	f.record(r)
}

// TestHang gives up after the timeout.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, answer{})
		want := Result{At: time.Now(), Error: "timeout", Message: "no answer within 10s", Latency: 10 * time.Second}
		if diff := cmp.Diff(want, f.login.run(t.Context())); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// TestRequest is what goes out.
func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   url.Values
	}{
		{"a named connection", nil, url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {"Users"}, "client_id": {"client"}, "client_secret": {secret},
			"username": {"probe@example.com"}, "password": {password}, "scope": {"openid"}}},
		{"the default directory, a public application, an audience", func(c *Config) { c.Realm, c.ClientSecret, c.Audience = "", "", "https://api" },
			url.Values{"grant_type": {"password"}, "client_id": {"client"}, "audience": {"https://api"}, "username": {"probe@example.com"}, "password": {password}, "scope": {"openid"}}},
	} {
		f := newFixture(t, tt.change, token())
		f.login.run(t.Context())
		if diff := cmp.Diff([]url.Values{tt.want}, f.tenant.forms); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff([]string{"POST https://acme.eu.auth0.com/oauth/token"}, f.tenant.paths); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestEvent is the form of the events, byte for byte.
func TestEvent(t *testing.T) {
	f := newFixture(t, nil, token())
	at := time.Date(2026, 3, 4, 12, 30, 15, 123456789, time.FixedZone("", 7200))
	for _, tt := range []struct {
		result Result
		want   string
	}{
		{Result{At: at, OK: true, Status: 200, Latency: 123456 * time.Microsecond},
			`{"connection":"Users","date":"2026-03-04T10:30:15.123Z","description":"Synthetic login succeeded","details":{"error":"","latency_ms":123.456,"message":"","ok":true,"probe":"login","status":200},` +
				`"hostname":"acme.eu.auth0.com","log_id":"tenantwatch-probe-acme-login-1772620215123456789","tenant_name":"acme","type":"tenantwatch_probe"}`},
		{Result{At: at, Status: 403, Error: "invalid_grant", Message: "Wrong email or password.", Latency: time.Second},
			`{"connection":"Users","date":"2026-03-04T10:30:15.123Z","description":"Synthetic login failed: invalid_grant: Wrong email or password.","details":{"error":"invalid_grant","latency_ms":1000,"message":"Wrong email or password.","ok":false,"probe":"login","status":403},` +
				`"hostname":"acme.eu.auth0.com","log_id":"tenantwatch-probe-acme-login-1772620215123456789","tenant_name":"acme","type":"tenantwatch_probe"}`},
	} {
		e, err := f.event(tt.result)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, string(e.Raw)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		again := schema.Event{Tenant: "acme", Source: schema.SourceProbe, FetchedAt: at, Raw: e.Raw}
		if err := again.Identify(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(again, e); diff != "" {
			t.Errorf("what the event says of itself (-read +made):\n%s", diff)
		}
	}
}

// TestRun probes at once and then about every interval; each run is an event.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, token())
		start := time.Now()
		f.runFor(t, 60*time.Minute)
		at := f.tenant.at
		if !at[0].Equal(start) || len(at) < 55 || len(at) > 66 {
			t.Fatalf("%d runs, the first after %v", len(at), at[0].Sub(start))
		}
		different := false
		for i := range at[1:] {
			gap := at[i+1].Sub(at[i])
			if gap < 54*time.Second || gap > 66*time.Second {
				t.Errorf("%v between two runs", gap)
			}
			different = different || gap != at[1].Sub(at[0])
		}
		if !different {
			t.Error("the runs come at a beat")
		}
		if len(f.kafka.records) != len(at) {
			t.Errorf("%d events of %d runs", len(f.kafka.records), len(at))
		}
		ids := map[string]bool{}
		for _, r := range f.kafka.records {
			e := schema.EventOf(&r)
			if err := e.Identify(); err != nil || e.Tenant != "acme" || e.Source != schema.SourceProbe || e.Type != schema.TypeProbe || ids[e.LogID] {
				t.Errorf("%+v: %v", e, err)
			}
			ids[e.LogID] = true
		}
		if ok, reasons := f.Verdict(); !ok || len(reasons) != 0 {
			t.Errorf("verdict: %v %q", ok, reasons)
		}
		if got := f.metric(t, "tenantwatch_probe_runs_total"); got != float64(len(at)) || f.metric(t, "tenantwatch_probe_up") != 1 || f.metric(t, "tenantwatch_probe_latency_seconds") != 0 {
			t.Errorf("%v runs counted", got)
		}
	})
}

// TestWaits: a tenant that asks to wait is not called before, but no answer holds the
// probe beyond two minutes.
func TestWaits(t *testing.T) {
	date := func(seconds int) http.Header {
		now := time.Date(1999, 12, 31, 23, 0, 0, 0, time.UTC) // by its clock
		return http.Header{"Date": {now.Format(http.TimeFormat)}, "Retry-After": {now.Add(time.Duration(seconds) * time.Second).Format(http.TimeFormat)}}
	}
	for _, tt := range []struct {
		name        string
		status      int
		header      http.Header
		least, most time.Duration
	}{
		{"seconds", 429, http.Header{"Retry-After": {"100"}}, 100 * time.Second, 101 * time.Second},
		{"seconds, and 503", 503, http.Header{"Retry-After": {"90"}}, 90 * time.Second, 91 * time.Second},
		{"a date by the tenant's clock", 429, date(95), 95 * time.Second, 96 * time.Second},
		{"a day", 429, http.Header{"Retry-After": {"86400"}}, 2 * time.Minute, 121 * time.Second},
		{"more than can be counted", 429, http.Header{"Retry-After": {"1e300"}}, 2 * time.Minute, 121 * time.Second},
		{"sooner than the next run", 429, http.Header{"Retry-After": {"1"}}, 54 * time.Second, 66 * time.Second},
		{"no time at all", 429, http.Header{"Retry-After": {"soon"}}, 54 * time.Second, 66 * time.Second},
		{"another status", 500, http.Header{"Retry-After": {"100"}}, 54 * time.Second, 66 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limited := answer{tt.status, `{"error":"too_many_requests"}`, tt.header}
				f := newFixture(t, nil, limited, token())
				f.runFor(t, 4*time.Minute)
				if got := f.tenant.at[1].Sub(f.tenant.at[0]); got < tt.least || got > tt.most {
					t.Errorf("the next run came after %v, want %v to %v", got, tt.least, tt.most)
				}
				if said := strings.Contains(f.log.String(), "tenant delays"); said != (tt.least > 66*time.Second) {
					t.Errorf("log:\n%s", f.log)
				}
			})
		})
	}
}

// TestRefusedOnce counts the calls with a refused password: one, however long.
func TestRefusedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, token(), refusal(403, "invalid_grant", "Wrong email or password."), token())
		f.runFor(t, 24*time.Hour)
		if len(f.tenant.at) != 2 {
			t.Errorf("%d calls", len(f.tenant.at))
		}
		if ok, reasons := f.Verdict(); ok || len(reasons) != 5 || !strings.Contains(reasons[0], "invalid_grant not tried again") {
			t.Errorf("verdict: %v %q", ok, reasons)
		}
		var last struct {
			Description string
			Details     struct {
				OK        bool
				Status    int
				Error     string
				LatencyMS float64 `json:"latency_ms"`
			}
		}
		if err := json.Unmarshal(f.kafka.records[len(f.kafka.records)-1].Value, &last); err != nil {
			t.Fatal(err)
		}
		if last.Details.OK || last.Details.Status != 0 || last.Details.Error != "invalid_grant" || last.Details.LatencyMS != 0 || len(f.kafka.records) < 1000 {
			t.Errorf("%d events, the last %+v", len(f.kafka.records), last)
		}
		if n := strings.Count(f.log.String(), "synthetic login failed"); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
}

// TestComesBack fails for a while.
func TestComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, token(), answer{status: 503}, answer{}, refusal(429, "too_many_requests", ""), token())
		f.runFor(t, 10*time.Minute)
		if n := len(f.tenant.at); n < 9 {
			t.Errorf("%d calls", n)
		}
		if ok, reasons := f.Verdict(); !ok || len(reasons) != 0 {
			t.Errorf("verdict: %v %q", ok, reasons)
		}
		for message, want := range map[string]int{"synthetic login failed": 1, "synthetic login succeeds again": 1} {
			if n := strings.Count(f.log.String(), message); n != want {
				t.Errorf("%q is said %d times", message, n)
			}
		}
	})
}

// TestVerdict is 3 of the last 5.
func TestVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, token())
		if ok, reasons := f.Verdict(); ok || !slices.Equal(reasons, []string{"login: no run has ended yet"}) {
			t.Errorf("before the first run: %v %q", ok, reasons)
		}
		for i, tt := range []struct {
			run, ok bool
			reasons int
		}{{false, true, 1}, {true, true, 1}, {false, true, 2}, {true, true, 2}, {false, false, 3}, {true, true, 2}, {false, false, 3}, {false, false, 3},
			{false, false, 4}, {true, false, 3}, {true, false, 3}, {true, true, 2}, {true, true, 1}, {true, true, 0}} {
			time.Sleep(time.Minute)
			f.record(Result{At: time.Now(), OK: tt.run, Status: 503, Error: fmt.Sprint("e", i), Message: "m"})
			ok, reasons := f.Verdict()
			if ok != tt.ok || len(reasons) != tt.reasons {
				t.Errorf("after run %d: %v %q", i, ok, reasons)
			}
			if want := fmt.Sprintf("login: %s: 503 e%d m", time.Now().UTC().Format(time.RFC3339), i); !tt.run && reasons[0] != want {
				t.Errorf("newest reason is %q, want %q", reasons[0], want)
			}
		}
		// Three intervals and a timeout without a run are too long.
		time.Sleep(3*time.Minute + 10*time.Second)
		if ok, _ := f.Verdict(); !ok {
			t.Error("stale too early")
		}
		time.Sleep(time.Second)
		if ok, reasons := f.Verdict(); ok || !slices.Equal(reasons, []string{"login: the last run was 3m11s ago"}) {
			t.Errorf("stale: %v %q", ok, reasons)
		}
	})
}

// TestKafkaAway probes on, and drops what is too much.
func TestKafkaAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, token())
		f.kafka.away = true
		f.runFor(t, 200*time.Minute)
		if want := float64(len(f.tenant.at) - 128 - 1); f.metric(t, "tenantwatch_probe_events_dropped_total") != want || want < 40 {
			t.Errorf("%v dropped, want %v", f.metric(t, "tenantwatch_probe_events_dropped_total"), want)
		}
		if ok, _ := f.Verdict(); !ok {
			t.Error("the verdict is bad")
		}
	})
}

// TestKafkaRefuses ends Run.
func TestKafkaRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, token())
		f.kafka.err = errors.New("too large")
		if err := f.Run(t.Context()); !errors.Is(err, f.kafka.err) {
			t.Errorf("got %v", err)
		}
	})
}

// TestStop breaks off a run, of which nothing is told.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, answer{})
		f.runFor(t, time.Second)
		if len(f.kafka.records) != 0 || f.metric(t, "tenantwatch_probe_runs_total") != 0 {
			t.Errorf("%d events", len(f.kafka.records))
		}
	})
}

func TestDefaults(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Interval, c.Timeout = 0, 0 }, token())
	if f.cfg.Interval != time.Minute || f.cfg.Timeout != 30*time.Second {
		t.Errorf("every %v, for %v", f.cfg.Interval, f.cfg.Timeout)
	}
	f = newFixture(t, func(c *Config) { c.Interval, c.Timeout = 5*time.Second, time.Minute }, token())
	if f.cfg.Timeout != 5*time.Second {
		t.Errorf("a run may take %v, every %v", f.cfg.Timeout, f.cfg.Interval)
	}
}
