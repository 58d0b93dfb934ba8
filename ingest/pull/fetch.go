package pull

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
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
			if !sleep.For(ctx, pause) {
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

		if !sleep.For(ctx, pause) {
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
	if p.outage.note(err) {
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
