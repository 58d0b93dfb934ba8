package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/schema"
)

// fetchPage fetches the page after a cursor and retries until it has one. It returns the
// events, identified where possible, and the cursor after them. An empty page means that
// there are no events yet, as far as that can be known. An error is the end of ctx, or of
// Kafka.
func (p *Puller) fetchPage(
	ctx context.Context, priority pace.Priority, cursor string, take *int,
) ([]schema.Event, string, error) {
	rejections, empties := 0, 0
	for attempt := 0; ; attempt++ {
		page, asked, err := p.fetchOrDetour(ctx, priority, cursor, take)

		var pause time.Duration
		var rejected *auth0.Error
		switch {
		case errors.As(err, &rejected):
			rejections++
			cursor, pause = p.rejected(rejected, cursor, rejections)
			if !pace.Sleep(ctx, pause) {
				return nil, "", ctx.Err()
			}
			continue
		case err != nil:
			return nil, "", err
		}
		rejections = 0

		// ok: there is a cursor after the page.
		events := identify(page.Events)
		next, ok := nextCursor(asked, events, page.Next)
		switch {
		case asked != cursor:
			if events, next, err = p.afterDetour(ctx, priority, cursor, asked, events, next); err != nil {
				return nil, "", err
			}
			return events, next, nil

		case len(events) > 0 && ok:
			p.noteID(next)
			return events, next, nil

		// Without a cursor, the next page would be the same again.
		case len(events) > 0:
			if attempt == 0 {
				p.cfg.Log.Error("page has neither ids nor a next link; retrying",
					"log_id", cursor, "events", len(events))
			}
			pause = 10 * time.Second

		// The page is empty, but its link leads on.
		case ok && !passed(next, p.clock.Now().Add(time.Minute)):
			cursor, empties = next, 0
			pause = emptyPause

		// The tenant has no events, and rejects synthetic ids.
		case cursor == "":
			pause = p.cfg.Poll

		case empties < p.emptyRetries(priority, cursor):
			pause = emptyPause << empties
			empties++

		// The page is empty again and again, so there are no events yet.
		default:
			if empties > emptyBelieved {
				p.cfg.Log.Warn("tenant returns no events after a cursor where it has returned some", "log_id", cursor)
			}
			return nil, cursor, nil
		}

		if !pace.Sleep(ctx, pause) {
			return nil, "", ctx.Err()
		}
	}
}

const (
	// rejectedPause is the pause after a rejection that leaves no other cursor.
	rejectedPause = 30 * time.Second
	// rejectionsBelieved is how often a cursor must be rejected before another one replaces it,
	// since that is expensive.
	rejectionsBelieved = 2
	rejectedRetry      = time.Second
)

// rejected returns the cursor to ask for after a rejection, and the pause before that.
func (p *Puller) rejected(err *auth0.Error, cursor string, rejections int) (string, time.Duration) {
	if p.setFailing(err) {
		p.cfg.Log.Warn("tenant rejected a call", "err", err)
	}
	if rejections%rejectionsBelieved == 0 {
		cursor = p.earlierCursor(cursor)
	}
	if cursor == "" {
		return cursor, rejectedPause
	}
	return cursor, rejectedRetry
}

// An empty page is fetched again, since Auth0's indexes lag.
const (
	emptyBelieved = 2                      // retries by default
	emptyDoubted  = 5                      // retries if the tenant has shown events after the cursor
	emptyPause    = 500 * time.Millisecond // doubled on each retry
)

// emptyRetries returns how often an empty page after a cursor is fetched again.
func (p *Puller) emptyRetries(priority pace.Priority, cursor string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case checkpoint.Higher(p.highestID, cursor):
		return emptyDoubted
	case priority == pace.PriorityTail: // it polls anyway
		return 0
	}
	return emptyBelieved
}

// noteID notes an id of the tenant's events.
func (p *Puller) noteID(logID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := schema.IDTime(logID); ok && checkpoint.Higher(logID, p.highestID) {
		p.highestID = logID
	}
}

