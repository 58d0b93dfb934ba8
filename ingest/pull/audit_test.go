package pull_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// fakeKept is the store behind the events topic, with its writer.
type fakeKept struct {
	topic func() int               // records in it
	lag   time.Duration            // of the writer
	drop  func(*schema.Event) bool // the writer loses it; may be nil

	mu      sync.Mutex // guards what follows
	down    bool       // nothing answers, nothing is written
	written int        // records of the topic
	rows    map[string]bool
	dead    map[string]bool
	notes   []schema.Coverage
	asked   int
}

// keep gives the world a store, which ends with the test.
func (w *world) keep() *fakeKept {
	k := &fakeKept{rows: map[string]bool{}, dead: map[string]bool{}, topic: func() int { return len(w.events.from(0)) }}
	w.kept = k
	go func() {
		for w.t.Context().Err() == nil {
			w.write(k)
			select {
			case <-w.t.Context().Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return k
}

func (w *world) write(k *fakeKept) {
	all := w.events.from(0)
	k.mu.Lock()
	defer k.mu.Unlock()
	for !k.down && k.written < len(all) {
		e := schema.EventOf(&all[k.written])
		if time.Since(e.FetchedAt) < k.lag {
			return
		}
		k.written++
		switch err := e.Identify(); {
		case k.drop != nil && k.drop(&e):
		case err != nil:
			d := schema.NewDeadLetter(&e, err)
			k.dead[d.ID] = true
		default:
			k.rows[e.LogID] = true
		}
	}
}

var errStoreDown = errors.New("the store is down")

func (k *fakeKept) Stored(_ context.Context, tenant string, events []schema.Event) (map[string]bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked++; k.down {
		return nil, errStoreDown
	}
	found := map[string]bool{}
	for _, e := range events {
		if e.LogID == "" {
			return nil, errors.New("asked for an event that is not identified")
		}
		if k.rows[e.LogID] && tenant == "acme" {
			found[e.LogID] = true
		}
	}
	return found, nil
}

func (k *fakeKept) DeadLetters(context.Context, string) (map[string]bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return nil, errStoreDown
	}
	found := map[string]bool{}
	for id := range k.dead {
		found[id] = true
	}
	return found, nil
}

func (k *fakeKept) Drained(ctx context.Context) error {
	for begin, want := time.Now(), -1; ; {
		k.mu.Lock()
		if k.down {
			k.mu.Unlock()
			return errStoreDown
		}
		written := k.written
		k.mu.Unlock()
		if want < 0 {
			want = k.topic()
		}
		if written >= want {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if time.Since(begin) > time.Minute {
			return errors.New("the writer does not get there")
		}
	}
}

func (k *fakeKept) SaveCoverage(_ context.Context, list []schema.Coverage) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return errStoreDown
	}
	k.notes = append(k.notes, list...)
	return nil
}

func (k *fakeKept) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// lose deletes what is stored.
func (k *fakeKept) lose(events ...logEvent) {
	k.set(func() {
		for _, e := range events {
			delete(k.rows, e.id)
		}
	})
}

func (k *fakeKept) has(events []logEvent) (n int) {
	k.set(func() {
		for _, e := range events {
			if k.rows[e.id] {
				n++
			}
		}
	})
	return n
}

// hours are the newest rows, in order. It checks that each adds up and that rows
// of one hour lie within it.
func (k *fakeKept) hours(t *testing.T) []schema.Coverage {
	t.Helper()
	newest := map[time.Time]schema.Coverage{}
	k.set(func() {
		for _, c := range k.notes {
			if c.Expected != c.Stored+c.Dead+c.Missing || c.From.Before(c.Hour) || c.Until.After(c.Hour.Add(time.Hour)) || !c.From.Before(c.Until) {
				t.Errorf("row %+v", c)
			}
			newest[c.Hour] = c
		}
	})
	var list []schema.Coverage
	for _, c := range newest {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b schema.Coverage) int { return a.Hour.Compare(b.Hour) })
	return list
}

