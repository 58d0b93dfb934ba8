package timeline_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/scanner/timeline"
)

// TestBuiltin runs the timeline tests of the rules that we ship. Every rule that
// alerts must have one in which it fires.
func TestBuiltin(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	set, report := rules.Load(nil, builtin.FS())
	for _, d := range report.Documents {
		if d.Status != rules.StatusEnabled || len(d.Warnings) > 0 {
			t.Errorf("%s:%d: %s %s %v", d.File, d.Line, d.Status, d.Reason, d.Warnings)
		}
	}
	results, err := timeline.Run(set, builtin.FS())
	if err != nil || len(results) == 0 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	fired := map[string]bool{}
	for _, r := range results {
		if r.Failure != "" {
			t.Errorf("%s: %s\n%s", r.File, r.Case, r.Failure)
		}
		for _, id := range r.Fired {
			fired[id] = true
		}
	}
	for _, r := range set.Rules() {
		if r.Alert != nil && !fired[r.ID] {
			t.Errorf("%s: %q fires in no timeline", r.File, r.Title)
		}
	}
}

const threeInARow = `
title: Failed
id: failed
detection:
  s: {type: fp}
  condition: s
---
title: Three
id: three
level: high
correlation: {type: event_count, rules: [failed], group-by: [ip], timespan: 5m, condition: {gte: 3}}
`

const series = "- name: c\n  events: [{at: 0s, times: 3, every: 1m, event: {type: fp, ip: '192.0.2.{n}', details: [{a: '{n}'}]}}]\n"

// TestRun is what passes and what does not.
func TestRun(t *testing.T) {
	same := strings.Replace(series, "192.0.2.{n}", "192.0.2.1", 1)
	const alert = "  alerts: [{at: 2m, state: firing, level: high, count: 3, group: {ip: 192.0.2.1}}]\n"
	for _, tt := range []struct{ name, test, want string }{
		{"fires as it should", same + alert, ""},
		{"is silent as it should be", series, ""},
		{"fires when it should not", same, "want:\n  nothing\ngot:\n  at 2m0s firing high, count 3, ip \"192.0.2.1\"\n"},
		{"is silent when it should fire", series + alert, "want:\n  at 2m0s firing high, count 3, ip \"192.0.2.1\"\ngot:\n  nothing\n"},
		{"at another time", same + strings.Replace(alert, "2m", "1m", 1), "want:\n  at 1m0s"},
		{"another level", same + strings.Replace(alert, "high", "low", 1), "want:\n  at 2m0s firing low"},
		{"another count", same + strings.Replace(alert, "count: 3", "count: 4", 1), "count 4"},
		{"another group", same + strings.Replace(alert, "192.0.2.1", "192.0.2.2", 1), `ip "192.0.2.2"`},
		{"not YAML", "- [", "yaml: line 1"},
		{"unknown key", "- nam: c", "field nam not found"},
		{"empty", "", "no cases"},
		{"no name", "- events: [{at: 0s, event: {type: fp}}]", "case 1: want a name and events"},
		{"no events", "- name: c", "case 1: want a name and events"},
		{"an event of nothing", "- name: c\n  events: [{at: 0s}]", "an event needs members"},
		{"before the start", "- name: c\n  events: [{at: -1s, event: {a: b}}]", "not be below 0"},
		{"too many", "- name: c\n  events: [{at: 0s, times: 1000001, event: {a: b}}]", "more than 1000000 events"},
		{"a broken date", "- name: c\n  events: [{at: 0s, event: {date: never, log_id: x}}]", "event at 0s: neither date"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := fstest.MapFS{"a/three.yml": {Data: []byte(threeInARow)}, "a/three.test.yml": {Data: []byte(tt.test)}}
			set, _ := rules.Load(nil, source)
			results, err := timeline.Run(set, source)
			if err != nil || len(results) != 1 || results[0].File != "a/three.test.yml" {
				t.Fatalf("%+v, %v", results, err)
			}
			if got := results[0].Failure; (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	source := fstest.MapFS{"other.test.yaml": {Data: []byte(series)}, "broken.yml": {Data: []byte("title: [")}}
	set, _ := rules.Load(nil, source)
	if results, err := timeline.Run(set, source); err != nil || len(results) != 1 || !strings.Contains(results[0].Failure, "other.yaml has no rule that alerts") {
		t.Errorf("a test without rules: %+v, %v", results, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(series)
	f.Add("- name: c\n  events: [{at: 1h, event: {a: [1, {b: '{n}'}]}}]\n  alerts: [{at: 1s}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		cases, err := timeline.Read([]byte(text))
		if (err == nil) == (len(cases) == 0) {
			t.Errorf("%d cases, %v", len(cases), err)
		}
	})
}
