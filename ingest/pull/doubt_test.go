package pull_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// refusal is Auth0's own; gateway is that of something between.
var (
	refusal = &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 400, Code: "invalid_query_string", Kind: auth0.KindClient}
	gateway = &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 400, Message: "58 bytes of text/html", Kind: auth0.KindClient}
	missing = &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 404, Message: "Log not found.", Kind: auth0.KindClient}
)

// oldestCalls is how often the tenant was asked for its oldest events.
func (f *fakeTenant) oldestCalls() int {
	n := 0
	for _, c := range f.called() {
		if c.from == "oldest" {
			n++
		}
	}
	return n
}

// TestPullGateway: a 400 that is not Auth0's is no refused cursor, at the start or later.
func TestPullGateway(t *testing.T) {
	for _, at := range []time.Duration{0, 2 * time.Minute} {
		t.Run(at.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				events := every(start.Add(-3*time.Hour), 10*time.Second, 1200)
				w := newWorld(t, newTenant(events))
				w.keep()
				from := start.Add(at)
				w.tenant.fail = func(_ int, c call) error {
					if now := time.Now(); !now.Before(from) && now.Before(from.Add(3*time.Second)) {
						return gateway
					}
					return nil
				}
				p, stop := w.run(pull.Config{Backfill: -1})
				time.Sleep(at + 8*time.Second)
				if got := p.Status().Position; time.Since(got) > 12*time.Second {
					t.Errorf("five seconds after the last 400 the tail is at %s", got)
				}
				time.Sleep(2 * time.Hour)
				stop()
				w.wantAll(events)
				if n := w.tenant.oldestCalls(); n != 0 || w.log.count("rejects synthetic ids") != 0 || p.Status().Slices.Rounds == 0 {
					t.Errorf("%d calls for the oldest events, status %+v\n%s", n, p.Status().Slices, w.log)
				}
				if _, known := w.chains().Of("acme", "audit/fresh"); !known {
					t.Error("nothing was audited")
				}
			})
		})
	}
}

// TestPullAcceptsLater: a tenant that refuses ids for a while is asked again, and then
// what is left of the backfill is pulled by several chains, and audited.
func TestPullAcceptsLater(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-10*24*time.Hour), 20*time.Second, 3*10*24*60+400)
		w := newWorld(t, newTenant(events))
		w.keep()
		w.tenant.takes = time.Second
		refuses := start.Add(3 * time.Minute)
		w.tenant.fail = func(_ int, c call) error {
			if strings.HasSuffix(c.from, strings.Repeat("0", 39)) && time.Now().Before(refuses) {
				return refusal
			}
			return nil
		}
		p, stop := w.run(pull.Config{Backfill: -1})
		time.Sleep(4 * time.Minute)
		if s := p.Status(); !s.Backfill || s.Slices.Chains != 0 {
			t.Errorf("it does not begin with one chain: %+v", s)
		}
		time.Sleep(3 * time.Minute)
		if s := p.Status(); s.Slices.Chains < 2 && s.Slices.Rounds == 0 || time.Since(s.Position) > time.Minute {
			t.Errorf("two minutes after it was asked again: %+v", s)
		}
		time.Sleep(3 * time.Hour)
		stop()
		w.wantAll(events)
		if _, known := w.chains().Of("acme", "audit/round"); !known || p.Status().Backfill {
			t.Errorf("nothing was audited, or the backfill does not end: %+v", p.Status())
		}
	})
}

// TestPullNotFound: a cursor that is answered with 404 for ever does not end the pull,
// nor throw it back.
func TestPullNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-2*time.Hour), 10*time.Second, 720)
		live := every(start.Add(10*time.Minute), time.Minute, 30)
		w := newWorld(t, newTenant(events, live))
		last := events[len(events)-1].id
		w.tenant.fail = func(_ int, c call) error {
			if c.from == last {
				return missing
			}
			return nil
		}
		_, stop := w.run(pull.Config{Backfill: -1})
		time.Sleep(5 * time.Minute)
		if n := len(w.tenant.called()); n > 700 {
			t.Errorf("%d calls", n)
		}
		time.Sleep(time.Hour)
		stop()
		w.wantAll(slices.Concat(events, live))
		if n := w.log.count("not found; resuming at its time"); n != 1 || w.tenant.oldestCalls() != 0 || len(w.own(schema.TypeGap)) != 0 {
			t.Errorf("said %d times, %d calls for the oldest events, %d gaps", n, w.tenant.oldestCalls(), len(w.own(schema.TypeGap)))
		}
	})
}

// TestPullExpired: where every id of what the tenant has dropped is a 404, the pull
// goes on at what is left, and the gap is told.
func TestPullExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, left := every(start.Add(-2*time.Hour), 10*time.Second, 735), every(start.Add(30*time.Minute), 10*time.Second, 300)
		w := newWorld(t, newTenant(old, left))
		_, stop := w.run(pull.Config{Backfill: -1})
		time.Sleep(5 * time.Minute)
		w.tenant.setFail(func(_ int, c call) error {
			if c.from < schema.SyntheticID(start.Add(20*time.Minute)) && c.from > schema.SyntheticID(start.Add(-3*time.Hour)) {
				return missing
			}
			return nil
		})
		w.tenant.drop(start.Add(35 * time.Minute))
		time.Sleep(2 * time.Hour)
		stop()
		w.wantAll(slices.Concat(old, left[30:]))
		if n := len(w.own(schema.TypeGap)); n != 1 {
			t.Errorf("%d gaps, want one\n%s", n, w.log)
		}
	})
}

