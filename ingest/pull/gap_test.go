package pull_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// wantGap checks that there is one gap, from one time to another.
func (w *world) wantGap(from, until time.Time) {
	w.t.Helper()
	list := w.own(schema.TypeGap)
	if len(list) != 1 {
		w.t.Fatalf("%d gaps, want one\n%s", len(list), w.log)
	}
	var e struct {
		Details struct {
			From, Until time.Time
			Seconds     float64
		}
	}
	if err := json.Unmarshal(list[0].Raw, &e); err != nil {
		w.t.Fatal(err)
	}
	if d := e.Details; !d.From.Equal(from) || !d.Until.Equal(until) || d.Seconds != until.Sub(from).Seconds() {
		w.t.Errorf("the gap is %+v, want %s to %s", d, from, until)
	}
}

// TestGapAtStart lets the tenant drop events while the puller is away: that is
// told once, and what is left is pulled.
func TestGapAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, lost, left := every(start, 30*time.Second, 100), every(start.Add(time.Hour), 30*time.Second, 1000), every(start.Add(48*time.Hour), 30*time.Second, 3000)
		w := newWorld(t, newTenant(before, lost, left))
		_, stop := w.run(pull.Config{})
		time.Sleep(50*time.Minute + 100*time.Millisecond)
		stop()
		seen := w.checkpoint()
		time.Sleep(time.Until(start.Add(60 * time.Hour)))
		w.tenant.drop(start.Add(48 * time.Hour))
		_, stop = w.run(pull.Config{})
		time.Sleep(time.Minute)
		stop()
		from, _ := schema.IDTime(seen.LogID)
		if seen.SeenAt.After(from) {
			from = seen.SeenAt.Truncate(time.Second)
		}
		w.wantGap(from, start.Add(48*time.Hour))
		for range 2 {
			_, stop = w.run(pull.Config{})
			time.Sleep(15 * time.Hour)
			stop()
		}
		w.wantGap(from, start.Add(48*time.Hour))
		w.wantAll(before, left)
	})
}

// TestGapIsNotLostByAKill kills the start that found a gap: the next one tells of
// it again, or it was told.
func TestGapIsNotLostByAKill(t *testing.T) {
	for n := 1; n < 4; n++ {
		for _, some := range []int{0, 1, 99} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTenant(every(start, time.Minute, 10), every(start.Add(48*time.Hour), time.Minute, 700)))
				_, stop := w.run(pull.Config{})
				time.Sleep(20 * time.Minute)
				stop()
				time.Sleep(time.Until(start.Add(50 * time.Hour)))
				w.tenant.drop(start.Add(48 * time.Hour))
				w.events.cutOff(n, some)
				w.mustDie(pull.Config{})
				time.Sleep(time.Second)
				_, stop = w.run(pull.Config{})
				time.Sleep(time.Minute)
				stop()
				if len(w.own(schema.TypeGap)) == 0 {
					t.Errorf("killed at write %d after %d records: no gap is told", n, some)
				}
			})
		}
	}
}

// TestGapWhileCallsFail lets the retention pass the tail during an outage, at the
// end of the log and while the tail itself is far behind.
func TestGapWhileCallsFail(t *testing.T) {
	for _, behind := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			events := every(start.Add(-10*time.Hour), 10*time.Second, 3600*6)
			w := newWorld(t, newTenant(events))
			if behind { // one serial chain that takes its time
				w.tenant.fail = func(n int, c call) error {
					if !strings.HasSuffix(c.from, strings.Repeat("0", 39)) {
						return nil
					}
					return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 400, Code: "invalid_query_string", Kind: auth0.KindClient}
				}
				w.tenant.takes = time.Minute
			}
			_, stop := w.run(pull.Config{Backfill: 11 * time.Hour})
			time.Sleep(10*time.Minute + 500*time.Millisecond)
			stuck := w.checkpoint()
			w.tenant.setFail(func(int, call) error {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
			})

			time.Sleep(20 * time.Hour)
			first := start.Add(12 * time.Hour)
			if behind {
				first = start.Add(-5 * time.Hour)
			}
			w.tenant.drop(first)
			w.tenant.setFail(nil)
			time.Sleep(10 * time.Hour)
			stop()
			list := w.own(schema.TypeGap)
			if len(list) != 1 {
				t.Fatalf("behind %v: %d gaps, want one", behind, len(list))
			}
			var e struct {
				Details struct{ From, Until time.Time }
			}
			if err := json.Unmarshal(list[0].Raw, &e); err != nil {
				t.Fatal(err)
			}
			from, _ := schema.IDTime(stuck.LogID)
			if d := e.Details; !d.Until.Equal(first) || d.From.Before(from.Add(-time.Second)) || d.From.After(from.Add(20*time.Minute)) {
				t.Errorf("behind %v: the gap is from %s to %s, want %s to %s", behind, d.From, d.Until, from, first)
			}
			got := w.events.pulled()
			for _, e := range w.tenant.events {
				if got[e.raw] == 0 && time.Since(e.visible) > 2*time.Minute {
					t.Fatalf("%s is lost", e.id)
				}
			}
		})
	}
}