// notFoundTries is how often a cursor is tried before its next detour, while the answer is 404.
const notFoundTries = 3

// fetchOrDetour fetches the page after a cursor. If the answer is 404 again and again, it
// takes a detour: an earlier cursor. asked is the cursor of the page.
func (p *Puller) fetchOrDetour(
	ctx context.Context, priority pace.Priority, cursor string, take *int,
) (page auth0.Page, asked string, err error) {
	// Start with the detour at once if the cursor was not found last time.
	p.mu.Lock()
	notFound := 0 // number of answers
	if cursor != "" && p.notFound == cursor {
		notFound = notFoundTries
	}
	p.mu.Unlock()

	page, err = p.callUntilAnswered(ctx, priority, take, func() (page auth0.Page, err error) {
		asked = detour(cursor, notFound/notFoundTries)
		if asked != "" {
			page, err = p.tenant.Logs(ctx, asked, *take)
		} else if page, err = p.tenant.Oldest(ctx); err == nil && cursor != "" && !expired(cursor, page) {
			// The oldest events only help if the tenant has dropped the cursor's event.
			err = &auth0.Error{Method: http.MethodGet, Path: "/api/v2/logs", Limit: page.Limit,
				Status: http.StatusNotFound, Kind: auth0.KindClient,
				Message: "log_id to resume from not found, although older events exist"}
		}

		var failed *auth0.Error
		if errors.As(err, &failed) && failed.Status == http.StatusNotFound {
			notFound++
		}
		return page, err
	})
	return page, asked, err
}

// expired reports whether all of the oldest events are after a cursor.
func expired(cursor string, oldest auth0.Page) bool {
	low, ok := nextCursor("", identify(oldest.Events), "")
	return ok && checkpoint.Higher(low, cursor)
}

// detour returns the cursor to try: the cursor itself, the time in it, or the oldest events
// (an empty one). A synthetic id belongs to no event that could have expired, so it is tried
// more often.
func detour(cursor string, step int) string {
	at, ok := schema.IDTime(cursor)
	switch {
	case !ok:
		return cursor
	case strings.HasSuffix(cursor, syntheticEnd):
		return [...]string{cursor, cursor, cursor, ""}[step%4]
	}
	return [...]string{cursor, schema.SyntheticID(at), ""}[step%3]
}

// afterDetour drops the events of a detour that are not after the cursor. If the tail had to
// resume at the oldest events, the tenant has dropped the events before them: that is a gap.
func (p *Puller) afterDetour(
	ctx context.Context, priority pace.Priority, cursor, asked string, events []schema.Event, next string,
) ([]schema.Event, string, error) {
	if asked == "" {
		if priority != pace.PriorityTail {
			return events, next, nil
		}
		p.cfg.Log.Warn("log_id to resume from not found; resuming at the oldest event, which is newer",
			"log_id", cursor, "oldest", next)
		tail := checkpoint.Checkpoint{Chain: checkpoint.ChainTail, LogID: cursor}
		return events, next, p.recordGaps(ctx, gaps(next, tail, nil))
	}

	p.mu.Lock()
	isNew := p.notFound != cursor
	p.notFound = cursor
	p.mu.Unlock()
	if isNew {
		p.cfg.Log.Warn("log_id to resume from not found; resuming at its time", "log_id", cursor)
	}

	// The second of the cursor has more than a page: no event is after the cursor yet.
	if checkpoint.Higher(cursor, next) {
		return events, next, nil
	}
	events = slices.DeleteFunc(events, func(event schema.Event) bool {
		return event.LogID != "" && !checkpoint.Higher(event.LogID, cursor)
	})
	p.noteID(next)
	return events, next, nil
}

// syntheticEnd is the end of all synthetic ids, which are made from times.
var syntheticEnd = strings.Repeat("0", 39)