// order gives an audit to the puller and waits for its end.
func (w *world) order(c checkpoint.Checkpoint) checkpoint.Checkpoint {
	w.t.Helper()
	w.orders <- c
	for range 24 * 360 {
		if done, ok := w.chains().Of(c.Tenant, c.Chain); ok && done.Done {
			return done
		}
		time.Sleep(10 * time.Second)
	}
	w.t.Fatalf("%s does not end", c.Chain)
	return c
}

// wantTally checks what an audit has counted, and that its rows tell the same.
func (w *world) wantTally(k *fakeKept, c checkpoint.Checkpoint, want checkpoint.Tally) {
	w.t.Helper()
	if c.Audit == nil || *c.Audit != want {
		w.t.Errorf("the audit has counted %+v, want %+v", c.Audit, want)
	}
	var sum checkpoint.Tally
	last := time.Time{}
	for _, r := range k.hours(w.t) {
		sum.Add(&checkpoint.Tally{Expected: r.Expected, Stored: r.Stored, Dead: r.Dead, Missing: r.Missing, Healed: r.Healed})
		if !last.IsZero() && !r.From.Equal(last) {
			w.t.Errorf("between %s and %s nothing is covered", last, r.From)
		}
		last = r.Until
	}
	if sum != want {
		w.t.Errorf("the rows add up to %+v, want %+v", sum, want)
	}
}

// quietAudits forgets what background audits have noted.
func quietAudits(k *fakeKept) { k.set(func() { k.notes = nil }) }

// TestAudit holds the store against the tenant, in all the ways that they can
// differ.
func TestAudit(t *testing.T) {
	past := every(start.Add(-5*time.Hour-20*time.Minute), 7*time.Second, 2700)
	some := []logEvent{past[10], past[1500], past[1501], past[2000]}
	lost := func(e *schema.Event) bool {
		return slices.ContainsFunc(some, func(s logEvent) bool { return s.id == e.LogID })
	}
	for _, tt := range []struct {
		name   string
		repair bool
		set    func(w *world, k *fakeKept) // before all is pulled
		then   func(w *world, k *fakeKept) // after
		want   checkpoint.Tally
		told   bool
		repeat int // events that come by repair
	}{
		{name: "nothing is missing", want: checkpoint.Tally{Expected: 2700, Stored: 2700}},
		{name: "nothing is missing, to be repaired", repair: true, want: checkpoint.Tally{Expected: 2700, Stored: 2700}},
		{name: "missing", then: func(_ *world, k *fakeKept) { k.lose(some...) }, want: checkpoint.Tally{Expected: 2700, Stored: 2696, Missing: 4}, told: true},
		{name: "repaired", repair: true, then: func(_ *world, k *fakeKept) { k.lose(some...) }, want: checkpoint.Tally{Expected: 2700, Stored: 2700, Healed: 4}, told: true, repeat: 4},
		{name: "all is repaired", repair: true, then: func(_ *world, k *fakeKept) { k.lose(past...) }, want: checkpoint.Tally{Expected: 2700, Stored: 2700, Healed: 2700}, told: true, repeat: 2700},
		{name: "lost again and again", repair: true, set: func(_ *world, k *fakeKept) { k.drop = lost }, want: checkpoint.Tally{Expected: 2700, Stored: 2696, Missing: 4}, told: true, repeat: 4},
		{name: "the writer lags", repair: true, set: func(_ *world, k *fakeKept) { k.lag = 40 * time.Second }, want: checkpoint.Tally{Expected: 2700, Stored: 2700}},
		{name: "the store is down for a while", repair: true, then: func(w *world, k *fakeKept) {
			k.set(func() { k.down = true })
			go func() {
				time.Sleep(10 * time.Minute)
				k.set(func() { k.down = false })
			}()
		}, want: checkpoint.Tally{Expected: 2700, Stored: 2700}},
		{name: "dead letters", repair: true, set: func(w *world, _ *fakeKept) {
			for _, i := range []int{100, 101, 2400} {
				w.tenant.events[i].raw = fmt.Sprintf(`{"broken":%d}`, i)
			}
		}, want: checkpoint.Tally{Expected: 2700, Stored: 2697, Dead: 3}},
		{name: "dead letters that are gone", repair: true, set: func(w *world, _ *fakeKept) { w.tenant.events[100].raw = `{"broken":1}` },
			then: func(_ *world, k *fakeKept) { k.set(func() { clear(k.dead) }) }, want: checkpoint.Tally{Expected: 2700, Stored: 2699, Dead: 1, Healed: 1}, told: true, repeat: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTenant(past))
				k := w.keep()
				if tt.set != nil {
					tt.set(w, k)
				}
				// By orders only: the background audits would be first.
				_, stop := w.run(pull.Config{Backfill: 6 * time.Hour})
				time.Sleep(5 * time.Second)
				stop()
				time.Sleep(time.Minute)
				w.log.lines = nil
				w.events.mu.Lock()
				before := len(w.events.records)
				w.events.mu.Unlock()
				if tt.then != nil {
					tt.then(w, k)
				}
				quietAudits(k)
				_, stop = w.run(pull.Config{RequestsOnly: true})
				done := w.order(audit.Request("acme", "mine", start.Add(-6*time.Hour), start, tt.repair))
				stop()
				w.wantTally(k, done, tt.want)
				if got := len(w.own(schema.TypeAudit)) > 0; got != tt.told {
					t.Errorf("told of what was missing: %v, want %v\n%s", got, tt.told, w.log)
				}
				repeats := 0
				for _, r := range w.events.all()[before:] {
					if r.Header("source") == string(schema.SourceRepair) {
						repeats++
					}
				}
				if repeats != tt.repeat {
					t.Errorf("%d events came by repair, want %d", repeats, tt.repeat)
				}
				if done.Events != 2700 || done.Requested {
					t.Errorf("the chain is %+v", done)
				}
			})
		})
	}
}

