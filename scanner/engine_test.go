package scanner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner/scannertest"
	"github.com/tenantwatch/tenantwatch/schema"
)

// TestRepeatsChangeNothing delivers events again, soon or late.
func TestRepeatsChangeNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	set := scannertest.Builtin(t)
	for seed := range uint64(10) {
		events := scannertest.Storm(t, seed, 1500)
		want := scannertest.Scan(NewEngine(set, Config{}), events)
		if len(want) < 20 {
			t.Fatalf("seed %d: only %d alerts; the test shows nothing", seed, len(want))
		}
		r := rand.New(rand.NewPCG(seed, 3))
		var twice []schema.Event
		for i, e := range events {
			twice = append(twice, e)
			for range r.IntN(3) {
				twice = append(twice, events[max(0, i-r.IntN(20))])
			}
		}
		if diff := cmp.Diff(want, scannertest.Scan(NewEngine(set, Config{}), twice)); diff != "" {
			t.Fatalf("seed %d (-once +repeated):\n%s", seed, diff)
		}
	}
}

// TestStartAnywhere ends a run after any event and starts another, which replays
// what the windows reach back to and takes up the open alerts. Together they say
// what one run says.
func TestStartAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	set := scannertest.Builtin(t)
	for seed := range uint64(6) {
		events := scannertest.Storm(t, seed, 1200)
		want := scannertest.Scan(NewEngine(set, Config{}), events)
		r := rand.New(rand.NewPCG(seed, 4))
		for range 6 {
			cut := r.IntN(len(events))
			first := NewEngine(set, Config{})
			got := scannertest.Scan(first, events[:cut])
			second := NewEngine(set, Config{})
			since := events[cut].FetchedAt.Add(-second.Lookback())
			for i := range events[:cut] {
				if events[i].FetchedAt.After(since) {
					second.Observe(&events[i])
				}
			}
			for _, a := range lastOf(got) {
				second.Restore(scannertest.Through(t, a))
			}
			second.CloseUnpublished("acme")
			got = append(got, scannertest.Scan(second, events[cut:])...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, cut at %d (-one run +two):\n%s", seed, cut, diff)
			}
		}
	}
}

// lastOf is how each alert stood last, as the compacted topic keeps it.
func lastOf(alerts []schema.Alert) map[string]schema.Alert {
	last := map[string]schema.Alert{}
	for _, a := range alerts {
		last[a.Fingerprint] = a
	}
	return last
}

// TestAlertsAreConsistent checks what holds for every series of transitions.
func TestAlertsAreConsistent(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	set := scannertest.Builtin(t)
	for seed := range uint64(10) {
		open := map[string]schema.Alert{}
		for _, a := range scannertest.Scan(NewEngine(set, Config{}), scannertest.Storm(t, seed, 1500)) {
			before, was := open[a.Fingerprint]
			event := scannertest.RuleOf(set, a.RuleID).Alert.Class == rules.ClassEvent
			switch {
			case a.State == schema.StateFiring && was && !event:
				if !a.StartsAt.Equal(before.StartsAt) || rules.CompareLevels(a.Level, before.Level) <= 0 {
					t.Fatalf("%s fired again without a rise: %v after %v", a.Title, a, before)
				}
			case a.State == schema.StateResolved && (!was || !a.StartsAt.Equal(before.StartsAt) || a.ResolvedAt.Before(before.UpdatedAt)):
				t.Fatalf("%s resolved, but %v", a.Title, before)
			}
			if a.State == schema.StateFiring && (a.Count < a.Threshold || len(a.LogIDs) == 0 || a.Query == "" || a.Summary == "") {
				t.Fatalf("%s says too little: %+v", a.Title, a)
			}
			open[a.Fingerprint] = a
			if a.State == schema.StateResolved {
				delete(open, a.Fingerprint)
			}
		}
	}
}

func attack(t *testing.T, n int, change func(*schema.Event)) []schema.Event {
	t.Helper()
	var list []schema.Event
	for i := range n {
		e := scannertest.Event(t, scannertest.Start.Add(time.Duration(i)*time.Second), i, map[string]any{"type": "fp", "ip": "203.0.113.9"})
		change(&e)
		list = append(list, e)
	}
	return list
}

