package pull_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

var errKill = errors.New("killed")

// clumped is n events between two times, at random: half of them within a small
// part. No two have one id.
func clumped(rng *rand.Rand, from, until time.Time, n int) []logEvent {
	whole := until.Sub(from)
	clump := time.Duration(rng.Int64N(int64(whole / 2)))
	var events []logEvent
	for i := range n {
		d := time.Duration(rng.Int64N(int64(whole)))
		if i%2 == 0 {
			d = clump + d/12
		}
		events = append(events, storedAt(from.Add(d).Truncate(time.Millisecond), i+1))
	}
	return events
}

// mustRun runs a first start that is to be killed by its topics.
func (w *world) mustDie(cfg pull.Config) {
	w.t.Helper()
	cfg.Tenant, cfg.Log, cfg.Metrics = "acme", slog.New(w.log), pull.NewMetrics(prometheus.NewRegistry())
	p := pull.New(cfg, w.tenant, w.pacer, w.events, w.checkpoints, w.kept)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Hour)
	defer cancel()
	if err := p.Run(ctx, w.chains(), w.orders); !errors.Is(err, errKill) {
		w.t.Fatalf("Run ended with %v, want the topic's error", err)
	}
	w.events.before, w.events.after, w.checkpoints.before, w.checkpoints.after = nil, nil, nil, nil
}

// cutOff lets the n-th write to a topic keep only some of its records, and kills.
func (f *fakeTopic) cutOff(n, some int) {
	writes := 0
	f.before = func(_ context.Context, records []schema.Record) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if writes++; writes < n {
			return nil
		}
		f.records = append(f.records, records[:min(some, len(records))]...)
		return errKill
	}
}

// wantCovered checks, before each write of checkpoints and for each part of it
// that a kill may leave, that what is not acked yet lies before some chain.
func (w *world) wantCovered(events []logEvent) {
	odd, state, acked := few{t: w.t}, w.chains(), 0
	open := map[string]string{}
	for _, e := range events {
		open[e.raw] = e.id
	}
	w.checkpoints.before = func(_ context.Context, records []schema.Record) error {
		all := w.events.all()
		for _, r := range all[acked:] {
			delete(open, string(r.Value))
		}
		acked = len(all)
		for _, r := range records {
			c, err := checkpoint.Read(&r)
			if err != nil {
				return err
			}
			if state[string(r.Key)] = c; len(r.Value) == 0 {
				delete(state, string(r.Key))
			}
			if _, known := state.Of("acme", checkpoint.ChainTail); !known {
				continue
			}
			var left []checkpoint.Checkpoint
			for _, c := range state {
				if !c.Done {
					left = append(left, c)
				}
			}
			for _, id := range open {
				if !slices.ContainsFunc(left, func(c checkpoint.Checkpoint) bool { return id > c.LogID && (c.Until == "" || id <= c.Until) }) {
					odd.errorf("%s is in no chain after %s", id, r.Value)
				}
			}
		}
		return nil
	}
}

// TestFillDense shows that a part that is ten times as dense is cut finer: all
// chains are busy to the end.
func TestFillDense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sparse := every(start.Add(-24*time.Hour), 10*time.Second, 8000)
		dense := every(start.Add(-7*time.Hour), 200*time.Millisecond, 18000)
		for i := range dense {
			dense[i] = storedAt(start.Add(-7*time.Hour+time.Duration(i)*200*time.Millisecond), 1_000_000+i)
		}
		w := newWorld(t, newTenant(sparse, dense))
		w.tenant.takes = 300 * time.Millisecond
		p, stop := w.run(pull.Config{Backfill: 24 * time.Hour})
		for p.Status().Slices.Chains == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		began, idle := time.Now(), 0
		for p.Status().Slices.Chains > 0 {
			if s := p.Status().Slices; s.Chains < 12 && s.Expected > 4000 {
				idle++
			}
			time.Sleep(100 * time.Millisecond)
		}
		// 260 pages by 16 chains take 5 s at best; the dense hour alone, by one, 54 s.
		if d := time.Since(began); d > 12*time.Second || idle > 3 {
			t.Errorf("took %s; %d times chains had nothing to do", d, idle)
		}
		stop()
		w.wantOnce(sparse, dense)
		if !p.RoomIsFree() {
			t.Error("room for pages is held though all is done")
		}
	})
}