// earlierCursor returns the cursor to try after a rejected one. It is before the rejected
// one, so nothing is skipped.
func (p *Puller) earlierCursor(cursor string) string {
	at, ok := schema.IDTime(cursor)
	if ok && !strings.HasSuffix(cursor, syntheticEnd) {
		p.cfg.Log.Warn("tenant rejects the checkpoint; resuming at its time", "log_id", cursor)
		return schema.SyntheticID(at)
	}

	if cursor != "" {
		p.cfg.Log.Warn("tenant rejects synthetic ids; starting at its oldest event", "log_id", cursor)
	}
	return ""
}

// largestEvent is the space for an event in a record of Kafka, beside its headers.
const largestEvent = schema.MaxMessage - 1<<20

// identify returns the events of a page. An event that cannot be identified has no LogID;
// it is kept nevertheless, since only the writer decides what cannot be stored.
func identify(raws [][]byte) []schema.Event {
	events := make([]schema.Event, len(raws))
	for i, raw := range raws {
		raw = raw[:min(len(raw), largestEvent)] // the rest is lost, but no event after it
		events[i].Raw = raw
		if events[i].Identify() != nil {
			events[i] = schema.Event{Raw: raw}
		}
	}
	return events
}

// nextCursor returns the cursor after a page: the highest id in it. The tenant's link is
// used if the events have no ids, and never leads backwards. ok is false if there is no
// cursor after the current one.
func nextCursor(cursor string, events []schema.Event, link string) (next string, ok bool) {
	next = cursor
	lowest, last := "", cursor
	for i := range events {
		id := events[i].LogID
		if id == "" {
			continue
		}
		if lowest == "" || id < lowest {
			lowest = id
		}
		if checkpoint.Higher(id, next) {
			next = id
		}
		last = id
	}

	// The oldest events are sorted by date, which is not the order of their ids.
	if cursor == "" {
		return lowest, lowest != ""
	}

	// The link counts if it is higher, as on a page whose last events cannot be identified.
	if checkpoint.Higher(link, next) {
		next = link
	}
	if next == cursor && len(last) != len(cursor) {
		next = last // ids of another kind, whose order is unknown
	}
	return next, next != cursor
}

// callUntilAnswered repeats a call until it returns a page. It returns an *auth0.Error only for
// a cursor that the tenant rejects, which no retry can fix; any other error is the end of ctx.
// It halves take if pages cannot be read, and doubles it again after each success.
func (p *Puller) callUntilAnswered(
	ctx context.Context, priority pace.Priority, take *int, call func() (auth0.Page, error),
) (auth0.Page, error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 500*time.Millisecond, 30*time.Second

	// The status only shows success again once no chain fails.
	answered := false
	failures := 0
	defer func() { p.endFailures(failures > 0, answered) }()

	for {
		granted, err := p.limiter.Wait(ctx, priority)
		if err != nil {
			return auth0.Page{}, err
		}

		page, err := call()
		if err == nil {
			p.limiter.Observe(page.Limit, granted)
			p.observe(page)
			*take, answered = min(2**take, auth0.MaxTake), true
			return page, nil
		}
		if ctx.Err() != nil {
			p.limiter.Observe(auth0.Limit{}, granted) // each Wait needs its Observe
			return auth0.Page{}, ctx.Err()
		}

		// Count the failure, and learn the rate limit from its answer.
		if failures++; failures == 1 {
			p.beginFailures()
		}
		var failed *auth0.Error
		if !errors.As(err, &failed) {
			failed = &auth0.Error{Method: "GET", Path: "/api/v2/logs", Kind: auth0.KindNetwork, Err: err}
		}
		p.cfg.Metrics.failures.WithLabelValues(p.cfg.Tenant, string(failed.Kind)).Inc()
		p.reportFailure(failed)
		p.limiter.Observe(failed.Limit, granted)

		// Decide whether and how to retry.
		wait := pause.NextBackOff()
		switch failed.Kind {
		case auth0.KindRateLimit:
			wait = min(max(failed.RetryAfter, failed.Limit.Reset, wait), pace.LongestHold)
			p.limiter.Hold(wait) // all calls, not only this one
		case auth0.KindClient:
			if failed.RejectsCursor() {
				return auth0.Page{}, failed
			}
		case auth0.KindAnswer, auth0.KindTimeout, auth0.KindTooLarge:
			// An answer that always breaks off may be too large. An event that hides the start of the
			// next one must be fetched alone.
			if failed.Kind == auth0.KindTooLarge || failed.Whole || failures%3 == 0 {
				*take = max(*take/2, 1)
			}
		}
		wait = min(max(failed.RetryAfter, wait), pace.LongestHold)

		p.logFailure(failed, wait)
		if !pace.Sleep(ctx, wait) {
			return auth0.Page{}, ctx.Err()
		}
	}
}