// TestAuditOfTheLatest audits up to now: what has shown up late and what the tail
// has not pulled is not missing.
func TestAuditOfTheLatest(t *testing.T) {
	for _, tt := range []struct {
		name string
		poll time.Duration
		live []logEvent
		late []logEvent
		fail func(c call) bool // of the second hour
	}{
		{name: "late events", poll: time.Second, live: every(start, 2*time.Second, 3000),
			late: lateBy(start.Add(56*time.Minute), 20*time.Second, 2*time.Minute, 6)},
		{name: "the tail sleeps", poll: 4 * time.Minute, live: every(start, 2*time.Second, 3000)},
		{name: "the tail fails", poll: time.Second, live: every(start, 2*time.Second, 3000),
			fail: func(c call) bool { return c.take == auth0.MaxTake && c.from >= idAt(start.Add(49*time.Minute), 0) }},
		{name: "a quiet tenant", poll: time.Second, live: every(start, 20*time.Minute, 9)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTenant(tt.live, tt.late))
				w.keep()
				began := start.Add(50 * time.Minute)
				w.tenant.fail = func(_ int, c call) error {
					if tt.fail != nil && time.Since(began) > 0 && time.Since(began) < 20*time.Minute && tt.fail(c) {
						return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
					}
					return nil
				}
				p, stop := w.run(pull.Config{Poll: tt.poll, OverlapEvery: 5 * time.Minute})
				time.Sleep(time.Until(start.Add(59*time.Minute + 30*time.Second)))
				done := w.order(audit.Request("acme", "mine", start, time.Now().Add(time.Second), true))
				if done.Audit.Missing != 0 || done.Audit.Healed != 0 || len(w.own(schema.TypeAudit)) != 0 {
					t.Errorf("%+v\n%s", done.Audit, w.log)
				}
				if tt.fail == nil && done.Audit.Expected+uint64(tt.poll/(2*time.Second))+40 < uint64(59*30) && len(tt.live) > 100 {
					t.Errorf("only %d events were looked at", done.Audit.Expected)
				}
				time.Sleep(time.Until(start.Add(100 * time.Minute)))
				if p.Status().Failing != "" {
					t.Errorf("failing: %s", p.Status().Failing)
				}
				stop()
				if got := w.events.bySource(); got[schema.SourceRepair] != 0 || got[schema.SourceOverlap] != len(tt.late) {
					t.Errorf("sources: %v", got)
				}
			})
		})
	}
}

