package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenantwatch/tenantwatch/rules"
	sigma "github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// only loads one file and returns the fate of its last document.
func only(t *testing.T, vars rules.Vars, text string) (*rules.Set, rules.Document) {
	t.Helper()
	set, report := rules.Load(vars, source(text))
	if len(report.Documents) == 0 {
		t.Fatalf("no document in\n%s", text)
	}
	return set, report.Documents[len(report.Documents)-1]
}

// ignored are the parts of a Rule that tests of a whole one leave out.
var ignored = cmp.Options{cmpopts.IgnoreFields(rules.Rule{}, "Match"), cmpopts.IgnoreUnexported(expr.Field{}), cmpopts.EquateEmpty()}

func TestLoadDetection(t *testing.T) {
	set := mustLoad(t, nil, `
title: Many things
id: 11111111-2222-3333-4444-555555555555
name: things
status: test
description: What it is.
author: somebody
date: 2026-01-02
logsource: {product: auth0}
level: HIGH
tags: [attack.t1110, tenantwatch.attack]
falsepositives: Tests.
prevention: [First., Second.]
explanation: Because.
splunk: |
  search *
comments: {a: [1]}
detection:
  s: {type: [fp, fu]}
  condition: s
x-tenantwatch-alert:
  class: event
  keep_firing_for: 2h
  summary: >
    {ip} failed
    {count} times
  group-by: data.ip
`)
	want := []*rules.Rule{{ID: "11111111-2222-3333-4444-555555555555", Name: "things", Title: "Many things", Description: "What it is.",
		Level: "high", Tags: []string{"attack.t1110", "tenantwatch.attack"}, FalsePositives: []string{"Tests."},
		Prevention: "First.\nSecond.", File: "rule.yml", Line: 2, Types: []string{"fp", "fu"},
		Alert: &rules.Alert{Class: rules.ClassEvent, Levels: []rules.Level{{Name: "high", Count: 1}}, ResolveBelow: 1, KeepFiringFor: 2 * time.Hour,
			Summary: "{ip} failed {count} times", GroupBy: []expr.Field{{Path: "ip"}}}}}
	if diff := cmp.Diff(want, set.Rules(), ignored); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// base is a detection called b, for correlations.
const base = "title: base\nid: b\nname: bn\nlevel: low\ntags: [x.y]\ndescription: D.\nprevention: P.\nfalsepositives: F.\ndetection:\n  s: {type: fp}\n  condition: s\n---\n"

// correlation is the document after base, which ends in the condition.
func correlation(keys string) string {
	return base + "title: c\nid: c\nlevel: medium\ncorrelation:\n" + indented(keys, "  ")
}

const counting = "type: event_count\nrules: b\ntimespan: 5m\n"

// chain is so many correlations above c, each of the one before it.
func chain(n int) string {
	var b strings.Builder
	for i, below := 0, "c"; i < n; i++ {
		name := fmt.Sprintf("above%d", i)
		fmt.Fprintf(&b, "\n---\ntitle: %[1]s\nid: %[1]s\ncorrelation: {type: event_count, rules: %[2]s, timespan: 5m, condition: {gte: 2}}", name, below)
		below = name
	}
	return b.String()
}

func TestLoadCorrelation(t *testing.T) {
	set := mustLoad(t, nil, correlation("type: value_count\nrules: [b]\ngroup-by: [data.ip, 'details.x{}']\ntimespan: 2d\ncondition: {gt: 9, field: [user_id, 'user_name']}")+`
x-tenantwatch-alert:
  class: condition
  levels: {high: 50, critical: 100}
  resolve_below: 5
  keep_firing_for: 30s
`)
	got := set.Rules()
	if len(got) != 2 {
		t.Fatalf("%d rules", len(got))
	}
	if got[0].ID != "b" || got[0].Alert != nil {
		t.Errorf("a detection that serves a correlation alerts alone: %+v", got[0])
	}
	want := &rules.Rule{ID: "c", Title: "c", Description: "D.", Level: "medium", Tags: []string{"x.y"}, FalsePositives: []string{"F."}, Prevention: "P.",
		File: "rule.yml", Line: 13, Types: []string{"fp"},
		Alert: &rules.Alert{Class: rules.ClassCondition, Levels: []rules.Level{{Name: "medium", Count: 10}, {Name: "high", Count: 50}, {Name: "critical", Count: 100}},
			ResolveBelow: 5, KeepFiringFor: 30 * time.Second, GroupBy: []expr.Field{{Path: "ip"}, {Path: "details.x"}}},
		Correlation: &rules.Correlation{Spec: spec("value_count", sigma.Spec{Rules: 1, Timespan: 48 * time.Hour, Bounds: []sigma.Bound{{Op: "gte", Than: 10}}}),
			Sources: []rules.Source{{Rule: 0, GroupBy: []expr.Field{{Path: "ip"}, {Path: "details.x"}}, Values: []expr.Field{{Path: "user_id"}, {Path: "user_name"}}}}}}
	if diff := cmp.Diff(want, got[1], ignored); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// spec returns a Spec of a type.
func spec(name string, spec sigma.Spec) sigma.Spec {
	for _, typ := range sigma.Types() {
		if typ.Name() == name {
			spec.Type = typ
		}
	}
	return spec
}

func TestCorrelationDefaults(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		class      rules.Class
		threshold  float64
		below      float64
		keep       time.Duration
	}{
		{"gte", correlation(counting + "condition: {gte: 10}"), rules.ClassCondition, 10, 5, 15 * time.Minute},
		{"gt", correlation(counting + "condition: {gt: 10}"), rules.ClassCondition, 11, 6, 15 * time.Minute},
		{"always true", correlation(counting + "condition: {gte: 0}"), rules.ClassCondition, 1, 1, 15 * time.Minute},
		{"event class", correlation(counting+"condition: {gte: 3}") + "\nx-tenantwatch-alert: {class: event}", rules.ClassEvent, 3, 2, 0},
		{"last_events", base + "title: c\nid: c\nx-tenantwatch-correlation: {type: last_events, rules: b, among: b, last: 5, timespan: 10m, condition: {gte: 3}}", rules.ClassCondition, 3, 0, 0},
		{"fewer", correlation(counting + "condition: {lt: 10}"), rules.ClassCondition, 10, 0, 15 * time.Minute},
		{"a range", correlation(counting + "condition: {gt: 100, lte: 200}"), rules.ClassCondition, 101, 0, 15 * time.Minute},
		{"all rules", correlation("type: temporal\nrules: [b]\ntimespan: 5m"), rules.ClassCondition, 1, 0, 15 * time.Minute},
		{"a sum", correlation("type: value_sum\nrules: [b]\ntimespan: 5m\ncondition: {field: details.n, gt: 1.5}"), rules.ClassCondition, 1.5, 0, 15 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs := mustLoad(t, nil, tt.text).Rules()
			a := rs[len(rs)-1].Alert
			if a.Class != tt.class || a.Levels[0].Count != tt.threshold || a.ResolveBelow != tt.below || a.KeepFiringFor != tt.keep {
				t.Errorf("got %+v", a)
			}
		})
	}
	rs := mustLoad(t, nil, base+"title: c\nx-tenantwatch-correlation: {type: last_events, rules: b, among: [bn], last: 5, timespan: 10m, condition: {gt: 2}}").Rules()
	if diff := cmp.Diff(&rules.Correlation{Sources: []rules.Source{{Rule: 0}}, Among: []int{0},
		Spec: spec("last_events", sigma.Spec{Rules: 1, Last: 5, Timespan: 10 * time.Minute, Bounds: []sigma.Bound{{Op: "gte", Than: 3}}})}, rs[1].Correlation, ignored); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if rs[1].ID != "b#1" || rs[1].Level != "low" {
		t.Errorf("id %q, level %q; want those of the detection before it", rs[1].ID, rs[1].Level)
	}
}