// TestFillKill kills the puller within random writes of each topic, also half
// through them, again and again: nothing is lost, and whatever a kill leaves of
// the checkpoints, each event that is not acked lies before some chain.
func TestFillKill(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 21))
			past := clumped(rng, start.Add(-20*time.Hour), start, 3000)
			live := every(start.Add(time.Second), 3*time.Second, 300)
			w := newWorld(t, newTenant(past, live))
			w.tenant.takes = time.Duration(rng.IntN(400)) * time.Millisecond
			cfg := pull.Config{Backfill: 24 * time.Hour, Chains: 1 + rng.IntN(8)}
			for range rng.IntN(4) {
				topic := w.checkpoints
				if rng.IntN(3) == 0 {
					topic = w.events
				}
				topic.cutOff(1+rng.IntN(12), rng.IntN(20))
				w.mustDie(cfg)
				time.Sleep(time.Duration(rng.IntN(60)) * time.Second)
			}
			w.wantCovered(slices.Concat(past, live))
			p, stop := w.run(cfg)
			time.Sleep(40 * time.Minute)
			stop()
			w.wantAll(past, live)
			if s := p.Status(); s.Backfill || !p.RoomIsFree() {
				t.Errorf("status: %+v", s)
			}
			if t.Failed() {
				t.Fatalf("seed %d\n%.3000s", seed, w.log)
			}
		})
	}
}

// TestFillKilledAtTheBeginning kills the first start between the checkpoints of
// its slices and the tail's: the next start goes on from what there is, soon or
// late.
func TestFillKilledAtTheBeginning(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	for _, away := range []time.Duration{time.Minute, 7 * time.Hour} {
		for _, some := range []int{0, 1, 2, 8, 15, 16, 17} {
			t.Run(fmt.Sprintf("%d records, away for %s", some, away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					events := every(start.Add(-24*time.Hour), time.Minute, 32*60) // goes on for eight hours
					w := newWorld(t, newTenant(events))
					w.checkpoints.cutOff(1, some)
					w.mustDie(pull.Config{Backfill: 25 * time.Hour})
					w.wantAll()
					time.Sleep(away)
					w.wantCovered(events)
					p, stop := w.run(pull.Config{Backfill: 48 * time.Hour, Poll: 10 * time.Second})
					time.Sleep(9 * time.Hour)
					stop()
					w.wantAll(events)
					// Rules fire on what is live: that is nothing of days ago.
					if got := p.Status().LiveFrom; got.Before(start.Add(-2 * time.Hour)) {
						t.Errorf("events count as live from %s on", got)
					}
				})
			})
		}
	}
}

// TestFillTwoLeaders lets two pull at once.
func TestFillTwoLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past, live := clumped(rand.New(rand.NewPCG(1, 1)), start.Add(-20*time.Hour), start, 3000), every(start, time.Second, 300)
		w := newWorld(t, newTenant(past, live))
		w.tenant.takes = 100 * time.Millisecond
		_, stop := w.run(pull.Config{Backfill: 24 * time.Hour, Chains: 3})
		time.Sleep(time.Second)
		_, stopOther := w.run(pull.Config{Backfill: 24 * time.Hour, Chains: 3})
		time.Sleep(2 * time.Second)
		stop()
		time.Sleep(10 * time.Minute)
		stopOther()
		w.wantAll(past, live)
		_, stop = w.run(pull.Config{Backfill: 24 * time.Hour})
		time.Sleep(time.Minute)
		stop()
		w.wantAll(past, live)
	})
}

// TestFillOrders takes up backfills that another process asks for.
func TestFillOrders(t *testing.T) {
	old, past := every(start.Add(-48*time.Hour), time.Minute, 600), every(start.Add(-10*time.Hour), 10*time.Second, 3600)
	for _, tt := range []struct {
		name        string
		from, until time.Time
		want        []logEvent // beside the past
	}{
		{"what the first backfill left out", start.Add(-48 * time.Hour), start.Add(-40 * time.Hour), old[:480]},
		{"what the first backfill is at", start.Add(-9 * time.Hour), start.Add(-5 * time.Hour), nil},
		{"a time without events", start.Add(-30 * time.Hour), start.Add(-20 * time.Hour), nil},
		{"the future", start.Add(10 * time.Hour), start.Add(20 * time.Hour), nil},
		{"into the future", start.Add(-time.Hour), start.Add(20 * time.Hour), nil},
		{"before the retention", start.Add(-1000 * time.Hour), start.Add(-900 * time.Hour), nil},
		{"from before the retention on", start.Add(-1000 * time.Hour), start.Add(-40 * time.Hour), old[:480]},
		{"no time at all", start.Add(-time.Hour), start.Add(-time.Hour), nil},
		{"back to front", start.Add(-time.Hour), start.Add(-2 * time.Hour), nil},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", tt.name, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, newTenant(old, past))
					w.tenant.takes = 200 * time.Millisecond
					cfg := pull.Config{Backfill: 11 * time.Hour, Chains: 4}
					_, stop := w.run(cfg)
					time.Sleep(2 * time.Second)
					order := pull.BackfillRequest("acme", "mine", tt.from, tt.until)
					if restart {
						// It is only in the topic: the one who leads next takes it up.
						stop()
						r, err := order.Record()
						if err != nil {
							t.Fatal(err)
						}
						if err := w.checkpoints.Produce(t.Context(), []schema.Record{r}, nil); err != nil {
							t.Fatal(err)
						}
						_, stop = w.run(cfg)
					} else {
						w.orders <- order
						w.orders <- order
						w.orders <- pull.BackfillRequest("other", "theirs", tt.from, tt.until)
					}
					time.Sleep(5 * time.Minute)
					stop()
					w.wantAll(past, tt.want)
					c, ok := w.chains().Of("acme", order.Chain)
					if !ok || !c.Done || c.Requested {
						t.Errorf("the order is %+v", c)
					}
					if got := w.own(schema.TypeGap); len(got) != 0 {
						t.Errorf("%d gaps: %s", len(got), got[0].Raw)
					}
					if n := w.log.count("WARN") + w.log.count("ERROR"); n != 0 {
						t.Errorf("there is nothing to warn of:\n%s", w.log)
					}
				})
			})
		}
	}
}

