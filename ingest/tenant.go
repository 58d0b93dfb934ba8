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

// Tenant is a tenant's log API. Calls block until the answer is there or ctx
// ends, and do not retry. Every error but that of ctx is a *CallError. Calls may
// run concurrently.
type Tenant interface {
	// Logs returns up to take events that were stored after the event with the
	// id from, in the order of their ids. The id need not exist. An empty page
	// means that there are none yet.
	Logs(ctx context.Context, from string, take int) (Page, error)
	// Oldest returns some of the oldest events. It is the way in where the
	// tenant refuses ids that it has not issued.
	Oldest(ctx context.Context) (Page, error)
	// LogStreams lists the streams by which the tenant sends its log elsewhere. With
	// an error of KindAnswer come those that could be read.
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
	Next   string    // the log_id that the tenant says to go on from, may be empty
	Date   time.Time // when the answer was made, by the tenant's clock, to the second; zero when it does not say
	Came   time.Time // when it came, by ours
	Limit  Limit
}

// Limit is the state of a rate limit as an answer told it.
type Limit struct {
	Known     bool          // Limit and Remaining were told
	Limit     int           // the bucket's size
	Remaining int           // what is left of it
	Reset     time.Duration // until more is there, by the server's clock; never negative, 0 when it was not told
}

// CallError is a call that failed. Its text has no secret in it.
type CallError struct {
	Method     string
	Path       string
	Status     int    // 0 when there was no answer, or none that can be read
	Code       string // Auth0's errorCode or error
	Message    string // Auth0's message
	Kind       Kind
	Advice     string // what the operator can do; empty when waiting is all there is
	RetryAfter time.Duration
	Limit      Limit
	Whole      bool  // the answer came to its end, but cannot be read
	Err        error // without a Status: why
}

// refuses reports whether it is the tenant itself that does not take the cursor:
// a 400 without its errorCode is a proxy's, and passes.
func (e *CallError) refuses() bool {
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
	KindAnswer       Kind = "answer"       // broken off, or not what was asked for
	KindTooLarge     Kind = "too_large"    // more than is read at once
	KindTimeout      Kind = "timeout"
	KindNetwork      Kind = "network"
)

// kinds lists them for metrics.
var kinds = [...]Kind{KindToken, KindRateLimit, KindUnauthorized, KindForbidden, KindClient, KindServer,
	KindAnswer, KindTooLarge, KindTimeout, KindNetwork}

// Error says what failed and what to do.
func (e *CallError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)
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