func TestTimespans(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "5m": 5 * time.Minute, "1h": time.Hour, "30d": 720 * time.Hour, "2w": 336 * time.Hour} {
		rs := mustLoad(t, nil, correlation("type: event_count\nrules: b\ntimespan: "+text+"\ncondition: {gte: 2}")).Rules()
		if got := rs[1].Correlation.Timespan; got != want {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

// TestGenerate is who alerts alone.
func TestGenerate(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       bool
	}{
		{"by default", correlation(counting + "condition: {gte: 2}"), false},
		{"inside", correlation(counting + "generate: true\ncondition: {gte: 2}"), true},
		{"at the top", correlation(counting+"condition: {gte: 2}") + "\ngenerate: true", true},
		{"false", correlation(counting + "generate: false\ncondition: {gte: 2}"), false},
	} {
		if got := mustLoad(t, nil, tt.text).Rules()[0].Alert != nil; got != tt.want {
			t.Errorf("%s: the detection alerts alone: %v", tt.name, got)
		}
	}
}

// TestRefused is what cannot be evaluated as written: it is refused with its
// place, and no event matches it.
func TestRefused(t *testing.T) {
	lots := make([]string, 101)
	for i := range lots {
		lots[i] = fmt.Sprint("v", i)
	}
	vars := rules.Vars{"lots": lots}
	for _, tt := range []struct{ name, text, want string }{
		{"not YAML", "title: [", "rule.yml: yaml: line 1: "},
		{"not a map", "- a", "rule.yml:1: want a map"},
		{"a text", "hello", "rule.yml:1: want a map"},
		{"no kind", "title: t", "rule.yml:1: want exactly one of detection, correlation, x-tenantwatch-correlation, filter"},
		{"two kinds", "title: t\ndetection: {}\ncorrelation: {}", "rule.yml:1: want exactly one of"},
		{"no title", "id: x\ndetection:\n  s: {a: 1}\n  condition: s", "rule.yml:1: title is missing"},
		{"alias", "title: &t x\ndetection:\n  s: {a: *t}\n  condition: s", "rule.yml:3: YAML aliases are not supported"},
		{"repeated key", "title: t\ntitle: u\ndetection: {}", `line 2: key "title" is repeated`},
		{"repeated field", item("a: 1\na: 2"), `line 8: key "a" is repeated`},
		{"unknown key of our own", "title: t\nx-tenantwatch-alarm: {}\ndetection: {}", `rule.yml:2: unknown key "x-tenantwatch-alarm"`},
		{"unknown level", "title: t\nlevel: urgent\ndetection:\n  s: {a: 1}\n  condition: s", `rule.yml:2: unknown level "urgent"`},
		{"detection is a list", "title: t\ndetection: [a]", "rule.yml:2: want a map"},
		{"no condition", "title: t\ndetection:\n  s: {a: 1}", "rule.yml:3: detection has no condition"},
		{"no condition among many", "title: t\ndetection:\n  s: {a: 1}\n  condition: []", "rule.yml:3: detection has no condition"},
		{"timeframe", "title: t\ndetection:\n  timeframe: 5m\n  s: {a: 1}\n  condition: s", "rule.yml:3: detection.timeframe is not supported"},

		{"empty condition", detection("s: {a: 1}\ncondition: ''"), "rule.yml:7: condition is empty"},
		{"aggregation", detection("s: {a: 1}\ncondition: s | count() > 5"), "rule.yml:7: condition \"s | count() > 5\": aggregations"},
		{"unknown identifier", detection("s: {a: 1}\ncondition: t"), `no search identifier "t"`},
		{"them of none", detection("_s: {a: 1}\ncondition: 1 of them"), "1 of them: no search identifier has such a name"},
		{"pattern of none", detection("s: {a: 1}\ncondition: 1 of t*"), "1 of t*: no search identifier has such a name"},
		{"two of", detection("s: {a: 1}\ncondition: 2 of s*"), "only 1, any and all are defined"},
		{"broken pattern", detection("s: {a: 1}\ncondition: 1 of '[s'"), "1 of"},
		{"of nothing", detection("s: {a: 1}\ncondition: 1 of"), "unexpected end after of"},
		{"missing )", detection("s: {a: 1}\ncondition: (s"), "missing )"},
		{"surplus )", detection("s: {a: 1}\ncondition: s)"), `unexpected ")"`},
		{"two names", detection("s: {a: 1}\ncondition: s s"), `unexpected "s"`},
		{"and at the end", detection("s: {a: 1}\ncondition: s and"), "unexpected end"},
		{"or at the start", detection("s: {a: 1}\ncondition: or s"), `unexpected "or"`},
		{"them alone", detection("s: {a: 1}\ncondition: them"), `unexpected "them"`},
		{"too deep", detection("s: {a: 1}\ncondition: " + strings.Repeat("not ", 200) + "s"), "nested more than 100 deep"},
		{"too deep in parentheses", detection("s: {a: 1}\ncondition: " + strings.Repeat("(", 2000) + "s" + strings.Repeat(")", 2000)), "nested more than 100 deep"},

		{"empty map", detection("s: {}\ncondition: s"), "s: line 6: the map is empty"},
		{"empty list", detection("s: []\ncondition: s"), "s: line 6: the list is empty"},
		{"no values", item("a: []"), "line 7: a: line 7: the list is empty"},
		{"no keywords", item("'|all': []"), "line 7: the list is empty"},
		{"list in a list", detection("s: [[a]]\ncondition: s"), "s: line 6: a list in a list has no meaning"},
		{"null for a search", detection("s: null\ncondition: s"), "s: line 6: "},
		{"null for a keyword", detection("s: [null]\ncondition: s"), "s: line 6: "},
		{"empty keyword", detection("s: ['']\ncondition: s"), "s: line 6: a keyword must be text"},
		{"keyword that exists", item("'|exists': true"), "keywords take no modifier that needs a field"},
		{"keyword that is a field", item("'|fieldref': x"), "keywords take no modifier that needs a field"},
		{"keyword of a time", item("'|hour': 3"), "keywords take no modifier that needs a field"},
		{"regular expression with a repeat in a repeat", item("a|re: '(a{1,90}){1,90}'"), "invalid repeat count: `{1,90}`; a repeat within a repeat multiplies"},
		{"regular expression with a large program", item("a|re: '" + strings.Repeat("(ab?){0,999}", 3) + "'"), "compiles to"},
		{"regular expression with a large repeat", item("a|re: 'a{2000}'"), "invalid repeat count"},
		{"map for a value", item("a: {b: 1}"), "line 7: a: line 7: a value must be a scalar"},
		{"list in a value", item("a: [[x]]"), "a value must be a scalar"},

		{"unknown modifier", item("a|like: x"), `line 7: a|like: unknown modifier "like"`},
		{"empty modifier", item("'a||contains': x"), `unknown modifier ""`},
		{"modifier in capitals", item("a|Contains: x"), `unknown modifier "Contains"`},
		{"base64 of a wildcard", item("a|base64: x*"), "has wildcards, which cannot be encoded"},
		{"base64 and re", item("a|base64|re: x"), "modifier base64 encodes text"},
		{"windash and lt", item("a|windash|lt: 1"), "modifier windash encodes text"},
		{"wide alone", item("a|wide: é"), "becomes bytes that are not text; add base64"},
		{"two operators", item("a|contains|endswith: x"), "modifiers contains and endswith exclude each other"},
		{"flags without re", item("a|i: x"), "modifiers i, m and s follow re"},
		{"cased re", item("a|re|cased: x"), "modifier cased has no meaning with re"},
		{"cased lt", item("a|lt|cased: 1"), "modifier cased has no meaning with lt"},
		{"fieldref and cidr", item("a|fieldref|cidr: b"), "modifier fieldref cannot be combined with the others"},
		{"fieldref to nothing", item("a|fieldref: ''"), "fieldref needs the name of a field"},
		{"fieldref to null", item("a|fieldref: null"), "fieldref needs the name of a field"},
		{"two parts of a time", item("a|hour|day: 1"), "modifiers hour and day exclude each other"},
		{"contains an hour", item("a|hour|contains: 1"), "modifier hour compares numbers and cannot be combined with contains"},
		{"exists and more", item("a|exists|neq: true"), "modifier exists cannot be combined with others"},
		{"exists what", item("a|exists: maybe"), "exists needs true or false"},
		{"exists text", item("a|exists: 'true'"), "exists needs true or false"},
		{"exists twice", item("a|exists: [true, false]"), "exists needs true or false"},
		{"contains null", item("a|contains: null"), "null cannot be compared with contains"},
		{"hour null", item("a|hour: null"), "null cannot be compared with hour"},
		{"lt text", item("a|lt: many"), `line 7: "many" is not a number`},
		{"gt NaN", item("a|gt: nan"), `line 7: "nan" is not a number`},
		{"hour text", item("a|hour: noon"), `line 7: "noon" is not a number`},
		{"cidr without length", item("a|cidr: 192.0.2.1"), "line 7: netip.ParsePrefix"},
		{"cidr garbage", item("a|cidr: 192.0.2.0/33"), "line 7: netip.ParsePrefix"},
		{"re garbage", item("a|re: '(x'"), "line 7: error parsing regexp"},
		{"too many values", item("a|expand: '%lots%%lots%'"), "expands to more than 10000 values"},

		{"alert is a text", item("a: 1") + "\nx-tenantwatch-alert: x", "rule.yml:9: x-tenantwatch-alert: want a map"},
		{"alert class", item("a: 1") + "\nx-tenantwatch-alert: {class: state}", "x-tenantwatch-alert.class: want event or condition"},
		{"alert key", item("a: 1") + "\nx-tenantwatch-alert:\n  color: red", "rule.yml:10: x-tenantwatch-alert.color: unknown key"},
		{"resolve_below 0", item("a: 1") + "\nx-tenantwatch-alert: {resolve_below: 0}", "want 1 or more"},
		{"resolve_below -1", item("a: 1") + "\nx-tenantwatch-alert: {resolve_below: -1}", "resolve_below"},
		{"keep_firing_for", item("a: 1") + "\nx-tenantwatch-alert: {keep_firing_for: soon}", `keep_firing_for: "soon": want a number`},
		{"group-by nothing", item("a: 1") + "\nx-tenantwatch-alert: {group-by: ['']}", "a field has no name"},
		{"group-by a map", item("a: 1") + "\nx-tenantwatch-alert: {group-by: {a: b}}", "want text or a list of texts"},
		{"levels of a detection", item("a: 1") + "\nx-tenantwatch-alert: {levels: {high: 3}}", "a detection counts nothing; write a correlation"},
		{"vars", item("a: 1") + "\nx-tenantwatch-vars: {a: {b: c}}", "x-tenantwatch-vars.a: line 9: want text"},

		{"correlation is a text", base + "title: c\ncorrelation: x", "rule.yml:14: correlation: want a map"},
		{"correlation without type", correlation("rules: b\ntimespan: 5m\ncondition: {gte: 2}"), "rule.yml:17: correlation.type is missing"},
		{"unknown type", correlation("type: sum\nrules: b\ntimespan: 5m\ncondition: {gte: 2}"), `rule.yml:17: correlation.type: unknown type "sum"`},
		{"a rule twice", correlation("type: temporal\nrules: [b, b]\ntimespan: 5m"), `rule.yml:18: correlation.rules: "b" is given twice`},
		{"too many rules", correlation("type: temporal\ntimespan: 5m\nrules: [" + strings.Join(lots[:65], ", ") + "]"), "correlation.rules: more than 64"},
		{"more than its rules", correlation("type: temporal\nrules: [b]\ntimespan: 5m\ncondition: {gte: 2}"), "it can never hold for 1 rules"},
		{"median", correlation("type: value_median\nrules: b"), "value_median, which Sigma does not define, is not supported"},
		{"sum of nothing", correlation("type: value_sum\nrules: b\ntimespan: 5m\ncondition: {gte: 2}"), "value_sum needs field"},
		{"sum of two", correlation("type: value_sum\nrules: b\ntimespan: 5m\ncondition: {gte: 2, field: [a, b]}"), "value_sum takes one field"},
		{"which percentile", correlation("type: value_percentile\nrules: b\ntimespan: 5m\ncondition: {gte: 2, field: a}"), "value_percentile needs percentile"},
		{"percentile 0", correlation("type: value_percentile\nrules: b\ntimespan: 5m\ncondition: {gte: 2, field: a, percentile: 0}"), "percentile: want more than 0 and at most 100"},
		{"percentile of a count", correlation(counting + "condition: {gte: 2, percentile: 9}"), "event_count has no use for percentile"},
		{"last_events in Sigma's key", correlation("type: last_events\nrules: b\ntimespan: 5m\ncondition: {gte: 2}"), "last_events is our own type"},
		{"event_count in our key", base + "title: c\nx-tenantwatch-correlation: {type: event_count}", "event_count is a type of Sigma"},
		{"among in Sigma's key", correlation("type: event_count\namong: b"), "correlation.among: unknown key; x-tenantwatch-correlation has it"},
		{"last_events without last", base + "title: c\nx-tenantwatch-correlation: {type: last_events, rules: b, among: b, timespan: 1m, condition: {gte: 1}}", "needs among and last"},
		{"last 0", base + "title: c\nx-tenantwatch-correlation: {type: last_events, last: 0}", "want 1 to 1000"},
		{"last 1001", base + "title: c\nx-tenantwatch-correlation: {type: last_events, last: 1001}", "want 1 to 1000"},
		{"more than last", base + "title: c\nx-tenantwatch-correlation: {type: last_events, rules: b, among: b, last: 5, timespan: 1m, condition: {gte: 6}}", "it can never hold for the last 5"},
		{"last_events kept firing", base + "title: c\nx-tenantwatch-correlation: {type: last_events, rules: b, among: b, last: 5, timespan: 1m, condition: {gte: 3}}\nx-tenantwatch-alert: {keep_firing_for: 5m}", "last_events resolves as soon as its condition is false"},
		{"no rules", correlation("type: event_count\ntimespan: 5m\ncondition: {gte: 2}"), "correlation.rules is missing"},
		{"no timespan", correlation("type: event_count\nrules: b\ncondition: {gte: 2}"), "correlation.timespan is missing"},
		{"no threshold", correlation(counting), "correlation.condition is missing"},
		{"timespan 0", correlation("type: event_count\nrules: b\ntimespan: 0m"), "correlation.timespan: want more than 0"},
		{"timespan without unit", correlation("type: event_count\nrules: b\ntimespan: 5"), `correlation.timespan: "5": want a number`},
		{"timespan of months", correlation("type: event_count\nrules: b\ntimespan: 1M"), `correlation.timespan: "1M"`},
		{"negative timespan", correlation("type: event_count\nrules: b\ntimespan: -5m"), `correlation.timespan: "-5m"`},
		{"long timespan", correlation("type: event_count\nrules: b\ntimespan: 4000000000w"), "correlation.timespan"},
		{"aliases in a list", correlation("type: event_count\naliases: [a]"), "correlation.aliases: want a map"},
		{"alias of nothing", correlation("type: event_count\naliases: {a: {b: ''}}"), "correlation.aliases: a.b: want the name of a field"},
		{"alias of the unknown", correlation(counting + "aliases: {a: {x: y}}\ncondition: {gte: 2}"), `correlation.aliases.a: "x" is not among the correlation's rules`},
		{"unknown key", correlation("type: event_count\nwindow: 5m"), "rule.yml:18: correlation.window: unknown key"},
		{"words", correlation(counting + "condition: b and b"), "a condition in words is only for temporal and temporal_ordered"},
		{"words of the unknown", correlation("type: temporal\nrules: b\ntimespan: 5m\ncondition: b and x"), `"x" is not among the correlation's rules`},
		{"words without a rule", correlation("type: temporal\nrules: [b, x]\ntimespan: 5m\ncondition: b"), `does not mention the rule "x"`},
		{"nothing to be seen", correlation("type: temporal\nrules: [b]\ntimespan: 5m\ncondition: not b"), "requires no rule to match"},
		{"broken words", correlation("type: temporal\nrules: [b]\ntimespan: 5m\ncondition: b and"), "unexpected end"},
		{"order with or", correlation("type: temporal_ordered\nrules: [b, x]\ntimespan: 5m\ncondition: b or x"), "an order with or in it"},
		{"bounds that exclude each other", correlation(counting + "condition: {gt: 2, lt: 3}"), "no value satisfies all bounds"},
		{"no bound", correlation(counting + "condition: {}"), "want gt, gte, lt, lte, eq or neq"},
		{"negative bound", correlation(counting + "condition: {gte: -1}"), `gte: want a whole number, not "-1"`},
		{"half a bound", correlation(counting + "condition: {gte: 1.5}"), `gte: want a whole number, not "1.5"`},
		{"huge bound", correlation(counting + "condition: {gte: 9223372036854775807}"), "want a whole number"},
		{"unknown condition", correlation(counting + "condition: {ge: 1}"), `unknown key "ge"`},
		{"value_count of nothing", correlation("type: value_count\nrules: b\ntimespan: 5m\ncondition: {gte: 2}"), "value_count needs field"},
		{"value_count of an empty name", correlation("type: value_count\nrules: b\ntimespan: 5m\ncondition: {gte: 2, field: ''}"), "a field has no name"},
		{"unknown rule", correlation("type: event_count\nrules: [b, nope]\ntimespan: 5m\ncondition: {gte: 2}"), `correlation refers to "nope", but no rule has that id or name`},
		{"of itself", correlation("type: event_count\nrules: c\ntimespan: 5m\ncondition: {gte: 2}"), `correlation refers to "c", but no rule has that id or name`},
		{"in a circle", correlation("type: event_count\nrules: d\ntimespan: 5m\ncondition: {gte: 2}") + "\n---\ntitle: d\nid: d\ncorrelation: {type: event_count, rules: c, timespan: 5m, condition: {gte: 2}}", `refers to "d"`},
		{"too deep a chain", correlation(counting+"condition: {gte: 2}") + chain(11), "more than 10 one above the other"},
		{"last_events of a correlation", correlation(counting+"condition: {gte: 2}") + "\n---\ntitle: d\nid: d\nx-tenantwatch-correlation: {type: last_events, rules: c, among: b, last: 5, timespan: 1m, condition: {gte: 3}}", "counting anything but events is not supported"},
		{"group-by twice", correlation(counting+"condition: {gte: 2}") + "\nx-tenantwatch-alert: {group-by: ip}", "a correlation has its own group-by"},
		{"resolve above threshold", correlation(counting+"condition: {gte: 2}") + "\nx-tenantwatch-alert: {resolve_below: 3}", "resolve_below: 3 is above the threshold 2"},
		{"resolve_below of a range", correlation(counting+"condition: {gte: 2, lt: 9}") + "\nx-tenantwatch-alert: {resolve_below: 1}", "only a count with a single lower bound can have it"},
		{"levels of an upper bound", correlation(counting+"condition: {lt: 9}") + "\nx-tenantwatch-alert: {levels: {high: 10}}", "not a lower bound that could be raised"},
		{"level below the threshold", correlation(counting+"condition: {gte: 5}") + "\nx-tenantwatch-alert: {levels: {high: 5}}", "high from 5 does not come after medium from 5"},
		{"level that falls", correlation(counting+"condition: {gte: 5}") + "\nx-tenantwatch-alert: {levels: {low: 9}}", "low from 9 does not come after medium from 5"},
		{"unknown higher level", correlation(counting+"condition: {gte: 5}") + "\nx-tenantwatch-alert: {levels: {worse: 9}}", `unknown level "worse"`},
		{"count of a level", correlation(counting+"condition: {gte: 5}") + "\nx-tenantwatch-alert: {levels: {high: many}}", "x-tenantwatch-alert.levels"},

		{"filter of nothing", "title: f\nfilter:\n  s: {a: 1}\n  condition: not s", "rule.yml:3: filter.rules is missing"},
		{"filter without condition", base + "title: f\nfilter:\n  rules: b\n  s: {a: 1}", "detection has no condition"},
		{"filter of the unknown", "title: f\nfilter:\n  rules: nope\n  s: {a: 1}\n  condition: not s", `filter refers to "nope", but no rule has that id or name`},
		{"filter of a correlation", correlation(counting+"condition: {gte: 2}") + "\n---\ntitle: f\nfilter:\n  rules: c\n  s: {a: 1}\n  condition: not s", "a filter of correlations is not supported"},
		{"filter of another source", base + "title: f\nlogsource: {product: auth0, service: x}\nfilter:\n  rules: b\n  s: {a: 1}\n  condition: not s", `"b" is a rule for another log source`},
		{"filter without title", "filter:\n  rules: any\n  s: {a: 1}\n  condition: not s", "title is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, report := rules.Load(vars, source(tt.text))
			i := slices.IndexFunc(report.Documents, func(d rules.Document) bool { return d.Status == rules.StatusRefused })
			if i < 0 {
				t.Fatalf("nothing is refused in\n%s", tt.text)
			}
			d := report.Documents[i]
			if !strings.Contains(d.Reason, tt.want) || len(d.Reason) > 1010 {
				t.Errorf("reason is %q, want %q", d.Reason, tt.want)
			}
			if !strings.HasPrefix(d.Reason, "rule.yml:") || d.File != "rule.yml" || d.Line == 0 {
				t.Errorf("no place: %+v", d)
			}
			for _, r := range set.Rules() {
				if r.ID == d.ID {
					t.Errorf("%s is refused and among the rules", d.ID)
				}
			}
			if len(set.Rules()) > 0 && !strings.Contains(tt.text, "---") {
				t.Errorf("%d rules of a refused file", len(set.Rules()))
			}
			set.Matcher().Match([]byte(`{"type":"fp","a":1}`))
		})
	}
}

