package history_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

const failing = `
title: f
id: f
detection: {s: {type: fp}, condition: s}
---
title: many
id: many
level: low
correlation: {type: event_count, rules: [f], group-by: [ip], timespan: 10m, condition: {gte: 5}}
x-tenantwatch-alert: {levels: {high: 8}, keep_firing_for: 5m}
`

// TestBacktest runs a rule over two tenants' past.
func TestBacktest(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	store := history.NewStore(conn)
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(failing)}})
	n := 0
	var events []schema.Event
	burst := func(tenant, ip string, at time.Duration, count int) {
		for i := range count {
			n++
			events = append(events, event(t, tenant, start.Add(at+time.Duration(i)*10*time.Second), n, map[string]any{"type": "fp", "ip": ip}))
		}
	}
	burst("acme", "192.0.2.1", time.Hour, 9)
	burst("acme", "192.0.2.1", 5*time.Hour, 6)
	burst("acme", "192.0.2.2", 2*time.Hour, 4)
	burst("other", "192.0.2.1", 26*time.Hour, 5)
	burst("acme", "192.0.2.3", -time.Hour, 7) // before
	burst("acme", "192.0.2.3", 49*time.Hour, 7)
	events = append(events, event(t, "acme", start.Add(30*time.Hour), 999, map[string]any{"type": "s"}))
	insert(t, conn, events, start)
	insert(t, conn, events, start.Add(time.Hour)) // stored twice

	span := history.Span{Since: start, Until: start.Add(48 * time.Hour)}
	last := -1.0
	results, err := store.Backtest(t.Context(), set, span, func(_ int, part float64) {
		if part < last || part > 1 {
			t.Errorf("progress went from %v to %v", last, part)
		}
		last = part
	})
	if err != nil || len(results) != 1 {
		t.Fatalf("%v, %d results", err, len(results))
	}
	ip := func(ip string) []schema.GroupValue { return []schema.GroupValue{{Field: "ip", Value: ip}} }
	at := func(d time.Duration) time.Time { return start.Add(d) }
	wantAlerts := []*history.Alert{
		{Tenant: "acme", Group: ip("192.0.2.1"), Level: "high", Starts: at(time.Hour + 40*time.Second), Ends: at(time.Hour + 15*time.Minute + 60*time.Second), Over: true, Count: 8},
		{Tenant: "acme", Group: ip("192.0.2.1"), Level: "low", Starts: at(5*time.Hour + 40*time.Second), Ends: at(5*time.Hour + 15*time.Minute + 30*time.Second), Over: true, Count: 5},
		{Tenant: "other", Group: ip("192.0.2.1"), Level: "low", Starts: at(26*time.Hour + 40*time.Second), Ends: at(26*time.Hour + 40*time.Second), Count: 5},
	}
	if diff := cmp.Diff(wantAlerts, results[0].Alerts); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
	wantGroups := []history.GroupValue{{Tenant: "acme", Group: ip("192.0.2.1"), Value: 9}, {Tenant: "other", Group: ip("192.0.2.1"), Value: 5}, {Tenant: "acme", Group: ip("192.0.2.2"), Value: 4}}
	if diff := cmp.Diff(wantGroups, results[0].Groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	for q, want := range map[float64]float64{0.3: 4, 0.5: 5, 0.95: 9, 1: 9} {
		if got := results[0].Quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}

	span.Tenant = "other"
	if results, err = store.Backtest(t.Context(), set, span, func(int, float64) {}); err != nil || len(results[0].Alerts) != 1 {
		t.Errorf("of one tenant: %v, %+v", err, results)
	}
}

// TestBacktestNameless counts the events of records that came without a tenant.
func TestBacktestNameless(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(failing)}})
	var events []schema.Event
	for i := range 5 {
		at := start.Add(time.Duration(i) * time.Second)
		events = append(events, event(t, "", at, i, map[string]any{"type": "fp", "ip": "192.0.2.1"}), event(t, "acme", at, 10+i, map[string]any{"type": "fp", "ip": "192.0.2.2"}))
	}
	insert(t, conn, events, start)
	results, err := history.NewStore(conn).Backtest(t.Context(), set, history.Span{Since: start.Add(-time.Hour), Until: start.Add(time.Hour)}, func(int, float64) {})
	if err != nil || len(results) == 0 {
		t.Fatalf("%v, %d results", err, len(results))
	}
	want := []history.GroupValue{{Group: []schema.GroupValue{{Field: "ip", Value: "192.0.2.1"}}, Value: 5}, {Tenant: "acme", Group: []schema.GroupValue{{Field: "ip", Value: "192.0.2.2"}}, Value: 5}}
	if diff := cmp.Diff(want, results[0].Groups); diff != "" || len(results[0].Alerts) != 2 {
		t.Errorf("%d alerts, groups (-want +got):\n%s", len(results[0].Alerts), diff)
	}
}

