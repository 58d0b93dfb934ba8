package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// backfillChains is how many chains pull the past side by side. Sixteen keep 50
// calls a second going at 300 ms each.
const backfillChains = 16

// NewBackfill asks the leader of a tenant to pull what was stored from one time
// to another, under a name of its own. Times are cut to seconds.
func NewBackfill(tenant, name string, from, until time.Time) Checkpoint {
	c := newSlice(tenant, name, schema.SyntheticID(from), schema.SyntheticID(until))
	c.Order = true
	return c
}

// BackfillPlan is the name under which a chain belongs together with others; ok
// is false for a chain that is no backfill.
func BackfillPlan(chain string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(chain, chainBackfill)
	name, _, _ = strings.Cut(rest, "/")
	return name, ok
}

// newSlice is a chain at its beginning.
func newSlice(tenant, plan, from, until string) Checkpoint {
	at, _ := schema.IDTime(from)
	return Checkpoint{Tenant: tenant, Chain: fmt.Sprintf("%s%s/%s", chainBackfill, plan, at.Format("20060102150405.000")),
		From: from, LogID: from, Until: until}
}

// cut divides a stretch of the log evenly by time.
func cut(tenant, plan, from, until string, n int) []Checkpoint {
	begin, ok1 := schema.IDTime(from)
	end, ok2 := schema.IDTime(until)
	if !ok1 || !ok2 {
		n = 1
	}
	var list []Checkpoint
	for i := range n {
		next := until
		if i < n-1 {
			next = schema.SyntheticID(begin.Add(end.Sub(begin) / time.Duration(n) * time.Duration(i+1)))
		}
		if higher(next, from) && !higher(next, until) {
			list = append(list, newSlice(tenant, plan, from, next))
			from = next
		}
	}
	return list
}

// slice is a stretch of the log that one chain pulls.
type slice struct {
	at      Checkpoint // what is acked
	working bool
	density float64 // events a second of the log, as far as it is known
}

// covered and remaining are the parts of the stretch, by the time of their ids.
func (s *slice) covered() time.Duration   { return span(s.at.From, s.at.LogID) }
func (s *slice) remaining() time.Duration { return span(s.at.LogID, s.at.Until) }

func span(from, until string) time.Duration {
	a, ok1 := schema.IDTime(from)
	b, ok2 := schema.IDTime(until)
	if !ok1 || !ok2 {
		return 0
	}
	return max(b.Sub(a), 0)
}

// expected is how many events are left, by what the slice has had so far.
func (s *slice) expected() float64 { return s.density * s.remaining().Seconds() }

// backfill is the stretches of the past that are still to be pulled. Chains take
// them one by one; one that finds none left takes half of what another still
// has before it, so dense stretches are cut finer.
type backfill struct {
	mu      sync.Mutex    // guards what follows
	list    []*slice      // not done
	changed chan struct{} // closed at the next change
	begun   time.Time     // of the work at hand
	events  uint64        // acked in the work at hand
	whole   time.Duration // of the log in the work at hand
	rounds  int           // how often all was done
}

func newBackfill() *backfill { return &backfill{changed: make(chan struct{})} }

// add gives more to do. Those that are known already are left as they are.
func (b *backfill) add(list ...Checkpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range list {
		if c.Done || slices.ContainsFunc(b.list, func(s *slice) bool { return s.at.Chain == c.Chain }) {
			continue
		}
		if len(b.list) == 0 {
			b.begun, b.events, b.whole = time.Now(), 0, 0
		}
		c.Order = false
		s := &slice{at: c}
		s.learn()
		b.whole += span(c.From, c.Until)
		b.events += c.Events
		b.list = append(b.list, s)
	}
	slices.SortStableFunc(b.list, func(x, y *slice) int { return strings.Compare(x.at.LogID, y.at.LogID) })
	b.signal()
}

// reset forgets what there is to do.
func (b *backfill) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = nil
	b.signal()
}

// signal wakes those who wait. mu must be held.
func (b *backfill) signal() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// learn updates the density. mu must be held, or s be nobody else's.
func (s *slice) learn() {
	if covered := s.covered().Seconds(); covered > 0 {
		s.density = float64(s.at.Events) / covered
	}
}

