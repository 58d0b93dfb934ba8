package silence

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/schema"
)

// kept is what a monitor has produced.
type kept struct {
	mu      sync.Mutex // guards records
	records []schema.Record
}

func (k *kept) Produce(_ context.Context, records []schema.Record, _ func(error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = append(k.records, records...)
	return nil
}

// take returns what was produced since it was last called.
func (k *kept) take() []schema.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := k.records
	k.records = nil
	return list
}

// world is what a monitor sees.
type world struct {
	mu    sync.Mutex // guards what follows, but for dead
	seen  map[string]Seen
	tails map[string]Tail
	down  error
	roles string
	dead  chan string
}

func (w *world) sources() Sources {
	return Sources{
		Store: func(context.Context) (map[string]Seen, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return maps.Clone(w.seen), w.down
		},
		Checkpoints: func(context.Context) (map[string]Tail, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return maps.Clone(w.tails), nil
		},
		DeadLetters: func(ctx context.Context, yield func(string)) error {
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case tenant := <-w.dead:
					yield(tenant)
				}
			}
		},
		Roles: func(context.Context) string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.roles
		},
	}
}

// change changes what is seen.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// TestMonitor lets things fall silent one after the other.
func TestMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := &world{dead: make(chan string), seen: map[string]Seen{}, tails: map[string]Tail{"acme": {Written: began}}}
		set := func(newest, probe time.Time) {
			w.change(func() {
				w.seen["acme"] = Seen{First: began.Add(-7 * 24 * time.Hour), Newest: newest, SameHour: 7_000, Probe: probe}
			})
		}
		set(began, began)
		var k kept
		m := New([]Tenant{{Name: "acme", ProbeEvery: time.Minute}, {Name: "new"}}, w.sources(), &k, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()

		type state struct {
			Description                                            string
			Events, Probe, Checkpoint, Clock, Growing, Store, None bool
		}
		// after lets time pass and tells the tenants' last states.
		after := func(d time.Duration) (acme, other state) {
			t.Helper()
			_ = k.take()
			time.Sleep(d)
			synctest.Wait()
			for _, r := range k.take() {
				ev := schema.EventOf(&r)
				if err := ev.Identify(); err != nil || ev.Type != schema.TypeHealth || ev.Source != schema.SourceSelf {
					t.Fatalf("%s: %v, type %s, source %s", r.Value, err, ev.Type, ev.Source)
				}
				var e struct {
					Description string
					Details     details
				}
				if err := json.Unmarshal(r.Value, &e); err != nil {
					t.Fatal(err)
				}
				d := e.Details
				s := state{Description: e.Description, Growing: d.DeadLetters.Growing, Store: d.Store.OK, None: d.Events == nil}
				s.Events = d.Events != nil && d.Events.Silent
				s.Probe = d.Probe != nil && d.Probe.Silent
				s.Checkpoint = d.Checkpoint != nil && d.Checkpoint.Silent
				s.Clock = d.Clock != nil && d.Clock.Off
				if ev.Tenant == "acme" {
					acme = s
				} else {
					other = s
				}
			}
			return acme, other
		}
		check := func(what string, got, want state) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		fine := state{Description: "Events come in", Store: true}
		acme, other := after(90 * time.Second)
		check("at first", acme, fine)
		check("a tenant without events, at first", other, fine)

		set(began, time.Now())
		acme, other = after(15 * time.Minute)
		check("after a quarter of an hour", acme, state{Description: "No event for 16m0s", Store: true, Events: true, Probe: true})
		check("a tenant without events", other, state{Description: "No event for 16m0s", Store: true, Events: true})

		set(time.Now(), time.Now().Add(-6*time.Minute))
		acme, _ = after(time.Minute)
		check("without the probe", acme, state{Description: "No result of the probe for 6m30s", Store: true, Probe: true})

		set(time.Now().Add(14*time.Minute), time.Now().Add(14*time.Minute))
		acme, _ = after(14 * time.Minute)
		check("with a stuck checkpoint", acme, state{Description: "The checkpoint has not moved for 31m0s", Store: true, Checkpoint: true})

		w.change(func() { w.tails["acme"] = Tail{Written: time.Now()} })
		for range growingFrom {
			w.dead <- "acme"
		}
		acme, other = after(time.Minute)
		check("with dead letters", acme, state{Description: "10 dead letters in the last hour", Store: true, Growing: true})
		if other.Growing {
			t.Error("another tenant's dead letters are told")
		}
		w.change(func() { w.tails["acme"] = Tail{Written: time.Now().Add(time.Hour)} })
		set(time.Now().Add(time.Hour), time.Now().Add(time.Hour))
		acme, _ = after(time.Hour)
		check("an hour later", acme, fine)

		// The events' dates are of the tenant's clock, the probe's and the checkpoint's of ours.
		w.change(func() { w.tails["acme"] = Tail{time.Now(), 70 * time.Minute} })
		set(time.Now().Add(-70*time.Minute), time.Now())
		acme, _ = after(time.Minute)
		check("with a clock that is ahead", acme, state{Description: "The clock of this machine is 1h10m0s ahead of the tenant's", Store: true, Clock: true})

		w.change(func() { w.tails["acme"] = Tail{time.Now(), -31 * time.Second} })
		set(time.Now(), time.Now())
		acme, _ = after(time.Minute)
		check("with a clock that is behind", acme, state{Description: "The clock of this machine is -31s ahead of the tenant's", Store: true, Clock: true})

		w.change(func() { w.tails["acme"] = Tail{time.Now(), 30 * time.Second} })
		acme, _ = after(time.Minute)
		check("with a clock that is nearly right", acme, fine)

		w.change(func() { w.down = errors.New("no route") })
		acme, _ = after(time.Minute)
		check("without ClickHouse", acme, state{Description: "ClickHouse does not answer", None: true})
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestSilence is what is usual at an hour.
func TestSilence(t *testing.T) {
	now := time.Date(2026, 3, 4, 3, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		days float64
		n    uint64
		want time.Duration
	}{
		{"nothing known", 0, 0, 15 * time.Minute},
		{"half a day", 0.5, 10, 15 * time.Minute},
		{"many", 7, 10_000, 15 * time.Minute},
		{"few", 7, 6, 5 * time.Hour},
		{"none at this hour in a week", 7, 0, 35 * time.Hour},
		{"none at this hour in two days", 2, 0, 10 * time.Hour},
	} {
		s := Seen{SameHour: c.n}
		if c.days > 0 {
			s.First = now.Add(-time.Duration(c.days * float64(24*time.Hour)))
		}
		if got := maxSilence(&s, now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
