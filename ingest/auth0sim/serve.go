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

// routes returns the endpoints. Their patterns are the names in Stats.
func (t *Tenant) routes() *http.ServeMux {
	mux := http.NewServeMux()

	// The Management API, which is limited and needs a token.
	mux.Handle("GET /api/v2/logs", t.limited(t.authorized(t.listLogs, "read:logs", "read:logs_users")))
	mux.Handle("GET /api/v2/logs/{id}", t.limited(t.authorized(t.readLog, "read:logs", "read:logs_users")))
	mux.Handle("GET /api/v2/log-streams", t.limited(t.authorized(t.listStreams, "read:log_streams")))
	mux.Handle("/api/v2/", t.limited(func(w http.ResponseWriter, r *http.Request) {
		apiFail(w, http.StatusNotFound, "", "Not Found")
	}))

	// The Authentication API.
	mux.HandleFunc("POST /oauth/token", t.token)
	mux.HandleFunc("POST /oauth/ro", t.resourceOwner)
	mux.HandleFunc("GET /userinfo", t.userinfo)
	mux.HandleFunc("GET /.well-known/jwks.json", t.jwks)
	mux.HandleFunc("GET /.well-known/openid-configuration", t.discovery)

	// Health and status.
	mux.HandleFunc("GET /test", t.test)
	mux.HandleFunc("GET /testall", t.testall)
	mux.HandleFunc("GET /api/rss", t.rss)
	mux.HandleFunc("GET /feed", t.atom)
	return mux
}

// ServeHTTP serves the tenant and its status page.
func (t *Tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The name of the call, even if a fault replaces the response.
	_, pattern := t.mux.Handler(r)
	w.Header().Set("Date", t.clock().Format(http.TimeFormat))

	// Calls are counted even if a fault aborts them by a panic.
	response := &counted{ResponseWriter: w, call: Call{Endpoint: pattern}}
	defer t.count(response)

	if t.cfg.Latency > 0 {
		wait := time.NewTimer(t.cfg.Latency)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return
		}
	}

	if fault, ok := t.nextFault(r.URL); ok {
		t.serveFault(response, r, fault)
		return
	}
	t.mux.ServeHTTP(response, r)
}

// counted records the status of a response and the number of events in it.
type counted struct {
	http.ResponseWriter
	call   Call
	events int
}

// WriteHeader implements http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	if c.call.Status == 0 {
		c.call.Status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *counted) Write(b []byte) (int, error) {
	if c.call.Status == 0 {
		c.call.Status = http.StatusOK
	}
	return c.ResponseWriter.Write(b)
}

// Unwrap supports http.ResponseController.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (t *Tenant) count(c *counted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[c.call]++
	t.served += int64(c.events)
}

// writeJSON responds with a value. The Management API sends a charset, the
// Authentication API does not.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		// All callers pass plain values.
		panic(err)
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
	// An error means that the client is gone.
	_, _ = w.Write(body)
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

// apiFail responds with an error of the Management API.
func apiFail(w http.ResponseWriter, status int, code, message string) {
	failure := apiFailure{StatusCode: status, Error: http.StatusText(status), Message: message, ErrorCode: code}
	if status == http.StatusUnauthorized {
		failure.Attributes = &attributes{message}
	}
	writeJSON(w, status, managementJSON, failure)
}

// oauthFailure is the error body of the Authentication API.
type oauthFailure struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	MFAToken    string `json:"mfa_token,omitempty"`
}

// oauthFail responds with an error of the Authentication API.
func oauthFail(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, authenticationJSON, oauthFailure{Error: code, Description: description})
}

// baseURL returns the address that the client used, without a trailing slash.
func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// clientIP returns the caller's address in the form that events have.
func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}

	addr, err := netip.ParseAddr(host)
	if err != nil {
		return benchmarkAddr(0)
	}
	return addr.Unmap().WithZone("").String()
}

// escaped returns s as it stands between the quotes of a JSON string, at most 256
// bytes of it.
func escaped(s string) string {
	// A cut may split a rune, which ToValidUTF8 replaces.
	if len(s) > 256 {
		s = s[:256]
	}
	buf, err := json.Marshal(strings.ToValidUTF8(s, "\ufffd"))
	if err != nil {
		// Texts can always be encoded.
		panic(err)
	}
	return string(buf[1 : len(buf)-1])
}
