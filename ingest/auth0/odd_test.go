package auth0_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// TestRefusedTokenOnce: a refused token call is made once, with a secret and with a
// key; the next one puts the secret in the other place.
func TestRefusedTokenOnce(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	for _, key := range []string{"", text} {
		s := newServer(t)
		var basic []bool
		s.token = func(n int, w http.ResponseWriter, r *http.Request) {
			_, _, ok := r.BasicAuth()
			basic = append(basic, ok)
			answer(401, "application/json", `{"error":"access_denied"}`)(n, w, r)
		}
		c := s.client(t)
		if key != "" {
			base, err := auth0.ParseDomain(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			if c, err = auth0.New(auth0.Config{BaseURL: base, ClientID: clientID, PrivateKey: key}); err != nil {
				t.Fatal(err)
			}
		}
		for n := 1; n <= 4; n++ {
			_, err := c.Logs(t.Context(), someID, 100)
			failure{path: "/oauth/token", status: 401, kind: auth0.KindToken, code: "access_denied"}.check(t, err)
			if tokens, calls := s.seen(); len(tokens) != n || len(calls) != 0 {
				t.Fatalf("%d token calls and %d others after %d refusals", len(tokens), len(calls), n)
			}
		}
		if want := []bool{false, true, false, true}; key == "" && !cmp.Equal(basic, want) {
			t.Errorf("the secret was in the header: %v, want %v", basic, want)
		}
	}
}

// roundTrip answers without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestTokenTogether: callers that wait for the same token share its refusal.
func TestTokenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		release := make(chan struct{})
		base, err := auth0.ParseDomain("acme.eu.auth0.com")
		if err != nil {
			t.Fatal(err)
		}
		c, err := auth0.New(auth0.Config{BaseURL: base, ClientID: clientID, ClientSecret: secret, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			calls.Add(1)
			<-release
			return &http.Response{StatusCode: 403, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				_, err := c.Logs(t.Context(), someID, 100)
				failure{path: "/oauth/token", status: 403, kind: auth0.KindToken}.check(t, err)
			})
		}
		synctest.Wait()
		close(release)
		all.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls of 16 callers", n)
		}
	})
}

// TestResets: whatever a reset is written in, it is understood, also alone.
func TestResets(t *testing.T) {
	const day = "Fri, 20 Nov 2026 10:00:00 GMT"
	at := time.Date(2026, 11, 20, 10, 0, 5, 0, time.UTC)
	for _, tt := range []struct {
		name, reset string
		want        time.Duration
	}{
		{"seconds", fmt.Sprint(at.Unix()), 5 * time.Second},
		{"seconds with a fraction", fmt.Sprintf("%d.25", at.Unix()), 5250 * time.Millisecond},
		{"milliseconds", fmt.Sprint(at.UnixMilli()), 5 * time.Second},
		{"microseconds", fmt.Sprint(at.UnixMicro()), 5 * time.Second},
		{"nanoseconds", fmt.Sprint(at.UnixNano()), 5 * time.Second},
		{"a time", "2026-11-20T10:00:05.000Z", 5 * time.Second},
		{"a time of another zone", "2026-11-20T12:00:05+02:00", 5 * time.Second},
		{"an HTTP date", "Fri, 20 Nov 2026 10:00:05 GMT", 5 * time.Second},
		{"the past", fmt.Sprint(at.Unix() - 100), 0},
		{"no time", "soon", 0},
		{"no number", "NaN", 0},
		{"an endless time", "1e999", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.logs = answer(429, "application/json", `{}`, "Date", day, "X-RateLimit-Reset", tt.reset)
			_, err := s.client(t).Logs(t.Context(), someID, 100)
			var failed *auth0.Error
			if !errors.As(err, &failed) || failed.Limit != (auth0.Limit{Reset: tt.want}) {
				t.Errorf("got %+v, want a reset of %s", failed, tt.want)
			}
		})
	}
}

// TestRetryAfterByTheirClock: a date is compared with the answer's own.
func TestRetryAfterByTheirClock(t *testing.T) {
	s := newServer(t)
	s.logs = answer(503, "text/html", "", "Date", "Fri, 31 Dec 1999 23:00:00 GMT", "Retry-After", "Fri, 31 Dec 1999 23:00:07 GMT")
	_, err := s.client(t).Logs(t.Context(), someID, 100)
	var failed *auth0.Error
	if !errors.As(err, &failed) || failed.RetryAfter != 7*time.Second {
		t.Errorf("%+v", failed)
	}
}

