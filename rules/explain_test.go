package rules_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// holdsAsMatch holds the verdict of every detection's tree, and how each node
// comes from its parts, against what Match says of an event.
func holdsAsMatch(t *testing.T, set *rules.Set, m, explainer *expr.Matcher, event []byte) (matches int) {
	t.Helper()
	got := slices.Clone(m.Match(event))
	for i, r := range set.Rules() {
		e := explainer.Explain(event, r.Match)
		if r.Correlation != nil {
			if e != nil {
				t.Errorf("a correlation has a tree: %+v", e)
			}
			continue
		}
		if want := slices.Contains(got, i); e.Holds != want {
			text, _ := json.Marshal(e)
			t.Fatalf("%s of %s: the tree says %v, Match says %v\n%s", r.ID, event, e.Holds, want, text)
		}
		if (e.Why() == "") != e.Holds || !sound(e) {
			t.Fatalf("%s of %s: %q, %+v", r.ID, event, e.Why(), e)
		}
	}
	return len(got)
}

// sound reports whether each node follows from its parts.
func sound(e *expr.Explanation) bool {
	all, some := true, false
	for _, p := range e.Parts {
		if !sound(p) {
			return false
		}
		all, some = all && p.Holds, some || p.Holds
	}
	switch e.Op {
	case expr.OpAnd:
		return e.Holds == all && len(e.Parts) > 0
	case expr.OpOr:
		return e.Holds == some && len(e.Parts) > 0
	case expr.OpNot:
		return e.Holds != some && len(e.Parts) == 1
	case expr.OpField:
		return e.Parts == nil && e.Line > 0 && (e.Found == expr.FoundValues) == (len(e.Actual) > 0)
	case expr.OpKeyword:
		return e.Parts == nil && e.Line > 0 && e.Holds == (len(e.Actual) > 0)
	}
	return false
}

// randomEvent has at the fields of a set's rules what those ask for, or nearly so.
func randomEvent(r *rand.Rand, leaves []*expr.Explanation) []byte {
	event := map[string]any{}
	for range 1 + r.IntN(8) {
		leaf := leaves[r.IntN(len(leaves))]
		value := func() any {
			switch r.IntN(8) {
			case 0:
				return nil
			case 1:
				return r.IntN(300)
			case 2:
				return map[string]any{"a": "x"}
			}
			if len(leaf.Expected) == 0 {
				return "needle"
			}
			v := leaf.Expected[r.IntN(len(leaf.Expected))]
			if v.Quoted {
				text := strings.ReplaceAll(v.Text, "*", "xy")
				return []string{text, strings.ToUpper(text), "-" + text, text + "-"}[r.IntN(4)]
			}
			return json.RawMessage(v.Text)
		}
		var put any = value()
		if r.IntN(4) == 0 {
			put = []any{value(), value(), []any{value()}}
		}
		steps := strings.Split(leaf.Field, ".")
		if r.IntN(8) == 0 {
			steps = []string{leaf.Field} // a key with dots
		}
		at := event
		for _, step := range steps[:len(steps)-1] {
			next, ok := at[step].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[step] = next
			}
			at = next
		}
		at[steps[len(steps)-1]] = put
	}
	var whole any = event
	if r.IntN(4) == 0 {
		whole = map[string]any{"log_id": "1", "data": event}
	}
	raw, err := json.Marshal(whole)
	if err != nil {
		panic(err)
	}
	if r.IntN(20) == 0 {
		raw = raw[:r.IntN(len(raw))]
	}
	return raw
}

// leavesOf are the tests of all detections.
func leavesOf(set *rules.Set) (list []*expr.Explanation) {
	m := set.Matcher()
	var walk func(e *expr.Explanation)
	walk = func(e *expr.Explanation) {
		if e.Parts == nil {
			list = append(list, e)
		}
		for _, p := range e.Parts {
			walk(p)
		}
	}
	for _, r := range set.Rules() {
		if r.Correlation == nil {
			walk(m.Explain([]byte(`{}`), r.Match))
		}
	}
	return list
}