// TestAuditPullsWhatIsTooLateForTheOverlap lets events show up later than the overlap is
// wide: an audit pulls them, each once.
func TestAuditPullsWhatIsTooLateForTheOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live, late := every(start, 2*time.Second, 3600), lateBy(start.Add(20*time.Minute), time.Minute, 65*time.Minute, 6)
		w := newWorld(t, newTenant(live, late))
		k := w.keep()
		_, stop := w.run(pull.Config{Poll: time.Second})
		time.Sleep(time.Until(start.Add(100 * time.Minute)))
		if got := w.events.bySource()[schema.SourceOverlap]; got != 0 {
			t.Fatalf("the overlap has pulled %d of them", got)
		}

		done := w.order(audit.Request("acme", "mine", start, start.Add(time.Hour), true))
		stop()
		if done.Audit.Missing != 0 || done.Audit.Stored != done.Audit.Expected {
			t.Errorf("%+v\n%s", done.Audit, w.log)
		}
		if got := w.events.bySource()[schema.SourceRepair]; got != 6 || k.has(late) != 6 {
			t.Errorf("%d were repaired, %d are stored", got, k.has(late))
		}
	})
}

// TestAuditWaitsForTheBackfill orders an audit of what is still to be pulled.
func TestAuditWaitsForTheBackfill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := every(start.Add(-20*time.Hour), 10*time.Second, 7200)
		w := newWorld(t, newTenant(past))
		k := w.keep()
		w.tenant.takes = 2 * time.Second
		_, stop := w.run(pull.Config{Backfill: 24 * time.Hour, Chains: 2})
		time.Sleep(5 * time.Second)
		done := w.order(audit.Request("acme", "mine", start.Add(-24*time.Hour), start, true))
		stop()
		if *done.Audit != (checkpoint.Tally{Expected: 7200, Stored: 7200}) || len(w.own(schema.TypeAudit)) != 0 || k.has(past) != 7200 {
			t.Errorf("%+v", done.Audit)
		}
	})
}

// TestAuditBesideABackfill orders an audit of a stretch that a backfill has
// still to pull again: only what is missing there is waited for.
func TestAuditBesideABackfill(t *testing.T) {
	for _, missing := range []bool{false, true} {
		t.Run(fmt.Sprintf("missing %v", missing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				past := every(start.Add(-20*time.Hour), 10*time.Second, 7200)
				w := newWorld(t, newTenant(past))
				k := w.keep()
				_, stop := w.run(pull.Config{Backfill: 24 * time.Hour})
				time.Sleep(time.Minute)
				stop()
				edge, mends := start.Add(-2*time.Hour), time.Now().Add(time.Hour)
				w.tenant.fail = func(_ int, c call) error {
					if time.Now().Before(mends) && c.from >= schema.SyntheticID(edge) {
						return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
					}
					return nil
				}
				if missing {
					k.lose(past[3000])
				}
				_, stop = w.run(pull.Config{RequestsOnly: true, Chains: 1})
				w.orders <- pull.BackfillRequest("acme", "fails", edge, start)
				synctest.Wait() // the only chain works on it
				w.orders <- pull.BackfillRequest("acme", "waits", start.Add(-20*time.Hour), edge)
				done := w.order(audit.Request("acme", "mine", start.Add(-20*time.Hour), edge, true))
				if waited := !time.Now().Before(mends); waited != missing {
					t.Errorf("it has waited for the backfill: %v, want %v", waited, missing)
				}
				stop()
				if *done.Audit != (checkpoint.Tally{Expected: 6480, Stored: 6480}) || k.has(past) != 7200 || len(w.own(schema.TypeAudit)) != 0 {
					t.Errorf("%+v, %d stored", done.Audit, k.has(past))
				}
			})
		})
	}
}

