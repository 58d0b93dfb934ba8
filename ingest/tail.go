package ingest

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// pulled is a page on its way to Kafka.
type pulled struct {
	events []schema.Event
	next   string // the cursor after them
	fresh  bool   // nothing more was there
	jump   string // where to go on instead: what lies between is the chains' to pull
	bytes  int64
	at     time.Time
}

// pull is the tail: page after page from the checkpoint on. It runs ahead of
// Kafka by a bounded number of pages and bytes.
func (p *Puller) pull(ctx context.Context, pages chan<- pulled) error {
	p.mu.Lock()
	cursor, live, serial := p.at.LogID, p.at.LiveFrom, p.at.Backfill
	p.mu.Unlock()
	take, last := MaxTake, time.Now()
	quiet := false     // the page before had no events
	var seen time.Time // when there was last nothing more
	for {
		events, next, err := p.page(ctx, Tail, cursor, &take)
		if err != nil {
			return err
		}
		at := time.Now()
		if at.Sub(last) > lapseAfter { // long enough for a short retention to have passed us
			if err := p.findGap(ctx, cursor, seen); err != nil {
				return err
			}
		}
		last = at
		got := pulled{events: events, next: next, at: at}
		all := caughtUp(len(events), next, p.byTenant(at))
		got.fresh = all && (len(events) > 0 || quiet) // one empty page proves nothing
		quiet = len(events) == 0
		if serial = serial && !got.fresh && !passed(next, live); serial && p.takesSynthetic() && len(events) > 0 {
			got.jump, serial = schema.SyntheticID(live), false
		}
		for i := range events {
			got.bytes += int64(len(events[i].Raw))
		}
		got.bytes = min(got.bytes, bytesAhead)
		if err := p.room.Acquire(ctx, got.bytes); err != nil {
			return err
		}
		select {
		case pages <- got:
		case <-ctx.Done():
			return ctx.Err()
		}
		cursor = next
		if got.jump != "" {
			cursor = got.jump
		}
		if got.fresh {
			seen = p.byTenant(at)
		}
		if all {
			if !sleep(ctx, max(p.cfg.Poll, p.pacer.Rest())) {
				return ctx.Err()
			}
		}
	}
}

// nearNow is how recent the last event of a short page is when there is no
// reason to ask for more at once.
const nearNow = 10 * time.Second

// caughtUp reports whether a page had all there was. Some tenants answer with
// fewer than we ask for although there is more: half a page or more may be one
// of these, and so may any page whose events are old.
func caughtUp(n int, last string, now time.Time) bool {
	switch {
	case n == 0:
		return true
	case n >= MaxTake/2:
		return false
	}
	at, ok := schema.IDTime(last)
	return !ok || now.Sub(at) < nearNow
}

// deliver hands pages to Kafka in order, several at once when they wait, and
// moves the checkpoint after the acks. If we die before the acks, the next start
// pulls the pages again; if between acks and checkpoint, it produces them again.
func (p *Puller) deliver(ctx context.Context, pages <-chan pulled) error {
	marks := newMarks(p.width())
	marks.add(p.at.Behind, p.now()) // what the last run left unseen is looked for as long as usual
	for {
		var batch []pulled
		select {
		case <-ctx.Done():
			return ctx.Err()
		case got := <-pages:
			batch = append(batch, got)
		}
	more:
		for len(batch) < coalesce {
			select {
			case got := <-pages:
				batch = append(batch, got)
			default:
				break more
			}
		}
		marks.back = p.width()
		var records []schema.Record
		var bytes int64
		next, counts := p.at, map[schema.Source]int{}
		var slices []Checkpoint
		for _, got := range batch {
			at := p.byTenant(got.at)
			for i := range got.events {
				e := &got.events[i]
				p.settle(e, got.at, &next)
				records = append(records, e.Record())
				counts[e.Source]++
				if e.LogID != "" && !higher(e.LogID, got.next) {
					marks.add(e.LogID, at) // a quiet tenant's page spans hours
				}
			}
			bytes += got.bytes
			next.Events += uint64(len(got.events))
			next.LogID = got.next
			next.Backfill = next.Backfill && !got.fresh && !passed(got.next, next.LiveFrom)
			marks.add(got.next, at)
			if got.jump != "" {
				slices = append(slices, cut(p.cfg.Tenant, planFirst, got.next, got.jump, p.cfg.Chains)...)
				next.LogID, next.Backfill = got.jump, false
			}
		}
		if len(records) > 0 {
			if err := p.produce(ctx, records); err != nil {
				return p.describe("delivery of events", err)
			}
		}
		p.room.Release(bytes)
		for source, n := range counts {
			p.count(source, n)
		}
		next.Behind = marks.behind(next.LogID)
		p.saves.put(slices...) // before the tail is beyond them
		p.acked(next, batch[len(batch)-1])
		p.backfill.add(slices...)
	}
}

