package explain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/scannertest"
	"github.com/tenantwatch/tenantwatch/schema"
)

// explainRules has a rule of every kind.
const explainRules = `
title: Failed
id: failed
name: failed
level: low
detection: {s: {type: [fp, fu]}, condition: s}
---
title: Login
id: login
name: login
level: low
detection: {s: {type: s}, condition: s}
---
title: Block
id: block
name: block
level: low
detection: {s: {type: limit_wc}, condition: s}
---
title: Blocked
id: blocked
level: low
detection: {s: {type: limit_wc}, condition: s}
x-tenantwatch-alert: {group-by: [ip], keep_firing_for: 20m}
---
title: Many failed
id: many
name: many
level: low
correlation: {type: event_count, rules: [failed], group-by: [ip], timespan: 2m, condition: {gte: 4}}
x-tenantwatch-alert: {levels: {medium: 6, high: 8}, keep_firing_for: 3m}
---
title: Many users
id: users
level: low
correlation: {type: value_count, rules: [failed], group-by: [ip], timespan: 2m, condition: {gte: 4, field: user_name}}
---
title: Few failed
id: few
level: low
correlation: {type: event_count, rules: [failed], group-by: [user_name], timespan: 1m, condition: {gte: 2, lte: 3}}
---
title: Sum
id: sum
level: low
correlation: {type: value_sum, rules: [failed], group-by: [ip], timespan: 1m, condition: {gt: 12, field: n}}
x-tenantwatch-alert: {class: event, keep_firing_for: 5m}
---
title: Both
id: both
level: low
correlation: {type: temporal, rules: [failed, login], group-by: [user_name], timespan: 30s}
---
title: Failed and no login
id: words
level: low
correlation: {type: temporal, group-by: [user_name], timespan: 1m, condition: failed and block and not login}
---
title: In order
id: order
level: low
correlation: {type: temporal_ordered, rules: [block, failed, login], group-by: [ip], timespan: 4m}
---
title: Broken into
id: into
name: into
level: high
generate: true
correlation: {type: temporal_ordered, rules: [many, login], group-by: [user_name], timespan: 5m}
---
title: Broken into often
id: often
level: high
correlation: {type: event_count, rules: [many], timespan: 1m, condition: {gte: 5}}
---
title: Aliased
id: alias
level: low
correlation: {type: temporal, rules: [failed, login], group-by: [who], timespan: 1m, aliases: {who: {failed: user_name, login: other}}}
---
title: Last
id: last
level: low
x-tenantwatch-correlation: {type: last_events, rules: failed, among: login, last: 4, timespan: 5m, condition: {gte: 3}}
`

func explainSet(t testing.TB) *rules.Set {
	t.Helper()
	set, report := rules.Load(nil, fstest.MapFS{"explain.yml": {Data: []byte(explainRules)}})
	for _, d := range report.Documents {
		if !d.Runs() {
			t.Fatalf("%s: %s", d.ID, d.Reason)
		}
	}
	return set
}

// orderly is some events by date, which a few actors make; some lack a field, some
// are backfilled or come late. They are least apart.
func orderly(t testing.TB, seed uint64, n int, least time.Duration) []schema.Event {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 11))
	types := []string{"fp", "fp", "fu", "s", "limit_wc", "ss"}
	at := scannertest.Start
	var list []schema.Event
	for i := range n {
		if r.IntN(60) == 0 {
			at = at.Add(time.Duration(r.IntN(30)) * time.Minute)
		}
		at = at.Add(least + time.Duration(r.IntN(20))*time.Second)
		members := map[string]any{"type": types[r.IntN(len(types))], "ip": fmt.Sprintf("203.0.113.%d", r.IntN(2)),
			"user_name": fmt.Sprintf("user%d", r.IntN(5)), "other": fmt.Sprintf("user%d", r.IntN(5)), "n": r.IntN(7)}
		for _, name := range []string{"ip", "user_name", "other", "n"} {
			switch r.IntN(40) {
			case 0, 1:
				delete(members, name)
			case 2:
				members[name] = ""
			case 3:
				members[name] = []any{members[name], nil, members["user_name"]}
			}
		}
		ev := scannertest.Event(t, at, i, members)
		switch r.IntN(30) {
		case 0:
			ev.Source = schema.SourceBackfill
		case 1:
			ev.FetchedAt = at.Add(3 * time.Hour)
		}
		list = append(list, ev)
	}
	return list
}

