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

// startAgain ends a run before the event at cut and goes on with another engine, as
// Stream does.
func startAgain(t *testing.T, set *rules.Set, events []schema.Event, cut int) []schema.Alert {
	t.Helper()
	got := scannertest.Scan(NewEngine(set, Config{}), events[:cut])
	second := NewEngine(set, Config{})
	if cut > 0 {
		since := events[cut-1].FetchedAt.Add(-second.Lookback())
		for i := range events[:cut] {
			if !events[i].FetchedAt.Before(since) {
				second.Observe(&events[i])
			}
		}
	}
	for _, a := range lastOf(got) {
		second.Restore(scannertest.Through(t, a))
	}
	second.CloseUnpublished("acme")
	return append(got, scannertest.Scan(second, events[cut:])...)
}

// lastRule is a rule of the type last_events over the detections of randomScenario.
func lastRule(t *testing.T, r *rand.Rand) *rules.Set {
	t.Helper()
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: fmt.Appendf(nil, `title: run
id: run
detection:
  s: {type: [a, b, ab]}
  condition: s
---
title: failed
id: failed
detection:
  s: {type: [b, ab]}
  condition: s
---
title: last
id: last
level: low
x-tenantwatch-correlation:
  type: last_events
  rules: failed
  among: run
  last: %d
  group-by: [ip]
  timespan: %dm
  condition: {gte: 2}
`, 2+r.IntN(4), 5+r.IntN(30))}})
	if report.Count(rules.StatusEnabled) != 3 {
		t.Fatalf("%+v", report.Documents)
	}
	return set
}

// late puts events into an order in which they may come, each less than lateness after
// another that is younger.
func late(r *rand.Rand, events []schema.Event, lateness time.Duration) []schema.Event {
	list := slices.Clone(events)
	for i := range list {
		if r.IntN(3) > 0 {
			list[i].FetchedAt = list[i].FetchedAt.Add(time.Duration(r.Int64N(int64(lateness - time.Second))))
		}
	}
	slices.SortStableFunc(list, func(a, b schema.Event) int { return a.FetchedAt.Compare(b.FetchedAt) })
	return list
}

// told leaves out what an alert that is over says of the events before: they may be
// older than what a start reads again.
func told(list []schema.Alert) []schema.Alert {
	list = slices.Clone(list)
	for i := range list {
		if list[i].State == schema.StateResolved {
			list[i].LogIDs, list[i].Query = nil, ""
		}
	}
	return list
}

// TestStartAgainAnyRule ends runs of random rules of every type at random places, with
// events in order and not. Both runs together say what one says.
func TestStartAgainAnyRule(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	said := 0
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 31))
		scenario, ok := scannertest.NewScenario(t, r)
		if !ok {
			continue
		}
		text, set, events := scenario.Text, scenario.Set, scenario.Events
		if seed%10 == 0 {
			text, set = "last_events", lastRule(t, r)
		}
		if seed%2 == 1 {
			events = late(r, events, 5*time.Minute)
		}
		want := scannertest.Scan(NewEngine(set, Config{}), events)
		said += len(want)
		for range 4 {
			cut := r.IntN(len(events))
			if diff := cmp.Diff(told(want), told(startAgain(t, set, events, cut))); diff != "" {
				t.Fatalf("seed %d, cut at %d (-one run +two):\n%s\n%s", seed, cut, diff, text)
			}
		}
	}
	if said < 500 {
		t.Errorf("%d transitions show nothing", said)
	}
}

// TestAnyOrderAlertsTheSame has events come in any order, each less than the lateness
// after another that is younger. Where a condition stays true whatever else comes, the
// same groups alert as in order, and none begins earlier, or later by more than that.
func TestAnyOrderAlertsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	const lateness = 5 * time.Minute
	rises := func(c *scannertest.PlainCorrelation) bool {
		for op := range c.Bounds {
			if op != "gte" && op != "gt" {
				return false
			}
		}
		return c.Words == nil && c.Type != "value_sum" && c.Type != "value_avg" && c.Type != "value_percentile"
	}
	fired := map[string]int{}
	for seed := range uint64(1200) {
		r := rand.New(rand.NewPCG(seed, 33))
		scenario, ok := scannertest.NewScenario(t, r)
		if !ok || slices.ContainsFunc(scenario.Correlations, func(c *scannertest.PlainCorrelation) bool { return !rises(c) }) {
			continue
		}
		text, set, events := scenario.Text, scenario.Set, scenario.Events
		begins := func(events []schema.Event) map[string]time.Time {
			first := map[string]time.Time{}
			for _, a := range scannertest.Scan(NewEngine(set, Config{}), events) {
				if known, ok := first[a.Fingerprint]; !ok || a.StartsAt.Before(known) {
					first[a.Fingerprint] = a.StartsAt
				}
			}
			return first
		}
		want := begins(events)
		for range 4 {
			got := begins(late(r, events, lateness))
			for alert, at := range got {
				if inOrder, ok := want[alert]; !ok || at.Before(inOrder) || at.Sub(inOrder) > lateness {
					t.Fatalf("seed %d: %s begins at %s, in order at %s\n%s", seed, alert, at, want[alert], text)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d alerts, in order %d\n%s", seed, len(got), len(want), text)
			}
		}
		for _, c := range scenario.Correlations {
			fired[c.Type] += len(want)
		}
	}
	for _, typ := range []string{"event_count", "value_count", "temporal", "temporal_ordered"} {
		if fired[typ] < 50 {
			t.Errorf("%s fired %d times: that shows nothing", typ, fired[typ])
		}
	}
}

// TestLeadingChangesNothing holds engines that make no group before one of the sources
// that lead has occurred against others that make every group, with events that come
// late, also such as lead.
func TestLeadingChangesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	said, absent := 0, 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 34))
		scenario, ok := scannertest.NewScenario(t, r)
		if !ok || !slices.ContainsFunc(scenario.Correlations, func(c *scannertest.PlainCorrelation) bool { return c.Type == "temporal_ordered" }) {
			continue
		}
		text, set, events := scenario.Text, scenario.Set, scenario.Events
		events = late(r, events, 5*time.Minute)
		all := NewEngine(set, Config{})
		for _, rule := range all.rules {
			rule.leads = 0
		}
		want, got := scannertest.Scan(all, events), scannertest.Scan(NewEngine(set, Config{}), events)
		for _, list := range [][]schema.Alert{want, got} {
			for i := range list {
				list[i].LogIDs, list[i].Query = nil, "" // those before the first of an order are left out
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d (-all groups +those that lead):\n%s\n%s", seed, diff, text)
		}
		for _, c := range scenario.Correlations {
			if c.Type == "temporal_ordered" {
				n := len(slices.DeleteFunc(slices.Clone(want), func(a schema.Alert) bool { return a.RuleID != c.ID }))
				if said += n; c.Words != nil {
					absent += n
				}
			}
		}
	}
	if said < 200 || absent < 60 {
		t.Errorf("%d transitions, %d with something absent: that shows nothing", said, absent)
	}
}
