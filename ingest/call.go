package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/tenantwatch/tenantwatch/schema"
)

// page pulls the page after cursor, whatever it takes, and returns its events,
// identified as far as they can be, and the cursor after them. It only fails when
// ctx ends.
func (p *Puller) page(ctx context.Context, class Class, cursor string, take *int) ([]schema.Event, string, error) {
	for attempt := 0; ; attempt++ {
		page, err := p.retry(ctx, class, take, func() (Page, error) {
			if cursor == "" {
				return p.tenant.Oldest(ctx)
			}
			return p.tenant.Logs(ctx, cursor, *take)
		})
		var refused *CallError
		switch {
		case errors.As(err, &refused): // the cursor itself is refused
			if p.setFailing(refused) {
				p.cfg.Log.Warn("the tenant refuses a call", "err", refused)
			}
			if cursor == "" && !sleep(ctx, refusedPause) {
				return nil, "", ctx.Err()
			}
			cursor = p.otherWay(cursor)
			continue
		case err != nil:
			return nil, "", err
		}
		events := identify(page.Events)
		next, ok := after(cursor, events, page.Next)
		if ok || len(events) == 0 {
			if cursor == "" && len(events) == 0 { // an empty tenant that refuses our ids
				if !sleep(ctx, p.cfg.Poll) {
					return nil, "", ctx.Err()
				}
				continue
			}
			return events, next, nil
		}
		if attempt == 0 {
			p.cfg.Log.Error("a page has neither ids nor a next link; asking for it until it has", "log_id", cursor, "events", len(events))
		}
		if !sleep(ctx, 10*time.Second) {
			return nil, "", ctx.Err()
		}
	}
}

// refusedPause is the pause after a refusal that leaves no other way.
const refusedPause = 30 * time.Second

// otherWay is what to ask for when the tenant refuses a cursor. Either place
// lies before it, so nothing is skipped.
func (p *Puller) otherWay(cursor string) string {
	at, ok := schema.IDTime(cursor)
	if !ok || strings.HasSuffix(cursor, strings.Repeat("0", 39)) {
		if cursor != "" {
			p.cfg.Log.Warn("the tenant takes no ids that it has not issued; pulling begins with its oldest event", "log_id", cursor)
		}
		return ""
	}
	p.cfg.Log.Warn("the tenant refuses the checkpoint; going on from its time", "log_id", cursor)
	return schema.SyntheticID(at)
}

// identify makes events of a page. One that cannot be identified has no LogID:
// it goes its way all the same, since the writer is the one that judges.
func identify(raws [][]byte) []schema.Event {
	events := make([]schema.Event, len(raws))
	for i, raw := range raws {
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

// retry calls until there is a page. It returns a *CallError only for a 400,
// which no repetition will cure, and otherwise only the end of ctx.
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
			wait = max(failed.RetryAfter, failed.Limit.Reset, wait)
			p.pacer.Hold(wait) // everybody's calls
		case KindClient:
			if failed.Status == 400 {
				return Page{}, failed
			}
		case KindAnswer, KindTimeout, KindTooLarge:
			// What always breaks off may be too much at once.
			if failed.Kind == KindTooLarge || failures%3 == 0 {
				*take = max(*take/2, 1)
			}
		}
		wait = max(failed.RetryAfter, wait)
		if p.setFailing(failed) {
			p.cfg.Log.Warn("call to the tenant failed; trying again", "err", failed, "pause", wait.Round(time.Millisecond))
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
	return news
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
	if page.Limit.Known {
		m.limit.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Limit))
		m.remaining.WithLabelValues(p.cfg.Tenant).Set(float64(page.Limit.Remaining))
	}
}