// logFailure logs a failed call: at once if it fails for a new reason, or else from time to time.
func (p *Puller) logFailure(failed *auth0.Error, pause time.Duration) {
	pause = pause.Round(time.Millisecond)
	if p.setFailing(failed) {
		p.cfg.Log.Warn("call to the tenant failed; retrying", "err", failed, "pause", pause)
		return
	}
	if since, due := p.stillFailing(); due {
		p.cfg.Log.Warn("calls to the tenant still fail", "err", failed, "since", since.UTC(), "pause", pause)
	}
}

// setFailing notes why calls fail, and reports whether the reason is new. An outage is
// logged once, however many chains see it, and however much of each answer was received.
func (p *Puller) setFailing(failed *auth0.Error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The text of an error varies, with its bytes or its ids: compare its kind only.
	key := fmt.Sprint(failed.Path, failed.Kind, failed.Status, failed.Code)
	isNew := p.status.Failing == "" || p.failingKey != key
	p.failingKey, p.status.Failing = key, failed.Error()
	if isNew {
		p.failingSince, p.failingLoggedAt = time.Now(), time.Now()
	}
	return isNew
}

// holdFor stops all calls if err is a 429. It is for calls that are not retried at once.
func (p *Puller) holdFor(err error) {
	var failed *auth0.Error
	if errors.As(err, &failed) && failed.Kind == auth0.KindRateLimit {
		p.limiter.Hold(min(max(failed.RetryAfter, failed.Limit.Reset), pace.LongestHold))
	}
}

// stillFailing returns the time since when calls fail. due is true if that must be logged
// again.
func (p *Puller) stillFailing() (since time.Time, due bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.failingLoggedAt) < pace.LongestHold {
		return p.failingSince, false
	}
	p.failingLoggedAt = time.Now()
	return p.failingSince, true
}

// beginFailures counts a chain whose call has failed.
func (p *Puller) beginFailures() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failingChains++
}

// endFailures ends the calls of a chain, whether or not one of them failed.
func (p *Puller) endFailures(failed, answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if failed {
		p.failingChains--
	}
	if answered && p.failingChains == 0 && p.status.Failing != "" {
		p.status.Failing = ""
		p.cfg.Log.Info("calls to the tenant succeed again")
	}
}

// observe updates the metrics, the clock and the rate limit from a page.
func (p *Puller) observe(page auth0.Page) {
	metrics := p.cfg.Metrics
	metrics.pages.WithLabelValues(p.cfg.Tenant).Inc()
	p.clock.compare(page)

	// Log once that there will be no calls for long.
	exhausted := page.Limit.Known && page.Limit.Remaining <= 0 && page.Limit.Reset > pace.LongestHold
	if before := p.limitExhausted.Swap(exhausted); exhausted && !before {
		p.cfg.Log.Warn("rate limit of the tenant is exhausted for long; retrying before its reset",
			"limit", page.Limit.Limit, "reset", page.Limit.Reset, "retry_every", pace.LongestHold)
	}

	if page.Limit.Known {
		metrics.limit.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Limit))
		metrics.remaining.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Remaining))
	}
}
