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

	"github.com/tenantwatch/tenantwatch/schema"
)

// page pulls the page after cursor, whatever it takes, and returns its events,
// identified as far as they can be, and the cursor after them. A page without
// events means that there are none, as far as that can be known. It only fails
// when ctx ends.
func (p *Puller) page(ctx context.Context, class Class, cursor string, take *int) ([]schema.Event, string, error) {
	refusals, empties := 0, 0
	for attempt := 0; ; attempt++ {
		page, asked, err := p.found(ctx, class, cursor, take)
		var refused *CallError
		switch {
		case errors.As(err, &refused): // the cursor itself is refused
			if p.setFailing(refused) {
				p.cfg.Log.Warn("the tenant refuses a call", "err", refused)
			}
			refusals++
			if believed := refusals%refusalsBelieved == 0; believed {
				cursor = p.otherWay(cursor)
			}
			pause := refusedPause
			if cursor != "" {
				pause = refusedAgain
			}
			if !sleep(ctx, pause) {
				return nil, "", ctx.Err()
			}
			continue
		case err != nil:
			return nil, "", err
		}
		refusals = 0

		events := identify(page.Events)
		next, ok := after(asked, events, page.Next)
		switch {
		case asked != cursor:
			if events, next, err = p.afterDetour(ctx, class, cursor, asked, events, next); err != nil {
				return nil, "", err
			}
			return events, next, nil
		case len(events) > 0 && ok:
			p.sawID(next)
			return events, next, nil
		case len(events) > 0:
			if attempt == 0 {
				p.cfg.Log.Error("a page has neither ids nor a next link; asking for it until it has", "log_id", cursor, "events", len(events))
			}
			if !sleep(ctx, 10*time.Second) {
				return nil, "", ctx.Err()
			}
		case ok && !passed(next, p.now().Add(time.Minute)): // nothing in it, but it leads on
			cursor, empties = next, 0
			if !sleep(ctx, emptyPause) {
				return nil, "", ctx.Err()
			}
		case cursor == "": // an empty tenant that refuses our ids
			if !sleep(ctx, p.cfg.Poll) {
				return nil, "", ctx.Err()
			}
		case empties < p.doubts(class, cursor):
			if !sleep(ctx, emptyPause<<empties) {
				return nil, "", ctx.Err()
			}
			empties++
		default:
			if empties > emptyBelieved {
				p.cfg.Log.Warn("the tenant shows nothing any more where it has shown events before", "log_id", cursor)
			}
			return nil, cursor, nil
		}
	}
}

const (
	// refusedPause is the pause after a refusal that leaves no other way.
	refusedPause = 30 * time.Second
	// A cursor counts as refused when that is said twice: what follows from it is dear.
	refusalsBelieved = 2
	refusedAgain     = time.Second
)

// An empty page is asked for again, since indexes lag: so often where nothing speaks
// against it, and so often where the tenant has shown events behind the cursor.
const (
	emptyBelieved = 2
	emptyDoubted  = 5
	emptyPause    = 500 * time.Millisecond // and twice as long each time
)

// doubts is how often an empty page after a cursor is asked for again.
func (p *Puller) doubts(class Class, cursor string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case higher(p.newest, cursor):
		return emptyDoubted
	case class == Tail: // it asks again anyway
		return 0
	}
	return emptyBelieved
}

// sawID notes that the tenant has an event with an id, or a higher one.
func (p *Puller) sawID(logID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := schema.IDTime(logID); ok && higher(logID, p.newest) {
		p.newest = logID
	}
}

// notFoundTries is how often one way is tried before the next, while the answer is 404.
const notFoundTries = 3

// found pulls the page after a cursor, or, where that is answered with 404 again and
// again, one that serves as well. asked is the cursor that it came after.
func (p *Puller) found(ctx context.Context, class Class, cursor string, take *int) (page Page, asked string, err error) {
	p.mu.Lock()
	lost := 0 // answers of 404
	if cursor != "" && p.lost == cursor {
		lost = notFoundTries // what did not work last time is left for later
	}
	p.mu.Unlock()
	page, err = p.retry(ctx, class, take, func() (page Page, err error) {
		asked = detour(cursor, lost/notFoundTries)
		if asked != "" {
			page, err = p.tenant.Logs(ctx, asked, *take)
		} else if page, err = p.tenant.Oldest(ctx); err == nil && cursor != "" && !expired(cursor, page) {
			err = &CallError{Method: http.MethodGet, Path: "/api/v2/logs", Status: http.StatusNotFound, Kind: KindClient, Limit: page.Limit,
				Message: "the log_id to go on from is not found, although older events are there"}
		}
		var failed *CallError
		if errors.As(err, &failed) && failed.Status == http.StatusNotFound {
			lost++
		}
		return page, err
	})
	return page, asked, err
}

