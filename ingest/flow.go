package ingest

import "time"

// How the flow into a bucket is measured. A full bucket tells nothing, so calls
// first draw it down to a half; then one call at a time looks how much has come
// meanwhile, which makes every answer exact, until enough has. All of these
// calls are on credit: what they take beyond our share is paid back afterwards.
// It is done while callers are held back only: else the flow does not matter.

// measurement is what is known of the flow, and how far a look at it is.
type measurement struct {
	proven bool      // the flow is not just assumed
	due    time.Time // of the next measurement
	short  bool      // the bucket has held us back since
	phase  phase
	began  time.Time
	drawn  int       // calls of this draining
	since  time.Time // the first of them
	ended  time.Time // of the measurement before

	level   int           // what was in the bucket at
	at      time.Time     // the last quiet answer
	pause   time.Duration // until the next look
	gained  float64       // tokens that came within
	watched time.Duration
	fulls   int     // looks that found the bucket full, so that some may have been lost
	bound   float64 // tokens a second at least, by these
}

type phase int

const (
	steady   phase = iota
	draining       // calls go as fast as they can
	settling       // until none is in flight
	watching       // one at a time
)

const (
	enough     = 20.0             // tokens: one of them more or less is 5 %
	longest    = 20 * time.Second // of a measurement
	mostFulls  = 12
	measureAll = 5 * time.Minute  // a plan can change
	measureBad = 30 * time.Second // after a refusal, or where the bucket holds us back
	firstPause = 250 * time.Millisecond
	leastPause = 5 * time.Millisecond
	slowDrain  = 40 * time.Second // calls that take so long for twice a bucket are in no hurry
	leastSize  = 5                // in smaller ones nothing can be seen
)

func (m *measurement) sent(now time.Time) {
	if m.phase != draining {
		return
	}
	if m.drawn == 0 {
		m.since = now
	}
	m.drawn++
}

// empty is told that the bucket holds us back: less flows in than we thought, or
// others take more.
func (m *measurement) empty() {
	m.short = true
	if soon := m.ended.Add(measureBad); m.proven && m.due.After(soon) {
		m.due = soon
	}
}

// refused is told of a 429: what we think of the flow may be wrong.
func (m *measurement) refused(now time.Time) {
	m.phase = steady
	if next := now.Add(measureBad); m.due.After(next) || m.due.Before(now) {
		m.due = next
	}
}

// measure leads a measurement, and decides about calls while one goes on.
func (p *Pacer) measure(now time.Time) (wait time.Duration, decided bool) {
	m, natural := &p.flow, float64(p.size)
	if m.phase == steady {
		if p.window > 0 || p.size < leastSize || now.Before(m.due) || p.own >= 1 && m.proven && !m.short || p.own < 0 {
			return 0, false
		}
		*m = measurement{proven: m.proven, ended: m.ended, phase: draining, began: now, pause: firstPause}
	}
	if m.phase == draining {
		if m.drawn > 2*p.size { // it fills as fast as we can call, or faster
			if now.Sub(m.since) > slowDrain { // nobody was in a hurry, which tells nothing
				*m = measurement{proven: m.proven, ended: m.ended, due: now.Add(measureAll)}
				return 0, false
			}
			came := float64(m.drawn - p.inFlight - (p.size - p.last.Remaining))
			p.settle(min(natural, came/max(now.Sub(m.since).Seconds(), 1e-3)), now)
			return 0, false
		}
		if p.left() > float64(p.size/2) {
			return 0, true
		}
		m.phase = settling
	}
	if p.inFlight > 0 {
		return never, true
	}
	if m.phase == settling { // the next answer is the first that is exact
		m.phase, m.at = watching, time.Time{}
	}
	if p.last.Remaining < 1 {
		return max(0, p.lastAt.Add(max(p.last.Reset, shortReset)).Sub(now)), true
	}
	return max(0, m.at.Add(m.pause).Sub(now)), true
}

// measured takes an answer into the measurement.
func (p *Pacer) measured(l Limit, now time.Time) {
	m := &p.flow
	if m.phase != watching || p.inFlight > 0 {
		return
	}
	if m.at.IsZero() {
		if m.level, m.at = l.Remaining, now; l.Remaining <= p.size*3/4 {
			return
		}
		// It has filled again before it could be looked at.
		m.bound = max(m.bound, float64(m.drawn-p.size+l.Remaining)/max(now.Sub(m.since).Seconds(), 1e-3))
		if m.fulls++; m.fulls >= mostFulls {
			p.settle(m.rate(float64(p.size)), now)
		} else {
			m.phase, m.drawn = draining, 0
		}
		return
	}
	came, within := float64(l.Remaining+1-m.level), now.Sub(m.at)
	if l.Remaining >= p.size-1 {
		m.fulls++
		m.bound = max(m.bound, (came-1)/within.Seconds()) // a part of one may have been there
		m.pause = max(m.pause/2, leastPause)
	} else {
		m.gained += came
		m.watched += within
		m.pause = min(2*m.pause, time.Second)
		if m.gained >= 2 {
			m.pause = min(time.Duration(float64(p.size)/4/m.gained*float64(m.watched)), 2*time.Second)
		}
	}
	m.level, m.at = l.Remaining, now
	switch {
	case m.gained >= enough, m.fulls >= mostFulls, now.Sub(m.began) > longest, p.jumps >= surely:
		rate := m.rate(float64(p.size))
		if p.jumps >= surely {
			rate = float64(p.size)
		}
		p.settle(rate, now)
	case float64(l.Remaining)+came > 0.9*float64(p.size): // else the looks would be missed at which most has come
		m.phase, m.drawn = draining, 0
	}
}

// rate is what a measurement comes to. Most limits are told as so many a second;
// that is taken where nothing speaks against it.
func (m *measurement) rate(natural float64) float64 {
	rate := m.gained / max(m.watched.Seconds(), 1e-3)
	surely := m.bound * m.watched.Seconds() // would have come while we watched, at the bound
	switch {
	case rate > 0.8*natural && rate < 1.2*natural:
		return natural
	case m.bound < natural/4: // far from as many a second
	case surely >= 2 && m.gained < surely/2: // it fills all at once: a window of a second
		return natural
	case m.gained < enough/4: // it filled too soon to see more
		return max(m.bound, natural)
	}
	return max(rate, m.bound)
}

// settle ends a measurement.
func (p *Pacer) settle(rate float64, now time.Time) {
	p.refill = max(rate, 0.01)
	// Where it takes long to pay back what this took, it is not done again so soon.
	p.flow = measurement{proven: true, ended: now, due: now.Add(measureAll + 4*timeFor(max(-p.own, 0), p.share*p.refill))}
}
