package auth0

import "time"

// MaxTake is the most events that Auth0 returns in a page.
const MaxTake = 100

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

// LogStream is one of a tenant's log streams.
type LogStream struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Type   string `json:"type"`   // http, eventbridge, splunk, …
	Status string `json:"status"` // active, paused or suspended
}