// TestRefusedCorrelation keeps its detection from alerting alone, and from being
// run for nothing.
func TestRefusedCorrelation(t *testing.T) {
	set, report := rules.Load(nil, source(correlation("type: value_median\nrules: b\ntimespan: 5m")))
	if len(set.Rules()) != 0 {
		t.Errorf("%d rules", len(set.Rules()))
	}
	if report.Count(rules.StatusDisabled) != 1 || report.Documents[0].Reason != "it only serves a correlation that does not run" {
		t.Errorf("got %+v", report.Documents)
	}
	set, report = rules.Load(nil, source(strings.Replace(correlation(counting+"condition: {gte: 2}"), "type: fp", "type|like: fp", 1)))
	if len(set.Rules()) != 0 || report.Count(rules.StatusRefused) != 2 || !strings.Contains(report.Documents[1].Reason, `rule.yml:17: correlation refers to "b": rule.yml:11: condition "s": s: line 10: type|like: unknown modifier "like"`) {
		t.Errorf("got %+v", report.Documents)
	}
}

func TestDisabled(t *testing.T) {
	text := strings.Replace(correlation(counting+"condition: {gte: 2}"), "type: fp", `type: [fp, '{z}', '{a}']`, 1)
	set, report := rules.Load(nil, source(text))
	if len(set.Rules()) != 0 || report.Count(rules.StatusDisabled, rules.StatusWaiting) != 2 {
		t.Fatalf("got %+v", report.Documents)
	}
	if got := report.Documents[0].Reason; got != "set the variables a, z" {
		t.Errorf("reason of the detection is %q", got)
	}
	if got := report.Documents[1].Reason; got != `rule.yml:17: correlation refers to "b": set the variables a, z` {
		t.Errorf("reason of the correlation is %q", got)
	}
	_, d := only(t, rules.Vars{"a": {}}, item("a: ['{a}', '{b}']"))
	if d.Status != rules.StatusWaiting || d.Reason != "set the variable b" {
		t.Errorf("got %+v", d)
	}
	if set, report = rules.Load(rules.Vars{"a": {"1"}, "z": {"2"}}, source(text)); len(set.Rules()) != 2 {
		t.Errorf("got %+v", report.Documents)
	}
	filter := base + "title: f\nfilter:\n  rules: b\n  s: {ip: '{own}'}\n  condition: not s"
	if set, d = only(t, nil, filter); d.Status != rules.StatusWaiting || d.Reason != "set the variable own" || len(set.Rules()) != 1 {
		t.Errorf("got %+v", d)
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"title: t\ndetection:\n  s: {a: 1}\n  condition: s", "no id: alerts are identified by the file name"},
		{correlation(counting + "condition: {gte: 0}"), "the condition is true without any event; read as gte: 1"},
		{correlation(counting + "condition: {gte: 1}"), "the condition is true at the first event"},
		{correlation(counting + "condition: {gte: 2, field: ip}"), "event_count has no use for condition.field"},
		{item("a|re: '(?=x)y'"), "rule.yml:7: RE2 does not support the regular expression"},
		{item("a: 1") + "\n---\n" + item("a: 2"), "id rule is used by another document"},
	} {
		_, d := only(t, nil, tt.text)
		if d.Status != rules.StatusEnabled || !slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, tt.want) }) {
			t.Errorf("want %q, got %s %q", tt.want, d.Status, d.Warnings)
		}
	}
	// One warning for one expression, however often the condition has it.
	if _, d := only(t, nil, detection("s: {a|re: '(?=x)y'}\ncondition: s and 1 of them or s")); len(d.Warnings) != 1 {
		t.Errorf("got %q", d.Warnings)
	}
}

