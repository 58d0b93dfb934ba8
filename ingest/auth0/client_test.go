package auth0_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
)

const (
	clientID = "abcdefghijklmnopqrstuvwxyz012345"
	secret   = "s3cr3t-that-nobody-may-see"
	someID   = "90020261120101112123456000000000000001223372037583230452"
)

// server is a tenant whose answers a test scripts.
type server struct {
	*httptest.Server
	token func(n int, w http.ResponseWriter, r *http.Request) // the n-th call, from 1; nil for token n
	logs  func(n int, w http.ResponseWriter, r *http.Request) // nil for an empty page

	mu     sync.Mutex // guards what follows
	tokens []string   // bodies of token calls
	calls  []string   // "METHOD URI TOKEN" of the others
}

// accessToken is the n-th access token that a server issues.
func accessToken(n int) string { return fmt.Sprintf("t0k3n-number-%d-that-nobody-may-see", n) }

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/oauth/token" {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		if id, secret, ok := r.BasicAuth(); ok { // either place is right for them
			body = fmt.Appendf(body, "&client_id=%s&client_secret=%s", id, secret)
		}
		s.tokens = append(s.tokens, string(body))
		n := len(s.tokens)
		s.mu.Unlock()
		if s.token != nil {
			s.token(n, w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":86400}`, accessToken(n))
		return
	}
	s.mu.Lock()
	s.calls = append(s.calls, r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization"))
	n := len(s.calls)
	s.mu.Unlock()
	if s.logs != nil {
		s.logs(n, w, r)
		return
	}
	fmt.Fprint(w, `[]`)
}

// seen returns the calls so far.
func (s *server) seen() (tokens, calls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tokens), slices.Clone(s.calls)
}

