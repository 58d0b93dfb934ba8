package ingest

import (
	"context"
	"sync"
	"time"
)

// Pacer keeps all calls to one tenant within a share of its rate limit, as the
// answers tell it, and shares them out among our own callers. Others use the
// limit too, so it keeps two rules:
//
//   - What lies in the bucket: we leave the others' share of it there.
//   - What flows into it: we call no faster than our share of that.
//
// No header tells the flow, so it is measured; see flow.go. A tenant that tells
// no limit is not paced. A Pacer is safe for concurrent use and starts no
// goroutine; a timer runs while somebody waits.
type Pacer struct {
	share float64

	mu       sync.Mutex // guards what follows
	queues   [classes][]*waiter
	pass     [classes]float64 // a class's virtual time: calls over weight
	virtual  float64          // pass of the class that went last
	wake     *time.Timer      // the next look at the queues; nil before the first
	inFlight int              // calls between Wait and Observe
	answered bool             // one call at least was
	until    time.Time        // no call before
	recent   recentCalls
	tailAt   time.Time // of the tail's last call

	last    Limit     // the last answer's that told one
	lastAt  time.Time // when
	level   int       // the least that was left, since it last rose
	levelAt time.Time // when; answers to earlier calls may be older than it

	size   int           // of the bucket; 0 when the tenant tells none
	refill float64       // calls a second that flow in; measured, or assumed at first
	window time.Duration // all of size comes at its end; 0 for a token bucket or a window of a second
	edge   time.Time     // when the window ends
	jumps  int           // how often the bucket filled all at once: windows of a second
	jumped time.Time     // when it last did

	at    time.Time // of the two that flow
	own   float64   // calls that are ours by now; below 0 after a measurement
	audit float64   // the part of them that audits may use

	flow measurement
}

// Class says who calls.
type Class int

// The classes of callers. The tail goes before all others; those share what is
// left by weight while they wait.
const (
	Tail     Class = iota // the chain at the end of the log: what is new
	Overlap               // re-reads of what may have shown up late
	Backfill              // what was there before our first start
	Audit                 // background checks; never more than auditShare
	classes
)

// weights are those of the classes but Tail, in percent.
var weights = [classes]float64{Overlap: 20, Backfill: 75, Audit: 5}

const (
	auditShare = 0.05 // of our share, even when nobody else calls
	auditBlind = 1.0  // audits a second while no limit is known
)

// waiter is a call that waits for its turn.
type waiter struct {
	ready   chan struct{} // closed when the call may be made
	granted time.Time     // when it was
}

// NewPacer returns a pacer for a share of the limit, above 0 and at most 1.
func NewPacer(share float64) *Pacer {
	return &Pacer{share: share, audit: 1}
}

// Wait blocks until a call may be made, or ctx ends, and tells when the call was
// granted. After a nil error it counts as in flight until Observe.
func (p *Pacer) Wait(ctx context.Context, class Class) (granted time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	w := &waiter{ready: make(chan struct{})}
	p.mu.Lock()
	if len(p.queues[class]) == 0 {
		p.pass[class] = max(p.pass[class], p.virtual) // no credit for having been away
	}
	p.queues[class] = append(p.queues[class], w)
	p.dispatch()
	p.mu.Unlock()
	select {
	case <-w.ready:
		return w.granted, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.granted.IsZero() { // at the same moment; the call counts, but is over
		p.inFlight--
	} else {
		for i, o := range p.queues[class] {
			if o == w {
				p.queues[class] = append(p.queues[class][:i:i], p.queues[class][i+1:]...)
				break
			}
		}
	}
	p.dispatch()
	return time.Time{}, ctx.Err()
}

// Observe ends a call that was granted at a time, and learns from the limit that
// its answer told: the zero Limit when it told none or there was no answer.
func (p *Pacer) Observe(l Limit, granted time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.inFlight = max(0, p.inFlight-1)
	p.answered = true
	if l.Known && l.Limit > 0 {
		p.tick(now)
		p.observe(l, granted, now)
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
	p.tick(now)
	p.own = min(p.own, 0)
	p.flow.refused(now)
	p.dispatch()
}

// Rest is the least pause of the tail when nothing new is there: while others wait,
// it leaves them half of what is ours. A small limit would be used up by its polls
// alone, and nobody else would ever have a turn.
func (p *Pacer) Rest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size == 0 || !p.waiting() {
		return 0
	}
	return min(timeFor(2, p.share*p.refill), longestRest)
}

// longestRest bounds Rest: what is new is to be seen soon all the same.
const longestRest = 30 * time.Second

// Limit is the last limit that was observed.
func (p *Pacer) Limit() Limit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Use is how a limit is used.
type Use struct {
	Rate   float64 // calls a second that we may make, 0 when not paced
	Calls  float64 // calls a second of the last ten seconds
	Refill float64 // what flows into the bucket a second, measured or assumed
}

// Use tells how the limit is used.
func (p *Pacer) Use() Use {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Use{Rate: p.share * p.refill, Calls: p.recent.rate(time.Now()), Refill: p.refill}
}

// never is later than anything that we wait for: an answer will wake us.
const never time.Duration = 365 * 24 * time.Hour

// dispatch lets as many go as may, and sets the timer for the next.
func (p *Pacer) dispatch() {
	now := time.Now()
	p.tick(now)
	for p.waiting() {
		wait := p.gate(now)
		var class Class
		if wait == 0 {
			class, wait = p.turn()
		}
		if wait > 0 {
			if p.wake == nil {
				p.wake = time.AfterFunc(wait, p.look)
			} else {
				p.wake.Reset(wait)
			}
			return
		}
		w := p.queues[class][0]
		p.queues[class] = p.queues[class][1:]
		w.granted = now
		close(w.ready)
		p.sent(class, now)
	}
	if p.wake != nil {
		p.wake.Stop()
	}
}

func (p *Pacer) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dispatch()
}

