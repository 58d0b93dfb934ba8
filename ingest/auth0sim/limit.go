package auth0sim

import (
	"math"
	"net/http"
	"strconv"
	"strings"
)

// bucket holds the tokens of one limit.
type bucket struct {
	limit  Limit
	used   float64 // tokens missing from the full bucket
	filled int64   // µs of the last refill
}

// take uses a token if there is one. reset is the time, in µs, at which the next token
// arrives or the window ends; now if the bucket is full.
func (b *bucket) take(now int64) (ok bool, remaining int, reset int64) {
	window := b.limit.Window.Microseconds()

	// Refill since the last call, or start the next window.
	switch {
	case window <= 0:
		b.used = max(0, b.used-float64(now-b.filled)*b.limit.PerSecond/1e6)
	case now/window != b.filled/window:
		b.used = 0
	}
	b.filled = now

	// A token that is refilled up to a rounding error counts as whole.
	if ok = b.used+1 <= float64(b.limit.Burst)+1e-9; ok {
		b.used++
	}

	remaining = int(float64(b.limit.Burst) - b.used)
	reset = now
	if window > 0 {
		return ok, remaining, (now/window + 1) * window
	}

	// The fraction of a token that is missing determines when the next one is whole.
	if missing := b.used - math.Ceil(b.used) + 1; b.used > 0 && b.limit.PerSecond > 0 {
		reset += int64(math.Ceil(missing * 1e6 / b.limit.PerSecond))
	}
	return ok, remaining, reset
}

// limited applies Config.Limit to a handler. Rejected calls write at most one
// api_limit event a minute.
func (t *Tenant) limited(h http.HandlerFunc) http.HandlerFunc {
	if t.cfg.Limit.Burst <= 0 {
		return h
	}
	const second = 1_000_000 // µs
	return func(w http.ResponseWriter, r *http.Request) {
		// Whole seconds, rounded up.
		ok, remaining, reset, now := t.takeToken(r)
		until := (reset + second - 1) / second

		header := w.Header()
		header.Set("X-RateLimit-Limit", strconv.Itoa(t.cfg.Limit.Burst))
		header.Set("X-RateLimit-Remaining", strconv.Itoa(remaining))
		header.Set("X-RateLimit-Reset", strconv.FormatInt(until, 10))

		if ok {
			h(w, r)
			return
		}
		if t.cfg.Limit.RetryAfter {
			header.Set("Retry-After", strconv.FormatInt(max(1, (reset-now+second-1)/second), 10))
		}
		failAs(w, "/api/v2", http.StatusTooManyRequests)
	}
}

// takeToken uses a token. Without one it writes an event, unless it did so in the last
// minute.
func (t *Tenant) takeToken(r *http.Request) (ok bool, remaining int, reset, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now = t.now()
	ok, remaining, reset = t.bucket.take(now)
	if ok || t.lastHit != 0 && now-t.lastHit < 60_000_000 {
		return ok, remaining, reset, now
	}

	t.lastHit = now
	t.record("api_limit", func(s *scene) {
		s.user, s.client = user{}, &client{id: escaped(t.cfg.ClientID), name: "Log Export"}
		s.method, s.path = escaped(strings.ToLower(r.Method)), escaped(r.URL.Path)
		s.size, s.usage = t.cfg.Limit.Burst, t.cfg.Limit.Burst
	})
	return ok, remaining, reset, now
}