// settle fills in what the chain knows of an event.
func (p *Puller) settle(e *schema.Event, at time.Time, next *Checkpoint) {
	e.Tenant, e.Source, e.FetchedAt = p.cfg.Tenant, schema.Tail, p.byTenant(at)
	switch {
	case e.LogID == "":
		if next.Backfill {
			e.Source = schema.Backfill
		}
		return
	case !passed(e.LogID, next.LiveFrom):
		e.Source = schema.Backfill
	default:
		p.cfg.Metrics.lateness.WithLabelValues(p.cfg.Tenant).Observe(p.byTenant(at).Sub(e.Date).Seconds())
	}
	if next.Oldest == "" {
		next.Oldest = e.LogID
	}
	p.recent.add(e.LogID)
}

// passed reports whether an event was stored after t. Of an id that does not
// tell we assume it.
func passed(logID string, t time.Time) bool {
	at, ok := schema.IDTime(logID)
	return !ok || at.After(t)
}

// seenEvery is how often a quiet tenant's checkpoint is written.
const seenEvery = 10 * time.Minute

// acked moves the tail forward and has its checkpoint written.
func (p *Puller) acked(next Checkpoint, last pulled) {
	p.mu.Lock()
	if p.owed.from != "" {
		next.Behind = p.owed.from
	}
	next.Domain = p.cfg.Domain
	next.Ahead = math.Round(p.ahead.Seconds())
	moved := next.Domain != p.at.Domain || math.Abs(next.Ahead-p.at.Ahead) > clockNoise.Seconds() || next.LogID != p.at.LogID || next.Backfill != p.at.Backfill || next.Behind != p.at.Behind
	if last.fresh {
		seen := last.at.Add(-p.ahead).UTC()
		moved = moved || seen.Sub(p.at.SeenAt) > seenEvery
		if moved {
			next.SeenAt = seen
		}
		p.status.CaughtUp = last.at
	}
	done := p.at.Backfill && !next.Backfill
	if done {
		p.status.Serial++
	}
	p.at = next
	p.mu.Unlock()

	m := p.cfg.Metrics
	m.caughtUp.WithLabelValues(p.cfg.Tenant).Set(map[bool]float64{true: 1}[last.fresh])
	if at, ok := schema.IDTime(next.LogID); ok {
		m.position.WithLabelValues(p.cfg.Tenant).Set(float64(at.UnixMilli()) / 1000)
	}
	if done {
		p.cfg.Log.Info("backfill is done", "events", next.Events)
	}
	if moved {
		p.saves.put(next)
	}
}

// marks remember where the chain stood among recent events.
type marks struct {
	back time.Duration
	list []mark
}

type mark struct {
	logID string
	at    time.Time // when Auth0 stored the event
}

// markEvery keeps the list short.
const markEvery = 5 * time.Second

func newMarks(back time.Duration) *marks { return &marks{back: back} }

// add notes a cursor.
func (m *marks) add(logID string, now time.Time) {
	at, ok := schema.IDTime(logID)
	if !ok {
		at = now
	}
	if now.Sub(at) >= m.back { // nothing before it is of use any more
		m.list = append(m.list[:0], mark{logID, at})
		return
	}
	if n := len(m.list); n == 0 || at.Sub(m.list[n-1].at) >= markEvery {
		m.list = append(m.list, mark{logID, at})
	}
	// Of those that are old enough only the newest is of use.
	old := 0
	for old+1 < len(m.list) && now.Sub(m.list[old+1].at) >= m.back {
		old++
	}
	m.list = slices.Delete(m.list, 0, old)
}

// behind is the newest cursor that is old enough for nothing before it to show
// up any more, or the oldest there is.
func (m *marks) behind(current string) string {
	if len(m.list) == 0 {
		return current
	}
	return m.list[0].logID
}