// TestExplainAgreesWithMatch runs random events over rules of every kind, those
// that we ship and Auth0's.
func TestExplainAgreesWithMatch(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	var texts []string
	for i, n := range naive {
		texts = append(texts, strings.Replace(n.rule, "id: rule", fmt.Sprintf("id: naive%d", i), 1))
	}
	for i, rule := range []string{
		item("a|fieldref: b"), item("a|fieldref|startswith: [b, c]"), item("a|exists: true\nb|exists: false"), item("a|re: '^(?!x)y'"),
		item("a|all: [x, null]"), item("a|neq: [x, null]"), item("a|contains|all: [x, '*y', '?']"), item("a|base64offset|contains: foo"),
		item("a|windash|contains: ' -f'"), item("d|hour|gte: 8"), item("a|cidr: 10.0.0.0/8"), item("a|expand: '%none%'"), item("'|all': [x, needle]"), item("'': [x, needle]"),
		detection("s: {type: [fp, fu]}\nfilter_a: {a: x}\nfilter_b: {b|gt: 5}\ncondition: s and not 1 of filter_*"),
		detection("s: {type: s}\nt:\n  - a: 1\n    b: 2\n  - needle\n_u: {c: null}\ncondition: [all of them, not s and _u]"),
		detection("s: {type: s}\ncondition: not (not s)"), item("type|cased: S"), item("type: 's*'"), item("a|re|i: ['x.*', '^y']"),
	} {
		texts = append(texts, strings.Replace(rule, "id: rule", fmt.Sprintf("id: more%d", i), 1))
	}
	texts = append(texts, "title: Not ours\nid: f\nlogsource: {product: auth0}\nfilter:\n  rules: [more14, more15]\n  x: {user_name|endswith: '@example.com'}\n  condition: not x")
	ours := mustLoad(t, rules.Vars{"none": {}, "x": {"a", "b"}}, strings.Join(texts, "\n---\n"))
	shipped, _ := rules.Load(catalogVars, builtin.FS())
	sets := map[string]*rules.Set{"rules of the tests": ours, "the built-in": shipped}
	if _, err := os.Stat(catalogDir); err == nil {
		sets["the catalog"], _ = rules.Load(catalogVars, os.DirFS(catalogDir))
		sets["the catalog, tuned"], _ = rules.Load(catalogVars, builtin.FS(), os.DirFS(catalogDir))
	}
	for name, set := range sets {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(len(name))))
			m, explainer, leaves := set.Matcher(), set.Matcher(), leavesOf(set)
			matches := 0
			for range 2000 {
				matches += holdsAsMatch(t, set, m, explainer, randomEvent(r, leaves))
			}
			for _, event := range []string{``, `{}`, `null`, `[1,{"x":"a Needle"}]`, `{"type":"zzz","data.type":"fp"}`, `{"type":"fp","data.type":"zzz"}`, `{"type":["s","fp"]}`,
				`{"type":null}`, `{"type":"s","a":"`, `{"a":1`, "\xff{", `{"a":"\ud800"}`, `{"data":{"type":"s"},"type":"fp"}`} {
				matches += holdsAsMatch(t, set, m, explainer, []byte(event))
			}
			if matches < 300 {
				t.Errorf("only %d matches: the test shows little", matches)
			}
		})
	}
}

