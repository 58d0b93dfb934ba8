package pull_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// lateBy are events that show up so much late, one every gap.
func lateBy(from time.Time, gap, late time.Duration, n int) []logEvent {
	var events []logEvent
	for i := range n {
		at := from.Add(time.Duration(i)*gap + 400*time.Millisecond)
		events = append(events, visibleAt(at, 500_000+i, at.Add(late)))
	}
	return events
}

// TestOverlapFindsLate lets events show up late, by less than the overlap is wide. Each
// comes once.
func TestOverlapFindsLate(t *testing.T) {
	for _, late := range []time.Duration{4 * time.Minute, 6 * time.Minute, 9 * time.Minute} {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				live, late := every(start, time.Minute, 60*5), lateBy(start.Add(time.Hour), time.Minute, late, 60)
				w := newWorld(t, newTenant(live, late))
				_, stop := w.run(pull.Config{Poll: 5 * time.Second})
				time.Sleep(3 * time.Hour)
				w.wantOnceUntil(live, late)
				stop()
				w.wantOnceUntil(live, late)
				if got := w.events.bySource()[schema.SourceOverlap]; got != len(late) {
					t.Errorf("%d events came late, want %d", got, len(late))
				}
			})
		})
	}
}

// wantOnceUntil is wantOnce of what is visible by now.
func (w *world) wantOnceUntil(live, late []logEvent) {
	w.t.Helper()
	var events []logEvent
	for _, list := range [][]logEvent{live, late} {
		for _, e := range list {
			if time.Since(e.visible) > 2*time.Minute {
				events = append(events, e)
			}
		}
	}
	got, said := w.events.pulled(), few{t: w.t}
	for _, e := range events {
		if got[e.raw] != 1 {
			said.errorf("%s came %d times", e.id, got[e.raw])
		}
	}
}

// TestOverlapAfterAnOutage shows that an outage does not make everything late,
// and that what showed up late meanwhile is found.
func TestOverlapAfterAnOutage(t *testing.T) {
	for _, outage := range []time.Duration{15 * time.Minute, 30 * time.Minute, 3 * time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				live := every(start, 2*time.Second, 6*1800)
				down := start.Add(time.Hour)
				late := []logEvent{visibleAt(down.Add(-time.Minute+300*time.Millisecond), 7, down.Add(5*time.Minute))}
				w := newWorld(t, newTenant(live, late))
				w.tenant.fail = func(int, call) error {
					if d := time.Since(down); d > 0 && d < outage {
						return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 503, Kind: auth0.KindServer}
					}
					return nil
				}
				_, stop := w.run(pull.Config{Poll: 5 * time.Second})
				time.Sleep(7 * time.Hour)
				stop()
				w.wantOnce(live, late)
				if got := w.events.bySource()[schema.SourceOverlap]; got != 1 {
					t.Errorf("%d events came late, want 1", got)
				}
			})
		})
	}
}

// TestOverlapOfTheNextLease leads again with the same puller: what
// it does not know any more is not late.
func TestOverlapOfTheNextLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := every(start, 2*time.Second, 6*1800)
		late := lateBy(start.Add(time.Hour), 20*time.Minute, 9*time.Minute, 1)
		later := lateBy(start.Add(80*time.Minute), 20*time.Minute, 8*time.Minute, 1)
		w := newWorld(t, newTenant(live, late, later))
		p, stop := w.run(pull.Config{Poll: 5 * time.Second})
		time.Sleep(2 * time.Hour)
		stop()
		time.Sleep(time.Minute)
		before := w.events.bySource()[schema.SourceOverlap]
		stop = w.lead(p)
		time.Sleep(5 * time.Minute)
		owed := w.events.bySource()[schema.SourceOverlap] // what the last lease had to look at comes again
		time.Sleep(time.Until(start.Add(4*time.Hour + 6*time.Minute + 1500*time.Millisecond)))
		stop()
		w.wantAll(live[:7381], late, later)
		if got := w.events.bySource()[schema.SourceOverlap]; got != owed || owed-before > 6*60 {
			t.Errorf("%d and then %d events came late", owed-before, got-owed)
		}
	})
}

// TestOverlapStartsFresh has events late soon after a start: what the puller has not met
// yet is not late.
func TestOverlapStartsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past, live := every(start.Add(-2*time.Hour), 2*time.Second, 3600), every(start, 2*time.Second, 3600)
		late := lateBy(start.Add(time.Minute), 3*time.Minute, 9*time.Minute, 1)
		w := newWorld(t, newTenant(past, live, late, lateBy(start.Add(12*time.Minute), time.Minute, 8*time.Minute, 1)))
		_, stop := w.run(pull.Config{Backfill: 3 * time.Hour})
		time.Sleep(time.Second)
		stop()
		_, stop = w.run(pull.Config{Backfill: 3 * time.Hour})
		time.Sleep(2 * time.Hour)
		stop()
		if got := w.events.bySource()[schema.SourceOverlap]; got > 2+302 {
			t.Errorf("%d events came late, want the two and what the restart repeats", got)
		}
	})
}

// TestOverlapForgets has more events within the overlap than can be known: none
// is late for that, and the pull goes on.
func TestOverlapForgets(t *testing.T) {
	if testing.Short() {
		t.Skip("a quarter of a million events")
	}
	synctest.Test(t, func(t *testing.T) {
		live := every(start, 2*time.Millisecond, pull.RecentIDs*5/4)
		w := newWorld(t, newTenant(live))
		w.tenant.takes = 40 * time.Millisecond
		_, stop := w.run(pull.Config{Overlap: 30 * time.Minute})
		time.Sleep(15 * time.Minute)
		stop()
		w.wantOnce(live)
		if got := w.events.bySource()[schema.SourceOverlap]; got != 0 {
			t.Errorf("%d events came late", got)
		}
	})
}