// TestOldEventsDoNotPage: neither a backfill nor what was pulled hours late
// wakes anyone, but it counts for what comes next.
func TestOldEventsDoNotPage(t *testing.T) {
	set := scannertest.Builtin(t)
	for name, change := range map[string]func(*schema.Event){
		"backfill": func(e *schema.Event) { e.Source = schema.SourceBackfill },
		"late":     func(e *schema.Event) { e.FetchedAt = e.FetchedAt.Add(3 * time.Hour) },
	} {
		if got := scannertest.Scan(NewEngine(set, Config{}), attack(t, 60, change)); len(got) > 0 {
			t.Errorf("%s: %d alerts, the first %+v", name, len(got), got[0])
		}
	}
	events := attack(t, 20, func(*schema.Event) {})
	for i := range 19 {
		events[i].Source = schema.SourceBackfill
	}
	if got := scannertest.Scan(NewEngine(set, Config{}), events); len(got) != 1 || got[0].Count != 20 {
		t.Errorf("19 from before and one now: %+v", got)
	}
}

// TestBrokenDatesMoveNoClock: one event whose date is years off neither ends
// alerts nor hides what comes after it.
func TestBrokenDatesMoveNoClock(t *testing.T) {
	set := scannertest.Builtin(t)
	events := attack(t, 40, func(*schema.Event) {})
	for i, years := range []int{10, -10} {
		e := scannertest.Event(t, scannertest.Start.Add(30*time.Second), 1000+i, map[string]any{"type": "s",
			"date": scannertest.Start.AddDate(years, 0, 0).Format(time.RFC3339)})
		e.FetchedAt = scannertest.Start.Add(31 * time.Second)
		events = slices.Insert(events, 25+i, e)
	}
	got := scannertest.Scan(NewEngine(set, Config{}), events)
	if len(got) != 1 || got[0].State != schema.StateFiring || got[0].UpdatedAt != scannertest.Start.Add(19*time.Second) {
		t.Errorf("alerts: %+v", got)
	}
}

// TestTenantsAreApart: the same IP attacks two tenants, each half as often as it
// takes, and one tenant's time does not end another's alert.
func TestTenantsAreApart(t *testing.T) {
	set := scannertest.Builtin(t)
	i := 0
	events := attack(t, 38, func(e *schema.Event) {
		if i++; i%2 == 0 {
			e.Tenant = "other"
		}
	})
	engine := NewEngine(set, Config{})
	if got := scannertest.Scan(engine, events); len(got) > 0 {
		t.Errorf("19 for each tenant: %+v", got)
	}
	more := attack(t, 60, func(e *schema.Event) { e.Tenant = "third" })
	if got := scannertest.Scan(engine, more); len(got) != 2 {
		t.Errorf("60 for the third tenant: %d alerts, want a firing and a rise", len(got))
	}
	later := scannertest.Event(t, scannertest.Start.Add(5*time.Hour), 5000, map[string]any{"type": "s"})
	later.Tenant = "other"
	if got := engine.Observe(&later); len(got) > 0 {
		t.Errorf("another tenant's time ended an alert: %+v", got)
	}
	later.Tenant = "third"
	if got := engine.Observe(&later); len(got) != 1 || got[0].State != schema.StateResolved {
		t.Errorf("its own time did not end it: %+v", got)
	}
}