func (p *Pacer) waiting() bool {
	for _, q := range p.queues {
		if len(q) > 0 {
			return true
		}
	}
	return false
}

// turn is whose turn it is, or how long audits, who wait alone, must wait.
func (p *Pacer) turn() (Class, time.Duration) {
	if len(p.queues[Tail]) > 0 {
		return Tail, 0
	}
	best, found := Audit, false
	for c := Overlap; c < classes; c++ {
		if len(p.queues[c]) > 0 && (c != Audit || p.audit >= 1) && (!found || p.pass[c] < p.pass[best]) {
			best, found = c, true
		}
	}
	if !found {
		return Audit, timeFor(1-p.audit, p.auditRate())
	}
	return best, 0
}

// sent counts a call.
func (p *Pacer) sent(class Class, now time.Time) {
	p.inFlight++
	p.recent.add(now)
	if class == Tail {
		p.tailAt = now
	} else {
		p.virtual = p.pass[class]
		p.pass[class] += 1 / weights[class]
	}
	if class == Audit {
		p.audit--
	}
	p.own--
	p.flow.sent(now)
}

func (p *Pacer) auditRate() float64 {
	if p.size == 0 {
		return auditBlind
	}
	return auditShare * p.share * p.refill
}

// ours is how many calls of a full bucket are ours. A share below one is one call
// at a time all the same.
func (p *Pacer) ours() float64 { return max(1, p.share*float64(p.size)) }

// catchUp is how much of a long window's calls may be made up for at once: all of
// them at its start would leave the tail nothing until its end.
const catchUp = 3 * time.Second

// tick lets time go by: what flows to us.
func (p *Pacer) tick(now time.Time) {
	dt := now.Sub(p.at).Seconds()
	if p.at.IsZero() {
		dt = 0
	}
	p.at = now
	p.audit = min(1, p.audit+p.auditRate()*dt)
	if p.size == 0 {
		return
	}
	most := p.ours()
	if p.window > 0 {
		most = max(1, min(most, p.share*p.refill*catchUp.Seconds()))
		if !p.edge.After(now) {
			p.edge = p.edge.Add(p.window * (1 + now.Sub(p.edge)/p.window))
		}
	}
	if p.own < most {
		p.own = min(most, p.own+p.rate()*dt)
	}
}

// rate is how many calls a second become ours. Where all are, the bucket holds us
// back if that is a little too much.
func (p *Pacer) rate() float64 {
	if p.share == 1 && p.size >= leastSize {
		return 1.15 * p.refill
	}
	return p.share * p.refill
}

