package history_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// topic stands for the alerts topic.
type topic struct {
	records []schema.Record
	lost    bool // what is produced is there, but its ack is lost
}

var errLost = errors.New("the ack is lost")

func (t *topic) Produce(_ context.Context, records []schema.Record, _ func(error)) error {
	t.records = append(t.records, records...)
	if t.lost {
		return errLost
	}
	return nil
}

func (t *topic) read(_ context.Context, yield func(schema.Record) error) error {
	for _, r := range t.records {
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}

// told are the transitions in the topic, each once, by rule and time.
func (t *topic) told(tb testing.TB) []told {
	var list []told
	for _, r := range t.records {
		a, err := schema.ReadAlert(r.Value)
		if err != nil {
			tb.Fatal(err)
		}
		if x := tell(&a); !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, compareTold)
	return list
}

func compareTold(a, b told) int {
	if c := a.At.Compare(b.At); c != 0 {
		return c
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

func (t *topic) live(store *history.Store, set *rules.Set) *history.Live {
	return history.NewLive(store, set, t.read, t, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func empty(t testing.TB, conn driver.Conn) {
	t.Helper()
	for _, table := range []string{"events_stored", "scans_stored"} {
		if err := conn.Exec(t.Context(), "TRUNCATE TABLE "+table); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLiveSameAlerts inserts random events in pieces, runs the rules after each, now
// and then begins anew or loses an ack, and holds the alerts against those of a
// stream of the same events.
func TestLiveSameAlerts(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	store := history.NewStore(conn)
	fired, restarts := 0, 0
	for seed := range uint64(8) {
		r := random{rand.New(rand.NewPCG(seed, 9)), seed%2 == 0}
		set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(r.rules())}})
		empty(t, conn)
		at := start
		var events []schema.Event
		for i := range 80 {
			at = at.Add(time.Duration(r.IntN(3)*r.IntN(90)) * time.Second)
			events = append(events, r.event(t, "acme", at, i))
		}
		var kept topic
		live := kept.live(store, set)
		scan := func(now time.Time) {
			t.Helper()
			for _, rule := range set.Rules() {
				if kept.lost = r.IntN(8) == 0; kept.lost {
					if err := live.Scan(t.Context(), set, rule, now); err != nil && !errors.Is(err, errLost) {
						t.Fatal(err)
					}
					kept.lost = false
				}
				if r.IntN(4) == 0 {
					live = kept.live(store, set)
					restarts++
				}
				if err := live.Scan(t.Context(), set, rule, now); err != nil {
					t.Fatal(err)
				}
			}
		}
		scan(start.Add(-time.Hour))
		for rest := events; len(rest) > 0; {
			n := min(1+r.IntN(30), len(rest))
			now := rest[n-1].Date.Add(time.Second)
			insert(t, conn, rest[:n], now)
			rest = rest[n:]
			scan(now)
		}
		var want []told
		for _, rule := range set.Rules() {
			want = append(want, streamed(set.Select(func(x *rules.Rule) bool { return x.ID == rule.ID }), events)...)
		}
		slices.SortFunc(want, compareTold)
		if diff := cmp.Diff(want, kept.told(t)); diff != "" {
			t.Fatalf("seed %d (-stream +live):\n%s", seed, diff)
		}
		fired += len(want)
	}
	if fired < 80 || restarts < 40 {
		t.Errorf("%d transitions, %d restarts: that shows nothing", fired, restarts)
	}
}

// TestLiveNewRule lets a rule that has never run see what was before, but fire only
// for what comes.
func TestLiveNewRule(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	store := history.NewStore(conn)
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte("title: f\nid: f\ndetection:\n  s: {type: fp}\n  condition: s\n---\n" +
		"title: many\nid: many\nlevel: low\ncorrelation: {type: event_count, rules: [f], group-by: [ip], timespan: 30d, condition: {gte: 3}}\n")}})
	rule := set.Rules()[len(set.Rules())-1]
	if !history.Long(set, rule) {
		t.Fatal("a window of 30 days is for the stream")
	}
	day := func(n int) time.Time { return start.Add(time.Duration(n) * 24 * time.Hour) }
	var kept topic
	live := kept.live(store, set)
	failed := func(n int, ip string) {
		insert(t, conn, []schema.Event{event(t, "acme", day(n), n, map[string]any{"type": "fp", "ip": ip})}, day(n))
	}
	scan := func(n int) []told {
		t.Helper()
		if err := live.Scan(t.Context(), set, rule, day(n).Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		return kept.told(t)
	}
	for n := range 4 {
		failed(n, "192.0.2.1")
		failed(n+50, "192.0.2.2") // in the future: not yet of any time that is looked at
	}
	if got := scan(4); len(got) > 0 {
		t.Errorf("the first run of a rule told %v", got)
	}
	if got := scan(5); len(got) > 0 {
		t.Errorf("without anything new it told %v", got)
	}
	failed(6, "192.0.2.1")
	want := []told{{"many", "ip=192.0.2.1 ", "firing", "low", day(6), 5}}
	for n := 6; n < 9; n++ {
		if diff := cmp.Diff(want, scan(n)); diff != "" {
			t.Errorf("after %d days (-want +got):\n%s", n, diff)
		}
	}
	// Our own events come also when the tenant's do not, and end nothing.
	own := event(t, "acme", day(36), 98, map[string]any{"type": "tenantwatch_health"})
	own.Source = schema.SourceSelf
	insert(t, conn, []schema.Event{own}, day(36))
	if diff := cmp.Diff(want, scan(36)); diff != "" {
		t.Errorf("after an event of our own (-want +got):\n%s", diff)
	}
	// Long after the third day there is one left of those that were counted.
	insert(t, conn, []schema.Event{event(t, "acme", day(36).Add(time.Hour), 99, map[string]any{"type": "s"})}, day(36).Add(time.Hour))
	want = append(want, told{"many", "ip=192.0.2.1 ", "resolved", "low", day(33).Add(15 * time.Minute), 1})
	if diff := cmp.Diff(want, scan(37)); diff != "" {
		t.Errorf("in the end (-want +got):\n%s", diff)
	}
}
