package ingest

import (
	"context"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// Pacer keeps all calls to one tenant within a share of its rate limit, which it learns from
// the answers, and divides them among our own callers. Others use the limit too, so there
// are two rules:
//
//   - Calls in the bucket: we leave the others' share there.
//   - Calls that refill it: we call no faster than our share of that rate.
//
// No header has the refill rate, so it is measured; see flow.go. A tenant that reports no
// limit is not paced. A Pacer is safe for concurrent use and starts no goroutine; a timer
// runs while a caller waits.
type Pacer struct {
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

// NewPacer returns a pacer for a share of the limit, above 0 and at most 1.
func NewPacer(share float64) *Pacer {
	return &Pacer{share: share, audit: 1}
}

// Wait blocks until a call may be made, or ctx ends, and returns when the call was granted.
// After a nil error the call is in flight until Observe.
func (p *Pacer) Wait(ctx context.Context, priority Priority) (granted time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}

	// Join the queue of the priority.
	w := &waiter{ready: make(chan struct{})}
	p.mu.Lock()
	if len(p.queues[priority]) == 0 {
		p.pass[priority] = max(p.pass[priority], p.virtual) // no credit for the time without calls
	}
	p.queues[priority] = append(p.queues[priority], w)
	p.dispatch()
	p.mu.Unlock()

	select {
	case <-w.ready:
		return w.granted, nil
	case <-ctx.Done():
	}

	// The call may have been granted at the same moment. Then it counts, but is over.
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.granted.IsZero() {
		p.inFlight--
	} else {
		for i, other := range p.queues[priority] {
			if other == w {
				p.queues[priority] = append(p.queues[priority][:i:i], p.queues[priority][i+1:]...)
				break
			}
		}
	}
	p.dispatch()
	return time.Time{}, ctx.Err()
}

// Observe ends a call that was granted at a time, and learns from the limit in its answer.
// That is the zero Limit if the answer had none or there was no answer.
func (p *Pacer) Observe(limit auth0.Limit, granted time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.inFlight = max(0, p.inFlight-1)
	p.answered = true
	if limit.Known && limit.Limit > 0 {
		p.tick(now)
		p.observe(limit, granted, now)
	}
	p.dispatch()
}

// Hold stops all calls for d, after a 429.
func (p *Pacer) Hold(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if until := now.Add(d); until.After(p.until) {
		p.until = until
	}

	// Our part of the bucket was assumed too large.
	p.tick(now)
	p.own = min(p.own, 0)
	p.flow.refused(now)
	p.dispatch()
}

// Rest returns the least pause of the tail after it has pulled everything. While others
// wait, it leaves them half of our calls. Otherwise its polls alone would use up a small
// limit, and no other caller would ever have a turn.
func (p *Pacer) Rest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size == 0 || !p.waiting() {
		return 0
	}

	// The tail takes every second of our calls.
	return min(timeFor(2, p.share*p.refill), longestRest)
}

// longestRest bounds Rest: new events must be seen soon nevertheless.
const longestRest = 30 * time.Second

// Limit returns the last limit that was observed.
func (p *Pacer) Limit() auth0.Limit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Use is the usage of a limit.
type Use struct {
	Rate   float64 // calls a second that we may make; 0 if not paced
	Calls  float64 // calls a second that we made in the last ten seconds
	Refill float64 // calls a second that are added to the bucket, measured or assumed
}

// Use returns the usage of the limit.
func (p *Pacer) Use() Use {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Use{Rate: p.share * p.refill, Calls: p.recent.rate(time.Now()), Refill: p.refill}
}

// never is a wait for an answer, which calls dispatch itself.
const never time.Duration = 365 * 24 * time.Hour

// dispatch grants all calls that may be made now, and sets the timer for the next one. mu
// must be held, here and below.
func (p *Pacer) dispatch() {
	now := time.Now()
	p.tick(now)

	for p.waiting() {
		// First the limit for all calls, then the turn of a priority.
		wait := p.gate(now)
		var priority Priority
		if wait == 0 {
			priority, wait = p.turn()
		}
		if wait > 0 {
			if p.wake == nil {
				p.wake = time.AfterFunc(wait, p.timeout)
			} else {
				p.wake.Reset(wait)
			}
			return
		}

		w := p.queues[priority][0]
		p.queues[priority] = p.queues[priority][1:]
		w.granted = now
		close(w.ready)
		p.sent(priority, now)
	}

	// No call waits.
	if p.wake != nil {
		p.wake.Stop()
	}
}