// TestOddPages: what cannot be read does not hide its neighbors; where it does, it is
// found alone.
func TestOddPages(t *testing.T) {
	deep := `{"log_id":"x","details":` + strings.Repeat(`{"a":`, 50_000) + "1" + strings.Repeat("}", 50_000) + "}"
	for _, tt := range []struct {
		name, body string
		take       int
		want       []string
		whole      bool // an error that says so
	}{
		{"nested deeply", `[{"log_id":"a"},` + deep + `,{"log_id":"b"}]`, 100, []string{`{"log_id":"a"}`, deep, `{"log_id":"b"}`}, false},
		{"no JSON", `[{"log_id":"a"},{"n":01},nul,{"log_id":"b"}]`, 100, []string{`{"log_id":"a"}`, `{"n":01}`, `nul`, `{"log_id":"b"}`}, false},
		{"a byte order mark", "\xef\xbb\xbf[1]", 100, []string{"1"}, false},
		{"brackets of two kinds", `[{"log_id":"a"},{"b":[1}},{"log_id":"b"}]`, 100, nil, true},
		{"the same alone", ` [{"b":[1}}] `, 1, []string{`{"b":[1}}`}, false},
		{"a string without an end, alone", `[{"b":"x}]`, 1, []string{`{"b":"x}`}, false},
		{"half an answer, alone", `[{"b":"x`, 1, nil, false},
		{"HTML, alone", `<html>[]</html>`, 1, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.logs = answer(200, "application/json", tt.body, "Link", `<https://x/api/v2/logs?from=900123&take=1>; rel="next"`, "Date", "Fri, 20 Nov 2026 10:00:00 GMT")
			p, err := s.client(t).Logs(t.Context(), someID, tt.take)
			var failed *auth0.Error
			if tt.want == nil {
				if !errors.As(err, &failed) || failed.Kind != auth0.KindAnswer || failed.Whole != tt.whole {
					t.Errorf("%d events, %+v", len(p.Events), failed)
				}
				return
			}
			var got []string
			for _, e := range p.Events {
				got = append(got, string(e))
			}
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" || p.Next != "900123" {
				t.Errorf("next %s, %v, %.300s", p.Next, err, diff)
			}
			if !p.Date.Equal(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)) || p.Came.IsZero() {
				t.Errorf("date %s, came %s", p.Date, p.Came)
			}
		})
	}
}

// TestOddLogStreams: an odd item of the list does not hide the others.
func TestOddLogStreams(t *testing.T) {
	s := newServer(t)
	s.logs = answer(200, "application/json", `[{"id":"lst_1","name":7,"type":null,"status":"paused"},"text",{"id":9,"status":"active"},null,{"id":"lst_3"},
		{"id":"lst_2","name":"b","status":"active","sink":[]}]`)
	got, _, err := s.client(t).LogStreams(t.Context())
	want := []auth0.LogStream{{ID: "lst_1", Status: "paused"}, {ID: "lst_2", Name: "b", Status: "active"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	failure{path: "/api/v2/log-streams", kind: auth0.KindAnswer, text: "4 of 6 log streams cannot be read: item 2: it is not an object"}.check(t, err)
}

// TestLargerThanAnyPage: an event that no page has room for is cut off, and the next
// one is known.
func TestLargerThanAnyPage(t *testing.T) {
	s := newServer(t)
	s.logs = func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", `<https://x/api/v2/logs?from=900123&take=1>; rel="next"`)
		block := []byte(strings.Repeat("x", 1<<20))
		for _, err := w.Write([]byte(`[{"log_id":"a","x":"`)); err == nil; _, err = w.Write(block) {
		}
	}
	p, err := s.client(t).Logs(t.Context(), someID, 1)
	if err != nil || len(p.Events) != 1 || p.Next != "900123" || !strings.HasPrefix(string(p.Events[0]), `{"log_id":"a","x":"xxx`) {
		t.Errorf("%d events, next %q, %v", len(p.Events), p.Next, err)
	}
	_, err = s.client(t).Logs(t.Context(), someID, 2)
	failure{kind: auth0.KindTooLarge, text: "larger than 64 MB"}.check(t, err)
}
