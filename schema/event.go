// Package schema holds the words of the system.
package schema

import "time"

// Source says which way an event came in.
type Source string

// The sources of an event, as the events topic's source header names them.
const (
	Tail     Source = "tail"     // the running pull
	Backfill Source = "backfill" // the pull of what was there at the first start
	Overlap  Source = "overlap"  // the tail's second look at recent time
	Repair   Source = "repair"   // an audit's healing
	Probe    Source = "probe"    // a probe's result
	Self     Source = "self"     // a failed Management call of our own
)

// The types of the events that tenantwatch makes itself; every other type is
// Auth0's. They have the form of a tenant log event.
const (
	TypeProbe    = "tenantwatch_probe"     // details: {probe, ok, status, error, latency_ms}
	TypeAPIError = "tenantwatch_api_error" // details: {request{method,path}, response{statusCode, body{error, message, errorCode}}}
)

// Event is one tenant log event.
type Event struct {
	Tenant    string
	Source    Source
	FetchedAt time.Time
	LogID     string
	Type      string
	Date      time.Time // event time, UTC
	Raw       []byte    // the event's JSON, as received
}
