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

// FaultKind says what goes wrong with an answer.
type FaultKind int

const (
	// FaultStatus answers Fault.Status with the error body of the API.
	FaultStatus FaultKind = iota
	// FaultHTML answers Fault.Status with a page of HTML, as a proxy would.
	FaultHTML
	// FaultCut sends half of the right answer and closes the connection.
	// The call has its effects.
	FaultCut
	// FaultNothing closes the connection without an answer.
	FaultNothing
	// FaultHang waits until the client goes away.
	FaultHang
	// FaultGarbage answers 200 with text that is no JSON, called JSON.
	FaultGarbage
	// FaultContent answers 200 with JSON of another form than promised.
	FaultContent
	// FaultBody answers Fault.Status with Fault.Body, called JSON.
	FaultBody
)

// A Fault changes the answers to some requests.
type Fault struct {
	Kind       FaultKind
	Path       string // prefix of the paths it concerns, "" = all
	Query      string // part of the queries it concerns, "" = all
	Status     int    // for FaultStatus, FaultHTML and FaultBody; 0 = 503
	Body       string // for FaultBody
	RetryAfter int    // seconds, sent as a header; 0 = not sent
	Times      int    // number of requests; 0 = until Clear
}

// Fail adds a fault. Where several concern a request, the one added first is
// taken, until its Times are used up.
func (t *Tenant) Fail(f Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, f)
}

// Clear removes all faults. Requests that hang already go on to hang.
func (t *Tenant) Clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = nil
}

// nextFault is the fault of this request, if any, and uses it up.
func (t *Tenant) nextFault(u *url.URL) (Fault, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.faults {
		f := t.faults[i]
		if !strings.HasPrefix(u.Path, f.Path) || !strings.Contains(u.RawQuery, f.Query) {
			continue
		}
		if f.Times == 1 {
			t.faults = slices.Delete(t.faults, i, i+1)
		} else if f.Times > 1 {
			t.faults[i].Times--
		}
		return f, true
	}
	return Fault{}, false
}

func (t *Tenant) serveFault(c *counted, r *http.Request, f Fault) {
	if f.Status == 0 {
		f.Status = http.StatusServiceUnavailable
	}
	if f.RetryAfter > 0 {
		c.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	switch f.Kind {
	case FaultStatus:
		if f.Status == http.StatusTooManyRequests && t.cfg.Limit.Burst > 0 { // a tenant without a limit tells none
			h := c.Header()
			h.Set("X-RateLimit-Limit", strconv.Itoa(t.cfg.Limit.Burst))
			h.Set("X-RateLimit-Remaining", "0")
			h.Set("X-RateLimit-Reset", strconv.FormatInt(t.clock().Unix()+int64(max(f.RetryAfter, 1)), 10))
		}
		failAs(c, r.URL.Path, f.Status)
	case FaultHTML:
		writeBody(c, f.Status, "text/html", fmt.Appendf(nil,
			"<html>\r\n<head><title>%[1]d %[2]s</title></head>\r\n<body>\r\n<center><h1>%[1]d %[2]s</h1></center>\r\n</body>\r\n</html>\r\n",
			f.Status, http.StatusText(f.Status)))
	case FaultGarbage:
		writeBody(c, http.StatusOK, managementJSON, []byte(`[{"log_id":"900`+"\x00\xff"+`},,`))
	case FaultContent:
		writeBody(c, http.StatusOK, managementJSON, []byte(`{"result":{"items":"none of these","count":"7"}}`))
	case FaultBody:
		writeBody(c, f.Status, managementJSON, []byte(f.Body))
	case FaultCut:
		whole := &kept{header: make(http.Header), status: http.StatusOK}
		inner := &counted{ResponseWriter: whole}
		t.mux.ServeHTTP(inner, r)
		c.events = inner.events
		maps.Copy(c.Header(), whole.header)
		c.Header().Set("Content-Length", strconv.Itoa(max(whole.body.Len(), 2)))
		c.WriteHeader(whole.status)
		_, _ = c.Write(whole.body.Bytes()[:whole.body.Len()/2])
		_ = http.NewResponseController(c).Flush() // else the half is lost with the connection
		t.abort(c)
	case FaultHang:
		// The server notices that a client left only after the body is read.
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		t.abort(c)
	case FaultNothing:
		t.abort(c)
	default:
		panic(fmt.Sprintf("auth0sim: no fault %d", f.Kind))
	}
}

// abort closes the connection where the answer stands.
func (t *Tenant) abort(c *counted) {
	c.call.Status = 0
	panic(http.ErrAbortHandler)
}

// failAs answers the status in the words of the API that the path belongs to.
func failAs(w http.ResponseWriter, path string, status int) {
	if strings.HasPrefix(path, "/api/v2") {
		code, message := "", http.StatusText(status)
		switch status {
		case http.StatusUnauthorized:
			message = "Invalid token"
		case http.StatusForbidden:
			code, message = "insufficient_scope", "Insufficient scope, expected any of: read:logs,read:logs_users"
			if strings.HasPrefix(path, "/api/v2/log-streams") {
				message = "Insufficient scope, expected any of: read:log_streams"
			}
		case http.StatusNotFound:
			message = "Log not found."
		case http.StatusTooManyRequests:
			code, message = "too_many_requests", "Global limit has been reached"
		case http.StatusInternalServerError:
			code, message = "internal_error", "An internal server error occurred"
		}
		apiFail(w, status, code, message)
		return
	}
	if strings.HasPrefix(path, "/oauth/") {
		code, message := "server_error", http.StatusText(status)
		switch {
		case status == http.StatusUnauthorized:
			code, message = "access_denied", "Unauthorized"
		case status == http.StatusForbidden:
			code, message = "access_denied", "Access denied."
		case status == http.StatusTooManyRequests:
			code, message = "too_many_requests", "Rate limit exceeded."
		case status == http.StatusServiceUnavailable:
			code = "temporarily_unavailable"
		case status < 500:
			code = "invalid_request"
		}
		oauthFail(w, status, code, message)
		return
	}
	writeBody(w, status, "text/plain; charset=utf-8", []byte(http.StatusText(status)))
}

// kept is an answer that stays in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }
