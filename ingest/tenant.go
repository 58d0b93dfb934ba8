package ingest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// MaxTake is the most events that Auth0 returns in a page.
const MaxTake = 100

// Tenant is a tenant's log API. Calls block until the answer is received or ctx
// ends, and do not retry. Every error except the end of ctx is a *CallError. Calls
// may run concurrently.
type Tenant interface {
	// Logs returns up to take events that were stored after the event with the
	// id from, in the order of their ids. The id need not exist. An empty page
	// means that there are no events yet.
	Logs(ctx context.Context, from string, take int) (Page, error)
	// Oldest returns some of the oldest events. It is for a tenant that rejects
	// synthetic ids, that is, ids that it has not issued.
	Oldest(ctx context.Context) (Page, error)
	// LogStreams lists the streams by which the tenant sends its log elsewhere. An
	// error of KindAnswer comes with the streams that could be read.
	LogStreams(ctx context.Context) ([]LogStream, Limit, error)
}

// LogStream is one of a tenant's log streams.
type LogStream struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Type   string `json:"type"`   // http, eventbridge, splunk, …
	Status string `json:"status"` // active, paused or suspended
}

// Page is one page of events.
type Page struct {
	Events [][]byte  // each as received; they share memory
	Next   string    // the log_id after the page according to the tenant; may be empty
	Date   time.Time // when the answer was made, by the tenant's clock, to the second; zero if unknown
	Came   time.Time // when the answer was received, by our clock
	Limit  Limit
}

// Limit is the state of a rate limit in an answer.
type Limit struct {
	Known     bool          // the answer has Limit and Remaining
	Limit     int           // size of the bucket
	Remaining int           // calls left in it
	Reset     time.Duration // until there are more, by the server's clock; never negative, 0 if unknown
}

// CallError is a failed call. Its text contains no secret.
type CallError struct {
	Method     string
	Path       string
	Status     int    // 0 if there was no answer, or none that can be read
	Code       string // Auth0's errorCode or error
	Message    string // Auth0's message
	Kind       Kind
	Advice     string // for the operator; empty if there is nothing to do but wait
	RetryAfter time.Duration
	Limit      Limit
	Whole      bool  // the answer is complete, but cannot be read
	Err        error // the cause, if there is no Status
}

// rejectsCursor reports whether the tenant itself rejects the cursor. A 400 without its
// errorCode is temporary: it comes from a proxy.
func (e *CallError) rejectsCursor() bool {
	return e.Status == http.StatusBadRequest && e.Code == "invalid_query_string"
}

// Kind is the class of a failed call.
type Kind string

// The kinds of failed calls.
const (
	KindToken        Kind = "token"        // no access token
	KindRateLimit    Kind = "rate_limit"   // 429
	KindUnauthorized Kind = "unauthorized" // 401 with a fresh token
	KindForbidden    Kind = "forbidden"    // 403
	KindClient       Kind = "client"       // other 4xx
	KindServer       Kind = "server"       // 5xx
	KindAnswer       Kind = "answer"       // incomplete, or of another form
	KindTooLarge     Kind = "too_large"    // larger than the limit for an answer
	KindTimeout      Kind = "timeout"
	KindNetwork      Kind = "network"
)

// kinds lists the kinds for metrics.
var kinds = [...]Kind{KindToken, KindRateLimit, KindUnauthorized, KindForbidden, KindClient, KindServer,
	KindAnswer, KindTooLarge, KindTimeout, KindNetwork}

// Error returns the call, the cause and the advice.
func (e *CallError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)

	// Without an answer, the cause takes the place of its status.
	if e.Status == 0 {
		fmt.Fprint(&b, e.Err)
	} else {
		fmt.Fprintf(&b, "%d %s", e.Status, http.StatusText(e.Status))
	}

	if e.Code != "" {
		b.WriteString(", " + e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Advice != "" {
		b.WriteString(" (" + e.Advice + ")")
	}
	return b.String()
}

func (e *CallError) Unwrap() error { return e.Err }
