package auth0sim

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// FaultKind is a way in which a response fails.
type FaultKind int

const (
	// FaultStatus answers Fault.Status with the error body of the API.
	FaultStatus FaultKind = iota
	// FaultHTML answers Fault.Status with a page of HTML, as a proxy would.
	FaultHTML
	// FaultCut sends half of the correct response and closes the connection.
	// The call takes effect.
	FaultCut
	// FaultNothing closes the connection without a response.
	FaultNothing
	// FaultHang waits until the client disconnects.
	FaultHang
	// FaultGarbage answers 200 with text that is declared as JSON and is not.
	FaultGarbage
	// FaultContent answers 200 with JSON of another form than documented.
	FaultContent
	// FaultBody answers Fault.Status with Fault.Body, declared as JSON.
	FaultBody
)

// Fault changes the responses to some requests.
type Fault struct {
	Kind       FaultKind
	Path       string // prefix of the paths, "" = all
	Query      string // part of the queries, "" = all
	Status     int    // for FaultStatus, FaultHTML and FaultBody; 0 = 503
	Body       string // for FaultBody
	RetryAfter int    // seconds, sent as a header; 0 = not sent
	Times      int    // number of requests; 0 = until Clear
}

// Fail adds a fault. If several apply to a request, the one added first is used, until
// its Times are used up.
func (t *Tenant) Fail(f Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, f)
}

// Clear removes all faults. Requests that already hang continue to hang.
func (t *Tenant) Clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = nil
}

// nextFault returns the fault of a request, if any, and counts it as used.
func (t *Tenant) nextFault(u *url.URL) (Fault, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.faults {
		fault := t.faults[i]
		if !strings.HasPrefix(u.Path, fault.Path) || !strings.Contains(u.RawQuery, fault.Query) {
			continue
		}

		// Times 0 is never used up.
		if fault.Times == 1 {
			t.faults = slices.Delete(t.faults, i, i+1)
		} else if fault.Times > 1 {
			t.faults[i].Times--
		}
		return fault, true
	}
	return Fault{}, false
}

// errorPage is the page of a proxy, for a status and its text.
const errorPage = "<html>\r\n<head><title>%[1]d %[2]s</title></head>\r\n<body>\r\n" +
	"<center><h1>%[1]d %[2]s</h1></center>\r\n</body>\r\n</html>\r\n"

// serveFault responds with a fault.
func (t *Tenant) serveFault(c *counted, r *http.Request, f Fault) {
	if f.Status == 0 {
		f.Status = http.StatusServiceUnavailable
	}

	if f.RetryAfter > 0 {
		c.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}

	switch f.Kind {
	case FaultStatus:
		t.setLimitHeaders(c.Header(), f)
		failAs(c, r.URL.Path, f.Status)
	case FaultHTML:
		writeBody(c, f.Status, "text/html", fmt.Appendf(nil, errorPage, f.Status, http.StatusText(f.Status)))
	case FaultGarbage:
		writeBody(c, http.StatusOK, managementJSON, []byte(`[{"log_id":"900`+"\x00\xff"+`},,`))
	case FaultContent:
		writeBody(c, http.StatusOK, managementJSON, []byte(`{"result":{"items":"none of these","count":"7"}}`))
	case FaultBody:
		writeBody(c, f.Status, managementJSON, []byte(f.Body))
	case FaultCut:
		t.serveHalf(c, r)
		t.abort(c)
	case FaultHang:
		// The server notices a disconnect only after the body is read.
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		t.abort(c)
	case FaultNothing:
		t.abort(c)
	default:
		panic(fmt.Sprintf("auth0sim: no fault %d", f.Kind))
	}
}

// setLimitHeaders sets the headers of a used-up limit, if the tenant has one and the
// fault is a 429.
func (t *Tenant) setLimitHeaders(h http.Header, f Fault) {
	if f.Status != http.StatusTooManyRequests || t.cfg.Limit.Burst <= 0 {
		return
	}
	reset := t.clock().Unix() + int64(max(f.RetryAfter, 1))
	h.Set("X-RateLimit-Limit", strconv.Itoa(t.cfg.Limit.Burst))
	h.Set("X-RateLimit-Remaining", "0")
	h.Set("X-RateLimit-Reset", strconv.FormatInt(reset, 10))
}

// serveHalf serves a request and sends the first half of the response.
func (t *Tenant) serveHalf(c *counted, r *http.Request) {
	// Serve it as usual, so that the call takes effect and is counted.
	whole := &kept{header: make(http.Header), status: http.StatusOK}
	inner := &counted{ResponseWriter: whole}
	t.mux.ServeHTTP(inner, r)
	c.events = inner.events

	maps.Copy(c.Header(), whole.header)
	c.Header().Set("Content-Length", strconv.Itoa(max(whole.body.Len(), 2)))
	c.WriteHeader(whole.status)
	_, _ = c.Write(whole.body.Bytes()[:whole.body.Len()/2])

	// Unflushed, the half would be lost with the connection.
	_ = http.NewResponseController(c).Flush()
}

// abort closes the connection in the middle of the response.
func (t *Tenant) abort(c *counted) {
	c.call.Status = 0
	panic(http.ErrAbortHandler)
}

// failAs responds with the error body of the API that a path belongs to.
func failAs(w http.ResponseWriter, path string, status int) {
	switch {
	case strings.HasPrefix(path, "/api/v2"):
		code, message := managementError(path, status)
		apiFail(w, status, code, message)
	case strings.HasPrefix(path, "/oauth/"):
		code, message := authenticationError(status)
		oauthFail(w, status, code, message)
	default:
		writeBody(w, status, "text/plain; charset=utf-8", []byte(http.StatusText(status)))
	}
}

// managementError returns the code and the message of the Management API.
func managementError(path string, status int) (code, message string) {
	switch status {
	case http.StatusUnauthorized:
		return "", "Invalid token"
	case http.StatusForbidden:
		if strings.HasPrefix(path, "/api/v2/log-streams") {
			return "insufficient_scope", "Insufficient scope, expected any of: read:log_streams"
		}
		return "insufficient_scope", "Insufficient scope, expected any of: read:logs,read:logs_users"
	case http.StatusNotFound:
		return "", "Log not found."
	case http.StatusTooManyRequests:
		return "too_many_requests", "Global limit has been reached"
	case http.StatusInternalServerError:
		return "internal_error", "An internal server error occurred"
	}
	return "", http.StatusText(status)
}

// authenticationError returns the code and the message of the Authentication API.
func authenticationError(status int) (code, message string) {
	switch {
	case status == http.StatusUnauthorized:
		return "access_denied", "Unauthorized"
	case status == http.StatusForbidden:
		return "access_denied", "Access denied."
	case status == http.StatusTooManyRequests:
		return "too_many_requests", "Rate limit exceeded."
	case status == http.StatusServiceUnavailable:
		return "temporarily_unavailable", http.StatusText(status)
	case status < 500:
		return "invalid_request", http.StatusText(status)
	}
	return "server_error", http.StatusText(status)
}

// kept is a response that is kept in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }
