package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/scannertest"
	"github.com/tenantwatch/tenantwatch/schema"
)

// TestMembers is what counts of an event in groups, values and sums: each member of an
// array, "" as any other value, null and what is not there not at all. The engine, over a
// stream and over a file, and the explanation agree.
func TestMembers(t *testing.T) {
	const base = "title: hit\nid: hit\nlogsource: {product: auth0}\ndetection:\n  s: {type: hit}\n  condition: s\n---\ntitle: c\nid: c\nlevel: low\ncorrelation: "
	list := func(values ...any) any { return values }
	for _, tt := range []struct {
		name, correlation string
		events            []map[string]any
		want              []string // the alerts: after which event, of which group, with which count
	}{
		{"an empty text is a group, null and nothing are none", "{type: event_count, rules: [hit], group-by: [user_name], timespan: 1h, condition: {gte: 2}}",
			[]map[string]any{{"user_name": ""}, {"user_name": nil}, {}, {"user_name": ""}, {"user_name": list()}, {"user_name": nil}, {"user_name": list("", nil)}}, []string{`3 user_name="" 2`}},
		{"each member is a group", "{type: event_count, rules: [hit], group-by: [roles], timespan: 1h, condition: {gte: 2}}",
			[]map[string]any{{"roles": list("a", "b")}, {"roles": "b"}, {"roles": list("c", "a", "a")}, {"roles": list("c")}}, []string{`1 roles="b" 2`, `2 roles="a" 2`, `3 roles="c" 2`}},
		{"of two fields, each combination", "{type: event_count, rules: [hit], group-by: [ip, roles], timespan: 1h, condition: {gte: 2}}",
			[]map[string]any{{"ip": list("1", "2"), "roles": list("a", "b")}, {"ip": "2", "roles": list("b", "c")}, {"ip": "1"}, {"ip": "1", "roles": "a"}}, []string{`1 ip="2" roles="b" 2`, `3 ip="1" roles="a" 2`}},
		{"each member is a value", "{type: value_count, rules: [hit], timespan: 1h, condition: {field: ip, gte: 3}}",
			[]map[string]any{{"ip": list("1", "2", "1")}, {"ip": list(nil)}, {"ip": "2"}, {"ip": list("2", "")}}, []string{`3 3`}},
		{"an empty text is a value", "{type: value_count, rules: [hit], timespan: 1h, condition: {field: ip, gte: 2}}",
			[]map[string]any{{"ip": ""}, {"ip": nil}, {}, {"ip": "1"}}, []string{`3 2`}},
		{"values of two fields, each combination", "{type: value_count, rules: [hit], timespan: 1h, condition: {field: [ip, roles], gte: 4}}",
			[]map[string]any{{"ip": list("1", "2"), "roles": "a"}, {"ip": "1"}, {"ip": "1", "roles": list("a", "b")}, {"ip": "2", "roles": "b"}}, []string{`3 4`}},
		{"a sum of members", "{type: value_sum, rules: [hit], timespan: 1h, condition: {field: n, gte: 10}}",
			[]map[string]any{{"n": list(1, 2, 3)}, {"n": list("x", 3)}, {"n": 1}}, []string{`2 10`}},
		{"a sum below is judged when all of an event is in", "{type: value_sum, rules: [hit], timespan: 1h, condition: {field: n, lt: -5}}",
			[]map[string]any{{"n": list(-6, 3)}, {"n": list(-9, 8)}, {"n": -2}}, []string{`2 -6`}},
		{"a mean of members", "{type: value_avg, rules: [hit], timespan: 1h, condition: {field: n, lt: -1.5}}",
			[]map[string]any{{"n": list(-3, 0)}, {"n": list(-1, -4)}}, []string{`1 -2`}},
		{"a percentile of members", "{type: value_percentile, rules: [hit], timespan: 1h, condition: {field: n, percentile: 75, lte: -2}}",
			[]map[string]any{{"n": list(-3, 0)}, {"n": list(-4, -2, -2, -2)}}, []string{`1 -2`}},
		{"a mean between negative bounds", "{type: value_avg, rules: [hit], group-by: [ip], timespan: 1h, condition: {field: n, gte: -2, lt: -1}}",
			[]map[string]any{{"ip": "1", "n": -5}, {"ip": "1", "n": 2}}, []string{`1 ip="1" -1.5`}},
		{"a sum that is not a negative number", "{type: value_sum, rules: [hit], timespan: 1h, condition: {field: n, neq: -1}}",
			[]map[string]any{{"n": -1}, {"n": -1}}, []string{`1 -2`}},
		{"events are counted once, whatever their arrays", "{type: event_count, rules: [hit], timespan: 1h, condition: {gte: 2}}",
			[]map[string]any{{"ip": list("1", "2")}, {"ip": list("1", "2")}}, []string{`1 2`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(base + tt.correlation)}})
			if report.Count(rules.StatusEnabled) != 2 {
				t.Fatalf("%+v", report.Documents)
			}
			var events []schema.Event
			for i, members := range tt.events {
				members["type"] = "hit"
				events = append(events, scannertest.Event(t, scannertest.Start.Add(time.Duration(i)*time.Second), i, members))
			}
			told := func(a *schema.Alert) string {
				text := fmt.Sprint(int(a.StartsAt.Sub(scannertest.Start) / time.Second))
				for _, g := range a.Group {
					text += fmt.Sprintf(" %s=%q", g.Field, g.Value)
				}
				return fmt.Sprintf("%s %v", text, a.Count)
			}

			var streamed, batched, explained []string
			engine, batch := scanner.NewEngine(set, scanner.Config{}), scanner.NewBatch(set, 10)
			for i := range events {
				for _, a := range engine.Observe(&events[i]) {
					if a.State == schema.StateFiring {
						streamed = append(streamed, told(&a))
					}
				}
				batch.Observe(&events[i])
			}
			for _, a := range batch.Alerts() {
				batched = append(batched, told(&a))
				if ids := slices.Compact(slices.Clone(a.LogIDs)); len(ids) != len(a.LogIDs) {
					t.Errorf("an event is there twice: %v", a.LogIDs)
				}
			}
			for i := range events {
				x := New(set, scannertest.RuleOf(set, "c"), scanner.Config{}, &events[i])
				for k := range events {
					x.Observe(&events[k])
				}
				for _, g := range x.Explain().Groups {
					if g.Alert == nil || !g.Alert.Fired || g.Window == nil {
						continue
					}
					text := fmt.Sprint(i)
					for _, k := range g.Key {
						text += fmt.Sprintf(" %s=%q", k.Field, k.Value)
					}
					explained = append(explained, fmt.Sprintf("%s %v", text, g.Window.Value))
					if slices.ContainsFunc(g.Window.Values, func(s Seen) bool { return strings.Contains(s.Text, "nil") }) || g.Window.Events > i+1 {
						t.Errorf("explained as %+v", g.Window)
					}
				}
			}
			for how, got := range map[string][]string{"streamed": streamed, "batched": batched, "explained": explained} {
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", how, diff)
				}
			}
		})
	}
}

// TestManyMembers bounds what one event may fill groups and values with.
func TestManyMembers(t *testing.T) {
	text := "title: hit\nid: hit\nlogsource: {product: auth0}\ndetection:\n  s: {type: hit}\n  condition: s\n---\n" +
		"title: g\nid: g\nlevel: low\ncorrelation: {type: event_count, rules: [hit], group-by: [a, b], timespan: 1h, condition: {gte: 5}}\n---\n" +
		"title: v\nid: v\nlevel: low\ncorrelation: {type: value_count, rules: [hit], timespan: 1h, condition: {field: [a, b], gte: 5}}\n"
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text)}})
	var many []any
	for i := range 5000 {
		many = append(many, fmt.Sprint("m", i))
	}
	ev := scannertest.Event(t, scannertest.Start, 0, map[string]any{"type": "hit", "a": many, "b": many})
	e := scanner.NewEngine(set, scanner.Config{})
	alerts := e.Observe(&ev)
	if len(alerts) != 1 || alerts[0].RuleID != "v" || alerts[0].Count != scanner.MaxMembers {
		t.Errorf("got %+v", alerts)
	}
	if n := e.Status().Groups; n != scanner.MaxMembers+1 {
		t.Errorf("%d groups", n)
	}
}
