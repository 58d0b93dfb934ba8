package pull

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
)

// outage is the current outage of calls to the tenant, whatever chains see it. It is
// logged once, and again from time to time.
type outage struct {
	log *slog.Logger

	mu       sync.Mutex // guards the fields below
	chains   int        // chains whose last call failed
	reason   string     // why calls fail at the moment; empty if they succeed
	key      string     // kind of the last failure
	since    time.Time  // of that kind
	loggedAt time.Time
}

// reset forgets an outage of an earlier run.
func (o *outage) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chains, o.reason = 0, ""
}

// current returns why calls fail at the moment, or an empty text if they succeed.
func (o *outage) current() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reason
}

// report logs a failed call: at once if it fails for a new reason, or else from time to time.
func (o *outage) report(failed *auth0.Error, pause time.Duration) {
	pause = pause.Round(time.Millisecond)
	if o.note(failed) {
		o.log.Warn("call to the tenant failed; retrying", "err", failed, "pause", pause)
		return
	}
	if since, due := o.stillFailing(); due {
		o.log.Warn("calls to the tenant still fail", "err", failed, "since", since.UTC(), "pause", pause)
	}
}

// note notes why calls fail, and reports whether the reason is new, however many chains see it, and
// however much of each answer was received.
func (o *outage) note(failed *auth0.Error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	// The text of an error varies, with its bytes or its ids: compare its kind only.
	key := fmt.Sprint(failed.Path, failed.Kind, failed.Status, failed.Code)
	isNew := o.reason == "" || o.key != key
	o.key, o.reason = key, failed.Error()
	if isNew {
		o.since, o.loggedAt = time.Now(), time.Now()
	}
	return isNew
}

// stillFailing returns the time since when calls fail. due is true if that must be logged
// again.
func (o *outage) stillFailing() (since time.Time, due bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.loggedAt) < pace.LongestHold {
		return o.since, false
	}
	o.loggedAt = time.Now()
	return o.since, true
}

// begin counts a chain whose call has failed.
func (o *outage) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chains++
}

// end ends the calls of a chain, whether or not one of them failed.
func (o *outage) end(failed, answered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if failed {
		o.chains--
	}
	if answered && o.chains == 0 && o.reason != "" {
		o.reason = ""
		o.log.Info("calls to the tenant succeed again")
	}
}
