package pace

import (
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// never is a wait for an answer, which calls dispatch itself.
const never time.Duration = 365 * 24 * time.Hour

// ours returns how many calls of a full bucket are ours. It is at least one call.
func (l *Limiter) ours() float64 { return max(1, l.share*float64(l.size)) }

// catchUp is the time of a long window whose calls may be made at once. With all of them at
// its start, the tail would have none until its end.
const catchUp = 3 * time.Second

// tick adds the calls that have become ours since the last tick.
func (l *Limiter) tick(now time.Time) {
	seconds := now.Sub(l.at).Seconds()
	if l.at.IsZero() {
		seconds = 0
	}
	l.at = now
	l.audit = min(1, l.audit+l.auditRate()*seconds)
	if l.size == 0 {
		return
	}

	// A long window fills the bucket at its end, so the calls of a window are spread over it.
	most := l.ours()
	if l.window > 0 {
		most = max(1, min(most, l.share*l.refill*catchUp.Seconds()))
		if !l.edge.After(now) {
			l.edge = l.edge.Add(l.window * (1 + now.Sub(l.edge)/l.window))
		}
	}
	if l.own < most {
		l.own = min(most, l.own+l.rate()*seconds)
	}
}

// rate returns how many calls a second become ours. If all calls are ours, it may be a
// little too high, since the bucket itself holds us back.
func (l *Limiter) rate() float64 {
	if l.share == 1 && l.size >= leastSize {
		return 1.15 * l.refill
	}
	return l.share * l.refill
}

// gate returns how long all callers must wait, or 0 if a call may be made now.
func (l *Limiter) gate(now time.Time) time.Duration {
	switch {
	case l.until.After(now):
		return l.until.Sub(now)
	case !l.answered && l.inFlight > 0:
		return never // the first answer has the limit
	case l.size == 0:
		return 0
	}

	// A measurement decides alone.
	if wait, decided := l.measure(now); decided {
		return wait
	}

	// We have used our calls. The tail does not wait for a debt to be paid.
	if l.own < 1-1e-9 {
		wait := TimeFor(1-l.own, l.rate())
		if len(l.queues[PriorityTail]) > 0 {
			wait = min(wait, max(0, l.tailAt.Add(tailEvery).Sub(now)))
		}
		if wait > 0 {
			return wait
		}
	}

	// The others' calls in the bucket stay there.
	if l.left() >= l.floor()+1 {
		return 0
	}
	if l.inFlight > 0 {
		return never // its answer has the current level
	}
	if l.share < 1 {
		l.flow.empty()
	}

	return l.untilRefilled(now)
}

// untilRefilled returns how long to wait if the bucket has only the calls of others left. It
// is refilled at the reset, or earlier, since that is in whole seconds. We do not wait longer
// than LongestHold.
func (l *Limiter) untilRefilled(now time.Time) time.Duration {
	wait := min(max(l.last.Reset, shortReset), LongestHold)
	switch {
	case l.jumps >= surely:
		wait = l.lastAt.Sub(l.jumped).Truncate(time.Second) + time.Second + jumpMargin
		return max(0, l.jumped.Add(wait).Sub(now))
	case l.window == 0 && (l.flow.proven || l.share == 1):
		wait = min(wait, TimeFor(float64(l.size)/2, l.refill))
	}
	return max(0, l.lastAt.Add(wait).Sub(now))
}

// tailEvery is the longest time that the tail waits for our calls.
const tailEvery = time.Second

// shortReset is used for a reset of 0, which may be anything up to a second.
const shortReset = 100 * time.Millisecond

// surely is the number of jumps that prove windows of a second.
const surely = 2

// fullWindow is a little more than such a window.
const fullWindow = 1200 * time.Millisecond

// jumpMargin is a margin after the expected end of a window of a second.
const jumpMargin = 20 * time.Millisecond

// left returns the calls that are certainly in the bucket: the least Remaining since it last
// rose, without the calls in flight. Answers may overtake one another, so only the answer to
// a later call proves a rise.
func (l *Limiter) left() float64 { return float64(l.level - l.inFlight) }

// floor returns the calls that we leave in the bucket: the others' share of it, or only some
// calls for their next requests, once the refill rate is known.
func (l *Limiter) floor() float64 {
	switch {
	case l.share == 1:
		return float64(l.size / 50) // answers may overtake one another
	case l.flow.proven || l.size < leastSize:
		return float64(l.size / 10)
	}
	return float64(l.size) - float64(int(l.ours()+1e-9))
}

// TimeFor returns how long n calls take at a rate of calls a second; never 0.
func TimeFor(n, rate float64) time.Duration {
	if rate <= 0 {
		return never
	}
	return time.Duration(min(n/rate*1e9, float64(never))) + time.Microsecond
}

// observe learns from the limit in an answer.
func (l *Limiter) observe(limit auth0.Limit, granted, now time.Time) {
	// The first answer, or another plan. Assume that the limit is per second.
	if limit.Limit != l.size {
		l.size, l.window, l.jumps, l.refill = limit.Limit, 0, 0, float64(limit.Limit)
		l.last, l.level, l.levelAt = limit, limit.Remaining, now
		l.own = l.ours() - 1
		l.flow = measurement{due: now}
	}

	// A long window, or a slow token bucket.
	if limit.Reset >= longReset {
		if l.window == 0 || now.Add(limit.Reset).Before(l.edge) || limit.Reset > l.window {
			l.edge = now.Add(limit.Reset)
		}
		if l.window < limit.Reset {
			l.window = limit.Reset
			if off := l.window - time.Minute; off.Abs() <= 2*time.Second {
				l.window = time.Minute
			}
			l.refill, l.own = float64(l.size)/l.window.Seconds(), min(l.own, 1)
			l.flow = measurement{}
		}
	}

	// Update the level. A lower one always counts; a higher one only from a later call.
	if l.filledAtOnce(limit, now) {
		l.jumps, l.jumped = l.jumps+1, now
	}
	if limit.Remaining < l.level || !granted.Before(l.levelAt) {
		l.level, l.levelAt = limit.Remaining, now
	}
	l.last, l.lastAt = limit, now
	l.measured(limit, now)
}

// filledAtOnce reports whether the bucket has filled since the last answer, by more than the
// refill rate, or answers that overtake one another, can explain.
func (l *Limiter) filledAtOnce(limit auth0.Limit, now time.Time) bool {
	// inFlight is the number of answers that may overtake this one.
	rose, within := float64(limit.Remaining-l.last.Remaining), now.Sub(l.lastAt)
	isFull := limit.Remaining >= l.size-1-l.inFlight
	isLarge := rose >= float64(l.inFlight+2) && rose >= float64(l.size)/2
	isFast := within < fullWindow && rose > 1.6*l.refill*within.Seconds()
	return l.window == 0 && isFull && isLarge && isFast
}

// longReset is a reset that proves a window: a bucket has its next token sooner.
const longReset = 5 * time.Second
