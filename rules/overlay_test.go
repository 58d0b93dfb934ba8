package rules_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

// overlaid loads one file of rules with an overlay beside it.
func overlaid(vars rules.Vars, text, overlay string) (*rules.Set, map[string]rules.Document) {
	set, report := rules.Load(vars, fstest.MapFS{"rule.yml": file(text), "my.overlay.yml": file(overlay)})
	fates := map[string]rules.Document{}
	for _, d := range report.Documents {
		fates[d.ID] = d
	}
	return set, fates
}

const twoRules = "title: one\nid: a\nlevel: low\ndetection:\n  s: {type: '{kind}'}\n  condition: s\n---\ntitle: two\nid: b\ndetection:\n  s: {type: fp}\n  condition: s\n"

// TestOverlay changes rules in every way that an overlay can.
func TestOverlay(t *testing.T) {
	for _, tt := range []struct {
		name, rules, overlay string
		vars                 rules.Vars
		status               map[string]rules.Status // by id
		reason               string                  // of a
	}{
		{"nothing", twoRules, "", nil, map[string]rules.Status{"a": rules.StatusWaiting, "b": rules.StatusEnabled}, "set the variable kind"},
		{"a variable", twoRules, "rules: {a: {vars: {kind: fu}}}", nil, map[string]rules.Status{"a": rules.StatusTuned, "b": rules.StatusEnabled}, "by my.overlay.yml:1"},
		{"a variable for all", twoRules, "vars: {kind: [fu, f]}", nil, map[string]rules.Status{"a": rules.StatusEnabled, "b": rules.StatusEnabled}, ""},
		{"off", twoRules, "rules:\n  b: {enabled: false, reason: Noise.}\n  a: {enabled: false, reason: No  use.}", nil,
			map[string]rules.Status{"a": rules.StatusDisabled, "b": rules.StatusDisabled}, "my.overlay.yml:3: No use."},
		{"replaced", twoRules, "rules: {a: {replaced_by: b, reason: Better.}}", nil, map[string]rules.Status{"a": rules.StatusReplaced, "b": rules.StatusEnabled}, "by rule.yml: Better."},
		{"over a detection", twoRules, "rules: {a: {correlation: {type: event_count, timespan: 5m, condition: {gte: 3}}, alert: {levels: {high: 9}}, level: medium, reason: Why.}}", rules.Vars{"kind": {"x"}},
			map[string]rules.Status{"a": rules.StatusTuned, "a#1": rules.StatusTuned, "b": rules.StatusEnabled}, "by my.overlay.yml:1: Why."},
		{"over a detection that waits", twoRules, "rules: {a: {correlation: {type: event_count, timespan: 5m, condition: {gte: 3}}}}", nil,
			map[string]rules.Status{"a": rules.StatusWaiting, "a#1": rules.StatusWaiting, "b": rules.StatusEnabled}, "set the variable kind (as changed by my.overlay.yml:1)"},
		{"instead of a correlation", correlation(counting + "condition: {gte: 2}"), "rules: {c: {correlation: {type: event_count, timespan: 1m, condition: {gte: 7}}}}", nil,
			map[string]rules.Status{"b": rules.StatusEnabled, "c": rules.StatusTuned}, ""},
		{"one that is wrong", twoRules, "rules: {a: {correlation: {type: sum}}}", rules.Vars{"kind": {"x"}},
			map[string]rules.Status{"a": rules.StatusDisabled, "a#1": rules.StatusRefused, "b": rules.StatusEnabled}, "it only serves a correlation that does not run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, fates := overlaid(tt.vars, tt.rules, tt.overlay)
			got := map[string]rules.Status{}
			for id, d := range fates {
				if id != "" {
					got[id] = d.Status
				}
			}
			if fate, ok := fates[""]; !ok || fate.Status != rules.StatusEnabled || fate.Kind != "overlay" || len(fate.Warnings) > 0 {
				t.Errorf("the overlay: %+v", fate)
			}
			if diff := cmp.Diff(tt.status, got); diff != "" || fates["a"].Reason != tt.reason {
				t.Errorf("-want +got\n%s\nreason %q", diff, fates["a"].Reason)
			}
		})
	}

	set, _ := overlaid(rules.Vars{"kind": {"x"}}, twoRules, "rules: {a: {correlation: {type: event_count, group-by: ip, timespan: 5m, condition: {gte: 3}}, alert: {levels: {high: 9}}, level: medium}}")
	r := set.Rules()[len(set.Rules())-1]
	if r.ID != "a#1" || r.Title != "one" || r.Level != "medium" || r.Correlation.Timespan != 5*time.Minute || len(r.Alert.Levels) != 2 || r.Alert.GroupBy[0].Path != "ip" || set.Rules()[0].Alert != nil {
		t.Errorf("%+v, %+v", r, r.Alert)
	}
	set, _ = overlaid(nil, correlation(counting+"condition: {gte: 2}"), "rules: {c: {correlation: {type: event_count, timespan: 1m, condition: {gte: 7}}}}")
	if r := set.Rules()[1]; r.Correlation.Timespan != time.Minute || r.Alert.Levels[0].Count != 7 || r.Correlation.Sources[0].Rule != 0 {
		t.Errorf("%+v", r.Correlation)
	}
}

