package lint_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/rules/lint"
)

const (
	catalogDir = "../../../shared/data/auth0-detections" // Auth0's detection catalog, unchanged, beside the repository
	mannerDir  = "../testdata/catalog"                   // rules in its manner
)

// catalogVars sets what the catalog asks its reader for.
var catalogVars = rules.Vars{
	"global_client_id": {"dashboard"}, "api_explorer_client_id": {"explorer"}, "your-tenant-url": {"t.auth0.com"},
	"your-tenant-domain": {"t.eu.auth0.com"}, "trusted-client_id-1": {"trusted1"}, "trusted-client_id-2": {"trusted2"},
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// linted are the findings of one rule file, a line each.
func linted(t *testing.T, files fstest.MapFS) []string {
	t.Helper()
	var got []string
	for _, f := range lint.Run(rules.Settings{}, files) {
		got = append(got, fmt.Sprintf("%s %s %s:%d %s: %s", f.Severity, f.Check, f.File, f.Line, f.ID, f.Text))
	}
	return got
}

// TestLint is what is found, and where.
func TestLint(t *testing.T) {
	const texts = "level: low\ndescription: d\nfalsepositives: [none]\n"
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "title: t\nid: a\n" + texts + "tags: [attack.t1110.004, attack.initial-access, tenantwatch.x]\ndetection:\n  s: {type: [fp, 'limit_*', tenantwatch_probe]}\n  condition: s\n", nil},
		{"refused", "title: t\nid: a\n" + texts + "detection:\n  s:\n    a|like: b\n  condition: s\n", []string{
			`error load rule.yml:9 a: condition "s": s: line 8: a|like: unknown modifier "like"`}},
		{"not YAML", "title: t\n  a: b\n", []string{"error load rule.yml:2 : yaml: line 2: mapping values are not allowed in this context"}},
		{"waiting", "title: t\nid: a\n" + texts + "detection:\n  s: {a: '{x}'}\n  condition: s\n", []string{"info load rule.yml:1 a: it does not run: set the variable x"}},
		{"a warning with a line", "title: t\nid: a\n" + texts + "detection:\n  s:\n    a|re: '(?!x)'\n  condition: s\n", []string{
			"warning load rule.yml:8 a: RE2 does not support the regular expression, so it backtracks, for at most 50ms an event"}},
		{"no id", "title: t\n" + texts + "detection:\n  s: {a: b}\n  condition: s\n", []string{"warning load rule.yml:1 rule.yml#0: no id: alerts are identified by the file name, and change when it does"}},
		{"types", "title: t\nid: a\n" + texts + "detection:\n  s:\n    data.type: [gd_send_smss, fapi, xyzzyx, FP]\n  t:\n    type|startswith: nothing_\n  u:\n    type|re: xx\n  condition: s or t or u\n", []string{
			"info type rule.yml:8 a: Auth0 no longer emits events of the type fapi",
			"warning type rule.yml:8 a: unknown event type gd_send_smss; did you mean gd_send_sms?",
			"warning type rule.yml:8 a: unknown event type xyzzyx",
			"warning type rule.yml:10 a: no known event type matches nothing_*"}},
		{"a retired type alone", "title: t\nid: a\n" + texts + "detection:\n  s: {type: fapi}\n  condition: s\n", []string{"warning type rule.yml:7 a: Auth0 no longer emits events of the type fapi"}},
		{"names", "title: t\nid: a\nname: n\n" + texts + "detection:\n  s: {a: b}\n  condition: s\n---\ntitle: u\nid: b\nname: n\n" + texts + "detection:\n  s: {a: b}\n  condition: s\n", []string{
			"warning name rule.yml:13 b: rule.yml:1 also has the name n: references from other files mean that one"}},
		{"tags", "title: t\nid: a\n" + texts + "tags: [attack.t110, attack.Credential_Access, Nonsense, attack.t1110.4]\ndetection:\n  s: {a: b}\n  condition: s\n", []string{
			"warning tag rule.yml:6 a: the tag attack.t110 is neither a technique, such as attack.t1110 or attack.t1110.004, nor a tactic, such as attack.credential-access",
			"warning tag rule.yml:6 a: the tag attack.Credential_Access should be attack.credential-access",
			`warning tag rule.yml:6 a: the tag "Nonsense" does not have Sigma's form, namespace.name in lower case`,
			"warning tag rule.yml:6 a: the tag attack.t1110.4 is neither a technique, such as attack.t1110 or attack.t1110.004, nor a tactic, such as attack.credential-access"}},
		{"texts", "title: t\nid: a\ndetection:\n  s: {a: b}\n  condition: s\n", []string{"info text rule.yml:1 a: it has no level (default medium), no description, no falsepositives"}},
		{"texts of what is counted", "title: t\nid: a\nname: x\n" + texts + "detection:\n  s: {a: b}\n  condition: s\n---\ntitle: c\nid: c\ncorrelation:\n  type: event_count\n  rules: [x]\n  timespan: 7d\n  condition: {gte: 2}\n", nil},
		{"true at once", "title: t\nid: a\nname: x\n" + texts + "detection:\n  s: {a: b}\n  condition: s\n---\ntitle: c\nid: c\ncorrelation:\n  type: event_count\n  rules: [x]\n  timespan: 7m\n  condition: {gte: 1}\n", []string{
			"warning load rule.yml:11 c: the condition is true at the first event"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := linted(t, fstest.MapFS{"rule.yml": file(tt.text), "rule.test.yml": file("[]")})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestLintFiles is what is found of files that lie beside each other.
func TestLintFiles(t *testing.T) {
	const rule = "title: t\nid: %s\nlevel: low\ndescription: d\nfalsepositives: [none]\nlogsource: {product: auth0}\ndetection:\n  s: {type: fp}\n  condition: s\n"
	const filter = "title: f\nid: f\nlogsource: {product: auth0}\nfilter:\n  rules: any\n  s: {type: seccfx}\n  condition: not s\n"
	got := linted(t, fstest.MapFS{"a.yml": file(fmt.Sprintf(rule, "a")), "b.yml": file(fmt.Sprintf(rule, "b")), "b.test.yml": file("[]"), "c.yml": file(filter),
		"d.yml": file(fmt.Sprintf(rule, "a")), "d.test.yml": file("[]"), "x.overlay.yml": file("rules:\n  none: {level: low}\n")})
	want := []string{
		"warning load x.overlay.yml:2 : no rule has the id none",
		"info test a.yml:1 a: it has no timeline test beside it",
		"warning type c.yml:6 a: unknown event type seccfx; did you mean seccft?",
		"warning load d.yml:1 a@d.yml: id a is used by another document; the file name is added",
	}
	slices.Sort(want)
	for i := range got { // found once for each rule of the filter
		got[i] = strings.Replace(got[i], "c.yml:6 b:", "c.yml:6 a:", 1)
		got[i] = strings.Replace(got[i], "c.yml:6 a@d.yml:", "c.yml:6 a:", 1)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestCaps is what Auth0's limits keep out of reach.
func TestCaps(t *testing.T) {
	const detections = `title: %[1]s
id: %[1]s
name: %[1]s
level: low
description: d
falsepositives: [none]
detection:
  s: {%[2]s}
  condition: s
---
`
	var all strings.Builder
	for name, test := range map[string]string{"sms": "type: gd_send_sms", "voice": "type: gd_send_voice", "push": "type: gd_send_pn", "failed": "type: [fp, fu]", "other": "type: [fp, f]",
		"signup": "type: ss", "dcr": "type: sapi, description: Dynamic client registration", "sapi": "type: sapi", "limit": "type: api_limit", "leak": "type: pwd_leak", "any": "ip: x", "wild": "type: 'gd_send_*'"} {
		fmt.Fprintf(&all, detections, name, test)
	}
	for _, tt := range []struct {
		correlation string
		want        string // of the finding: severity and line; and a part of its text
		part        string
	}{
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 10}", "", ""},
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 11}", "error 8", "the threshold can never be reached: 11 in 1h; Auth0 allows 10 at most: text messages and calls for MFA: 10 an hour to a user"},
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gt: 10}", "error 8", "11 in 1h"},
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {eq: 11}", "error 8", "11 in 1h"},
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 10, neq: 10}", "error 8", "11 in 1h"},
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {lt: 100}", "", ""},
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 61m\n  condition: {gte: 11}", "", ""},
		{"rules: [sms]\n  group-by: [user_name, client_id]\n  timespan: 1d\n  condition: {gte: 34}", "error 8", "34 in 1d; Auth0 allows 33"},
		{"rules: [sms]\n  group-by: [ip]\n  timespan: 1h\n  condition: {gte: 1000}", "", ""},
		{"rules: [sms]\n  timespan: 1h\n  condition: {gte: 1000}", "", ""},
		{"rules: [sms, voice]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 20}", "", ""},
		{"rules: [sms, voice]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 21}", "error 8", "Auth0 allows 20"},
		{"rules: [sms, any]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 21}", "", ""},
		{"rules: [wild]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 21}", "", ""},
		{"rules: [push]\n  group-by: [user_id]\n  timespan: 5m\n  condition: {gte: 29}", "", ""},
		{"rules: [push]\n  group-by: [user_id]\n  timespan: 5m\n  condition: {gte: 30}", "error 8", "30 in 5m; Auth0 allows 29"},
		{"rules: [failed]\n  group-by: [ip, user_name]\n  timespan: 10m\n  condition: {gte: 10}", "", ""},
		{"rules: [failed]\n  group-by: [ip, user_name]\n  timespan: 10m\n  condition: {gte: 11}", "warning 8", "can only be reached if this limit does not apply: 11 in 10m; Auth0 allows 10 at most: brute-force protection"},
		{"rules: [failed]\n  group-by: [ip, user_name]\n  timespan: 10m\n  condition: {gte: 220}", "error 8", "Auth0 allows 219 at most: logins of one user"},
		{"rules: [failed]\n  group-by: [ip]\n  timespan: 10m\n  condition: {gte: 100}", "", ""},
		{"rules: [failed]\n  group-by: [ip]\n  timespan: 10m\n  condition: {gte: 101}", "warning 8", "suspicious IP throttling of logins"},
		{"rules: [other]\n  group-by: [ip]\n  timespan: 10m\n  condition: {gte: 101}", "", ""},
		{"rules: [failed, signup]\n  group-by: [ip]\n  timespan: 1m\n  condition: {gte: 200}", "warning 8", "Auth0 allows 199 at most: suspicious IP throttling of logins"},
		{"rules: [dcr]\n  timespan: 1s\n  condition: {gte: 10}", "error 7", "dynamic client registration"},
		{"rules: [sapi]\n  timespan: 1s\n  condition: {gte: 10}", "", ""},
		{"rules: [limit]\n  group-by: [details.limit.bucket]\n  timespan: 1m\n  condition: {gte: 2}", "warning 8", "notices of a rate limit"},
		{"rules: [limit]\n  timespan: 1m\n  condition: {gte: 2}", "", ""},
		{"rules: [leak]\n  group-by: [ip]\n  timespan: 1h\n  condition: {gte: 2}", "warning 8", "notices of leaked passwords"},
		{"rules: [sms]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 5}\nx-tenantwatch-alert:\n  levels: {high: 10, critical: 12}", "error 10", "the level critical can never be reached: 12 in 1h"},
		{"rules: [failed]\n  group-by: [to]\n  aliases: {to: {failed: user_name}}\n  timespan: 1h\n  condition: {gte: 5000}", "", ""},
		{"rules: [push]\n  group-by: [to]\n  aliases: {to: {push: user_id}}\n  timespan: 1m\n  condition: {gte: 10}", "error 9", "Auth0 allows 9"},
	} {
		text := "title: c\nid: c\ncorrelation:\n  type: event_count\n  " + tt.correlation + "\n"
		files := fstest.MapFS{"a.yml": file(all.String()), "c.yml": file(text), "c.test.yml": file("[]")}
		var got []lint.Finding
		for _, f := range lint.Run(rules.Settings{}, files) {
			if f.Check == "cap" {
				got = append(got, f)
			}
		}
		if tt.want == "" {
			if len(got) > 0 {
				t.Errorf("%s\n%+v", tt.correlation, got)
			}
			continue
		}
		if len(got) != 1 || fmt.Sprintf("%s %d", got[0].Severity, got[0].Line) != tt.want || !strings.Contains(got[0].Text, tt.part) || got[0].File != "c.yml" {
			t.Errorf("%s\n%+v\nwant %s: %s", tt.correlation, got, tt.want, tt.part)
		}
		valued := strings.Replace(strings.Replace(text, "event_count", "value_count", 1), "condition: {", "condition: {field: client_id, ", 1)
		files["c.yml"] = file(valued)
		if !slices.ContainsFunc(lint.Run(rules.Settings{}, files), func(f lint.Finding) bool { return f.Check == "cap" && f.Text == got[0].Text }) {
			t.Errorf("%s is not found", valued)
		}
	}

	// What an overlay sets is found in the overlay; a chain has the cap of its events.
	files := fstest.MapFS{"a.yml": file(fmt.Sprintf(detections, "sms", "type: gd_send_sms")),
		"x.overlay.yml": file("rules:\n  sms:\n    correlation:\n      type: event_count\n      group-by: [user_id]\n      timespan: 1h\n      condition: {gte: 11}\n")}
	if got := lint.Run(rules.Settings{}, files); !slices.ContainsFunc(got, func(f lint.Finding) bool {
		return f.Severity == lint.SeverityError && f.Check == "cap" && f.File == "x.overlay.yml" && f.Line == 7 && f.ID == "sms#1"
	}) {
		t.Errorf("%+v", got)
	}
	files = fstest.MapFS{"a.yml": file(fmt.Sprintf(detections, "sms", "type: gd_send_sms") + "title: in\nid: in\nname: in\ncorrelation: {type: event_count, rules: [sms], group-by: [ip], timespan: 1h, condition: {gte: 2}}\n" +
		"---\ntitle: out\nid: out\ncorrelation:\n  type: event_count\n  rules: [in]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 11}\n")}
	if got := lint.Run(rules.Settings{}, files); !slices.ContainsFunc(got, func(f lint.Finding) bool {
		return f.Severity == lint.SeverityError && f.Check == "cap" && f.ID == "out"
	}) {
		t.Errorf("%+v", got)
	}
}

// TestLintShipped finds nothing wrong with what we ship, nor with the catalog as we
// have tuned it.
func TestLintShipped(t *testing.T) {
	for _, f := range lint.Run(rules.Settings{}, builtin.FS()) {
		if f.Severity != lint.SeverityInfo || f.Check != "type" {
			t.Errorf("%+v", f)
		}
	}
	if _, err := os.Stat(catalogDir); err != nil {
		t.Skipf("not proven: that there are no errors in Auth0's catalog itself; rules in its manner are tested (TestMannerLint): %v", err)
	}
	for _, list := range [][]lint.Finding{lint.Run(rules.Settings{Vars: catalogVars}, os.DirFS(catalogDir)), lint.Run(rules.Settings{Vars: catalogVars}, builtin.FS(), os.DirFS(catalogDir))} {
		for _, f := range list {
			if f.Severity == lint.SeverityError {
				t.Errorf("%+v", f)
			}
		}
	}
}

// TestSeverities orders them.
func TestSeverities(t *testing.T) {
	if !lint.SeverityError.AtLeast(lint.SeverityWarning) || !lint.SeverityWarning.AtLeast(lint.SeverityWarning) || lint.SeverityInfo.AtLeast(lint.SeverityWarning) || lint.SeverityWarning.AtLeast(lint.SeverityError) {
		t.Error("severities are out of order")
	}
}

// TestMannerLint finds nothing worse than warnings, as they are and as our overlay tunes
// them.
func TestMannerLint(t *testing.T) {
	settings := rules.Settings{Vars: catalogVars}
	for _, f := range append(lint.Run(settings, os.DirFS(mannerDir)), lint.Run(settings, builtin.FS(), os.DirFS(mannerDir))...) {
		if f.Severity == lint.SeverityError {
			t.Errorf("%+v", f)
		}
	}
}
