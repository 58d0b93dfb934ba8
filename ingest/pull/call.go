package pull

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
)

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
	defer func() { p.outage.end(failures > 0, answered) }()

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
			p.outage.begin()
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

		p.outage.report(failed, wait)
		if !sleep.For(ctx, wait) {
			return auth0.Page{}, ctx.Err()
		}
	}
}

// holdFor stops all calls if err is a 429. It is for calls that are not retried at once.
func (p *Puller) holdFor(err error) {
	var failed *auth0.Error
	if errors.As(err, &failed) && failed.Kind == auth0.KindRateLimit {
		p.limiter.Hold(min(max(failed.RetryAfter, failed.Limit.Reset), pace.LongestHold))
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