func (s *server) client(t *testing.T) *auth0.Client {
	t.Helper()
	base, err := auth0.ParseDomain(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := auth0.New(auth0.Config{BaseURL: base, ClientID: clientID, ClientSecret: secret, Transport: transport, UserAgent: "tenantwatch/test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer is a handler that writes a status and a body.
func answer(status int, contentType, body string, headers ...string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// hijack is a handler that writes raw bytes and ends the connection.
func hijack(raw string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, raw)
		conn.Close()
	}
}

var _ pull.Tenant = (*auth0.Client)(nil)

func TestParseDomain(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"acme.eu.auth0.com", "https://acme.eu.auth0.com"},
		{" acme.eu.auth0.com/ ", "https://acme.eu.auth0.com"},
		{"https://login.example.com", "https://login.example.com"},
		{"https://login.example.com/", "https://login.example.com"},
		{"https://login.example.com:8443", "https://login.example.com:8443"},
		{"http://127.0.0.1:3000", "http://127.0.0.1:3000"},
		{"http://127.1.2.3", "http://127.1.2.3"},
		{"http://[::1]:3000/", "http://[::1]:3000"},
		{"http://localhost:3000", "http://localhost:3000"},
		{"http://acme.eu.auth0.com", ""},
		{"http://10.0.0.1:3000", ""},
		{"http://localhost.example.com", ""},
		{"http://127.0.0.1.example.com", ""},
		{"ftp://acme.eu.auth0.com", ""},
		{"https://acme.eu.auth0.com/api/v2/", ""},
		{"https://acme.eu.auth0.com?x=1", ""},
		{"https://user:pass@acme.eu.auth0.com", ""},
		{"", ""},
		{"https://", ""},
		{"a b", ""},
		{"acme.eu.auth0.com:port", ""},
	} {
		u, err := auth0.ParseDomain(tt.in)
		got := ""
		if err == nil {
			got = u.String()
		}
		if got != tt.want {
			t.Errorf("%q: got %q (%v), want %q", tt.in, got, err, tt.want)
		}
	}
}

// TestNewCallsNothing shows that a client is quiet until it is asked.
func TestNewCallsNothing(t *testing.T) {
	s := newServer(t)
	c := s.client(t)
	if tokens, calls := s.seen(); len(tokens)+len(calls) != 0 {
		t.Errorf("New called %q %q", tokens, calls)
	}
	for range 3 {
		if _, err := c.Logs(t.Context(), someID, 100); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Oldest(t.Context()); err != nil {
		t.Fatal(err)
	}
	tokens, calls := s.seen()
	bearer := " Bearer " + accessToken(1)
	logs := "GET /api/v2/logs?from=" + someID + "&take=100" + bearer
	if want := []string{logs, logs, logs, "GET /api/v2/logs?page=0&per_page=100&sort=date%3A1" + bearer}; !slices.Equal(calls, want) {
		t.Errorf("got %q\nwant %q", calls, want)
	}
	if len(tokens) != 1 {
		t.Fatalf("%d token calls, want 1", len(tokens))
	}
	form, err := url.ParseQuery(tokens[0])
	if err != nil || form.Get("grant_type") != "client_credentials" || form.Get("audience") != s.URL+"/api/v2/" ||
		form.Get("client_id") != clientID || form.Get("client_secret") != secret {
		t.Errorf("token call: %v, %v", form, err)
	}
}

// TestPrivateKey asks for a token with a signed assertion instead of a secret.
func TestPrivateKey(t *testing.T) {
	s := newServer(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	base, err := auth0.ParseDomain(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := auth0.New(auth0.Config{BaseURL: base, ClientID: clientID, PrivateKey: string(text), Audience: "https://acme.eu.auth0.com/api/v2/"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Logs(t.Context(), someID, 1); err != nil {
		t.Fatal(err)
	}
	tokens, _ := s.seen()
	form, err := url.ParseQuery(tokens[0])
	if err != nil || form.Get("audience") != "https://acme.eu.auth0.com/api/v2/" || form.Has("client_secret") ||
		strings.Count(form.Get("client_assertion"), ".") != 2 {
		t.Errorf("token call: %v, %v", form, err)
	}
}

// TestRawBytes shows that events are kept byte for byte, whatever is in them,
// and that appending to one does not reach into the next.
func TestRawBytes(t *testing.T) {
	s := newServer(t)
	want := []string{
		`{"log_id":"1","n":1.0,"big":123456789012345678901234567890,"e":1e400}`,
		`{ "b" : null,` + "\n\t" + `"a":"" , "a":2 }`,
		"{\"text\":\"\xff\xfe \u00e9 \\u00e9 \\ud800 <&>\"}",
		`null`, `"text"`, `-0.0`, `[ 1, [ ] ]`, `{}`,
		`{"x":"` + strings.Repeat("y", 1<<20) + `"}`,
	}
	s.logs = answer(200, "application/json; charset=utf-8", " [ "+strings.Join(want, " ,\r\n ")+"\n] \n")
	p, err := s.client(t).Logs(t.Context(), someID, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Events) != len(want) {
		t.Fatalf("%d events, want %d", len(p.Events), len(want))
	}
	for i := range want {
		_ = append(p.Events[i], "overwritten"...)
	}
	for i := range want {
		if !bytes.Equal(p.Events[i], []byte(want[i])) {
			t.Errorf("event %d: got %.100q, want %.100q", i, p.Events[i], want[i])
		}
	}
}

func TestNextAndLimit(t *testing.T) {
	const day = "Fri, 20 Nov 2026 10:00:00 GMT"
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC).Unix()
	limit := func(size, remaining, reset string) []string {
		return []string{"Date", day, "X-RateLimit-Limit", size, "X-RateLimit-Remaining", remaining, "X-RateLimit-Reset", reset}
	}
	for _, tt := range []struct {
		name    string
		headers []string
		next    string
		limit   auth0.Limit
	}{
		{name: "nothing"},
		{name: "next", headers: []string{"Link", `<https://acme.eu.auth0.com/api/v2/logs?from=900123&take=100>; rel="next"`}, next: "900123"},
		{name: "next without quotes", headers: []string{"Link", `<https://acme.eu.auth0.com/api/v2/logs?take=100&from=900123>;rel=next`}, next: "900123"},
		{name: "next of several", headers: []string{"Link", `<https://acme.eu.auth0.com/api/v2/logs?from=1>; rel="first", <https://acme.eu.auth0.com/api/v2/logs?from=2>; rel="next"`}, next: "2"},
		{name: "relative", headers: []string{"Link", `</api/v2/logs?from=5>; rel="next"`}, next: "5"},
		{name: "escaped", headers: []string{"Link", `<https://x/api/v2/logs?from=a%20b>; rel="next"`}, next: "a b"},
		{name: "no from", headers: []string{"Link", `<https://x/api/v2/logs?take=1>; rel="next"`}},
		{name: "another relation", headers: []string{"Link", `<https://x/api/v2/logs?from=5>; rel="prev"`}},
		{name: "broken", headers: []string{"Link", `<::%zz>; rel="next", ;;,,<`}},
		{name: "limit", headers: limit("50", "49", fmt.Sprint(at+3)), limit: auth0.Limit{Known: true, Limit: 50, Remaining: 49, Reset: 3 * time.Second}},
		{name: "reset of the past", headers: limit("50", "49", fmt.Sprint(at-3)), limit: auth0.Limit{Known: true, Limit: 50, Remaining: 49}},
		{name: "reset in the far future", headers: limit("50", "0", "99999999999999"), limit: auth0.Limit{Known: true, Limit: 50, Reset: time.Hour}},
		{name: "reset that overflows", headers: limit("50", "0", "9223372036854775807"), limit: auth0.Limit{Known: true, Limit: 50, Reset: time.Hour}},
		{name: "reset of the far past", headers: limit("50", "0", "-9223372036854775808"), limit: auth0.Limit{Known: true, Limit: 50}},
		{name: "no number", headers: limit("many", "49", "1")},
		{name: "reset is no number", headers: limit("50", "49", "soon"), limit: auth0.Limit{Known: true, Limit: 50, Remaining: 49}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.logs = answer(200, "application/json", `[]`, tt.headers...)
			p, err := s.client(t).Logs(t.Context(), someID, 100)
			if err != nil {
				t.Fatal(err)
			}
			if p.Next != tt.next || p.Limit != tt.limit || len(p.Events) != 0 {
				t.Errorf("got next %q, limit %+v, want %q, %+v", p.Next, p.Limit, tt.next, tt.limit)
			}
		})
	}
}

// failure is what is promised of a failed call.
type failure struct {
	path    string
	status  int
	kind    auth0.Kind
	code    string
	message string // a part of Message
	text    string // a part of the error's text
}

func (want failure) check(t *testing.T, err error) *auth0.Error {
	t.Helper()
	var got *auth0.Error
	if !errors.As(err, &got) {
		t.Fatalf("got %v, want a CallError", err)
	}
	if want.path == "" {
		want.path = "/api/v2/logs"
	}
	if got.Path != want.path || got.Status != want.status || got.Kind != want.kind || got.Code != want.code ||
		!strings.Contains(got.Message, want.message) || !strings.Contains(err.Error(), want.text) {
		t.Errorf("got %+v\ntext %s\nwant %+v", got, err, want)
	}
	noSecret(t, err)
	return got
}

// noSecret checks that neither an error's text nor those it wraps tell a secret.
func noSecret(t *testing.T, err error) {
	t.Helper()
	for ; err != nil; err = errors.Unwrap(err) {
		for _, text := range []string{err.Error(), fmt.Sprintf("%v", err)} {
			if strings.Contains(text, secret) || strings.Contains(text, "t0k3n") {
				t.Errorf("a secret is told: %s", text)
			}
		}
	}
}

func TestLogsErrors(t *testing.T) {
	const js = "application/json; charset=utf-8"
	house := func(status int, code, message string) string {
		b, _ := json.Marshal(map[string]any{"statusCode": status, "error": http.StatusText(status), "message": message, "errorCode": code})
		return string(b)
	}
	for _, tt := range []struct {
		name  string
		logs  func(int, http.ResponseWriter, *http.Request)
		want  failure
		after time.Duration
		limit auth0.Limit
	}{
		{name: "400", logs: answer(400, js, house(400, "invalid_query_string", "bad from")),
			want: failure{status: 400, kind: auth0.KindClient, code: "invalid_query_string", message: "bad from", text: "GET /api/v2/logs: 400 Bad Request, invalid_query_string: bad from"}},
		{name: "401", logs: answer(401, js, house(401, "", "Invalid token")),
			want: failure{status: 401, kind: auth0.KindUnauthorized, message: "Invalid token", text: "AUTH0_AUDIENCE"}},
		{name: "403", logs: answer(403, js, house(403, "insufficient_scope", "Insufficient scope")),
			want: failure{status: 403, kind: auth0.KindForbidden, code: "insufficient_scope", text: "read:logs"}},
		{name: "404", logs: answer(404, js, house(404, "", "Not Found")),
			want: failure{status: 404, kind: auth0.KindClient, text: "AUTH0_DOMAIN"}},
		{name: "414", logs: answer(414, "text/html", "<html>"), want: failure{status: 414, kind: auth0.KindClient, message: "6 bytes of text/html"}},
		{name: "429", logs: answer(429, js, house(429, "too_many_requests", "Global limit has been reached"), "Retry-After", "7",
			"X-RateLimit-Limit", "10", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1", "Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
			want:  failure{status: 429, kind: auth0.KindRateLimit, code: "too_many_requests", message: "Global limit"},
			after: 7 * time.Second, limit: auth0.Limit{Known: true, Limit: 10, Reset: time.Second}},
		{name: "429 without a word", logs: answer(429, "", ""), want: failure{status: 429, kind: auth0.KindRateLimit}},
		{name: "429 for ever", logs: answer(429, js, `{}`, "Retry-After", "999999999999"), want: failure{status: 429, kind: auth0.KindRateLimit}, after: time.Hour},
		{name: "429 until a past date", logs: answer(429, js, `{}`, "Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT"), want: failure{status: 429, kind: auth0.KindRateLimit}},
		{name: "429 until a far date", logs: answer(429, js, `{}`, "Retry-After", "Fri, 31 Dec 9999 00:00:00 GMT"), want: failure{status: 429, kind: auth0.KindRateLimit}, after: time.Hour},
		{name: "429 for longer than can be counted", logs: answer(429, js, `{}`, "Retry-After", "9223372037"), want: failure{status: 429, kind: auth0.KindRateLimit}, after: time.Hour},
		{name: "429 until a moment before", logs: answer(429, js, `{}`, "Retry-After", "-5"), want: failure{status: 429, kind: auth0.KindRateLimit}},
		{name: "500", logs: answer(500, js, house(500, "", "Internal Server Error")), want: failure{status: 500, kind: auth0.KindServer}},
		{name: "502 HTML", logs: answer(502, "text/html", "<html>"+strings.Repeat("x", 5000)), want: failure{status: 502, kind: auth0.KindServer, message: "5006 bytes of text/html"}},
		{name: "503 text", logs: answer(503, "text/plain; charset=utf-8", "no\r\n  healthy\tupstream"), want: failure{status: 503, kind: auth0.KindServer, message: "no healthy upstream"}},
		{name: "a long message", logs: answer(500, js, house(500, "", strings.Repeat("é", 5000))), want: failure{status: 500, kind: auth0.KindServer, message: "é…"}},
		{name: "an array with 500", logs: answer(500, js, `[1]`), want: failure{status: 500, kind: auth0.KindServer, message: "3 bytes of application/json"}},
		{name: "204", logs: answer(204, "", ""), want: failure{status: 204, kind: auth0.KindAnswer}},
		{name: "redirect without end", logs: answer(302, "text/html", "", "Location", "/api/v2/logs"), want: failure{kind: auth0.KindNetwork, text: "stopped after 10 redirects"}},
		{name: "HTML with 200", logs: answer(200, "text/html", "<html>sign in</html>"), want: failure{kind: auth0.KindAnswer, text: "200, text/html"}},
		{name: "an object", logs: answer(200, js, `{"logs":[]}`), want: failure{kind: auth0.KindAnswer, text: "not an array"}},
		{name: "nothing with 200", logs: answer(200, js, ""), want: failure{kind: auth0.KindAnswer, text: "not an array"}},
		{name: "an array without an end", logs: answer(200, js, `[{"a":1},{"b"`), want: failure{kind: auth0.KindAnswer, text: "not an array"}},
		{name: "an array without commas", logs: answer(200, js, `[{"a":1} {"b":1}]`), want: failure{kind: auth0.KindAnswer, text: "not an array"}},
		{name: "more after the array", logs: answer(200, js, `[] []`), want: failure{kind: auth0.KindAnswer, text: "more text follows"}},
		{name: "half a body", logs: hijack("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[{\"a\":1},"),
			want: failure{kind: auth0.KindAnswer, text: "broke off after 9 bytes"}},
		{name: "half a chunk", logs: hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-RateLimit-Limit: 9\r\nX-RateLimit-Remaining: 8\r\n\r\n2\r\n[]\r\n"),
			want: failure{kind: auth0.KindAnswer, text: "broke off after 2 bytes"}, limit: auth0.Limit{Known: true, Limit: 9, Remaining: 8}},
		{name: "nothing at all", logs: hijack(""), want: failure{kind: auth0.KindNetwork}},
		{name: "not HTTP", logs: hijack("SSH-2.0-OpenSSH\r\n"), want: failure{kind: auth0.KindNetwork}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.logs = tt.logs
			p, err := s.client(t).Logs(t.Context(), someID, 100)
			got := tt.want.check(t, err)
			if len(p.Events) != 0 || p.Next != "" {
				t.Errorf("a page in spite of the error: %+v", p)
			}
			if got.RetryAfter != tt.after || got.Limit != tt.limit {
				t.Errorf("got Retry-After %s, limit %+v, want %s, %+v", got.RetryAfter, got.Limit, tt.after, tt.limit)
			}
			if len(got.Message) > 310 || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is not one short line: %.400q", err)
			}
		})
	}
}

// TestTooLarge shows that an endless answer is not read to its end.
func TestTooLarge(t *testing.T) {
	s := newServer(t)
	s.logs = func(_ int, w http.ResponseWriter, _ *http.Request) {
		block := bytes.Repeat([]byte(" "), 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	_, err := s.client(t).Logs(t.Context(), someID, 100)
	failure{kind: auth0.KindTooLarge, text: "larger than 64 MB"}.check(t, err)
}

func TestTokenErrors(t *testing.T) {
	const js = "application/json"
	for _, tt := range []struct {
		name  string
		token func(int, http.ResponseWriter, *http.Request)
		want  failure
		after time.Duration
	}{
		{name: "401", token: answer(401, js, `{"error":"access_denied","error_description":"Unauthorized"}`),
			want: failure{status: 401, kind: auth0.KindToken, code: "access_denied", message: "Unauthorized", text: "AUTH0_CLIENT_ID"}},
		{name: "403", token: answer(403, js, `{"error":"access_denied","error_description":"Client is not authorized to access the audience"}`),
			want: failure{status: 403, kind: auth0.KindToken, code: "access_denied", text: "read:logs"}},
		{name: "404", token: answer(404, "text/html", `<html>`), want: failure{status: 404, kind: auth0.KindClient, text: "AUTH0_DOMAIN"}},
		{name: "429", token: answer(429, js, `{"error":"too_many_requests"}`, "Retry-After", "9"),
			want: failure{status: 429, kind: auth0.KindRateLimit, code: "too_many_requests"}, after: 9 * time.Second},
		{name: "500", token: answer(500, js, `{}`), want: failure{status: 500, kind: auth0.KindServer}},
		{name: "HTML", token: answer(503, "text/html", `<html>`), want: failure{status: 503, kind: auth0.KindServer}},
		{name: "nothing", token: hijack(""), want: failure{kind: auth0.KindNetwork}},
		{name: "half a token", token: answer(200, js, `{"access_token":"`+accessToken(1)), want: failure{path: "/api/v2/logs", kind: auth0.KindNetwork, text: "oauth2: cannot parse json"}},
		{name: "no token", token: answer(200, js, `{"token_type":"Bearer"}`), want: failure{path: "/api/v2/logs", kind: auth0.KindNetwork, text: "missing access_token"}},
		{name: "a token that no header can carry", token: answer(200, js, `{"access_token":"t0k3n\n\u0000"}`), want: failure{path: "/api/v2/logs", kind: auth0.KindNetwork}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.token = tt.token
			_, err := s.client(t).Logs(t.Context(), someID, 100)
			if tt.want.path == "" {
				tt.want.path = "/oauth/token"
			}
			got := tt.want.check(t, err)
			if got.RetryAfter != tt.after {
				t.Errorf("got Retry-After %s, want %s", got.RetryAfter, tt.after)
			}
			if _, calls := s.seen(); len(calls) != 0 {
				t.Errorf("called without a token: %q", calls)
			}
		})
	}
}

// TestEchoedSecrets shows that an answer that repeats what we sent does not
// bring it into an error.
func TestEchoedSecrets(t *testing.T) {
	echo := func(status int, contentType, format string) func(int, http.ResponseWriter, *http.Request) {
		return func(_ int, w http.ResponseWriter, r *http.Request) {
			answer(status, contentType, fmt.Sprintf(format, secret, r.Header.Get("Authorization")))(0, w, r)
		}
	}
	for _, contentType := range []string{"text/plain", "text/html", "application/json"} {
		for _, status := range []int{200, 401, 403, 500} {
			s := newServer(t)
			s.token = echo(status, contentType, "you sent %s %s")
			_, err := s.client(t).Logs(t.Context(), someID, 1)
			if err == nil {
				t.Errorf("token call: %d %s is no error", status, contentType)
			}
			noSecret(t, err)
			s = newServer(t)
			s.logs = echo(status, contentType, `{"message":"you sent %s, %s"}`)
			_, err = s.client(t).Logs(t.Context(), someID, 1)
			if err == nil {
				t.Errorf("logs call: %d %s is no error", status, contentType)
			}
			noSecret(t, err)
		}
	}
}

// TestRefreshOnce shows that a refused token is replaced once in a call, and
// that the new one is kept.
func TestRefreshOnce(t *testing.T) {
	s := newServer(t)
	s.logs = func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+accessToken(1) {
			answer(401, "application/json", `{"message":"Expired token"}`)(0, w, r)
			return
		}
		fmt.Fprint(w, `[{"a":1}]`)
	}
	c := s.client(t)
	for range 3 {
		if p, err := c.Logs(t.Context(), someID, 100); err != nil || len(p.Events) != 1 {
			t.Errorf("got %d events, %v", len(p.Events), err)
		}
	}
	if tokens, calls := s.seen(); len(tokens) != 2 || len(calls) != 4 {
		t.Errorf("%d tokens and %d calls, want 2 and 4", len(tokens), len(calls))
	}

	refused := newServer(t)
	refused.logs = answer(401, "application/json", `{"message":"Bad audience"}`)
	c = refused.client(t)
	for i := range 3 {
		_, err := c.Logs(t.Context(), someID, 100)
		failure{status: 401, kind: auth0.KindUnauthorized, message: "Bad audience"}.check(t, err)
		if _, calls := refused.seen(); len(calls) != 2*(i+1) {
			t.Errorf("%d calls after %d failures, want two each", len(calls), i+1)
		}
	}
}

// TestRefreshTogether refuses a token that several callers use: they share the
// new one.
func TestRefreshTogether(t *testing.T) {
	const callers = 8
	s := newServer(t)
	var all sync.WaitGroup
	all.Add(callers)
	s.logs = func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+accessToken(1) {
			all.Done() // each caller holds the first token before it is refused
			all.Wait()
			answer(401, "application/json", `{}`)(0, w, r)
			return
		}
		fmt.Fprint(w, `[]`)
	}
	c := s.client(t)
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			if _, err := c.Logs(t.Context(), someID, 100); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if tokens, _ := s.seen(); len(tokens) != 2 {
		t.Errorf("%d tokens, want 2", len(tokens))
	}
}

// TestHang shows that a call ends with its context: while it waits for a token,
// before the headers and within the body.
func TestHang(t *testing.T) {
	for name, hang := range map[string]func(*server, func(), <-chan struct{}){
		"no token": func(s *server, hangs func(), end <-chan struct{}) {
			s.token = func(int, http.ResponseWriter, *http.Request) { hangs(); <-end }
		},
		"no headers": func(s *server, hangs func(), end <-chan struct{}) {
			s.logs = func(int, http.ResponseWriter, *http.Request) { hangs(); <-end }
		},
		"half a body": func(s *server, hangs func(), end <-chan struct{}) {
			s.logs = func(_ int, w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `[{"a":1},`)
				_ = http.NewResponseController(w).Flush()
				hangs()
				<-end
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			end := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			hang(s, cancel, end)
			defer close(end)
			_, err := s.client(t).Logs(ctx, someID, 100)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the end of the context", err)
			}
			noSecret(t, err)
		})
	}
}