// TestPullWord: a failure that lasts is said again every two minutes, and no limit
// holds the pull for longer.
func TestPullWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTenant(every(start.Add(-time.Hour), 10*time.Second, 300)))
		w.tenant.fail = func(int, call) error {
			return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 429, Kind: auth0.KindRateLimit, RetryAfter: time.Hour}
		}
		_, stop := w.run(pull.Config{Backfill: -1})
		time.Sleep(time.Hour)
		stop()
		calls := w.tenant.called()
		for i := range calls[1:] {
			if gap := calls[i+1].at.Sub(calls[i].at); gap > 2*time.Minute+time.Second {
				t.Errorf("nothing was called for %s", gap)
			}
		}
		if n := w.log.count("calls to the tenant still fail"); n < 25 || n > 30 {
			t.Errorf("said again %d times within an hour", n)
		}
	})
}

// TestPullClock: the tail begins at the tenant's now, whatever ours is, and says how
// far they differ.
func TestPullClock(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	for _, behind := range []time.Duration{70 * time.Minute, -70 * time.Minute, 20 * time.Second, -20 * time.Second, 26 * time.Hour} {
		t.Run(behind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := start.Add(-behind) // the tenant's
				past, live := every(now.Add(-6*time.Hour), 10*time.Second, 6*360), every(now, 2*time.Second, 5000)
				late := []logEvent{visibleAt(now.Add(3*time.Minute), 7, now.Add(9*time.Minute))} // the overlap's
				w := newWorld(t, newTenant(past, live, late))
				w.tenant.behind = behind
				k := w.keep()
				p, stop := w.run(pull.Config{Backfill: -1})
				time.Sleep(time.Minute)
				if got := p.Status(); got.CaughtUp.IsZero() || got.Position.Before(now.Add(55*time.Second)) || got.LiveFrom.After(now) {
					t.Errorf("a minute later the tail is at %s, live from %s; the tenant began at %s", got.Position, got.LiveFrom, now)
				}
				time.Sleep(90 * time.Minute)
				stop()
				w.wantAll(slices.Concat(past, late, live[:p.Status().Total]))
				for _, h := range k.hours(t) {
					if h.Healed+h.Missing != 0 {
						t.Errorf("an audit of what was not there yet: %+v", h)
					}
				}
				differs := behind.Abs() > 30*time.Second
				if c := w.checkpoint(); c.Ahead < behind.Seconds()-1 || c.Ahead > behind.Seconds()+1 {
					t.Errorf("the checkpoint tells %v s ahead, want %v", c.Ahead, behind.Seconds())
				}
				if n := w.log.count("our clock differs from the tenant's"); n > 1 || n == 1 != differs {
					t.Errorf("said %d times that clocks differ", n)
				}
			})
		})
	}
}

// firstOf is for the first n calls after each log_id.
func firstOf(n int) func(int, call) bool {
	seen := map[string]int{}
	return func(_ int, c call) bool {
		seen[c.from]++
		return seen[c.from] <= n
	}
}

// TestPullEmptyPages: an empty page ends nothing by itself.
func TestPullEmptyPages(t *testing.T) {
	for _, tt := range []struct {
		name    string
		empties func(n int, c call) bool
	}{
		{"the first answers of all", func(n int, c call) bool { return n <= 2 }},
		{"all of a second", func(n int, c call) bool { return n > 1 && time.Since(start) < time.Second }},
		{"the first of each chain", func(n int, c call) bool { return n > 1 && n <= 18 }},
		{"so many that the tenant seems to be empty", func(n int, c call) bool { return n <= 4 }},
		{"the first of each place", firstOf(1)},
		{"the first two of each place", firstOf(2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				past, live := every(start.Add(-24*time.Hour), 30*time.Second, 2879), every(start.Add(time.Minute), 10*time.Second, 300)
				w := newWorld(t, newTenant(past, live))
				w.tenant.takes = 50 * time.Millisecond
				w.tenant.empties = tt.empties
				p, stop := w.run(pull.Config{Backfill: -1})
				time.Sleep(2 * time.Hour)
				stop()
				w.wantAll(slices.Concat(past, live))
				if p.Status().Backfill {
					t.Error("the backfill does not end")
				}
			})
		})
	}
}

