package auth0sim

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

func (t *Tenant) routes() *http.ServeMux {
	m := http.NewServeMux()
	m.Handle("GET /api/v2/logs", t.limited(t.authorized(t.listLogs, "read:logs", "read:logs_users")))
	m.Handle("GET /api/v2/logs/{id}", t.limited(t.authorized(t.readLog, "read:logs", "read:logs_users")))
	m.Handle("GET /api/v2/log-streams", t.limited(t.authorized(t.listStreams, "read:log_streams")))
	m.Handle("/api/v2/", t.limited(func(w http.ResponseWriter, r *http.Request) {
		apiFail(w, http.StatusNotFound, "", "Not Found")
	}))
	m.HandleFunc("POST /oauth/token", t.token)
	m.HandleFunc("POST /oauth/ro", t.resourceOwner)
	m.HandleFunc("GET /userinfo", t.userinfo)
	m.HandleFunc("GET /.well-known/jwks.json", t.jwks)
	m.HandleFunc("GET /.well-known/openid-configuration", t.discovery)
	m.HandleFunc("GET /test", t.test)
	m.HandleFunc("GET /testall", t.testall)
	m.HandleFunc("GET /api/rss", t.rss)
	m.HandleFunc("GET /feed", t.atom)
	return m
}

// ServeHTTP answers as the tenant, its status page included.
func (t *Tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, pattern := t.mux.Handler(r)
	w.Header().Set("Date", t.clock().Format(http.TimeFormat))
	c := &counted{ResponseWriter: w, call: Call{Endpoint: pattern}}
	defer t.count(c)
	if t.cfg.Latency > 0 {
		wait := time.NewTimer(t.cfg.Latency)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return
		}
	}
	if f, ok := t.nextFault(r.URL); ok {
		t.serveFault(c, r, f)
		return
	}
	t.mux.ServeHTTP(c, r)
}

// counted notes the status of an answer and the events in it.
type counted struct {
	http.ResponseWriter
	call   Call
	events int
}

func (c *counted) WriteHeader(status int) {
	if c.call.Status == 0 {
		c.call.Status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(b []byte) (int, error) {
	if c.call.Status == 0 {
		c.call.Status = http.StatusOK
	}
	return c.ResponseWriter.Write(b)
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (t *Tenant) count(c *counted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[c.call]++
	t.served += int64(c.events)
}

// writeJSON answers with v. The Management API tells a charset, the
// Authentication API does not.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // all callers pass plain values
	}
	writeBody(w, status, contentType, body)
}

const (
	managementJSON     = "application/json; charset=utf-8"
	authenticationJSON = "application/json"
)

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone; nobody to tell
}

// apiFailure is the error body of the Management API.
type apiFailure struct {
	StatusCode int         `json:"statusCode"`
	Error      string      `json:"error"`
	Message    string      `json:"message"`
	Attributes *attributes `json:"attributes,omitempty"`
	ErrorCode  string      `json:"errorCode,omitempty"`
}

type attributes struct {
	Error string `json:"error"`
}

func apiFail(w http.ResponseWriter, status int, code, message string) {
	f := apiFailure{StatusCode: status, Error: http.StatusText(status), Message: message, ErrorCode: code}
	if status == http.StatusUnauthorized {
		f.Attributes = &attributes{message}
	}
	writeJSON(w, status, managementJSON, f)
}

// oauthFailure is the error body of the Authentication API.
type oauthFailure struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	MFAToken    string `json:"mfa_token,omitempty"`
}

func oauthFail(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, authenticationJSON, oauthFailure{Error: code, Description: description})
}

// baseURL is the address the client used, without a slash at the end.
func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// clientIP is the caller's address, fit for an event.
func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return benchmarkAddr(0)
	}
	return a.Unmap().WithZone("").String()
}

// escaped is s fit to stand between the quotes of a JSON text, at most 256 bytes
// of it.
func escaped(s string) string {
	if len(s) > 256 {
		s = s[:256]
	}
	b, err := json.Marshal(strings.ToValidUTF8(s, "\ufffd"))
	if err != nil {
		panic(err) // texts can always be encoded
	}
	return string(b[1 : len(b)-1])
}