// TestExplainAgreesWithEngine explains events of a long run, each from what lies
// around it alone: what is said to fire is what fired.
func TestExplainAgreesWithEngine(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	set := explainSet(t)
	for seed := range uint64(3) {
		// Of an alert on record that began or ended in the very millisecond it is not known
		// for sure what was first.
		events := orderly(t, seed, 500, time.Millisecond)
		engine := scanner.NewEngine(set, scanner.Config{})
		var past []schema.Alert
		fired := make([]map[string]bool, len(events)) // by event: rules of which an alert began or rose
		for i := range events {
			fired[i] = map[string]bool{}
			for _, a := range engine.Observe(&events[i]) {
				past = append(past, a)
				if a.State == schema.StateFiring {
					fired[i][a.RuleID] = true
				}
			}
		}
		r := rand.New(rand.NewPCG(seed, 12))
		fires := map[string]int{}
		for i := range events {
			for _, rule := range set.Rules() {
				if !fired[i][rule.ID] && r.IntN(8) != 0 {
					continue
				}
				x := New(set, rule, scanner.Config{}, &events[i])
				var of []schema.Alert
				for _, id := range x.Fingerprints() {
					for _, a := range past {
						if a.Fingerprint == id {
							of = append(of, a)
						}
					}
				}
				x.Record(of)
				after, until := x.Span()
				for k := range events {
					if x.Needs() && events[k].Date.After(after) && !events[k].Date.After(until) {
						x.Observe(&events[k])
					}
				}
				got := x.Explain()
				if got.Fires != fired[i][rule.ID] {
					t.Fatalf("seed %d, event %d %s, rule %s: fires is %v, was %v: %s\n%+v", seed, i, events[i].Raw, rule.ID, got.Fires, fired[i][rule.ID], got.Reason, got)
				}
				if got.Fires {
					fires[rule.ID]++
				}
				if got.Reason == "" || strings.Contains(got.Reason, "..") || got.Fires && !strings.HasPrefix(got.Reason, "It fires") && !strings.HasPrefix(got.Reason, "It raises") {
					t.Errorf("rule %s: reason %q", rule.ID, got.Reason)
				}
				if l := got.Later; l != nil && !slices.ContainsFunc(events, func(e schema.Event) bool { return e.LogID == l.LogID && e.Date.Equal(l.At) }) {
					t.Errorf("rule %s: later is %+v", rule.ID, l)
				}
			}
		}
		for _, rule := range set.Rules() {
			if rule.Alert != nil && fires[rule.ID] == 0 {
				t.Errorf("seed %d: %s never fired; the test shows nothing of it", seed, rule.ID)
			}
		}
	}
}

// TestExplainFiles gives the events in any order, as files have them.
func TestExplainFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	set := explainSet(t)
	events := orderly(t, 7, 300, 0)
	for i := range events {
		events[i].Source, events[i].FetchedAt = "", events[i].Date // as a file tells
	}
	engine := scanner.NewEngine(set, scanner.Config{})
	r := rand.New(rand.NewPCG(7, 13))
	shuffled := slices.Clone(events)
	r.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
	for i := range events {
		fired := map[string]bool{}
		for _, a := range engine.Observe(&events[i]) {
			if a.State == schema.StateFiring {
				fired[a.RuleID] = true
			}
		}
		for _, rule := range set.Rules() {
			if !fired[rule.ID] && r.IntN(10) != 0 {
				continue
			}
			x := New(set, rule, scanner.Config{}, &events[i])
			for k := range shuffled {
				x.Keep(&shuffled[k])
			}
			if got := x.Explain(); got.Fires != fired[rule.ID] {
				t.Fatalf("event %d, rule %s: fires is %v, was %v: %s", i, rule.ID, got.Fires, fired[rule.ID], got.Reason)
			}
		}
	}
}