// TestPullShortLook: what is late by less than half a minute is there fifteen seconds
// after it shows, also where the limit is small.
func TestPullShortLook(t *testing.T) {
	for _, limit := range []int{0, 2, 50} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var late []logEvent
				for i := range 200 {
					at := start.Add(5*time.Minute + time.Duration(i)*17*time.Second)
					late = append(late, visibleAt(at, 900, at.Add(time.Duration(1+i%29)*time.Second)))
				}
				live := every(start, time.Second, 4000)
				w := newWorld(t, newTenant(live, late))
				if limit > 0 {
					w.tenant.bucket = limit
				}
				var mu sync.Mutex // guards seen
				seen := map[string]time.Time{}
				w.events.before = func(_ context.Context, records []schema.Record) error {
					mu.Lock()
					defer mu.Unlock()
					for _, r := range records {
						if id := r.Header("log_id"); seen[id].IsZero() {
							seen[id] = time.Now()
						}
					}
					return nil
				}
				_, stop := w.run(pull.Config{Backfill: -1})
				time.Sleep(70 * time.Minute)
				stop()
				w.wantOnce(slices.Concat(live, late))
				odd := few{t: t}
				for _, e := range late {
					if after := seen[e.id].Sub(e.visible); after > 15*time.Second {
						odd.errorf("%s came %s after it showed", e.id, after)
					}
				}
				calls := len(w.tenant.called())
				if calls > 70*60*3 {
					t.Errorf("%d calls", calls)
				}
			})
		})
	}
}

// TestPullLowIDs: ids that sort below all that we know are pulled too, once, and so are
// those that come later.
func TestPullLowIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := func(id string, visible time.Time) logEvent {
			return logEvent{id, `{"log_id":"` + id + `","date":"2026-11-20T09:00:00.000Z","type":"s"}`, visible}
		}
		var low []logEvent
		for i := range 250 {
			low = append(low, odd(fmt.Sprintf("5d6e%020x", i), start.Add(-time.Hour)))
		}
		low = append(low, odd("1"+strings.Repeat("0", 55), start.Add(-time.Hour)), odd("7f", start.Add(20*time.Minute)))
		events := every(start.Add(-3*time.Hour), 10*time.Second, 1100)
		w := newWorld(t, newTenant(events, low))
		p, stop := w.run(pull.Config{Backfill: -1})
		time.Sleep(10 * time.Minute)
		stop()
		_, stop = w.run(pull.Config{Backfill: -1})
		time.Sleep(20 * time.Minute)
		stop()
		w.wantAll(slices.Concat(low, events))
		if n := w.log.count("sort below all others; pulling"); n == 0 || p.Status().Slices.Rounds == 0 {
			t.Errorf("nobody was told, or the backfill was of one chain: %+v", p.Status())
		}
	})
}

// TestPullOddAmongTheOldest: an odd id of the oldest event turns nothing off.
func TestPullOddAmongTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-3*time.Hour), 10*time.Second, 1000)
		for i := range 3 {
			events[i].raw = fmt.Sprintf(`{"log_id":"odd-%d","date":"2026-11-20T07:00:00.000Z","type":"s"}`, i)
		}
		w := newWorld(t, newTenant(events))
		w.tenant.noLink = true
		p, stop := w.run(pull.Config{Backfill: -1})
		time.Sleep(10 * time.Minute)
		stop()
		w.wantAll(events)
		if p.Status().Slices.Rounds == 0 || w.log.count("rejects synthetic ids") != 0 {
			t.Errorf("the backfill was of one chain:\n%s", w.log)
		}
	})
}

// TestPullIsolates: an event that makes its pages unreadable is asked for alone, soon.
func TestPullIsolates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-time.Hour), time.Second, 3000)
		bad := events[1500].id
		w := newWorld(t, newTenant(events))
		w.tenant.fail = func(_ int, c call) error {
			first := slices.IndexFunc(events, func(e logEvent) bool { return e.id > c.from })
			if c.from < bad && c.take > 1 && first >= 0 && first+c.take > 1500 {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Kind: auth0.KindAnswer, Whole: true, Err: errors.New("not an array of events")}
			}
			return nil
		}
		p, stop := w.run(pull.Config{Backfill: -1, Chains: 1})
		time.Sleep(2 * time.Minute)
		if p.Status().Backfill {
			t.Error("two minutes later it is not over")
		}
		stop()
		w.wantAll(events)
	})
}

// TestPullFromTheFuture: a checkpoint that was begun by a clock that was ahead does not
// stop the pull until then.
func TestPullFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-30*time.Minute), 10*time.Second, 600)
		w := newWorld(t, newTenant(events))
		w.keep()
		id := schema.SyntheticID(start.Add(5 * time.Hour))
		old := checkpoint.Checkpoint{Tenant: "acme", Chain: checkpoint.ChainTail, LogID: id, Behind: id, LiveFrom: start.Add(5 * time.Hour)}
		r, err := old.Record()
		if err != nil {
			t.Fatal(err)
		}
		w.checkpoints.records = append(w.checkpoints.records, r)
		p, stop := w.run(pull.Config{Backfill: -1})
		time.Sleep(time.Minute)
		if got := p.Status().Position; time.Since(got) > 15*time.Second {
			t.Errorf("the tail is at %s", got)
		}
		time.Sleep(3 * time.Hour)
		stop()
		w.wantAll(events) // also what only an audit finds
	})
}
