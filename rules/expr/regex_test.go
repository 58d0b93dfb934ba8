package expr_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// loaded are rules, each with one search identifier, and a matcher of them.
func loaded(t testing.TB, items ...string) (*rules.Set, *expr.Matcher) {
	t.Helper()
	var text strings.Builder
	for i, item := range items {
		if !strings.HasPrefix(item, "{") {
			item = "\n    " + item
		}
		fmt.Fprintf(&text, "title: r%d\nid: r%d\nlevel: low\nlogsource: {product: auth0}\ndetection:\n  s: %s\n  condition: s\n---\n", i, i, item)
	}
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text.String())}})
	for _, d := range report.Documents {
		if !d.Runs() {
			t.Fatalf("%s: %s", d.Status, d.Reason)
		}
	}
	return set, set.Matcher()
}

// TestOneMeaning has an expression that backtracks mean what RE2 makes of it. The
// lookahead in front says nothing; it is what RE2 does not have.
func TestOneMeaning(t *testing.T) {
	const nothing = `(?!~)`
	for _, re := range []string{`a$`, `^a$`, `^a\z`, `\d`, `^\d+$`, `\D`, `\w`, `^\w+$`, `\W`, `\s`, `\S$`, `[\d]`, `[^\d]`, `[\w-]+$`, `[\s]`, `\bb`, `\Bb`, `b\b`, `b\B`, `^\b`, `^\B$`, `[[:alpha:]]$`,
		`(?i)K`, `(?i)straße`, `.`, `^.$`, `(?s)^.$`, `(?m)a$`, `(?m)^b`, `\.`, `\_`, `a|b$`, `[^a]$`, `\x41`, `\t`, `(?:a)$`, `[\]b]$`, `\\b`} {
		_, fast := loaded(t, "a|re: '"+re+"'")
		set, slow := loaded(t, "a|re: '"+nothing+re+"'")
		if _, ok := set.Rules()[0].Match.Leaf.(*expr.Test).Checks[0].(expr.Backtracking); !ok {
			t.Fatalf("%s does not backtrack", nothing+re)
		}
		for _, text := range []string{``, `a`, `a\n`, `a\n\n`, `a\nb`, `b`, `ab`, `é`, `ab é b`, `٣`, `3`, `a3`, ` `, ` `, ` `, `\n`, `\r`, `K`, `k`, `STRASSE`, `Straße`, `STRAßE`, `-`, `_`, `.`, `\t`, `A`, `\\b`, `]`, `éb`, `bé`, `b_`} {
			event := []byte(`{"a":"` + text + `"}`)
			if a, b := len(fast.Match(event)), len(slow.Match(event)); a != b {
				t.Errorf("%s of %s: RE2 says %d, the other engine %d", re, event, a, b)
			}
		}
	}
}

// TestBacktrackingBudget gives all expressions that backtrack one budget for an event:
// when a text that takes for ever has used it up, what comes after is not tried, and the
// next event has a budget again.
func TestBacktrackingBudget(t *testing.T) {
	set, m := loaded(t, `a|re: '^(?!~)(b+b+)+$'`, `a: fine`, `c|re: '(?!~)d'`)
	forever := strings.Repeat("b", 60) + "!"
	event := []byte(`{"a":["` + forever + `","bb","fine"],"c":"d"}`)
	if got := m.Match(event); len(got) != 1 || got[0] != 1 {
		t.Errorf("matches %v, want only the rule without an expression", got)
	}
	if m.Timeouts() != 4 {
		t.Errorf("%d expressions were given up, want 4", m.Timeouts())
	}
	if got := m.Match([]byte(`{"a":["bb","fine"],"c":"d"}`)); len(got) != 3 || m.Timeouts() != 4 {
		t.Errorf("the next event matches %v, %d given up", got, m.Timeouts())
	}
	if e := m.Explain(event, set.Rules()[0].Match); e.Holds || e.Note == "" {
		t.Errorf("explained as %+v", e)
	}
}

// TestRE2Budget bounds what expressions in RE2 may take of one event, by their size and
// the length of the texts.
func TestRE2Budget(t *testing.T) {
	set, m := loaded(t, `a|re: '(xy?){0,700}z'`, `a|contains: yes`)
	size := set.Rules()[0].Match.Leaf.(*expr.Test).Checks[0].(expr.Regex).Size()
	if size < 1000 || size > expr.MaxInstructions {
		t.Fatalf("a program of %d instructions", size)
	}
	fits := strings.Repeat("-", expr.MaxSteps/size-10)
	for _, tt := range []struct {
		event  string
		want   int
		giveUp uint64
	}{
		{`{"a":"` + fits + `z yes"}`, 2, 0},
		{`{"a":"` + fits + fits + `z yes"}`, 1, 1},
		{`{"a":["` + fits + `","` + fits + `","z yes"]}`, 1, 3},
		{`{"a":"z yes"}`, 2, 3},
	} {
		if got := len(m.Match([]byte(tt.event))); got != tt.want || m.Timeouts() != tt.giveUp {
			t.Errorf("%.20s… of %d bytes: %d rules, %d given up; want %d, %d", tt.event, len(tt.event), got, m.Timeouts(), tt.want, tt.giveUp)
		}
	}
}