// roundTripper is a transport of one function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestTimeout shows the kind of a call that took too long.
func TestTimeout(t *testing.T) {
	for _, path := range []string{"/oauth/token", "/api/v2/logs"} {
		for _, timeout := range []error{os.ErrDeadlineExceeded, context.DeadlineExceeded} {
			s := newServer(t)
			base, err := auth0.ParseDomain(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			c, err := auth0.New(auth0.Config{BaseURL: base, ClientID: clientID, ClientSecret: secret,
				Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == path {
						return nil, timeout
					}
					return s.Client().Transport.RoundTrip(r)
				})})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Logs(t.Context(), someID, 100)
			failure{path: path, kind: auth0.KindTimeout, text: base.Host}.check(t, err)
		}
	}
}

// TestNoServer shows the kind of a call that reaches nobody.
func TestNoServer(t *testing.T) {
	s := newServer(t)
	c := s.client(t)
	s.Close()
	_, err := c.Logs(t.Context(), someID, 100)
	failure{path: "/oauth/token", kind: auth0.KindNetwork, text: "POST /oauth/token: 127.0.0.1:"}.check(t, err)
}

// TestRedirect shows that neither the token nor the secret follows a redirect
// to another host.
func TestRedirect(t *testing.T) {
	var got []string
	var mu sync.Mutex
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Header.Get("Authorization")+string(body))
		fmt.Fprint(w, `[]`)
	}))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := newServer(t)
		s.logs = answer(status, "text/html", "", "Location", other.URL+"/api/v2/logs")
		_, err := s.client(t).Logs(t.Context(), someID, 100)
		failure{kind: auth0.KindNetwork, text: "another host"}.check(t, err)
		s = newServer(t)
		s.token = answer(status, "text/html", "", "Location", other.URL+"/oauth/token")
		_, err = s.client(t).Logs(t.Context(), someID, 100)
		var refused *auth0.Error
		if !errors.As(err, &refused) || refused.Status != status && !strings.Contains(err.Error(), "another host") {
			t.Errorf("token call with %d: got %v", status, err)
		}
		noSecret(t, err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, g := range got {
		t.Errorf("another host got %q", g)
	}
}

