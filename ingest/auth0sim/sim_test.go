package auth0sim

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// A fakeClock stands still until it is moved.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock(t time.Time) *fakeClock { return &fakeClock{now: t} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// testKey is shared, since making a key takes a while.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newTenant(t testing.TB, cfg Config) *Tenant {
	t.Helper()
	if cfg.SigningKey == nil {
		cfg.SigningKey = testKey()
	}
	if cfg.Now == nil {
		cfg.Now = newClock(noon()).Now
	}
	if cfg.Anchor.IsZero() {
		cfg.Anchor = noon()
	}
	return New(cfg)
}

// A session calls a tenant with a token, without a network.
type session struct {
	t     testing.TB
	sim   *Tenant
	token string
}

func login(t testing.TB, sim *Tenant) *session {
	t.Helper()
	w := postForm(sim, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"sim-client"},
		"client_secret": {"sim-secret"}, "audience": {"https://demo.eu.auth0.com/api/v2/"}})
	if w.Code != http.StatusOK {
		t.Fatalf("token: %d %s", w.Code, w.Body)
	}
	var a tokenAnswer
	decode(t, w, &a)
	return &session{t, sim, a.AccessToken}
}

func (s *session) get(target string) *httptest.ResponseRecorder {
	return get(s.sim, target, s.token)
}

func get(sim *Tenant, target, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	sim.ServeHTTP(w, r)
	return w
}

func postForm(sim *Tenant, target string, form url.Values) *httptest.ResponseRecorder {
	return post(sim, target, "application/x-www-form-urlencoded", form.Encode(), nil)
}

func post(sim *Tenant, target, contentType, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", target, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	sim.ServeHTTP(w, r)
	return w
}

func decode(t testing.TB, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatalf("%v in %.300s", err, w.Body)
	}
}

// page is the events of an answer of status 200.
func (s *session) page(target string) []json.RawMessage {
	s.t.Helper()
	w := s.get(target)
	if w.Code != http.StatusOK {
		s.t.Fatalf("%s: %d %s", target, w.Code, w.Body)
	}
	var events []json.RawMessage
	decode(s.t, w, &events)
	return events
}

func logID(t testing.TB, raw []byte) string {
	t.Helper()
	var e struct {
		LogID string `json:"log_id"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatalf("%v in %.300s", err, raw)
	}
	return e.LogID
}

// lastEvent is the newest event of the log.
func lastEvent(t testing.TB, sim *Tenant) map[string]any {
	t.Helper()
	ids := sim.IDs()
	if len(ids) == 0 {
		t.Fatal("the log is empty")
	}
	raw, ok := sim.Event(ids[len(ids)-1])
	if !ok {
		t.Fatalf("no event %s", ids[len(ids)-1])
	}
	var e map[string]any
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return e
}

func wantFailure(t *testing.T, w *httptest.ResponseRecorder, status int, code, message string) {
	t.Helper()
	var f struct {
		Error, Message, ErrorCode string
		StatusCode                int
		Description               string `json:"error_description"`
	}
	decode(t, w, &f)
	if f.StatusCode != 0 {
		f.Error, f.Description = f.ErrorCode, f.Message
		if f.StatusCode != w.Code {
			t.Errorf("status is %d, but %d in the body", w.Code, f.StatusCode)
		}
	}
	if w.Code != status || f.Error != code || !strings.Contains(f.Description, message) {
		t.Errorf("got %d %q %q, want %d %q %q", w.Code, f.Error, f.Description, status, code, message)
	}
}