// TestAuditHours audits random stretches with random losses, killed at random:
// the totals and the rows are those of the tenant.
func TestAuditHours(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 31))
			past := clumped(rng, start.Add(-9*time.Hour), start.Add(-time.Minute), 12000)
			w := newWorld(t, newTenant(past))
			k := w.keep()
			_, stop := w.run(pull.Config{Backfill: 24 * time.Hour})
			time.Sleep(20 * time.Second)
			stop()
			time.Sleep(time.Minute)
			from := start.Add(-time.Duration(rng.IntN(10*3600)) * time.Second)
			until := from.Add(time.Duration(1+rng.IntN(8*3600)) * time.Second)
			if until.After(start) {
				until = start
			}
			repair := rng.IntN(2) == 0
			first, expected, gone := from.Truncate(time.Hour), uint64(0), map[string]bool{}
			if oldest, _ := schema.IDTime(w.tenant.events[0].id); first.Before(oldest) {
				first = oldest.Truncate(time.Hour)
			}
			for _, e := range past {
				if e.id > schema.SyntheticID(first) && e.id <= schema.SyntheticID(until) {
					if expected++; rng.IntN(200) == 0 {
						k.lose(e)
						gone[e.id] = true
					}
				}
			}
			quietAudits(k)
			w.tenant.takes = 100 * time.Millisecond
			order := audit.Request("acme", "mine", from, until, repair)
			r, _ := order.Record()
			w.checkpoints.records = append(w.checkpoints.records, r)
			cfg := pull.Config{RequestsOnly: true}
			for range rng.IntN(4) {
				_, stop := w.run(cfg)
				time.Sleep(time.Duration(rng.IntN(8000)) * time.Millisecond)
				stop()
			}
			_, stop = w.run(cfg)
			time.Sleep(5 * time.Minute)
			stop()
			done, _ := w.chains().Of("acme", order.Chain)
			want := checkpoint.Tally{Expected: expected, Stored: expected - uint64(len(gone)), Missing: uint64(len(gone))}
			if repair {
				want.Stored, want.Missing, want.Healed = expected, 0, done.Audit.Healed // a kill loses count of these
				if want.Healed > uint64(len(gone)) {
					t.Errorf("%d healed, want at most %d", want.Healed, len(gone))
				}
			}
			if !done.Done {
				t.Errorf("the audit is %+v", done)
			}
			if first.Before(until) {
				w.wantTally(k, done, want)
				if list := k.hours(t); len(list) == 0 || !list[0].From.Equal(first) || !list[len(list)-1].Until.Equal(until.Truncate(time.Second)) {
					t.Errorf("rows %+v, want them from %s to %s", list, first, until)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d: %s to %s", seed, from, until)
			}
		})
	}
}

// TestAuditRetention leaves out what ClickHouse has dropped, and what the tenant
// has.
func TestAuditRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := every(start.Add(-48*time.Hour), time.Minute, 48*60)
		w := newWorld(t, newTenant(past))
		k := w.keep()
		_, stop := w.run(pull.Config{Backfill: 72 * time.Hour})
		time.Sleep(30 * time.Second)
		stop()
		k.lose(past[:24*60]...)
		quietAudits(k)
		_, stop = w.run(pull.Config{RequestsOnly: true, Retention: 24 * time.Hour})
		done := w.order(audit.Request("acme", "mine", start.Add(-72*time.Hour), start, true))
		w.wantTally(k, done, checkpoint.Tally{Expected: 23 * 60, Stored: 23 * 60})
		gone := w.order(audit.Request("acme", "gone", start.Add(-72*time.Hour), start.Add(-30*time.Hour), true))
		if *gone.Audit != (checkpoint.Tally{}) {
			t.Errorf("of what was dropped: %+v", gone.Audit)
		}
		stop()
		if got := w.events.bySource()[schema.SourceRepair]; got != 0 {
			t.Errorf("%d events came by repair", got)
		}
	})
}