// TestExplain is a tree as people see it.
func TestExplain(t *testing.T) {
	set := mustLoad(t, rules.Vars{"trusted": {"ci", "cd"}}, `title: rule
id: rule
name: r
logsource: {product: auth0}
detection:
  selection:
    data.type: [fp, fu]
    details.scope{}|contains|all: [read, delete]
  known:
    client_id: '{trusted}'
    ip: null
  condition: selection and not known
---
title: No tests
logsource: {product: auth0}
filter:
  rules: [r]
  people: {user_name|fieldref: details.name}
  condition: not people`)
	m := set.Matcher()
	got := m.Explain([]byte(`{"type":"FP","details":{"scope":["Read:x",null,7,{}],"name":["Ada","bob"]},"user_name":"bob","ip":""}`), set.Rules()[0].Match)
	str := func(list ...string) (values []expr.Value) {
		for _, text := range list {
			values = append(values, expr.Value{Text: text, Quoted: true})
		}
		return values
	}
	null := expr.Value{Text: "null"}
	const file = "rule.yml"
	want := &expr.Explanation{Op: "and", Parts: []*expr.Explanation{
		{Op: "and", Parts: []*expr.Explanation{
			{Op: "and", Search: "selection", File: file, Line: 7, Parts: []*expr.Explanation{
				{Op: "field", Holds: true, Field: "type", Expected: str("fp", "fu"), Found: "values", Actual: str("FP"), File: file, Line: 7},
				{Op: "field", Field: "details.scope", Modifiers: []string{"contains", "all"}, Expected: str("read", "delete"), Found: "values",
					Actual: append(str("Read:x"), null, expr.Value{Text: "7"}), File: file, Line: 8},
			}},
			{Op: "not", Holds: true, Parts: []*expr.Explanation{{Op: "and", Search: "known", File: file, Line: 10, Parts: []*expr.Explanation{
				{Op: "field", Field: "client_id", Expected: str("ci", "cd"), Found: "absent", File: file, Line: 10},
				{Op: "field", Field: "ip", Expected: []expr.Value{null}, Found: "values", Actual: str(""), File: file, Line: 11},
			}}}},
		}},
		{Op: "not", Filter: "No tests", Parts: []*expr.Explanation{
			{Op: "field", Holds: true, Search: "people", Field: "user_name", Modifiers: []string{"fieldref"}, Expected: str("details.name"), Found: "values",
				Actual: str("bob"), Other: str("Ada", "bob"), File: file, Line: 18},
		}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if want := `details.scope is "Read:x", null, 7, wanted is contains all "read", "delete" (rule.yml:8); user_name is "bob", the other "Ada", "bob", excluded is fieldref "details.name" (rule.yml:18)`; got.Why() != want {
		t.Errorf("got  %s\nwant %s", got.Why(), want)
	}
	text, err := json.Marshal(got.Parts[0].Parts[0].Parts[1])
	if want := `{"op":"field","holds":false,"field":"details.scope","modifiers":["contains","all"],"expected":["read","delete"],"found":"values","actual":["Read:x",null,7],"file":"rule.yml","line":8}`; err != nil || string(text) != want {
		t.Errorf("got  %s, %v\nwant %s", text, err, want)
	}
	var back expr.Explanation
	if err := json.Unmarshal(text, &back); err != nil || cmp.Diff(got.Parts[0].Parts[0].Parts[1], &back) != "" {
		t.Errorf("through JSON: %+v, %v", back, err)
	}
}

// TestExplainTimeout says that a regular expression was given up on.
func TestExplainTimeout(t *testing.T) {
	set, _ := rules.Load(nil, source(item(`a|re: '^(?=(a+)+$)(a+)+b$'`)))
	e := set.Matcher().Explain([]byte(`{"a":"`+strings.Repeat("a", 5000)+`b"}`), set.Rules()[0].Match)
	if e.Holds || !strings.Contains(e.Note, "took too long") || len([]rune(e.Got())) > 100 {
		t.Errorf("%+v", e)
	}
}

// TestExplainKeyword names the text in which a keyword is.
func TestExplainKeyword(t *testing.T) {
	set := mustLoad(t, nil, item("- needle\n- hay"))
	e := set.Matcher().Explain([]byte(`{"a":{"b":["x","a NEEDLE"]},"needle":1}`), set.Rules()[0].Match)
	if !e.Holds || len(e.Parts) != 2 || e.Parts[0].Op != expr.OpKeyword || cmp.Diff([]expr.Value{{Text: "a NEEDLE", Quoted: true}}, e.Parts[0].Actual) != "" || e.Parts[1].Holds {
		t.Errorf("%+v", e)
	}
	if got := set.Matcher().Explain([]byte(`{}`), set.Rules()[0].Match).Why(); got != `"needle" is nowhere in the event (rule.yml:7); "hay" is nowhere in the event (rule.yml:8)` {
		t.Errorf("got %s", got)
	}
}

// TestExplainKeywordVariable shows what a keyword's variable stands for.
func TestExplainKeywordVariable(t *testing.T) {
	set := mustLoad(t, rules.Vars{"x": {"needle", "hay"}}, item("- '{x}'"))
	e := set.Matcher().Explain([]byte(`{"a":"hay"}`), set.Rules()[0].Match)
	if want := []expr.Value{{Text: "needle", Quoted: true}, {Text: "hay", Quoted: true}}; !e.Holds || cmp.Diff(want, e.Expected) != "" {
		t.Errorf("%+v", e)
	}
}