// explained explains the event at an index, from all of the list.
func explained(t testing.TB, set *rules.Set, id string, events []schema.Event, i int, past ...schema.Alert) *Explanation {
	t.Helper()
	x := New(set, scannertest.RuleOf(set, id), scanner.Config{}, &events[i])
	x.Record(past)
	for k := range events {
		x.Observe(&events[k])
	}
	return x.Explain()
}

// TestExplainReasons is what is said of each case.
func TestExplainReasons(t *testing.T) {
	set := explainSet(t)
	failed := func(second, n int, more ...any) schema.Event {
		m := map[string]any{"type": "fp", "ip": "192.0.2.1", "user_name": fmt.Sprint("user", n), "n": n}
		for i := 0; i < len(more); i += 2 {
			if m[more[i].(string)] = more[i+1]; more[i+1] == nil {
				delete(m, more[i].(string))
			}
		}
		return scannertest.Event(t, scannertest.Start.Add(time.Duration(second)*time.Second), second, m)
	}
	var five []schema.Event
	for i := range 5 {
		five = append(five, failed(10*i, i))
	}
	old := failed(100, 1)
	old.FetchedAt = old.Date.Add(125 * time.Minute)
	ancient := failed(100, 1)
	ancient.FetchedAt = ancient.Date.Add(100 * time.Hour)
	filled := failed(100, 1)
	filled.Source = schema.SourceBackfill
	for _, tt := range []struct {
		name, rule string
		events     []schema.Event
		at         int
		want       string
	}{
		{"no match", "blocked", five, 0, `It does not match: type is "fp", wanted is "limit_wc" (explain.yml:23).`},
		{"of none that are counted", "many", []schema.Event{failed(0, 0, "type", "ss")}, 0, `The event is of none of the rules that are counted: "Failed" (type is "ss", wanted is "fp", "fu" (explain.yml:6)).`},
		{"serves another", "failed", five, 0, "It occurs. The rule does not alert: it only serves Many failed, Many users, Few failed, Sum, Both, Failed and no login, In order, Aliased, Last."},
		{"no group", "many", []schema.Event{failed(0, 0, "ip", nil)}, 0, "The event has no ip, so it belongs to no group."},
		{"no alias", "alias", []schema.Event{failed(0, 0, "user_name", nil)}, 0, "The event has no user_name, so it belongs to no group."},
		{"no value", "users", []schema.Event{failed(0, 0, "user_name", nil)}, 0, "The event has no user_name."},
		{"no number", "sum", []schema.Event{failed(0, 0, "n", "many")}, 0, "The event's n is not a number."},
		{"too few", "many", five[:3], 2, "3 of 4 in the 2m up to the event. It takes 1 more; the event is in the window until 2026-03-04T10:02:20.000Z."},
		{"too few yet", "many", five, 1, "2 of 4 in the 2m up to the event. The alert begins with the later event " + five[3].LogID + " at 2026-03-04T10:00:30.000Z."},
		{"fires", "many", five, 3, "It fires: the alert begins with this event."},
		{"already open", "many", five, 4, "The condition holds, but the alert has been open since 2026-03-04T10:00:30.000Z; a further match does not fire again."},
		{"raises", "many", append(slices.Clone(five), failed(60, 6)), 5, "It raises the alert that has been open since 2026-03-04T10:00:30.000Z to medium."},
		{"too many", "few", []schema.Event{failed(0, 1), failed(1, 1, "type", "fu"), failed(2, 1), failed(3, 1), failed(4, 1)}, 4, "The value in the 1m up to the event is 5; required: at least 2 and at most 3 events. An alert has been open since 2026-03-04T10:00:01.000Z."},
		{"a sum", "sum", five, 3, "The value in the 1m up to the event is 6; required: the sum of n is more than 12. The event is in the window until 2026-03-04T10:01:30.000Z."},
		{"one is missing", "both", five, 2, "Still missing in the 30s up to the event: login. The event is in the window until 2026-03-04T10:00:50.000Z."},
		{"one is too much", "words", []schema.Event{failed(0, 1), failed(1, 1, "type", "s"), failed(2, 1, "type", "limit_wc")}, 2,
			"Present, but must be absent: login. The event is in the window until 2026-03-04T10:01:02.000Z."},
		{"before the first of the order", "order", five, 0, "Nothing is counted before the first of the order, block, has occurred."},
		{"inner condition", "into", five, 1, `The event is of none of the rules that are counted: "Many failed" (2 of 4 in the 2m up to the event); "Login" (type is "fp", wanted is "s" (explain.yml:12)).`},
		{"chain", "into", append(slices.Clone(five), failed(70, 3, "type", "s", "ip", "198.51.100.1")), 5, "It fires: the alert begins with this event."},
		{"last", "last", []schema.Event{failed(0, 1, "type", "s"), failed(1, 1), failed(2, 1)}, 2, "2 of the last 3 match; required: at least 3 of the last 4. The event is in the window until 2026-03-04T10:05:02.000Z."},
		{"still open", "blocked", []schema.Event{failed(0, 1, "type", "limit_wc"), failed(900, 1, "type", "limit_wc")}, 1,
			"It matches, but the alert has been open since 2026-03-04T10:00:00.000Z; a further match does not fire again before it closes at 2026-03-04T10:20:00.000Z."},
		{"backfilled", "many", append(slices.Clone(five[:3]), filled), 3, "The condition holds, but the event was backfilled, and such events never begin an alert."},
		{"old", "many", append(slices.Clone(five[:3]), old), 3, "The condition holds, but the event was 2h5m old when it was pulled; beyond 2h none begins an alert."},
		{"too old", "many", append(slices.Clone(five[:3]), ancient), 3, "The event was 100h old when it was pulled, so it was not counted."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := explained(t, set, tt.rule, tt.events, tt.at); got.Reason != tt.want {
				t.Errorf("got  %s\nwant %s", got.Reason, tt.want)
			}
		})
	}

	// An alert that began before all that is seen is known from its record.
	past := schema.Alert{Tenant: "acme", RuleID: "many", State: schema.StateFiring, Level: "high", StartsAt: scannertest.Start.Add(-time.Hour), UpdatedAt: scannertest.Start.Add(-time.Minute),
		Group: []schema.GroupValue{{Field: "ip", Value: "192.0.2.1"}}}
	past.Fingerprint = schema.Fingerprint(past.Tenant, past.RuleID, past.Group)
	got := explained(t, set, "many", five, 3, past)
	if got.Fires || !strings.Contains(got.Reason, "open since 2026-03-04T09:00:00.000Z") || got.Groups[0].Alert.Level != "high" || len(got.Recorded) != 1 {
		t.Errorf("%s\n%+v", got.Reason, got)
	}
	past.State, past.UpdatedAt = schema.StateResolved, scannertest.Start.Add(-time.Second)
	if got := explained(t, set, "many", five, 3, past); !got.Fires {
		t.Error(got.Reason)
	}
}