// TestFilters narrow the detections they name, or all of their log source.
func TestFilters(t *testing.T) {
	rule := func(id, source string) string {
		return "title: " + id + "\nid: " + id + "\nname: n-" + id + "\nlogsource: " + source + "\ndetection:\n  s: {a: 1}\n  condition: s\n---\n"
	}
	both := rule("r1", "{product: auth0}") + rule("r2", "{product: auth0, service: x}")
	filter := func(names, source string) string {
		return both + "title: f\nid: f\nlogsource: " + source + "\nfilter:\n  rules: " + names + "\n  own: {ip|cidr: 192.0.2.0/24}\n  condition: not own"
	}
	for _, tt := range []struct {
		name, text string
		want       []int // what still matches an event from the network
	}{
		{"by id", filter("r1", "{product: auth0}"), []int{1}},
		{"by name", filter("[n-r2]", "{product: AUTH0, definition: x}"), []int{0}},
		{"both", filter("[r1, r2]", "{}"), nil},
		{"any", filter("any", "{product: auth0}"), nil},
		{"any of a service", filter("any", "{product: auth0, service: x}"), []int{0}},
		{"any of another service", filter("any", "{service: y}"), []int{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mustLoad(t, nil, tt.text).Matcher()
			if diff := cmp.Diff(tt.want, m.Match([]byte(`{"a":1,"ip":"192.0.2.1"}`)), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff([]int{0, 1}, m.Match([]byte(`{"a":1,"ip":"198.51.100.1"}`))); diff != "" {
				t.Errorf("outside the network (-want +got):\n%s", diff)
			}
		})
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// TestReplaced gives a later source a document of the same id.
func TestReplaced(t *testing.T) {
	first := fstest.MapFS{"a.yml": file(correlation(counting + "condition: {gte: 2}")), "b.yml": file("title: other\nid: other\ndetection:\n  s: {type: s}\n  condition: s")}
	second := fstest.MapFS{"mine.yml": file("title: mine\nid: b\ndetection:\n  s: {type: mine}\n  condition: s")}
	set, report := rules.Load(nil, first, second)
	if report.Count(rules.StatusReplaced) != 1 || report.Count(rules.StatusEnabled) != 3 {
		t.Fatalf("got %+v", report.Documents)
	}
	if d := report.Documents[0]; d.Status != rules.StatusReplaced || d.Reason != "by mine.yml" {
		t.Errorf("got %+v", d)
	}
	// The correlation now counts the new detection, which alone does not alert.
	for _, r := range set.Rules() {
		switch r.ID {
		case "b":
			if r.Title != "mine" || r.Alert != nil {
				t.Errorf("got %+v", r)
			}
		case "c":
			if got := set.Rules()[r.Correlation.Sources[0].Rule]; got.Title != "mine" || !slices.Equal(r.Types, []string{"mine"}) {
				t.Errorf("the correlation counts %s, of types %v", got.Title, r.Types)
			}
		}
	}
	// A third source replaces the second.
	third := fstest.MapFS{"x.yml": file("title: third\nid: b\ndetection:\n  s: {type: x}\n  condition: s")}
	set, report = rules.Load(nil, first, second, third)
	if report.Count(rules.StatusReplaced) != 2 || !slices.ContainsFunc(set.Rules(), func(r *rules.Rule) bool { return r.Title == "third" }) {
		t.Errorf("got %+v", report.Documents)
	}
	// What replaces and is refused is not quietly the old one.
	broken := fstest.MapFS{"x.yml": file("title: broken\nid: other\ndetection:\n  s: {type|like: x}\n  condition: s")}
	set, report = rules.Load(nil, first, broken)
	if report.Count(rules.StatusRefused) != 1 || slices.ContainsFunc(set.Rules(), func(r *rules.Rule) bool { return r.ID == "other" }) {
		t.Errorf("got %+v", report.Documents)
	}
}

// TestSameID has one id in many documents of one source: no two rules end up
// with the same.
func TestSameID(t *testing.T) {
	one := item("a: 1")
	set, report := rules.Load(nil, fstest.MapFS{"a/x.yml": file(one), "b/x.yml": file(one + "\n---\n" + one), "c/x.yml": file(one), "d.yml": file(one)})
	seen := map[string]bool{}
	for _, r := range set.Rules() {
		if seen[r.ID] {
			t.Errorf("id %s is there twice", r.ID)
		}
		seen[r.ID] = true
	}
	if len(set.Rules()) != 5 || !seen["rule"] || !seen["rule@x.yml"] || !seen["rule@d.yml"] {
		t.Errorf("got %v, %+v", seen, report.Documents)
	}
}

// TestReferences are found in the same file first: the files of a catalog repeat
// names.
func TestReferences(t *testing.T) {
	text := func(typ string) string {
		return "title: d\nid: " + typ + "\nname: selected\ndetection:\n  s: {type: " + typ + "}\n  condition: s\n---\ntitle: c\ncorrelation: {type: event_count, rules: selected, timespan: 5m, condition: {gte: 2}}"
	}
	set, report := rules.Load(nil, fstest.MapFS{"a.yml": file(text("x")), "b.yml": file(text("y")),
		"c.yml": file("title: elsewhere\nid: e\ncorrelation: {type: event_count, rules: y, timespan: 5m, condition: {gte: 2}}")})
	got := map[string][]string{}
	for _, r := range set.Rules() {
		if r.Correlation != nil {
			got[r.ID] = r.Types
		}
	}
	if diff := cmp.Diff(map[string][]string{"x#1": {"x"}, "y#1": {"y"}, "e": {"y"}}, got); diff != "" {
		t.Errorf("%+v\n-want +got\n%s", report.Documents, diff)
	}
}

// TestFiles is which files are read.
func TestFiles(t *testing.T) {
	rule := func(id string) *fstest.MapFile { return file(strings.ReplaceAll(item("a: 1"), "id: rule", "id: "+id)) }
	set, report := rules.Load(nil, fstest.MapFS{"a.yml": rule("a"), "b.yaml": rule("b"), "deep/er/c.yml": rule("c"),
		"a.test.yml": rule("t1"), "b.test.yaml": rule("t2"), "deep/c.test.yml": file("["), "README.md": file("["), "d.yml.bak": rule("d"), "e.json": file("{}"), ".hidden.yml": rule("h"), "..data/a.yml": rule("a"),
		"empty.yml": file(""), "comment.yml": file("# nothing\n---\n---\n# nothing\n"), "broken.yml": file("title: ok\nid: before\ndetection:\n  s: {a: 1}\n  condition: s\n---\na: [\n")})
	var got []string
	for _, r := range set.Rules() {
		got = append(got, r.ID)
	}
	if diff := cmp.Diff([]string{"a", "b", "before", "c"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if report.Count(rules.StatusRefused) != 1 || report.Documents[0].File != "broken.yml" || report.Documents[0].Line == 0 {
		t.Errorf("got %+v", report.Documents)
	}
}

func TestEmpty(t *testing.T) {
	for _, set := range []*rules.Set{first(rules.Load(nil)), first(rules.Load(nil, fstest.MapFS{}))} {
		if got := set.Matcher().Match([]byte(`{"type":"s"}`)); len(got) != 0 || len(set.Rules()) != 0 {
			t.Errorf("got %v", got)
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

func TestCompareLevels(t *testing.T) {
	list := []string{"critical", "low", "", "high", "informational", "medium"}
	slices.SortStableFunc(list, rules.CompareLevels)
	if diff := cmp.Diff([]string{"", "informational", "low", "medium", "high", "critical"}, list); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