// TestBacktestOfFew leaves out the windows that have too few events for a ratio.
func TestBacktestOfFew(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(`
title: f
id: f
detection: {s: {type: fp}, condition: s}
---
title: all
id: all
detection: {s: {type: [fp, s]}, condition: s}
---
title: part
id: part
level: low
x-tenantwatch-correlation: {type: event_ratio, rules: f, among: all, min: 10, group-by: [ip], timespan: 10m, condition: {gte: 0.4}}
`)}})
	if len(set.Rules()) != 3 {
		t.Fatalf("%+v", report.Documents)
	}
	var events []schema.Event
	for i := range 10 {
		typ := "s"
		if i < 5 {
			typ = "fp"
			events = append(events, event(t, "acme", start.Add(time.Duration(i)*time.Second), 100+i, map[string]any{"type": typ, "ip": "192.0.2.1"}))
		}
		events = append(events, event(t, "acme", start.Add(time.Duration(i)*time.Second), i, map[string]any{"type": typ, "ip": "192.0.2.2"}))
	}
	insert(t, conn, events, start)
	results, err := history.NewStore(conn).Backtest(t.Context(), set, history.Span{Since: start.Add(-time.Hour), Until: start.Add(time.Hour)}, func(int, float64) {})
	if err != nil || len(results) == 0 {
		t.Fatalf("%v, %d results", err, len(results))
	}
	r := results[len(results)-1]
	want := []history.GroupValue{{Tenant: "acme", Group: []schema.GroupValue{{Field: "ip", Value: "192.0.2.2"}}, Value: 0.5}}
	if diff := cmp.Diff(want, r.Groups); diff != "" || len(r.Alerts) != 1 {
		t.Errorf("%d alerts, groups (-want +got):\n%s", len(r.Alerts), diff)
	}
}

// TestThreshold finds the lowest threshold that keeps to so many alerts, and holds it
// against a run with each threshold.
func TestThreshold(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	conn, _ := chlocaltest.Open(t)
	store := history.NewStore(conn)
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(failing)}})
	rule := set.Rules()[1]
	r := rand.New(rand.NewPCG(4, 4))
	var events []schema.Event
	at := start
	for i := range 4000 {
		at = at.Add(time.Duration(r.IntN(10)) * time.Second)
		ip := fmt.Sprintf("192.0.2.%d", int(r.ExpFloat64()*6))
		events = append(events, event(t, "acme", at, i, map[string]any{"type": "fp", "ip": ip}))
	}
	insert(t, conn, events, start)
	span := history.Span{Since: start.Add(-time.Second), Until: at}
	results, err := store.Backtest(t.Context(), set, span, func(int, float64) {})
	if err != nil {
		t.Fatal(err)
	}
	alerts := func(than float64) int {
		n := 0
		for _, x := range streamed(set.WithThreshold(rule, than), events) {
			if x.State == string(schema.StateFiring) {
				n++
			}
		}
		return n
	}
	seen := map[float64]bool{}
	for _, most := range []int{0, 1, 2, 5, 10, 20, 50, 1000} {
		than, n, err := store.Threshold(t.Context(), set, span, results[0], most)
		if err != nil {
			t.Fatal(err)
		}
		seen[than] = true
		if want := alerts(than); n != want || n > most {
			t.Errorf("at most %d: threshold %v is said to give %d, gives %d", most, than, n, want)
		}
		if below := alerts(than - 1); than > 1 && below <= most {
			t.Errorf("at most %d: threshold %v, but %v would give %d", most, than, than-1, below)
		}
	}
	if len(seen) < 5 {
		t.Errorf("thresholds %v: that shows little", seen)
	}
}
