package pull

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// fetchedPage is a page of the tail that is not produced yet.
type fetchedPage struct {
	events []schema.Event
	next   string // the cursor after them
	fresh  bool   // the tenant had no more events
	jump   string // resume there instead; slices of the backfill pull the events up to it
	bytes  int64
	at     time.Time
}

// fetchTail fetches page after page from the tail's checkpoint on. It runs ahead of Kafka
// by a bounded number of pages and bytes.
func (p *Puller) fetchTail(ctx context.Context, pages chan<- fetchedPage) error {
	p.mu.Lock()
	cursor, live, serial := p.tail.LogID, p.tail.LiveFrom, p.tail.Backfill
	p.mu.Unlock()

	take, last := auth0.MaxTake, time.Now() // last: of the last answer
	quiet := false                          // the previous page had no events
	var seen time.Time                      // when the tenant last had no more events
	for {
		events, next, err := p.fetchPage(ctx, pace.PriorityTail, cursor, &take)
		if err != nil {
			return err
		}
		at := time.Now()

		// After a long outage, a short retention may have passed the cursor.
		if at.Sub(last) > lapseAfter {
			if err := p.findGap(ctx, cursor, seen); err != nil {
				return err
			}
		}
		last = at

		page := fetchedPage{events: events, next: next, at: at}
		all := caughtUp(len(events), next, p.clock.byTenant(at))
		page.fresh = all && (len(events) > 0 || quiet) // one empty page proves nothing
		quiet = len(events) == 0

		// A serial backfill becomes a parallel one as soon as the tenant accepts synthetic ids.
		serial = serial && !page.fresh && !passed(next, live)
		if serial && p.acceptsSynthetic() && len(events) > 0 {
			page.jump, serial = schema.SyntheticID(live), false
		}

		// Wait until Kafka has acknowledged enough of the pages before.
		for i := range events {
			page.bytes += int64(len(events[i].Raw))
		}
		page.bytes = min(page.bytes, bytesAhead)
		if err := p.room.Acquire(ctx, page.bytes); err != nil {
			return err
		}
		select {
		case pages <- page:
		case <-ctx.Done():
			return ctx.Err()
		}

		// The page is queued. After a jump, the slices pull the events in between.
		cursor = next
		if page.jump != "" {
			cursor = page.jump
		}
		if page.fresh {
			seen = p.clock.byTenant(at)
		}
		if all && !sleep.For(ctx, max(p.cfg.Poll, p.limiter.Rest())) {
			return ctx.Err()
		}
	}
}

// nearNow is the age up to which the last event of a short page shows that the tenant has
// no more events.
const nearNow = 10 * time.Second

// caughtUp reports whether a page had all events up to now. Some tenants return fewer
// events than were asked for although they have more. So a page that is at least half
// full, or whose last event is old, does not count.
func caughtUp(n int, last string, now time.Time) bool {
	switch {
	case n == 0:
		return true
	case n >= auth0.MaxTake/2:
		return false
	}
	at, ok := schema.IDTime(last)
	return !ok || now.Sub(at) < nearNow
}

// produceTail produces pages in their order, several at once if they wait, and saves the
// checkpoint after the acknowledgement.
func (p *Puller) produceTail(ctx context.Context, pages <-chan fetchedPage) error {
	marks := newMarks(p.cfg.Overlap)
	marks.add(p.tail.Behind, p.clock.Now()) // the overlap re-reads what the last run has not

	for {
		batch, err := receive(ctx, pages)
		if err != nil {
			return err
		}
		work := p.prepare(batch, marks)

		// If we stop here, the next start fetches the pages again.
		if len(work.records) > 0 {
			if err := p.produce(ctx, work.records); err != nil {
				return p.describe("produce events", err)
			}
		}
		p.room.Release(work.bytes)
		for source, n := range work.counts {
			p.count(source, n)
		}

		// If we stop here, the next start produces the events again. New slices are saved before the
		// tail, which no longer covers them.
		p.saves.Save(work.slices...)
		p.advance(work.next, batch[len(batch)-1])
		p.backfill.add(work.slices...)
	}
}

