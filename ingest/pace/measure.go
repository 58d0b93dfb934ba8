package pace

import (
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// How the refill rate of a bucket is measured; the package comment draws the phases. A full
// bucket reveals nothing, so calls first drain it to a half. Then one call at a time reads how many
// tokens were added since the last one, until there are enough. A measurement only starts while
// callers have to wait; otherwise the rate does not matter.

// measurement has the results of measurements, and the state of the current one.
type measurement struct {
	proven  bool      // the refill rate was measured
	due     time.Time // of the next measurement
	short   bool      // the bucket has been empty since the last one
	phase   phase
	started time.Time
	drained int       // calls of the current draining
	since   time.Time // the first of them
	ended   time.Time // of the last measurement

	level   int           // of the bucket at
	at      time.Time     // the last answer without another call in flight
	pause   time.Duration // until the next call
	gained  float64       // tokens that were added in
	watched time.Duration
	fulls   int     // answers with a full bucket, where some tokens may have been lost
	bound   float64 // lower bound of the tokens a second, from these
}

type phase int

const (
	phaseIdle     phase = iota
	phaseDraining       // calls go as fast as they can
	phaseWaiting        // until no call is in flight
	phaseWatching       // one call at a time
)

const (
	enough     = 20.0             // tokens; an error of one is 5 %
	longest    = 20 * time.Second // of a measurement
	maxFulls   = 12
	measureAll = 5 * time.Minute  // interval, since a plan can change
	measureBad = 30 * time.Second // interval after a 429, or after the bucket was empty
	firstPause = 250 * time.Millisecond
	leastPause = 5 * time.Millisecond
	slowDrain  = 40 * time.Second // if twice a bucket of calls takes so long, they are not in a hurry
	leastSize  = 5                // a smaller bucket cannot be measured
)

// sent counts a call of a draining.
func (m *measurement) sent(now time.Time) {
	if m.phase != phaseDraining {
		return
	}
	if m.drained == 0 {
		m.since = now
	}
	m.drained++
}

// empty notes that the bucket is empty: its refill rate is lower than expected, or others
// use more than expected.
func (m *measurement) empty() {
	m.short = true
	if soon := m.ended.Add(measureBad); m.proven && m.due.After(soon) {
		m.due = soon
	}
}

// refused notes a 429: the expected refill rate may be wrong.
func (m *measurement) refused(now time.Time) {
	m.phase = phaseIdle
	if next := now.Add(measureBad); m.due.After(next) || m.due.Before(now) {
		m.due = next
	}
}

// measure runs a measurement. During one, decided is true, and wait is how long the next
// call must wait.
func (l *Limiter) measure(now time.Time) (wait time.Duration, decided bool) {
	m := &l.flow

	// Start to drain the bucket.
	if m.phase == phaseIdle {
		if !l.mustMeasure(now) {
			return 0, false
		}
		*m = measurement{proven: m.proven, ended: m.ended, phase: phaseDraining, started: now, pause: firstPause}
	}

	// During the draining, calls go at once until half of the bucket is left.
	if m.phase == phaseDraining {
		if m.drained > 2*l.size {
			l.endDraining(now)
			return 0, false
		}
		if l.left() > float64(l.size/2) {
			return 0, true
		}
		m.phase = phaseWaiting
	}

	// The next answer after all others is the first exact one.
	if l.inFlight > 0 {
		return never, true
	}
	if m.phase == phaseWaiting {
		m.phase, m.at = phaseWatching, time.Time{}
	}
	if l.last.Remaining < 1 {
		return max(0, l.lastAt.Add(max(l.last.Reset, shortReset)).Sub(now)), true
	}
	return max(0, m.at.Add(m.pause).Sub(now)), true
}

// mustMeasure reports whether a measurement must start.
func (l *Limiter) mustMeasure(now time.Time) bool {
	m := &l.flow
	possible := l.window == 0 && l.size >= leastSize && !now.Before(m.due)
	inDebt := l.own < 0
	needed := l.own < 1 || !m.proven || m.short // calls wait, or the rate is not known
	return possible && !inDebt && needed
}

// endDraining ends a measurement whose bucket does not drain: it is refilled as fast as we
// call, or faster.
func (l *Limiter) endDraining(now time.Time) {
	m := &l.flow
	if now.Sub(m.since) > slowDrain { // the calls were too slow to tell
		*m = measurement{proven: m.proven, ended: m.ended, due: now.Add(measureAll)}
		return
	}
	added := float64(m.drained - l.inFlight - (l.size - l.last.Remaining))
	l.finish(min(float64(l.size), added/max(now.Sub(m.since).Seconds(), 1e-3)), now)
}

// measured adds an answer to the measurement.
func (l *Limiter) measured(limit auth0.Limit, now time.Time) {
	m := &l.flow
	if m.phase != phaseWatching || l.inFlight > 0 {
		return
	}

	// The first answer is only the start, unless the bucket has filled again since the draining.
	if m.at.IsZero() {
		if m.level, m.at = limit.Remaining, now; limit.Remaining <= l.size*3/4 {
			return
		}
		added := float64(m.drained - l.size + limit.Remaining)
		m.bound = max(m.bound, added/max(now.Sub(m.since).Seconds(), 1e-3))
		if m.fulls++; m.fulls >= maxFulls {
			l.finish(m.rate(float64(l.size)), now)
		} else {
			m.phase, m.drained = phaseDraining, 0
		}
		return
	}

	// If the bucket is full, some tokens may have been lost: call sooner next time.
	added, within := float64(limit.Remaining+1-m.level), now.Sub(m.at)
	if limit.Remaining >= l.size-1 {
		m.fulls++
		m.bound = max(m.bound, (added-1)/within.Seconds()) // a part of one token may be older
		m.pause = max(m.pause/2, leastPause)
	} else {
		m.gained += added
		m.watched += within
		m.pause = min(2*m.pause, time.Second)
		if m.gained >= 2 {
			quarter := float64(l.size) / 4 / m.gained * float64(m.watched) // time for a quarter of the bucket
			m.pause = min(time.Duration(quarter), 2*time.Second)
		}
	}
	m.level, m.at = limit.Remaining, now

	switch {
	case m.gained >= enough, m.fulls >= maxFulls, now.Sub(m.started) > longest, l.jumps >= surely:
		rate := m.rate(float64(l.size))
		if l.jumps >= surely {
			rate = float64(l.size)
		}
		l.finish(rate, now)

	// The next answer would find a full bucket: drain it again. Otherwise the intervals with the
	// most tokens would be missing.
	case float64(limit.Remaining)+added > 0.9*float64(l.size):
		m.phase, m.drained = phaseDraining, 0
	}
}

// rate returns the result of a measurement. Most limits are per second: natural, the size of
// the bucket, is the result unless something contradicts it.
func (m *measurement) rate(natural float64) float64 {
	rate := m.gained / max(m.watched.Seconds(), 1e-3)
	expected := m.bound * m.watched.Seconds() // tokens in the watched time, at the bound
	switch {
	case rate > 0.8*natural && rate < 1.2*natural:
		return natural
	case m.bound < natural/4: // far from one bucket a second
	case expected >= 2 && m.gained < expected/2: // filled at once, as by a window of a second
		return natural
	case m.gained < enough/4: // filled too soon to see more
		return max(m.bound, natural)
	}
	return max(rate, m.bound)
}

// finish ends a measurement.
func (l *Limiter) finish(rate float64, now time.Time) {
	l.refill = max(rate, 0.01)
	// The longer it takes to pay back the calls of this measurement, the later is the next one.
	payback := TimeFor(max(-l.own, 0), l.share*l.refill)
	l.flow = measurement{proven: true, ended: now, due: now.Add(measureAll + 4*payback)}
}