// timeout is the function of the timer.
func (p *Pacer) timeout() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dispatch()
}

// waiting reports whether a call waits.
func (p *Pacer) waiting() bool {
	for _, queue := range p.queues {
		if len(queue) > 0 {
			return true
		}
	}
	return false
}

// turn returns the priority of the next call. If only audits wait, it may also return how
// long they must wait.
func (p *Pacer) turn() (Priority, time.Duration) {
	if len(p.queues[PriorityTail]) > 0 {
		return PriorityTail, 0
	}

	// Of the others, the one with the least virtual time.
	best, found := PriorityAudit, false
	for priority := PriorityOverlap; priority < priorities; priority++ {
		allowed := priority != PriorityAudit || p.audit >= 1
		if len(p.queues[priority]) > 0 && allowed && (!found || p.pass[priority] < p.pass[best]) {
			best, found = priority, true
		}
	}
	if !found {
		return PriorityAudit, timeFor(1-p.audit, p.auditRate())
	}
	return best, 0
}

// sent counts a call.
func (p *Pacer) sent(priority Priority, now time.Time) {
	p.inFlight++
	p.recent.add(now)

	// The more weight a priority has, the slower is its virtual time.
	if priority == PriorityTail {
		p.tailAt = now
	} else {
		p.virtual = p.pass[priority]
		p.pass[priority] += 1 / weights[priority]
	}

	if priority == PriorityAudit {
		p.audit--
	}
	p.own--
	p.flow.sent(now)
}

// auditRate returns the calls a second that audits may make.
func (p *Pacer) auditRate() float64 {
	if p.size == 0 {
		return auditBlind
	}
	return auditShare * p.share * p.refill
}

// ours returns how many calls of a full bucket are ours. It is at least one call.
func (p *Pacer) ours() float64 { return max(1, p.share*float64(p.size)) }

// catchUp is the time of a long window whose calls may be made at once. With all of them at
// its start, the tail would have none until its end.
const catchUp = 3 * time.Second

// tick adds the calls that have become ours since the last tick.
func (p *Pacer) tick(now time.Time) {
	seconds := now.Sub(p.at).Seconds()
	if p.at.IsZero() {
		seconds = 0
	}
	p.at = now
	p.audit = min(1, p.audit+p.auditRate()*seconds)
	if p.size == 0 {
		return
	}

	// A long window fills the bucket at its end, so the calls of a window are spread over it.
	most := p.ours()
	if p.window > 0 {
		most = max(1, min(most, p.share*p.refill*catchUp.Seconds()))
		if !p.edge.After(now) {
			p.edge = p.edge.Add(p.window * (1 + now.Sub(p.edge)/p.window))
		}
	}
	if p.own < most {
		p.own = min(most, p.own+p.rate()*seconds)
	}
}

// rate returns how many calls a second become ours. If all calls are ours, it may be a
// little too high, since the bucket itself holds us back.
func (p *Pacer) rate() float64 {
	if p.share == 1 && p.size >= leastSize {
		return 1.15 * p.refill
	}
	return p.share * p.refill
}

// gate returns how long all callers must wait, or 0 if a call may be made now.
func (p *Pacer) gate(now time.Time) time.Duration {
	switch {
	case p.until.After(now):
		return p.until.Sub(now)
	case !p.answered && p.inFlight > 0:
		return never // the first answer has the limit
	case p.size == 0:
		return 0
	}

	// A measurement decides alone.
	if wait, decided := p.measure(now); decided {
		return wait
	}

	// We have used our calls. The tail does not wait for a debt to be paid.
	if p.own < 1-1e-9 {
		wait := timeFor(1-p.own, p.rate())
		if len(p.queues[PriorityTail]) > 0 {
			wait = min(wait, max(0, p.tailAt.Add(tailEvery).Sub(now)))
		}
		if wait > 0 {
			return wait
		}
	}

	// The others' calls in the bucket stay there.
	if p.left() >= p.floor()+1 {
		return 0
	}
	if p.inFlight > 0 {
		return never // its answer has the current level
	}
	if p.share < 1 {
		p.flow.empty()
	}

	return p.untilRefilled(now)
}