// TestFillForgets takes chains away that have come to their end long ago, and no
// others.
func TestFillForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTenant(every(start.Add(-2*time.Hour), time.Second, 100)))
		_, stop := w.run(pull.Config{Backfill: 3 * time.Hour})
		time.Sleep(time.Minute)
		stop()
		if n := len(w.chains()); n != 17 {
			t.Errorf("%d chains, want 16 slices and the tail", n)
		}
		fresh := checkpoint.Checkpoint{Tenant: "acme", Chain: "audit/fresh", LogID: idAt(start, 0), Done: true, UpdatedAt: time.Now()}
		r, err := fresh.Record()
		if err != nil {
			t.Fatal(err)
		}
		w.checkpoints.records = append(w.checkpoints.records, r)
		time.Sleep(2 * time.Hour)
		_, stop = w.run(pull.Config{Backfill: 3 * time.Hour})
		time.Sleep(time.Minute)
		stop()
		for _, c := range w.chains() {
			if plan, ok := pull.BackfillPlan(c.Chain); ok && plan == "first" {
				t.Errorf("%s is still there", c.Chain)
			}
		}
		_, kept := w.chains().Of("acme", "audit/fresh")
		if w.checkpoint().LogID == "" || !kept {
			t.Error("the tail or an audit that goes on is forgotten")
		}
	})
}

// TestFillSerial shows a tenant that takes no ids but its own: one chain, a
// warning, and one call at a time.
func TestFillSerial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past, live := every(start.Add(-5*time.Hour), 2*time.Second, 8000), every(start, time.Second, 300)
		w := newWorld(t, newTenant(past, live))
		w.tenant.takes = 100 * time.Millisecond
		w.tenant.fail = func(_ int, c call) error {
			if strings.HasSuffix(c.from, strings.Repeat("0", 39)) {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 400, Code: "invalid_query_string", Kind: auth0.KindClient}
			}
			return nil
		}
		p, stop := w.run(pull.Config{Backfill: 6 * time.Hour})
		time.Sleep(3 * time.Second)
		if s := p.Status(); !s.Backfill || s.Slices.Chains != 0 || w.log.count("WARN tenant rejects synthetic ids: backfilling serially") != 1 {
			t.Errorf("status: %+v\n%s", s, w.log)
		}
		calls := w.tenant.called()
		for i := 1; i < len(calls); i++ {
			if d := calls[i].at.Sub(calls[i-1].at); d < 100*time.Millisecond {
				t.Fatalf("call %d came %s after the one before", i, d)
			}
		}
		stop()
		time.Sleep(time.Minute)
		_, stop = w.run(pull.Config{Backfill: 6 * time.Hour})
		time.Sleep(15 * time.Minute)
		stop()
		w.wantAll(past, live)
	})
}

