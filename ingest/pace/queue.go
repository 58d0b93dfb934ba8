package pace

import "time"

// Priority is the priority of a caller.
type Priority int

// The priorities of callers. The tail goes before all others. The others divide the rest by
// weight while they wait.
const (
	PriorityTail     Priority = iota // the chain at the end of the log, with the new events
	PriorityOverlap                  // re-reads for late events
	PriorityBackfill                 // events from before the first start
	PriorityAudit                    // background checks; never more than auditShare
	priorities
)

// weights are the weights of the priorities except PriorityTail, in percent.
var weights = [priorities]float64{PriorityOverlap: 20, PriorityBackfill: 75, PriorityAudit: 5}

const (
	auditShare = 0.05 // of our share, even if there is no other caller
	auditBlind = 1.0  // audit calls a second while no limit is known
)

// waiter is a call that waits for its turn.
type waiter struct {
	ready   chan struct{} // closed when the call may be made
	granted time.Time     // set before ready is closed
}

// dispatch grants all calls that may be made now, and sets the timer for the next one. mu
// must be held, here and below.
func (l *Limiter) dispatch() {
	now := time.Now()
	l.tick(now)

	for l.waiting() {
		// First the limit for all calls, then the turn of a priority.
		wait := l.gate(now)
		var priority Priority
		if wait == 0 {
			priority, wait = l.turn()
		}
		if wait > 0 {
			if l.wake == nil {
				l.wake = time.AfterFunc(wait, l.timeout)
			} else {
				l.wake.Reset(wait)
			}
			return
		}

		w := l.queues[priority][0]
		l.queues[priority] = l.queues[priority][1:]
		w.granted = now
		close(w.ready)
		l.sent(priority, now)
	}

	// No call waits.
	if l.wake != nil {
		l.wake.Stop()
	}
}

// timeout is the function of the timer.
func (l *Limiter) timeout() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatch()
}

// waiting reports whether a call waits.
func (l *Limiter) waiting() bool {
	for _, queue := range l.queues {
		if len(queue) > 0 {
			return true
		}
	}
	return false
}

// turn returns the priority of the next call. If only audits wait, it may also return how
// long they must wait.
func (l *Limiter) turn() (Priority, time.Duration) {
	if len(l.queues[PriorityTail]) > 0 {
		return PriorityTail, 0
	}

	// Of the others, the one with the least virtual time.
	best, found := PriorityAudit, false
	for priority := PriorityOverlap; priority < priorities; priority++ {
		allowed := priority != PriorityAudit || l.audit >= 1
		if len(l.queues[priority]) > 0 && allowed && (!found || l.pass[priority] < l.pass[best]) {
			best, found = priority, true
		}
	}
	if !found {
		return PriorityAudit, TimeFor(1-l.audit, l.auditRate())
	}
	return best, 0
}

// sent counts a call.
func (l *Limiter) sent(priority Priority, now time.Time) {
	l.inFlight++
	l.recent.add(now)

	// The more weight a priority has, the slower is its virtual time.
	if priority == PriorityTail {
		l.tailAt = now
	} else {
		l.virtual = l.pass[priority]
		l.pass[priority] += 1 / weights[priority]
	}

	if priority == PriorityAudit {
		l.audit--
	}
	l.own--
	l.flow.sent(now)
}

// auditRate returns the calls a second that audits may make.
func (l *Limiter) auditRate() float64 {
	if l.size == 0 {
		return auditBlind
	}
	return auditShare * l.share * l.refill
}