// TestOverlayRefused is what no overlay can say: the rules run as they are.
func TestOverlayRefused(t *testing.T) {
	for _, tt := range []struct{ name, overlay, want string }{
		{"not YAML", "rules: [", "my.overlay.yml: yaml: line 1"},
		{"a list", "- a", "my.overlay.yml: want a map"},
		{"unknown key", "\nrule: {}", "my.overlay.yml:2: rule: unknown key"},
		{"unknown key of a rule", "rules:\n  a: {on: true}", "my.overlay.yml:2: rules.a: on: unknown key"},
		{"unknown level", "rules: {a: {level: bad}}", `rules.a: level: unknown level "bad"`},
		{"off without a reason", "rules: {a: {enabled: false}}", "rules.a: a rule that does not run needs a reason"},
		{"variables in a list", "vars: [a]", "vars: want a map"},
		{"a correlation in a list", "rules: {a: {correlation: [x]}}", "rules.a: correlation: want a map"},
		{"aliases", "vars: &v {a: b}\nrules: {a: {vars: *v}}", "my.overlay.yml:2: YAML aliases are not supported"},
	} {
		set, fates := overlaid(rules.Vars{"kind": {"x"}}, twoRules, tt.overlay)
		d := fates[""]
		if d.Status != rules.StatusRefused || !strings.Contains(d.Reason, tt.want) || len(set.Rules()) != 2 {
			t.Errorf("%s: %s %q, want %q; %d rules", tt.name, d.Status, d.Reason, tt.want, len(set.Rules()))
		}
	}
	for _, tt := range []struct{ name, overlay, want string }{
		{"no such rule", "rules: {x: {level: low}}", "my.overlay.yml:1: no rule has the id x"},
		{"replaced by none", "rules: {a: {replaced_by: x, reason: Y.}}", "replaced_by: no rule has the id x"},
		{"replaced by itself", "rules: {a: {replaced_by: a, reason: Y.}}", "replaced_by: no rule has the id a"},
		{"in a circle", "rules: {a: {replaced_by: b, reason: Y.}, b: {replaced_by: a, reason: Y.}}", "replaced_by: no rule has the id a"},
	} {
		set, fates := overlaid(rules.Vars{"kind": {"x"}}, twoRules, tt.overlay)
		if d := fates[""]; len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], tt.want) || len(set.Rules()) == 0 {
			t.Errorf("%s: %+v, want %q", tt.name, d, tt.want)
		}
	}
}

// TestCatalogTuned is what becomes of Auth0's catalog beside our own rules.
func TestCatalogTuned(t *testing.T) {
	catalog(t, nil)
	set, report := rules.Load(catalogVars, builtin.FS(), os.DirFS(catalogDir))
	got := map[rules.Status]int{}
	for _, d := range report.Documents {
		if !strings.Contains(d.File, "/") && d.Kind != "overlay" {
			got[d.Status]++
		}
		if d.Status == rules.StatusRefused || strings.Contains(strings.Join(d.Warnings, " "), "first event") {
			t.Errorf("%s:%d %s %v", d.File, d.Line, d.Reason, d.Warnings)
		}
	}
	// Twelve of the 16 that count are tuned: a detection and a correlation each. Of the
	// seven that are replaced, two have a correlation.
	want := map[rules.Status]int{rules.StatusEnabled: 14, rules.StatusTuned: 24, rules.StatusReplaced: 9}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, r := range set.Rules() {
		if r.Correlation != nil && r.Alert != nil && !strings.Contains(r.File, "/") && r.Alert.Levels[0].Count < 2 {
			t.Errorf("%s alerts at %v", r.File, r.Alert.Levels[0].Count)
		}
	}
}
