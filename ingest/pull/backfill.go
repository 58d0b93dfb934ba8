package pull

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// backfillChains is the number of chains that pull the past in parallel. Sixteen make 50
// calls a second at 300 ms each.
const backfillChains = 16

// chainBackfill is the prefix of slices of the past, which are pulled in parallel.
const chainBackfill = "backfill/"

// BackfillRequest returns a checkpoint that requests from the leader of a tenant to pull
// the events that were stored between two times. name becomes the plan of its chain. Times
// are cut to seconds.
func BackfillRequest(tenant, name string, from, until time.Time) checkpoint.Checkpoint {
	c := newSlice(tenant, name, schema.SyntheticID(from), schema.SyntheticID(until))
	c.Requested = true
	return c
}

// BackfillPlan returns the plan of a chain: the name of the slices that belong together. ok
// is false if the chain is not a backfill.
func BackfillPlan(chain string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(chain, chainBackfill)
	name, _, _ = strings.Cut(rest, "/")
	return name, ok
}

// newSlice returns the start of a chain that pulls a slice.
func newSlice(tenant, plan, from, until string) checkpoint.Checkpoint {
	at, _ := schema.IDTime(from)
	chain := fmt.Sprintf("%s%s/%s", chainBackfill, plan, at.Format("20060102150405.000"))
	return checkpoint.Checkpoint{Tenant: tenant, Chain: chain, From: from, LogID: from, Until: until}
}

// cut cuts a stretch of the log into n slices of the same time.
func cut(tenant, plan, from, until string, n int) []checkpoint.Checkpoint {
	start, hasStart := schema.IDTime(from)
	end, hasEnd := schema.IDTime(until)
	if !hasStart || !hasEnd {
		n = 1
	}

	// Ids have a resolution: a slice that would be empty becomes part of the next one.
	var list []checkpoint.Checkpoint
	for i := range n {
		next := until
		if i < n-1 {
			next = schema.SyntheticID(start.Add(end.Sub(start) / time.Duration(n) * time.Duration(i+1)))
		}
		if checkpoint.Higher(next, from) && !checkpoint.Higher(next, until) {
			list = append(list, newSlice(tenant, plan, from, next))
			from = next
		}
	}
	return list
}

// slice is a stretch of the log that one chain pulls.
type slice struct {
	at      checkpoint.Checkpoint // acknowledged
	next    string                // the cursor after the page that is being produced
	working bool
	density float64 // events a second of the log, as far as it is known
}

// covered and remaining return the length of the two parts of the slice, by the time of their ids.
func (s *slice) covered() time.Duration   { return span(s.at.From, s.at.LogID) }
func (s *slice) remaining() time.Duration { return span(s.at.LogID, s.at.Until) }

// span returns the time between two ids.
func span(from, until string) time.Duration {
	start, hasStart := schema.IDTime(from)
	end, hasEnd := schema.IDTime(until)
	if !hasStart || !hasEnd {
		return 0
	}
	return max(end.Sub(start), 0)
}

// expected estimates the number of events that are left.
func (s *slice) expected() float64 { return s.density * s.remaining().Seconds() }

// backfill has the slices of the past that are not done. Each chain claims one slice. If
// none is free, it claims half of what another chain has left, so that dense slices are cut
// finer.
type backfill struct {
	mu      sync.Mutex    // guards the fields below
	list    []*slice      // not done
	changed chan struct{} // closed at the next change
	started time.Time     // of the current backfill
	events  uint64        // acknowledged in the current backfill
	total   time.Duration // of the log in the current backfill
	rounds  int           // number of finished backfills
}

func newBackfill() *backfill { return &backfill{changed: make(chan struct{})} }

// add adds slices, except those that are known.
func (b *backfill) add(list ...checkpoint.Checkpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range list {
		if c.Done || slices.ContainsFunc(b.list, func(s *slice) bool { return s.at.Chain == c.Chain }) {
			continue
		}

		// The first slice after a pause starts a new backfill.
		if len(b.list) == 0 {
			b.started, b.events, b.total = time.Now(), 0, 0
		}
		c.Requested = false
		added := &slice{at: c}
		added.learn()
		b.total += span(c.From, c.Until)
		b.events += c.Events
		b.list = append(b.list, added)
	}

	// The oldest events are pulled first: they expire first.
	slices.SortStableFunc(b.list, func(x, y *slice) int { return strings.Compare(x.at.LogID, y.at.LogID) })
	b.signal()
}

// reset removes all slices.
func (b *backfill) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = nil
	b.signal()
}

// signal wakes all that wait for a change. mu must be held.
func (b *backfill) signal() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// learn updates the density. mu must be held, unless the slice is new.
func (s *slice) learn() {
	if covered := s.covered().Seconds(); covered > 0 {
		s.density = float64(s.at.Events) / covered
	}
}