// TestExplainWindow is what is told of a window.
func TestExplainWindow(t *testing.T) {
	set := explainSet(t)
	at := func(second int, typ, user string) schema.Event {
		return scannertest.Event(t, scannertest.Start.Add(time.Duration(second)*time.Second), second, map[string]any{"type": typ, "ip": "192.0.2.1", "user_name": user, "other": user})
	}
	events := []schema.Event{at(-200, "fp", "eve"), at(0, "limit_wc", "ada"), at(1, "fp", "ada"), at(2, "fp", "bob"), at(3, "fu", "ada"), at(4, "fp", "cleo"), at(300, "ss", "ada")}
	clock := func(second int) time.Time { return scannertest.Start.Add(time.Duration(second) * time.Second) }

	got := explained(t, set, "users", events, 5)
	want := []Group{{Key: []Key{{Field: "ip", Value: "192.0.2.1", Found: true}}, Window: &Window{After: clock(-116), Until: clock(4), Value: 3, Missing: 1, Events: 4,
		LogIDs:     []string{events[2].LogID, events[3].LogID, events[4].LogID, events[5].LogID},
		Values:     []Seen{{Text: "bob", Times: 1, Last: clock(2), LogID: events[3].LogID}, {Text: "ada", Times: 2, Last: clock(3), LogID: events[4].LogID}, {Text: "cleo", Times: 1, Last: clock(4), LogID: events[5].LogID}},
		LastsUntil: clock(124), FirstLeave: clock(121)}}}
	if diff := cmp.Diff(want, got.Groups); diff != "" || got.Condition != "at least 4 distinct values of user_name" || got.Counts[0].Match == nil {
		t.Errorf("-want +got\n%s\n%+v", diff, got)
	}

	got = explained(t, set, "order", events, 5)
	if diff := cmp.Diff([]Seen{{Text: "block", Times: 1, Last: clock(0), LogID: events[1].LogID}, {Text: "failed", Times: 1, Last: clock(1), LogID: events[2].LogID}, {Text: "login"}}, got.Groups[0].Window.Sources); diff != "" || got.Groups[0].Window.Missing != 1 {
		t.Errorf("-want +got\n%s\n%+v", diff, got.Groups[0].Window)
	}

	got = explained(t, set, "many", events, 5)
	alert := got.Groups[0].Alert
	if alert == nil || !alert.Fired || !alert.StartsAt.Equal(clock(4)) || !alert.Ends.Equal(clock(3+120+180)) || len(got.Levels) != 3 {
		t.Errorf("%+v, %+v", alert, got)
	}

	got = explained(t, set, "alias", events, 5)
	if diff := cmp.Diff([]Key{{Field: "who", Path: "user_name", Value: "cleo", Found: true}}, got.Groups[0].Key); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestExplainQuery selects no more than it has to.
func TestExplainQuery(t *testing.T) {
	set := explainSet(t)
	ev := scannertest.Event(t, scannertest.Start, 1, map[string]any{"type": "fp", "ip": "192.0.2.1'", "user_name": "ada"})
	for rule, want := range map[string]string{
		"many":  `type IN ('fp', 'fu') AND (ip = '192.0.2.1\'' OR position(rest, 'ip"') > 0)`,
		"into":  `type IN ('fp', 'fu', 's')`,
		"alias": `type IN ('fp', 'fu', 's')`,
		"last":  `type IN ('fp', 'fu', 's')`,
	} {
		x := New(set, scannertest.RuleOf(set, rule), scanner.Config{}, &ev)
		after, until := x.Span()
		want = "SELECT log_id, date, type, raw, source, fetched_at FROM events WHERE tenant = 'acme' AND date > " + tosql.DateTime(after) + " AND date <= " + tosql.DateTime(until) + " AND " + want + " ORDER BY date, log_id"
		if got := x.Query(); got != want || !x.Needs() {
			t.Errorf("%s:\ngot  %s\nwant %s", rule, got, want)
		}
	}
	if x := New(set, scannertest.RuleOf(set, "blocked"), scanner.Config{}, &ev); x.Needs() {
		t.Error("nothing is needed for an event that does not match")
	}
}