// expired reports whether the oldest events are all behind a cursor.
func expired(cursor string, oldest Page) bool {
	low, ok := after("", identify(oldest.Events), "")
	return ok && higher(low, cursor)
}

// detour is what to ask for in place of a cursor: itself, the time in it, or the
// oldest events. A cursor that was made from a time is of no event that could be
// gone, so it is given more time.
func detour(cursor string, way int) string {
	at, ok := schema.IDTime(cursor)
	switch {
	case !ok:
		return cursor
	case strings.HasSuffix(cursor, madeUp):
		return [...]string{cursor, cursor, cursor, ""}[way%4]
	}
	return [...]string{cursor, schema.SyntheticID(at), ""}[way%3]
}

// afterDetour takes what a detour brought: only what lies behind the cursor is new.
// Where the oldest event does, the tenant has dropped what was before it.
func (p *Puller) afterDetour(ctx context.Context, class Class, cursor, asked string, events []schema.Event, next string) ([]schema.Event, string, error) {
	if asked == "" && class != Tail {
		return events, next, nil
	}
	if asked == "" {
		p.cfg.Log.Warn("the log_id to go on from is not found, and the oldest event is newer; pulling goes on there", "log_id", cursor, "oldest", next)
		return events, next, p.recordGaps(ctx, gaps(next, Checkpoint{Chain: ChainTail, LogID: cursor}, nil))
	}
	p.mu.Lock()
	news := p.lost != cursor
	p.lost = cursor
	p.mu.Unlock()
	if news {
		p.cfg.Log.Warn("the log_id to go on from is not found; going on from its time", "log_id", cursor)
	}
	if higher(cursor, next) {
		return events, next, nil // more than a page in that second
	}
	events = slices.DeleteFunc(events, func(e schema.Event) bool { return e.LogID != "" && !higher(e.LogID, cursor) })
	p.sawID(next)
	return events, next, nil
}

// madeUp ends the ids that are made from times.
var madeUp = strings.Repeat("0", 39)

// otherWay is what to ask for when the tenant refuses a cursor. Either place
// lies before it, so nothing is skipped.
func (p *Puller) otherWay(cursor string) string {
	at, ok := schema.IDTime(cursor)
	if !ok || strings.HasSuffix(cursor, madeUp) {
		if cursor != "" {
			p.cfg.Log.Warn("the tenant takes no ids that it has not issued; pulling begins with its oldest event", "log_id", cursor)
		}
		return ""
	}
	p.cfg.Log.Warn("the tenant refuses the checkpoint; going on from its time", "log_id", cursor)
	return schema.SyntheticID(at)
}

// largestEvent is what a record of Kafka has room for, with its headers.
const largestEvent = schema.MaxMessage - 1<<20

// identify makes events of a page. One that cannot be identified has no LogID:
// it goes its way all the same, since the writer is the one that judges.
func identify(raws [][]byte) []schema.Event {
	events := make([]schema.Event, len(raws))
	for i, raw := range raws {
		raw = raw[:min(len(raw), largestEvent)] // the rest of it is lost, but no event after it
		events[i].Raw = raw
		if events[i].Identify() != nil {
			events[i] = schema.Event{Raw: raw}
		}
	}
	return events
}

// after is the cursor behind a page: the highest id in it. The tenant's own
// word, link, is taken where events have none, and never leads backwards.
func after(cursor string, events []schema.Event, link string) (next string, ok bool) {
	next = cursor
	low, last := "", cursor
	for i := range events {
		id := events[i].LogID
		if id == "" {
			continue
		}
		if low == "" || id < low {
			low = id
		}
		if higher(id, next) {
			next = id
		}
		last = id
	}
	if cursor == "" { // oldest by date, which is not the order of the ids
		return low, low != ""
	}
	if higher(link, next) {
		next = link
	}
	if next == cursor && len(last) != len(cursor) {
		next = last // ids of another kind, which have no order that we know
	}
	return next, next != cursor
}

// higher compares ids. Auth0's have one length, so text order is their order;
// one of another length is only higher than nothing.
func higher(a, b string) bool {
	if len(a) != len(b) {
		return b == ""
	}
	return a > b
}

