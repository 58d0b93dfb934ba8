package ingest

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Pacer keeps all calls to one tenant within a share of its rate limit, as the
// answers tell it. Others share the limit with us, so it keeps two rules:
//
//   - What lies in the bucket: once no more than the others' share of it is
//     left, we wait for its reset.
//   - What flows into it: we call no faster than our share of the rate at which
//     the bucket is seen to fill, and until that is known, of one bucket a second.
//
// A tenant that tells no limit is not paced.
type Pacer struct {
	share float64

	mu      sync.Mutex // guards what follows
	limiter *rate.Limiter
	until   time.Time // no call before
	size    int       // of the bucket
	last    Limit     // the last answer's
	lastAt  time.Time
	gained  float64       // tokens seen to flow in during watched
	watched time.Duration // while the bucket was not full
	refill  float64       // tokens a second; 0 while unknown
	learned time.Time     // when refill was
}

// How the refill rate is measured, and for how long it is believed: a plan can
// be changed, and a measurement beside a busy neighbour is too low.
const (
	measureFor = 5 * time.Second
	believeFor = 5 * time.Minute
)

// NewPacer returns a pacer for a share of the limit, above 0 and at most 1.
func NewPacer(share float64) *Pacer {
	return &Pacer{share: share, limiter: rate.NewLimiter(rate.Inf, 1)}
}

// Wait blocks until the next call may be made, or ctx ends.
type Class int

const (
	Tail Class = iota
	Overlap
	Backfill
	Audit
)

type Use struct{ Rate, Calls, Refill float64 }

func (p *Pacer) Use() Use { return Use{} }

func (p *Pacer) Wait(ctx context.Context, _ Class) error {
	if err := p.limiter.Wait(ctx); err != nil {
		return err
	}
	for {
		p.mu.Lock()
		d := time.Until(p.until)
		p.mu.Unlock()
		if d <= 0 {
			return ctx.Err()
		}
		if !sleep(ctx, d) {
			return ctx.Err()
		}
	}
}

// Hold stops all calls for d, after a 429.
func (p *Pacer) Hold(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold(time.Now().Add(d))
}

func (p *Pacer) hold(until time.Time) {
	if until.After(p.until) {
		p.until = until
	}
}

// Observe learns from an answer's limit.
func (p *Pacer) Observe(l Limit) {
	if !l.Known || l.Limit <= 0 {
		return
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	reserve := l.Limit - int(p.share*float64(l.Limit))
	if l.Remaining <= reserve && p.share < 1 || l.Remaining == 0 {
		p.hold(now.Add(l.Reset))
	}
	if l.Limit != p.size {
		p.size, p.refill, p.gained, p.watched = l.Limit, 0, 0, 0
	} else {
		p.measure(l, now)
	}
	p.last, p.lastAt = l, now
	refill := p.refill
	if refill == 0 || now.Sub(p.learned) > believeFor {
		refill = float64(l.Limit)
	}
	p.limiter.SetLimit(rate.Limit(p.share * refill))
	p.limiter.SetBurst(max(1, int(p.share*float64(l.Limit))))
}

// measure adds what flowed in since the last answer. A bucket that was full
// before our call tells nothing: it may have overflowed.
func (p *Pacer) measure(l Limit, now time.Time) {
	before := l.Remaining + 1 // our own call took one
	if before >= l.Limit {
		return
	}
	p.gained += float64(before - p.last.Remaining)
	p.watched += now.Sub(p.lastAt)
	if p.watched < measureFor {
		return
	}
	if p.gained > 0 {
		p.refill, p.learned = p.gained/p.watched.Seconds(), now
	}
	p.gained, p.watched = 0, 0
}

// Limit is the last limit that was observed.
func (p *Pacer) Limit() Limit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