// untilRefilled returns how long to wait if the bucket has only the calls of others left. It
// is refilled at the reset, or earlier, since that is in whole seconds. We do not wait longer
// than longestHold.
func (p *Pacer) untilRefilled(now time.Time) time.Duration {
	wait := min(max(p.last.Reset, shortReset), longestHold)
	switch {
	case p.jumps >= surely:
		wait = p.lastAt.Sub(p.jumped).Truncate(time.Second) + time.Second + jumpMargin
		return max(0, p.jumped.Add(wait).Sub(now))
	case p.window == 0 && (p.flow.proven || p.share == 1):
		wait = min(wait, timeFor(float64(p.size)/2, p.refill))
	}
	return max(0, p.lastAt.Add(wait).Sub(now))
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
func (p *Pacer) left() float64 { return float64(p.level - p.inFlight) }

// floor returns the calls that we leave in the bucket: the others' share of it, or only some
// calls for their next requests, once the refill rate is known.
func (p *Pacer) floor() float64 {
	switch {
	case p.share == 1:
		return float64(p.size / 50) // answers may overtake one another
	case p.flow.proven || p.size < leastSize:
		return float64(p.size / 10)
	}
	return float64(p.size) - float64(int(p.ours()+1e-9))
}

// timeFor returns how long n calls take at a rate; never 0.
func timeFor(n, rate float64) time.Duration {
	if rate <= 0 {
		return never
	}
	return time.Duration(min(n/rate*1e9, float64(never))) + time.Microsecond
}

// observe learns from the limit in an answer.
func (p *Pacer) observe(limit auth0.Limit, granted, now time.Time) {
	// The first answer, or another plan. Assume that the limit is per second.
	if limit.Limit != p.size {
		p.size, p.window, p.jumps, p.refill = limit.Limit, 0, 0, float64(limit.Limit)
		p.last, p.level, p.levelAt = limit, limit.Remaining, now
		p.own = p.ours() - 1
		p.flow = measurement{due: now}
	}

	// A long window, or a slow token bucket.
	if limit.Reset >= longReset {
		if p.window == 0 || now.Add(limit.Reset).Before(p.edge) || limit.Reset > p.window {
			p.edge = now.Add(limit.Reset)
		}
		if p.window < limit.Reset {
			p.window = limit.Reset
			if off := p.window - time.Minute; off.Abs() <= 2*time.Second {
				p.window = time.Minute
			}
			p.refill, p.own = float64(p.size)/p.window.Seconds(), min(p.own, 1)
			p.flow = measurement{}
		}
	}

	// Update the level. A lower one always counts; a higher one only from a later call.
	if p.filledAtOnce(limit, now) {
		p.jumps, p.jumped = p.jumps+1, now
	}
	if limit.Remaining < p.level || !granted.Before(p.levelAt) {
		p.level, p.levelAt = limit.Remaining, now
	}
	p.last, p.lastAt = limit, now
	p.measured(limit, now)
}

// filledAtOnce reports whether the bucket has filled since the last answer, by more than the
// refill rate, or answers that overtake one another, can explain.
func (p *Pacer) filledAtOnce(limit auth0.Limit, now time.Time) bool {
	// inFlight is the number of answers that may overtake this one.
	rose, within := float64(limit.Remaining-p.last.Remaining), now.Sub(p.lastAt)
	isFull := limit.Remaining >= p.size-1-p.inFlight
	isLarge := rose >= float64(p.inFlight+2) && rose >= float64(p.size)/2
	isFast := within < fullWindow && rose > 1.6*p.refill*within.Seconds()
	return p.window == 0 && isFull && isLarge && isFast
}

// longReset is a reset that proves a window: a bucket has its next token sooner.
const longReset = 5 * time.Second

// sleep waits for d and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// recentCalls counts calls by second.
type recentCalls struct {
	counts [11]int // by second, the current one included
	second int64   // the last second that has a count
}

func (r *recentCalls) add(now time.Time) {
	r.turn(now)
	r.counts[r.second%int64(len(r.counts))]++
}

// rate returns the calls a second over the ten seconds before the current one.
func (r *recentCalls) rate(now time.Time) float64 {
	r.turn(now)
	sum := -r.counts[r.second%int64(len(r.counts))]
	for _, n := range r.counts {
		sum += n
	}
	return float64(sum) / float64(len(r.counts)-1)
}

// turn removes the counts that are too old.
func (r *recentCalls) turn(now time.Time) {
	// After a pause, no count is left.
	current := now.Unix()
	if current-r.second >= int64(len(r.counts)) {
		r.counts = [11]int{}
		r.second = current
	}
	for r.second < current {
		r.second++
		r.counts[r.second%int64(len(r.counts))] = 0
	}
}