// TestFillOddLogs pulls what is not as it should be: nothing is lost, and no room
// for pages is left held.
func TestFillOddLogs(t *testing.T) {
	past := func() []logEvent { return every(start.Add(-3*time.Hour), 4*time.Second, 2700) }
	for _, tt := range []struct {
		name   string
		tenant func() *fakeTenant
		slices bool
	}{
		{"as it should be", func() *fakeTenant { return newTenant(past()) }, true},
		{"nothing", func() *fakeTenant { return newTenant() }, true},
		{"one event", func() *fakeTenant { return newTenant(past()[:1]) }, true},
		{"short pages", func() *fakeTenant { f := newTenant(past()); f.most = 3; return f }, true},
		{"huge events", func() *fakeTenant {
			f := newTenant(past()[:300])
			for i := range f.events {
				f.events[i].raw = strings.Replace(f.events[i].raw, `"n":1.0`, `"x":"`+strings.Repeat("x", 900<<10)+`"`, 1)
			}
			return f
		}, true},
		{"ids of another kind", func() *fakeTenant {
			f := newTenant(past())
			for i := range f.events {
				id := fmt.Sprintf("x%07d", i)
				f.events[i] = logEvent{id, `{"log_id":"` + id + `","date":"2026-11-20T09:00:00.000Z"}`, start.Add(-time.Hour)}
			}
			return f
		}, false},
		{"later ids of another kind", func() *fakeTenant {
			f := newTenant(past())
			for i := 2000; i < len(f.events); i++ {
				id := fmt.Sprintf("x%07d", i)
				f.events[i] = logEvent{id, `{"log_id":"` + id + `","date":"2026-11-20T09:00:00.000Z"}`, start.Add(-time.Hour)}
			}
			return f
		}, true},
		{"the oldest event is broken", func() *fakeTenant { f := newTenant(past()); f.events[0].raw = `{"broken"`; return f }, true},
		{"all of one second", func() *fakeTenant {
			f := newTenant(past())
			for i := range f.events {
				f.events[i] = storedAt(start.Add(-time.Hour), i+1)
			}
			return f
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.tenant())
				w.tenant.takes = 50 * time.Millisecond
				p, stop := w.run(pull.Config{Backfill: 4 * time.Hour})
				time.Sleep(time.Hour)
				stop()
				w.wantAll(w.tenant.events)
				if s := p.Status(); s.Backfill || s.Slices.Chains != 0 || !p.RoomIsFree() {
					t.Errorf("status: %+v, room is free: %v", s, p.RoomIsFree())
				}
				if got := w.log.count("backfilling serially") == 0; got != tt.slices {
					t.Errorf("cut into slices: %v, want %v", got, tt.slices)
				}
				// A bounded number of calls each second for the tail, and no storm.
				if n := len(w.tenant.called()); n > 3600+60+3000 {
					t.Errorf("%d calls", n)
				}
			})
		})
	}
}

// TestFillIsNotLate shows that what the slices have still to pull does not count
// as late, however long that takes, and that what shows up late beside it does.
func TestFillIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past, live := every(start.Add(-3*time.Hour), 2*time.Second, 5400), every(start, time.Second, 4000)
		late := []logEvent{visibleAt(start.Add(-30*time.Second+100*time.Millisecond), 7, start.Add(4*time.Minute))}
		w := newWorld(t, newTenant(past, live, late))
		healed := start.Add(40 * time.Minute)
		w.tenant.fail = func(n int, c call) error {
			if n > 1 && c.from < past[5380].id && time.Now().Before(healed) {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
			}
			return nil
		}
		_, stop := w.run(pull.Config{Backfill: 4 * time.Hour})
		time.Sleep(90 * time.Minute)
		stop()
		w.wantOnce(past, live, late)
		if got := w.events.bySource()[schema.SourceOverlap]; got > 1 {
			t.Errorf("%d events count as late", got)
		}
	})
}

// TestFillCatchesUp shows a start after a long time: what has come since is pulled
// by several chains, and the tail goes on close to now, also when the start is
// killed half-way.
func TestFillCatchesUp(t *testing.T) {
	events := every(start, 30*time.Second, 9*120) // nine hours
	down := start.Add(8 * time.Hour)
	// Stored before we were away, visible meanwhile.
	late := []logEvent{visibleAt(start.Add(58*time.Minute+500*time.Millisecond), 7, start.Add(62*time.Minute))}
	for _, some := range []int{-1, 0, 1, 5, 15, 16, 17} {
		t.Run(fmt.Sprintf("%d records", some), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTenant(events, late))
				w.tenant.takes = 100 * time.Millisecond
				_, stop := w.run(pull.Config{})
				time.Sleep(time.Hour)
				stop()
				before := w.checkpoint()
				time.Sleep(time.Until(down))
				if some >= 0 {
					w.checkpoints.cutOff(1, some)
					w.mustDie(pull.Config{})
					time.Sleep(time.Minute)
				}
				w.wantCovered(events)
				p, stop := w.run(pull.Config{})
				time.Sleep(2 * time.Second)
				c := w.checkpoint()
				if at, _ := schema.IDTime(c.LogID); at.Before(down.Add(-4 * time.Hour)) {
					t.Errorf("the tail goes on from %s", at)
				}
				if c.Events < before.Events || !c.LiveFrom.Equal(start) {
					t.Errorf("the tail was %+v and is %+v", before, c)
				}
				time.Sleep(90 * time.Minute)
				stop()
				w.wantAll(events, late)
				if s := p.Status(); s.Backfill || !p.RoomIsFree() {
					t.Errorf("status: %+v", s)
				}
				if got := len(w.own(schema.TypeGap)); got != 0 {
					t.Errorf("%d gaps", got)
				}
			})
		})
	}
}