// TestLogStreams reads the streams, and says which scope is wanted where that is
// not allowed.
func TestLogStreams(t *testing.T) {
	s := newServer(t)
	c := s.client(t)
	s.logs = answer(200, "application/json", `[{"id":"lst_1","name":"to the SIEM","type":"http","status":"paused","sink":{"httpAuthorization":"hush"},"filters":[]},
		{"id":"lst_2","name":"","type":"eventbridge","status":"active"}]`, "X-RateLimit-Limit", "50", "X-RateLimit-Remaining", "49")
	got, limit, err := c.LogStreams(t.Context())
	want := []auth0.LogStream{{ID: "lst_1", Name: "to the SIEM", Type: "http", Status: "paused"}, {ID: "lst_2", Type: "eventbridge", Status: "active"}}
	if err != nil || !slices.Equal(got, want) || !limit.Known || limit.Limit != 50 || limit.Remaining != 49 {
		t.Errorf("%+v, %+v, %v", got, limit, err)
	}
	if _, calls := s.seen(); len(calls) != 1 || !strings.HasPrefix(calls[0], "GET /api/v2/log-streams Bearer ") {
		t.Errorf("%q", calls)
	}
	for _, tt := range []struct {
		name   string
		answer func(int, http.ResponseWriter, *http.Request)
		status int
		kind   auth0.Kind
		want   string
	}{
		{"no scope", answer(403, "application/json", `{"statusCode":403,"error":"Forbidden","message":"Insufficient scope, expected any of: read:log_streams","errorCode":"insufficient_scope"}`),
			403, auth0.KindForbidden, "grant the application the scope read:log_streams"},
		{"too many calls", answer(429, "application/json", `{}`, "Retry-After", "7"), 429, auth0.KindRateLimit, "429 Too Many Requests"},
		{"a page of HTML", answer(200, "text/html", "<html>"), 0, auth0.KindAnswer, "not an array of log streams"},
		{"an object", answer(200, "application/json", `{"streams":[]}`), 0, auth0.KindAnswer, "not an array of log streams"},
		{"half of it", hijack("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{"), 0, auth0.KindAnswer, "broke off after 2 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.logs = tt.answer
			_, _, err := c.LogStreams(t.Context())
			var failed *auth0.Error
			if !errors.As(err, &failed) || failed.Status != tt.status || failed.Kind != tt.kind || failed.Path != "/api/v2/log-streams" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: %v", failed, err)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), accessToken(1)) {
				t.Errorf("a secret is said: %v", err)
			}
		})
	}
}