// receive waits for a page and returns it with those that wait behind it.
func receive(ctx context.Context, pages <-chan fetchedPage) ([]fetchedPage, error) {
	var batch []fetchedPage
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case page := <-pages:
		batch = append(batch, page)
	}

	// One produce for several pages saves a round trip for each.
	for len(batch) < coalesce {
		select {
		case page := <-pages:
			batch = append(batch, page)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// tailWork is the content of a batch of pages, ready to produce.
type tailWork struct {
	records []schema.Record
	counts  map[schema.Source]int
	bytes   int64
	next    checkpoint.Checkpoint   // of the tail, after the batch
	slices  []checkpoint.Checkpoint // that take over a serial backfill
}

// prepare returns the records of a batch, and the checkpoints after it.
func (p *Puller) prepare(batch []fetchedPage, marks *marks) tailWork {
	work := tailWork{next: p.tail, counts: map[schema.Source]int{}}
	next := &work.next

	for _, page := range batch {
		at := p.clock.byTenant(page.at)

		for i := range page.events {
			event := &page.events[i]
			p.label(event, page.at, next)
			work.records = append(work.records, event.Record())
			work.counts[event.Source]++
			if event.LogID != "" && !checkpoint.Higher(event.LogID, page.next) {
				marks.add(event.LogID, at) // one page of a quiet tenant spans hours
			}
		}
		work.bytes += page.bytes

		// The serial backfill ends where the live events start, or when there are no more events.
		next.Events += uint64(len(page.events))
		next.LogID = page.next
		next.Backfill = next.Backfill && !page.fresh && !passed(page.next, next.LiveFrom)
		marks.add(page.next, at)

		if page.jump != "" {
			work.slices = append(work.slices, cut(p.cfg.Tenant, planFirst, page.next, page.jump, p.cfg.Chains)...)
			next.LogID, next.Backfill = page.jump, false
		}
	}

	next.Behind = marks.behind(next.LogID)
	return work
}

// label sets the tenant, the source and the time of an event, and notes its id.
func (p *Puller) label(event *schema.Event, at time.Time, next *checkpoint.Checkpoint) {
	event.Tenant, event.Source, event.FetchedAt = p.cfg.Tenant, schema.SourceTail, p.clock.byTenant(at)
	switch {
	case event.LogID == "":
		if next.Backfill {
			event.Source = schema.SourceBackfill
		}
		return
	case !passed(event.LogID, next.LiveFrom):
		event.Source = schema.SourceBackfill
	default:
		p.cfg.Metrics.lateness.WithLabelValues(p.cfg.Tenant).Observe(p.clock.byTenant(at).Sub(event.Date).Seconds())
	}

	if next.Oldest == "" {
		next.Oldest = event.LogID
	}
	p.recent.add(event.LogID)
}

// passed reports whether an event was stored after t. An id without a time counts as later.
func passed(logID string, t time.Time) bool {
	at, ok := schema.IDTime(logID)
	return !ok || at.After(t)
}

// seenEvery is the interval at which the checkpoint of a quiet tenant is saved.
const seenEvery = 10 * time.Minute

// advance moves the tail forward and saves its checkpoint if it has changed enough.
func (p *Puller) advance(next checkpoint.Checkpoint, last fetchedPage) {
	// Behind must not pass a stretch that the overlap still has to re-read.
	p.mu.Lock()
	if p.pendingOverlap.from != "" {
		next.Behind = p.pendingOverlap.from
	}
	next.Domain = p.cfg.Domain
	lead := p.clock.Lead()
	next.Ahead = math.Round(lead.Seconds())
	clockMoved := math.Abs(next.Ahead-p.tail.Ahead) > clockNoise.Seconds()
	changed := next.LogID != p.tail.LogID || next.Behind != p.tail.Behind || next.Backfill != p.tail.Backfill ||
		next.Domain != p.tail.Domain || clockMoved

	// A quiet tenant's checkpoint is saved from time to time too, for SeenAt.
	if last.fresh {
		seen := last.at.Add(-lead).UTC()
		changed = changed || seen.Sub(p.tail.SeenAt) > seenEvery
		if changed {
			next.SeenAt = seen
		}
		p.status.CaughtUp = last.at
	}

	finished := p.tail.Backfill && !next.Backfill
	if finished {
		p.status.Serial++
	}
	p.tail = next
	p.mu.Unlock()

	metrics := p.cfg.Metrics
	metrics.caughtUp.WithLabelValues(p.cfg.Tenant).Set(oneIf(last.fresh))
	if at, ok := schema.IDTime(next.LogID); ok {
		metrics.position.WithLabelValues(p.cfg.Tenant).Set(float64(at.UnixMilli()) / 1000)
	}
	if finished {
		p.cfg.Log.Info("backfill finished", "events", next.Events)
	}
	if changed {
		p.saves.Save(next)
	}
}

// marks are cursors that the tail has passed recently. They tell where an overlap of a
// given width has to start.
type marks struct {
	width time.Duration
	list  []mark
}

type mark struct {
	logID string
	at    time.Time // when Auth0 stored the event
}

// markEvery is the least distance between two marks, which keeps the list short.
const markEvery = 5 * time.Second

func newMarks(width time.Duration) *marks { return &marks{width: width} }

// add adds a cursor.
func (m *marks) add(logID string, now time.Time) {
	at, ok := schema.IDTime(logID)
	if !ok {
		at = now
	}

	// A cursor that is older than the width replaces all before it.
	if now.Sub(at) >= m.width {
		m.list = append(m.list[:0], mark{logID, at})
		return
	}
	if n := len(m.list); n == 0 || at.Sub(m.list[n-1].at) >= markEvery {
		m.list = append(m.list, mark{logID, at})
	}

	// Of the marks that are old enough, only the newest is needed.
	old := 0
	for old+1 < len(m.list) && now.Sub(m.list[old+1].at) >= m.width {
		old++
	}
	m.list = slices.Delete(m.list, 0, old)
}

// behind returns the cursor from which an overlap re-reads: the newest one that is at least
// as old as the width, or the oldest known.
func (m *marks) behind(current string) string {
	if len(m.list) == 0 {
		return current
	}
	return m.list[0].logID
}