// next waits for a slice to pull: the oldest that nobody works on, or half of
// the one that has most before it.
func (b *backfill) next(ctx context.Context, saves *saver) (*slice, error) {
	for {
		b.mu.Lock()
		changed := b.changed
		s, parted := b.take()
		if len(parted) > 0 {
			saves.put(parted...) // with mu: nobody else's put may tell of the new end before
		}
		b.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// What is worth cutting in two.
const (
	minExpected = 4 * MaxTake
	minSpan     = 4 * time.Second
)

func (s *slice) worthACut() bool { return s.remaining() >= minSpan && s.expected() >= minExpected }

// take is next without the wait. After a cut it returns both parts as they are to
// be saved: the new one first, so that both have its stretch if we die between
// the two.
func (b *backfill) take() (s *slice, parted []Checkpoint) {
	var largest *slice
	for _, s := range b.list {
		if !s.working {
			s.working = true
			return s, nil
		}
		if s.worthACut() && (largest == nil || s.expected() > largest.expected()) {
			largest = s
		}
	}
	if largest == nil {
		return nil, nil
	}
	at, _ := schema.IDTime(largest.at.LogID)
	middle := schema.SyntheticID(at.Add(largest.remaining() / 2))
	if !higher(middle, largest.at.LogID) || !higher(largest.at.Until, middle) {
		return nil, nil
	}
	plan, _ := BackfillPlan(largest.at.Chain)
	s = &slice{at: newSlice(largest.at.Tenant, plan, middle, largest.at.Until), working: true, density: largest.density}
	largest.at.Until = middle
	b.list = append(b.list, s)
	return s, []Checkpoint{s.at, largest.at}
}

// acked moves a slice on, and takes it off the list when it is done. It returns
// the checkpoint to save, and how many slices are left. An end that was moved
// meanwhile stays moved.
func (b *backfill) acked(s *slice, logID string, events int, end bool) (c Checkpoint, left int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.at.LogID = logID
	s.at.Events += uint64(events)
	b.events += uint64(events)
	s.learn()
	if end || reached(logID, s.at.Until) {
		s.at.LogID, s.at.Done = s.at.Until, true
		b.list = slices.DeleteFunc(b.list, func(other *slice) bool { return other == s })
		if len(b.list) == 0 {
			b.rounds++
		}
	}
	b.signal()
	return s.at, len(b.list)
}

// reached reports whether a cursor is at an end or beyond. One of another kind of
// ids never is: then the tenant's last page is the end.
func reached(logID, until string) bool { return len(logID) == len(until) && logID >= until }

// until is where a slice ends right now.
func (b *backfill) until(s *slice) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return s.at.Until
}

// end is how far slices of our own plans have still to come; empty when they are
// done.
func (b *backfill) end() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := ""
	for _, s := range b.list {
		plan, _ := BackfillPlan(s.at.Chain)
		if (plan == planFirst || strings.HasPrefix(plan, planCatchUp)) && higher(s.at.Until, end) {
			end = s.at.Until
		}
	}
	return end
}

// idle waits until there is nothing left to pull.
func (b *backfill) idle(ctx context.Context) error {
	return b.await(ctx, func(*slice) bool { return true })
}

// past waits until there is nothing left to pull between two places.
func (b *backfill) past(ctx context.Context, from, until string) error {
	return b.await(ctx, func(s *slice) bool { return higher(until, s.at.LogID) && higher(s.at.Until, from) })
}

// await waits until no slice is one of those that hold it up.
func (b *backfill) await(ctx context.Context, holdsUp func(*slice) bool) error {
	for {
		b.mu.Lock()
		changed, clear := b.changed, !slices.ContainsFunc(b.list, holdsUp)
		b.mu.Unlock()
		if clear {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// BackfillStatus is how a backfill goes.
type BackfillStatus struct {
	Chains   int       // that have something to do; 0 when there is nothing to do
	Began    time.Time // of the work at hand, or when this process took it up
	Events   uint64    // acked
	Expected float64   // events that are still to come, by what was seen so far
	Share    float64   // that is done, 0 to 1
	Rounds   int       // how often all there was to do has been done
}

func (b *backfill) status() BackfillStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := BackfillStatus{Chains: len(b.list), Began: b.begun, Events: b.events, Rounds: b.rounds}
	var left time.Duration
	for _, s := range b.list {
		left += s.remaining()
		st.Expected += s.expected()
	}
	if len(b.list) == 0 {
		st.Share = 1
		return st
	}
	if b.whole > 0 {
		st.Share = 1 - float64(left)/float64(b.whole)
	}
	// By events it is truer than by time, once every slice has shown some.
	if all := float64(st.Events) + st.Expected; all > 0 && !slices.ContainsFunc(b.list, func(s *slice) bool { return s.covered() == 0 && s.density == 0 }) {
		st.Share = float64(st.Events) / all
	}
	st.Share = min(max(st.Share, 0), 1)
	return st
}

// fill is one chain of the backfill: slice after slice, until ctx ends.
func (p *Puller) fill(ctx context.Context) error {
	for {
		s, err := p.backfill.next(ctx, p.saves)
		if err != nil {
			return err
		}
		if err := p.pullSlice(ctx, s); err != nil {
			return err
		}
	}
}

// pullSlice pulls a slice to its end. If we die before the acks, or between them
// and the checkpoint, the next start pulls the page again.
func (p *Puller) pullSlice(ctx context.Context, s *slice) error {
	cursor, room, take := s.at.LogID, int64(minRoom), MaxTake
	for {
		// A page's memory is set aside before it comes: so many at once could be large.
		if err := p.room.Acquire(ctx, room); err != nil {
			return err
		}
		events, next, err := p.page(ctx, Backfill, cursor, &take)
		if err != nil {
			return err
		}
		at, until := time.Now(), p.backfill.until(s)
		var bytes int64
		var records []schema.Record
		for i := range events {
			e := &events[i]
			bytes += int64(len(e.Raw))
			if e.LogID != "" && higher(e.LogID, until) {
				continue // the next slice's
			}
			e.Tenant, e.Source, e.FetchedAt = p.cfg.Tenant, schema.Backfill, at
			p.recent.addPast(e.LogID, p.byTenant(at))
			records = append(records, e.Record())
		}
		if len(records) > 0 {
			if err := p.produce(ctx, records); err != nil {
				return p.describe("delivery of events", err)
			}
		}
		p.room.Release(room)
		if bytes > largePage {
			take = max(take/2, 1)
		}
		room = min(max(bytes, minRoom), bytesAhead)
		p.count(schema.Backfill, len(records))
		c, left := p.backfill.acked(s, next, len(records), len(events) == 0)
		p.saves.put(c)
		if c.Done {
			if left == 0 {
				p.cfg.Log.Info("backfill is done", "events", p.backfill.status().Events)
			}
			return nil
		}
		cursor = next
	}
}

// Sizes of pages in memory.
const (
	minRoom   = 512 << 10
	largePage = 8 << 20
)