// gate is how long everybody must wait, 0 if a call may be made now.
func (p *Pacer) gate(now time.Time) time.Duration {
	switch {
	case p.until.After(now):
		return p.until.Sub(now)
	case !p.answered && p.inFlight > 0:
		return never // one call asks for the limit
	case p.size == 0:
		return 0
	}
	if wait, decided := p.measure(now); decided {
		return wait
	}
	if p.own < 1-1e-9 {
		wait := timeFor(1-p.own, p.rate())
		if len(p.queues[Tail]) > 0 { // it does not wait for a debt to be paid
			wait = min(wait, max(0, p.tailAt.Add(tailEvery).Sub(now)))
		}
		if wait > 0 {
			return wait
		}
	}
	if p.left() >= p.floor()+1 {
		return 0
	}
	if p.inFlight > 0 {
		return never // its answer tells
	}
	if p.share < 1 {
		p.flow.empty()
	}
	// Nothing is left but what is not ours. By the reset there is more, or sooner,
	// since that is told in whole seconds; of a later one than longestHold we ask.
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

// tailEvery is how long the tail waits at most for calls that are ours.
const tailEvery = time.Second

// shortReset is what a reset of less than a second counts for: it is told in
// whole seconds.
const shortReset = 100 * time.Millisecond

// surely is how many jumps make a window of a second.
const surely = 2

// fullWindow is more than such a window.
const fullWindow = 1200 * time.Millisecond

// jumpMargin is how much later than at the last jump a window of a second is
// looked for.
const jumpMargin = 20 * time.Millisecond

// left is what is surely in the bucket: the least that answers have told since it
// last rose, less what is in flight. Answers may overtake one another: only one to
// a later call tells of a rise.
func (p *Pacer) left() float64 { return float64(p.level - p.inFlight) }

// floor is what we leave in the bucket: the others' share of it, until we know
// what flows in, and later on but a little, for the others' next call.
func (p *Pacer) floor() float64 {
	switch {
	case p.share == 1:
		return float64(p.size / 50) // answers may overtake one another
	case p.flow.proven || p.size < leastSize:
		return float64(p.size / 10)
	}
	return float64(p.size) - float64(int(p.ours()+1e-9))
}

// timeFor is how long n take at a rate, at least a moment.
func timeFor(n, rate float64) time.Duration {
	if rate <= 0 {
		return never
	}
	return time.Duration(min(n/rate*1e9, float64(never))) + time.Microsecond
}

// observe takes in what an answer told.
func (p *Pacer) observe(l Limit, granted, now time.Time) {
	if l.Limit != p.size { // another plan, or the first answer
		p.size, p.window, p.jumps, p.refill = l.Limit, 0, 0, float64(l.Limit)
		p.last, p.level, p.levelAt = l, l.Remaining, now
		p.own = p.ours() - 1
		p.flow = measurement{due: now}
	}
	if l.Reset >= longReset {
		// A window that ends so late, or a token that takes so long.
		if p.window == 0 || now.Add(l.Reset).Before(p.edge) || l.Reset > p.window {
			p.edge = now.Add(l.Reset)
		}
		if p.window < l.Reset {
			p.window = l.Reset
			if d := p.window - time.Minute; d.Abs() <= 2*time.Second {
				p.window = time.Minute
			}
			p.refill, p.own = float64(p.size)/p.window.Seconds(), min(p.own, 1)
			p.flow = measurement{}
		}
	}
	// Full at once: more than can flow in, or than answers can overtake one another by.
	rose, within := float64(l.Remaining-p.last.Remaining), now.Sub(p.lastAt)
	if p.window == 0 && l.Remaining >= p.size-1-p.inFlight && rose >= float64(p.inFlight+2) && rose >= float64(p.size)/2 &&
		within < fullWindow && rose > 1.6*p.refill*within.Seconds() {
		p.jumps, p.jumped = p.jumps+1, now
	}
	if l.Remaining < p.level || !granted.Before(p.levelAt) {
		p.level, p.levelAt = l.Remaining, now
	}
	p.last, p.lastAt = l, now
	p.measured(l, now)
}

// longReset is a reset that tells of a window: a bucket has its next token sooner.
const longReset = 5 * time.Second

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// recentCalls counts calls by second.
type recentCalls struct {
	counts [11]int // by second, the running one included
	second int64   // the last that has a count
}

func (r *recentCalls) add(now time.Time) {
	r.turn(now)
	r.counts[r.second%int64(len(r.counts))]++
}

// rate is calls a second over the ten seconds before the running one.
func (r *recentCalls) rate(now time.Time) float64 {
	r.turn(now)
	sum := -r.counts[r.second%int64(len(r.counts))]
	for _, n := range r.counts {
		sum += n
	}
	return float64(sum) / float64(len(r.counts)-1)
}

// turn forgets what is too old.
func (r *recentCalls) turn(now time.Time) {
	s := now.Unix()
	if s-r.second >= int64(len(r.counts)) {
		r.counts = [11]int{}
		r.second = s
	}
	for r.second < s {
		r.second++
		r.counts[r.second%int64(len(r.counts))] = 0
	}
}