// TestGroupsAreBounded floods a rule with group keys.
func TestGroupsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	engine := NewEngine(scannertest.Builtin(t), Config{MaxGroups: 2000})
	for i := range 10_000 {
		e := scannertest.Event(t, scannertest.Start.Add(time.Duration(i)*time.Millisecond), i, map[string]any{"type": "feccft", "client_id": fmt.Sprintf("app%d", i)})
		engine.Observe(&e)
	}
	if s := engine.Status(); s.Groups > 2000 || len(s.Evicted) == 0 {
		t.Errorf("%+v", s)
	}
	// An open alert is not forgotten for it.
	for i := range 20 {
		e := scannertest.Event(t, scannertest.Start.Add(20*time.Second+time.Duration(i)), 20_000+i, map[string]any{"type": "feccft", "client_id": "real"})
		engine.Observe(&e)
	}
	for i := range 5_000 {
		e := scannertest.Event(t, scannertest.Start.Add(30*time.Second+time.Duration(i)*time.Millisecond), 30_000+i, map[string]any{"type": "feccft", "client_id": fmt.Sprintf("more%d", i)})
		engine.Observe(&e)
	}
	if s := engine.Status(); s.Open != 2 {
		t.Errorf("%d open alerts, want it and the one that groups are forgotten", s.Open)
	}
}

// TestQueryOfHostileValues: what a user controls cannot leave its quotes.
func TestQueryOfHostileValues(t *testing.T) {
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(`title: T
id: t
logsource: {product: auth0}
detection: {a: {type: [fp, "gd_*"]}, condition: a}
level: high
x-tenantwatch-alert:
  group-by: [user_name, details.n, odd.path]
`)}})
	if report.Count(rules.StatusEnabled) != 1 {
		t.Fatalf("%+v", report)
	}
	e := scannertest.Event(t, scannertest.Start, 1, map[string]any{"type": "fp", "user_name": `x' OR 1=1 -- \`, "details": map[string]any{"n": 7}, "odd": map[string]any{"path": "y"}})
	got := NewEngine(set, Config{}).Observe(&e)
	if len(got) != 1 {
		t.Fatalf("%d alerts", len(got))
	}
	want := `SELECT date, type, log_id, ip, user_id, user_name, client_id, description, details FROM events WHERE tenant = 'acme'` +
		` AND date = toDateTime64('2026-03-04 10:00:00.000', 3, 'UTC') AND log_id = '` + e.LogID + `'` +
		` AND (type ILIKE 'gd\\_%' OR type IN ('fp')) AND user_name = 'x\' OR 1=1 -- \\'` +
		` AND JSONExtractRaw(details, 'n') = '7' AND JSONExtractString(rest, 'odd', 'path') = 'y' ORDER BY date`
	if got[0].Query != want {
		t.Errorf("query:\n%s\nwant:\n%s", got[0].Query, want)
	}
}

func BenchmarkObserve(b *testing.B) {
	set := scannertest.Builtin(b)
	events := scannertest.Storm(b, 1, 4096)
	engine := NewEngine(set, Config{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		engine.Observe(&events[i%len(events)])
	}
}

// TestOwnEventsEndNothing keeps what a tenant's events have begun until its own
// events have gone on: ours come also when the pull stands still.
func TestOwnEventsEndNothing(t *testing.T) {
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte("title: f\nid: f\ndetection:\n  s: {type: fp}\n  condition: s\nlevel: low\nx-tenantwatch-alert: {class: condition, keep_firing_for: 5m}\n---\n" +
		"title: own\nid: own\ndetection:\n  s: {type: tenantwatch_health}\n  condition: s\nlevel: low\nx-tenantwatch-alert: {class: condition, keep_firing_for: 5m}\n")}})
	e := NewEngine(set, Config{})
	own := func(at time.Duration, n int, typ string) schema.Event {
		ev := scannertest.Event(t, scannertest.Start.Add(at), n, map[string]any{"type": typ})
		ev.Source = schema.SourceSelf
		return ev
	}
	var got []string
	for _, ev := range []schema.Event{
		scannertest.Event(t, scannertest.Start, 1, map[string]any{"type": "fp"}),
		own(time.Minute, 2, "tenantwatch_health"),
		own(time.Hour, 3, "tenantwatch_api_error"),
		scannertest.Event(t, scannertest.Start.Add(2*time.Hour), 4, map[string]any{"type": "s"}),
	} {
		for _, a := range e.Observe(&ev) {
			got = append(got, a.RuleID+" "+string(a.State)+" "+a.UpdatedAt.Sub(scannertest.Start).String())
		}
	}
	want := []string{"f firing 0s", "own firing 1m0s", "own resolved 6m0s", "f resolved 5m0s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