// claim waits for a slice to pull: the oldest one that is free, or half of the one that has
// the most events left.
func (b *backfill) claim(ctx context.Context, saves *checkpoint.Saver) (*slice, error) {
	for {
		b.mu.Lock()
		changed := b.changed
		claimed, parts := b.tryClaim()
		if len(parts) > 0 {
			// Under mu, so that the other chain cannot save its new end before.
			saves.Save(parts...)
		}
		b.mu.Unlock()
		if claimed != nil {
			return claimed, nil
		}

		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// A slice with less than this is not cut.
const (
	minExpected = 4 * auth0.MaxTake
	minSpan     = 4 * time.Second
)

func (s *slice) isWorthCutting() bool { return s.remaining() >= minSpan && s.expected() >= minExpected }

// tryClaim is claim without the wait. If it has cut a slice, it also returns the checkpoints
// of both parts.
func (b *backfill) tryClaim() (claimed *slice, parts []checkpoint.Checkpoint) {
	// The list is sorted: the first free slice is the oldest.
	var largest *slice
	for _, s := range b.list {
		if !s.working {
			s.working = true
			return s, nil
		}
		if s.isWorthCutting() && (largest == nil || s.expected() > largest.expected()) {
			largest = s
		}
	}
	if largest == nil {
		return nil, nil
	}

	// Cut what is left after the page in production in the middle. The other chain stops there.
	from := largest.at.LogID
	if checkpoint.Higher(largest.next, from) {
		from = largest.next
	}
	at, _ := schema.IDTime(from)
	middle := schema.SyntheticID(at.Add(span(from, largest.at.Until) / 2))
	if !checkpoint.Higher(middle, from) || !checkpoint.Higher(largest.at.Until, middle) {
		return nil, nil
	}

	// The new part is saved first. If we stop between the two, both have its stretch.
	plan, _ := BackfillPlan(largest.at.Chain)
	upper := newSlice(largest.at.Tenant, plan, middle, largest.at.Until)
	claimed = &slice{at: upper, working: true, density: largest.density}
	largest.at.Until = middle
	b.list = append(b.list, claimed)
	return claimed, []checkpoint.Checkpoint{claimed.at, largest.at}
}

// advance moves a slice forward after an acknowledgement, and removes it if it is done. It
// returns the checkpoint to save, and the number of slices left. If the end of the slice has
// been moved in the meantime, it stays moved.
func (b *backfill) advance(s *slice, logID string, events int, end bool) (c checkpoint.Checkpoint, left int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.at.LogID = logID
	s.at.Events += uint64(events)
	b.events += uint64(events)
	s.learn()

	// Until is read here, since another chain may have cut the slice while its page was fetched.
	if end || s.at.EndsAt(logID) {
		s.at.LogID, s.at.Done = s.at.Until, true
		b.list = slices.DeleteFunc(b.list, func(other *slice) bool { return other == s })
		if len(b.list) == 0 {
			b.rounds++
		}
	}
	b.signal()
	return s.at, len(b.list)
}

// begin notes that a page of a slice is being produced, so that no other chain claims a part of it. next
// is the cursor after the page. It returns the end of the slice.
func (b *backfill) begin(s *slice, next string) (until string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.next = next
	return s.at.Until
}

// end returns the end of the slices that Puller has cut itself, or an empty text if they are
// done.
func (b *backfill) end() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := ""
	for _, s := range b.list {
		plan, _ := BackfillPlan(s.at.Chain)
		isOwn := plan == planFirst || strings.HasPrefix(plan, planCatchUp)
		if isOwn && checkpoint.Higher(s.at.Until, end) {
			end = s.at.Until
		}
	}
	return end
}

// waitIdle waits until no slice is left.
func (b *backfill) waitIdle(ctx context.Context) error {
	return b.waitUntilNone(ctx, func(*slice) bool { return true })
}

// waitPast waits until no slice is left between two cursors.
func (b *backfill) waitPast(ctx context.Context, from, until string) error {
	return b.waitUntilNone(ctx, func(s *slice) bool {
		return checkpoint.Higher(until, s.at.LogID) && checkpoint.Higher(s.at.Until, from)
	})
}

// waitUntilNone waits until no slice blocks.
func (b *backfill) waitUntilNone(ctx context.Context, blocks func(*slice) bool) error {
	for {
		b.mu.Lock()
		changed, blocked := b.changed, slices.ContainsFunc(b.list, blocks)
		b.mu.Unlock()
		if !blocked {
			return nil
		}

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// BackfillStatus is the state of a backfill.
type BackfillStatus struct {
	Chains   int       // slices that are not done; 0 if there is no backfill
	Began    time.Time // of the backfill, or when this process resumed it
	Events   uint64    // acknowledged
	Expected float64   // estimated number of events that are left
	Share    float64   // that is done, 0 to 1
	Rounds   int       // number of finished backfills
}

func (b *backfill) status() BackfillStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	status := BackfillStatus{Chains: len(b.list), Began: b.started, Events: b.events, Rounds: b.rounds}
	if len(b.list) == 0 {
		status.Share = 1
		return status
	}

	// Estimate the share by time first.
	var left time.Duration
	for _, s := range b.list {
		left += s.remaining()
		status.Expected += s.expected()
	}
	if b.total > 0 {
		status.Share = 1 - float64(left)/float64(b.total)
	}

	// The share of events is more precise than that of time, once the density of every slice is known.
	hasUnknown := slices.ContainsFunc(b.list, func(s *slice) bool { return s.covered() == 0 && s.density == 0 })
	if all := float64(status.Events) + status.Expected; all > 0 && !hasUnknown {
		status.Share = float64(status.Events) / all
	}
	status.Share = min(max(status.Share, 0), 1)
	return status
}