// TestGapNone shows what is no gap.
func TestGapNone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events []logEvent
		away   time.Duration
		drop   time.Duration // what is older when we come back
	}{
		{"nothing was dropped", every(start.Add(-time.Hour), time.Minute, 600), 5 * time.Hour, 100 * time.Hour},
		{"what was pulled is dropped", every(start.Add(-20*time.Hour), time.Minute, 6000), 5 * time.Hour, 6 * time.Hour},
		{"a quiet tenant", []logEvent{storedAt(start.Add(-time.Hour), 1), storedAt(start.Add(30*time.Hour+10*time.Minute), 1)}, 20 * time.Minute, 24 * time.Hour},
		{"a tenant without events", nil, 20 * time.Hour, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTenant(tt.events))
				_, stop := w.run(pull.Config{Backfill: 30 * time.Hour, Poll: 10 * time.Second})
				time.Sleep(30 * time.Hour)
				stop()
				time.Sleep(tt.away)
				w.tenant.drop(time.Now().Add(-tt.drop))
				_, stop = w.run(pull.Config{Backfill: 30 * time.Hour})
				time.Sleep(time.Minute)
				stop()
				for _, e := range w.own(schema.TypeGap) {
					// What came while we were away cannot be told from what was dropped then.
					var g struct{ Details struct{ Seconds float64 } }
					if err := json.Unmarshal(e.Raw, &g); err != nil || g.Details.Seconds > tt.away.Seconds()+600 || tt.name != "a quiet tenant" {
						t.Errorf("%s", e.Raw)
					}
				}
			})
		})
	}
}

// TestGapInSlices lets slices lapse that had still to be pulled.
func TestGapInSlices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-16*time.Hour), 10*time.Second, 16*360)
		w := newWorld(t, newTenant(events))
		w.tenant.fail = func(n int, c call) error {
			if n > 1 && c.from < schema.SyntheticID(start) {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
			}
			return nil
		}
		_, stop := w.run(pull.Config{Backfill: 20 * time.Hour})
		time.Sleep(10 * time.Minute)
		stop()
		w.tenant.fail = nil
		w.tenant.drop(start.Add(-13*time.Hour - 30*time.Minute))
		_, stop = w.run(pull.Config{Backfill: 20 * time.Hour})
		time.Sleep(10 * time.Minute)
		stop()
		var seconds float64
		for _, r := range w.events.all() {
			var e struct {
				Type    string
				Details struct{ Seconds float64 }
			}
			if json.Unmarshal(r.Value, &e) == nil && e.Type == schema.TypeGap {
				seconds += e.Details.Seconds
			}
		}
		if want := (150 * time.Minute).Seconds(); seconds != want {
			t.Errorf("gaps of %v s in all, want %v", seconds, want)
		}

		// The overlap that the first start still owes may come before the backfill of the same minutes,
		// so of these a repeat is allowed.
		w.wantAll(w.tenant.events)
		repeated, got := few{t: t}, w.events.pulled()
		for _, e := range w.tenant.events {
			if got[e.raw] > 1 && e.visible.Before(start.Add(-10*time.Minute)) {
				repeated.errorf("%.150s came %d times", e.raw, got[e.raw])
			}
		}
	})
}