// TestAuditBackground shows that the background audits begin when the backfill is
// done, hour after hour and round after round, and heal.
func TestAuditBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past, live := every(start.Add(-20*time.Hour), 20*time.Second, 3600), every(start, 20*time.Second, 1800)
		w := newWorld(t, newTenant(past, live))
		k := w.keep()
		healed := start.Add(30 * time.Minute)
		w.tenant.fail = func(n int, c call) error {
			if n > 1 && c.take > 1 && c.from < past[50].id && time.Now().Before(healed) {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
			}
			return nil
		}
		p, stop := w.run(pull.Config{Backfill: 24 * time.Hour})
		time.Sleep(29 * time.Minute)
		if k.asked != 0 || !p.Status().Backfill {
			t.Errorf("asked %d times while the backfill runs", k.asked)
		}
		time.Sleep(40 * time.Minute)
		if n := k.has(past); n != 3600 || len(w.own(schema.TypeAudit)) != 0 {
			t.Errorf("%d stored, %d audit events", n, len(w.own(schema.TypeAudit)))
		}
		k.lose(past[100], past[3000], live[100])
		time.Sleep(15 * time.Minute)
		if n := k.has([]logEvent{past[100], past[3000], live[100]}); n != 3 {
			t.Errorf("%d of three were healed by the next round", n)
		}
		if got := len(w.own(schema.TypeAudit)); got == 0 {
			t.Error("nobody was told")
		}
		time.Sleep(3 * time.Hour)
		fresh, _ := w.chains().Of("acme", "audit/fresh")
		if at, _ := schema.IDTime(fresh.LogID); !at.Equal(start.Add(4 * time.Hour)) {
			t.Errorf("fresh hours are audited up to %s", at)
		}
		// Two hours later everything is told again by nobody.
		stop()
		time.Sleep(2 * time.Hour)
		_, stop = w.run(pull.Config{Backfill: 24 * time.Hour})
		time.Sleep(time.Hour)
		again, ok := w.chains().Of("acme", "audit/fresh")
		if !ok || again.Events < fresh.Events || again.From > fresh.LogID || again.Events > fresh.Events+3*180 {
			t.Errorf("the fresh audit was %+v and is %+v", fresh, again)
		}
		stop()
		if sum := k.hours(t); len(sum) < 24 {
			t.Errorf("%d hours are covered", len(sum))
		}
		if got := w.events.bySource()[schema.SourceRepair]; got != 3 {
			t.Errorf("%d events came by repair, want 3", got)
		}
	})
}

// TestAuditOrdersOnly shows that a puller that only does what is asked for pulls
// nothing else.
func TestAuditOrdersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := every(start.Add(-20*time.Hour), time.Minute, 1200)
		w := newWorld(t, newTenant(past))
		k := w.keep()
		p, stop := w.run(pull.Config{RequestsOnly: true, Backfill: 24 * time.Hour})
		time.Sleep(3 * time.Hour)
		if n := len(w.tenant.called()); n > 1 || k.asked != 0 || p.Status().Backfill {
			t.Errorf("%d calls, %d questions, status %+v", n, k.asked, p.Status())
		}
		if _, ok := w.chains().Of("acme", checkpoint.ChainTail); ok || len(w.events.all()) != 0 {
			t.Error("the tail has begun")
		}
		w.order(pull.BackfillRequest("acme", "some", start.Add(-10*time.Hour), start.Add(-9*time.Hour)))
		done := w.order(audit.Request("acme", "mine", start.Add(-10*time.Hour), start.Add(-8*time.Hour), true))
		stop()
		w.wantTally(k, done, checkpoint.Tally{Expected: 120, Stored: 120, Healed: 60})
		w.wantOnce(past[600:720])
	})
}

// TestAuditsInTurn takes up what the one who led before had not done: the oldest
// first, so one that was begun comes to its end.
func TestAuditsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTenant(every(start.Add(-time.Hour), time.Minute, 60)))
		w.keep()
		var want []string
		for i := range 8 {
			order := audit.Request("acme", fmt.Sprintf("20261121T17000%d-0000", i), start.Add(-time.Hour), start, true)
			r, err := order.Record()
			if err != nil {
				t.Fatal(err)
			}
			if err := w.checkpoints.Produce(t.Context(), []schema.Record{r}, nil); err != nil {
				t.Fatal(err)
			}
			want = append(want, order.Chain)
		}
		_, stop := w.run(pull.Config{RequestsOnly: true})
		time.Sleep(time.Hour)
		stop()
		var done []string
		for _, r := range w.checkpoints.all() {
			c, err := checkpoint.Read(&r)
			if err != nil {
				t.Fatal(err)
			}
			if c.Done {
				done = append(done, c.Chain)
			}
		}
		if !slices.Equal(done, want) {
			t.Errorf("done in the order %v", done)
		}
	})
}
