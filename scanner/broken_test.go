package scanner

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// TestBrokenRule lets the judging of a rule panic, at an event and at an end: it is left
// out, and the others go on.
func TestBrokenRule(t *testing.T) {
	text := "title: d\nid: d\ndetection: {s: {type: fp}, condition: s}\n---\n"
	for _, id := range []string{"a", "b", "c"} {
		text += "title: " + id + "\nid: " + id + "\nlevel: low\ncorrelation: {type: event_count, rules: [d], group-by: [ip], timespan: 5m, condition: {gte: 2}}\n---\n"
	}
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text)}})
	e := NewEngine(set, Config{})
	n := 0
	observe := func(at time.Duration) (told []string) {
		n++
		ev := eventAt(t, timelineStart.Add(at), n, map[string]any{"type": "fp", "ip": "192.0.2.1"})
		for _, a := range e.Observe(&ev) {
			told = append(told, a.RuleID+" "+string(a.State))
		}
		return told
	}
	check := func(what string, want, got []string, broken map[string]string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff(broken, e.Status().Broken); diff != "" {
			t.Errorf("%s, broken (-want +got):\n%s", what, diff)
		}
	}
	check("at first", nil, observe(0), nil)
	// What should never happen.
	b := *e.rules[1].rule
	b.Correlation = &rules.Correlation{Spec: correlation.Spec{Type: b.Correlation.Type}}
	e.rules[1].rule = &b
	const why = "runtime error: index out of range [0] with length 0"
	check("at an event", []string{"a firing", "c firing"}, observe(time.Minute), map[string]string{"b": why})
	check("afterwards", nil, observe(2*time.Minute), map[string]string{"b": why})
	c := *e.rules[2].rule
	c.Alert = &rules.Alert{Class: rules.ClassCondition, ResolveBelow: 1, GroupBy: c.Alert.GroupBy}
	e.rules[2].rule = &c
	check("at an end", []string{"a resolved"}, observe(time.Hour), map[string]string{"b": why, "c": why})
	if s := e.Status(); s.Groups != 1 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
}