// retry calls until there is a page. It returns a *CallError only for a cursor that
// the tenant refuses, which no repetition will cure, and otherwise only the end of
// ctx.
func (p *Puller) retry(ctx context.Context, class Class, take *int, call func() (Page, error)) (Page, error) {
	answered := false
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 500*time.Millisecond, 30*time.Second
	failures := 0
	defer func() { p.endFailures(failures > 0, answered) }()
	for {
		granted, err := p.pacer.Wait(ctx, class)
		if err != nil {
			return Page{}, err
		}
		page, err := call()
		if err == nil {
			p.pacer.Observe(page.Limit, granted)
			p.observe(page)
			*take, answered = min(2**take, MaxTake), true
			return page, nil
		}
		if ctx.Err() != nil {
			p.pacer.Observe(Limit{}, granted) // each Wait has its Observe
			return Page{}, ctx.Err()
		}
		if failures++; failures == 1 {
			p.beginFailures()
		}
		var failed *CallError
		if !errors.As(err, &failed) {
			failed = &CallError{Method: "GET", Path: "/api/v2/logs", Kind: KindNetwork, Err: err}
		}
		p.cfg.Metrics.failures.WithLabelValues(p.cfg.Tenant, string(failed.Kind)).Inc()
		p.tell(failed)
		p.pacer.Observe(failed.Limit, granted)
		wait := pause.NextBackOff()
		switch failed.Kind {
		case KindRateLimit:
			wait = min(max(failed.RetryAfter, failed.Limit.Reset, wait), longestHold)
			p.pacer.Hold(wait) // everybody's calls
		case KindClient:
			if failed.refuses() {
				return Page{}, failed
			}
		case KindAnswer, KindTimeout, KindTooLarge:
			// What always breaks off may be too much at once, and an event that hides where
			// the next one begins has to be alone.
			if failed.Kind == KindTooLarge || failed.Whole || failures%3 == 0 {
				*take = max(*take/2, 1)
			}
		}
		wait = min(max(failed.RetryAfter, wait), longestHold)
		if p.setFailing(failed) {
			p.cfg.Log.Warn("call to the tenant failed; trying again", "err", failed, "pause", wait.Round(time.Millisecond))
		} else if since, due := p.stillFailing(); due {
			p.cfg.Log.Warn("calls to the tenant still fail", "err", failed, "since", since.UTC(), "pause", wait.Round(time.Millisecond))
		}
		if !sleep(ctx, wait) {
			return Page{}, ctx.Err()
		}
	}
}

// setFailing notes why calls fail, and reports whether that is news: an outage is
// said once, however many chains meet it, and however far each answer came.
func (p *Puller) setFailing(failed *CallError) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	as := fmt.Sprint(failed.Path, failed.Kind, failed.Status, failed.Code)
	news := p.status.Failing == "" || p.failingAs != as
	p.failingAs, p.status.Failing = as, failed.Error()
	if news {
		p.failingSince, p.failingSaid = time.Now(), time.Now()
	}
	return news
}

// longestHold is how long a limit holds us at most before we look again, whatever
// it tells: what is wrong there would stop everything.
const longestHold = 2 * time.Minute

// holdFor stops everybody's calls after a 429 that is not repeated at once.
func (p *Puller) holdFor(err error) {
	var failed *CallError
	if errors.As(err, &failed) && failed.Kind == KindRateLimit {
		p.pacer.Hold(min(max(failed.RetryAfter, failed.Limit.Reset), longestHold))
	}
}

// stillFailing reports since when calls fail, and whether it is time to say so again.
func (p *Puller) stillFailing() (since time.Time, due bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.failingSaid) < longestHold {
		return p.failingSince, false
	}
	p.failingSaid = time.Now()
	return p.failingSince, true
}

// beginFailures counts a chain whose call has failed.
func (p *Puller) beginFailures() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing++
}

// endFailures is for a chain that calls no more, after failures or none.
func (p *Puller) endFailures(failed, answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if failed {
		p.failing--
	}
	if answered && p.failing == 0 && p.status.Failing != "" {
		p.status.Failing = ""
		p.cfg.Log.Info("calls to the tenant succeed again")
	}
}

// observe notes a page that came.
func (p *Puller) observe(page Page) {
	m := p.cfg.Metrics
	m.pages.WithLabelValues(p.cfg.Tenant).Inc()
	p.compareClocks(page)
	if used := page.Limit.Known && page.Limit.Remaining <= 0 && page.Limit.Reset > longestHold; used != p.usedUp.Swap(used) && used {
		p.cfg.Log.Warn("the tenant's rate limit is used up for long; we look again every two minutes", "limit", page.Limit.Limit, "reset", page.Limit.Reset)
	}
	if page.Limit.Known {
		m.limit.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Limit))
		m.remaining.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Remaining))
	}
}
