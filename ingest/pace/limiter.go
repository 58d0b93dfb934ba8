package pace

import (
	"context"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// Limiter keeps all calls to one tenant within a share of its rate limit, which it learns from
// the answers, and divides them among our own callers. Others use the limit too, so there
// are two rules:
//
//   - Calls in the bucket: we leave the others' share there.
//   - Calls that refill it: we call no faster than our share of that rate.
//
// No header has the refill rate, so it is measured; see measure.go. A tenant that reports no
// limit is not paced. A Limiter is safe for concurrent use and starts no goroutine; a timer
// runs while a caller waits.
type Limiter struct {
	share float64

	mu       sync.Mutex // guards the fields below
	queues   [priorities][]*waiter
	pass     [priorities]float64 // virtual time of a priority: calls divided by weight
	virtual  float64             // pass of the priority that was granted last
	wake     *time.Timer         // next check of the queues; nil before the first
	inFlight int                 // calls between Wait and Observe
	answered bool                // at least one call
	until    time.Time           // no call before
	recent   recentCalls
	tailAt   time.Time // of the last call of the tail

	last    auth0.Limit // of the last answer that had one
	lastAt  time.Time   // of that answer
	level   int         // least Remaining since it last rose
	levelAt time.Time   // of level; answers to calls before it may be older

	size   int           // of the bucket; 0 if the tenant reports no limit
	refill float64       // calls a second that are added to the bucket; measured, or assumed at first
	window time.Duration // the bucket is filled at its end; 0 for a token bucket or a window of a second
	edge   time.Time     // end of the window
	jumps  int           // how often the bucket was filled at once, as by windows of a second
	jumped time.Time     // the last time

	at    time.Time // of own and audit
	own   float64   // calls that we may make now; below 0 after a measurement
	audit float64   // of these, calls that audits may make

	flow measurement
}

// New returns a limiter for a share of the limit, above 0 and at most 1.
func New(share float64) *Limiter {
	return &Limiter{share: share, audit: 1}
}

// Wait blocks until a call may be made, or ctx ends, and returns when the call was granted.
// After a nil error the call is in flight until Observe.
func (l *Limiter) Wait(ctx context.Context, priority Priority) (granted time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}

	// Join the queue of the priority.
	w := &waiter{ready: make(chan struct{})}
	l.mu.Lock()
	if len(l.queues[priority]) == 0 {
		l.pass[priority] = max(l.pass[priority], l.virtual) // no credit for the time without calls
	}
	l.queues[priority] = append(l.queues[priority], w)
	l.dispatch()
	l.mu.Unlock()

	select {
	case <-w.ready:
		return w.granted, nil
	case <-ctx.Done():
	}

	// The call may have been granted at the same moment. Then it counts, but is over.
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.granted.IsZero() {
		l.inFlight--
	} else {
		for i, other := range l.queues[priority] {
			if other == w {
				l.queues[priority] = append(l.queues[priority][:i:i], l.queues[priority][i+1:]...)
				break
			}
		}
	}
	l.dispatch()
	return time.Time{}, ctx.Err()
}

// Observe ends a call that was granted at a time, and learns from the limit in its answer.
// That is the zero Limit if the answer had none or there was no answer.
func (l *Limiter) Observe(limit auth0.Limit, granted time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.inFlight = max(0, l.inFlight-1)
	l.answered = true
	if limit.Known && limit.Limit > 0 {
		l.tick(now)
		l.observe(limit, granted, now)
	}
	l.dispatch()
}

// LongestHold is the longest time without a call, whatever a rate limit's reset says: a
// wrong value would stop everything.
const LongestHold = 2 * time.Minute

// Hold stops all calls for d, after a 429.
func (l *Limiter) Hold(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if until := now.Add(d); until.After(l.until) {
		l.until = until
	}

	// Our part of the bucket was assumed too large.
	l.tick(now)
	l.own = min(l.own, 0)
	l.flow.refused(now)
	l.dispatch()
}

// Rest returns the least pause of the tail after it has pulled everything. While others
// wait, it leaves them half of our calls. Otherwise its polls alone would use up a small
// limit, and no other caller would ever have a turn.
func (l *Limiter) Rest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size == 0 || !l.waiting() {
		return 0
	}

	// The tail takes every second of our calls.
	return min(TimeFor(2, l.share*l.refill), longestRest)
}

// longestRest bounds Rest: new events must be seen soon nevertheless.
const longestRest = 30 * time.Second

// Limit returns the last limit that was observed.
func (l *Limiter) Limit() auth0.Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Use is the usage of a limit.
type Use struct {
	Rate   float64 // calls a second that we may make; 0 if not paced
	Calls  float64 // calls a second that we made in the last ten seconds
	Refill float64 // calls a second that are added to the bucket, measured or assumed
}

// Use returns the usage of the limit.
func (l *Limiter) Use() Use {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Use{Rate: l.share * l.refill, Calls: l.recent.rate(time.Now()), Refill: l.refill}
}
