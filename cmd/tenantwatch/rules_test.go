package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scanRules is a chain: three failures from an address, then a login of a user that
// was among them.
const scanRules = `
title: Failed login
id: failed
level: low
detection:
  s: {type: [fp, fu]}
  condition: s
---
title: Login
id: login
level: low
detection:
  s: {type: s}
  condition: s
---
title: Many failed
id: many
level: medium
correlation: {type: event_count, rules: [failed], group-by: [ip], timespan: 5m, condition: {gte: 3}}
---
title: Broken into
id: into
level: high
generate: true
correlation: {type: temporal_ordered, rules: [many, login], group-by: [user_name], timespan: 10m}
---
title: Strange type
id: strange
level: informational
detection:
  s: {type: '{odd}'}
  condition: s
`

// scanEvents has them out of order, bare and in an envelope, one without an id.
func scanEvents(t *testing.T) []string {
	t.Helper()
	var list []string
	for i := range 4 {
		list = append(list, fmt.Sprintf(`{"log_id":"f%[1]d","data":{"type":"fp","ip":"203.0.113.7","user_name":"ada","date":"2026-01-01T00:0%[1]d:00.123Z"}}`, i))
	}
	list[0], list[3] = list[3], list[0]
	return append(list, `{"type":"s","log_id":"in","ip":"198.51.100.1","user_name":"ada","date":"2026-01-01T00:04:00Z"}`,
		`{"type":"ODD","date":"2026-01-01T00:05:00.5Z"}`)
}

// TestRulesScan runs rules over files in all the forms that they may have.
func TestRulesScan(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "chain.yml"), []byte(scanRules), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		login   = `{"kind":"match","rule_id":"login","title":"Login","level":"low","log_id":"in","date":"2026-01-01T00:04:00.000Z"}`
		strange = `{"kind":"match","rule_id":"strange","title":"Strange type","level":"informational","log_id":"","date":"2026-01-01T00:05:00.500Z"}`
		many    = `{"kind":"alert","rule_id":"many","title":"Many failed","level":"medium","group":{"ip":"203.0.113.7"},"at":"2026-01-01T00:02:00.123Z","count":3,"log_ids":["f0","f1","f2"]}`
		into    = `{"kind":"alert","rule_id":"into","title":"Broken into","level":"high","group":{"user_name":"ada"},"at":"2026-01-01T00:04:00.000Z","count":2,"log_ids":["f2","f3","in"]}`
	)
	events := scanEvents(t)
	lines := strings.Join(events, "\n")
	for _, tt := range []struct {
		name, content string
		flags         []string
		want          []string
		code          int
		said          string
	}{
		{name: "lines", content: lines, want: []string{login, strange, many, into}, code: exitFound, said: "3 findings of level low or above"},
		{name: "an array", content: "\n [" + strings.Join(events, " ,\n") + "]\n", want: []string{login, strange, many, into}, code: exitFound},
		{name: "twice", content: lines + "\n" + lines, want: []string{login, strange, login, strange, many, into}, code: exitFound},
		{name: "nothing so bad", content: lines, flags: []string{"--fail-level", "critical"}, want: []string{login, strange, many, into}, code: exitOK},
		{name: "everything counts", content: lines, flags: []string{"--fail-level", "informational"}, want: []string{login, strange, many, into}, code: exitFound, said: "4 findings"},
		{name: "nothing", content: "", code: exitOK},
		{name: "an empty array", content: "[]", code: exitOK},
		{name: "broken lines", content: "{\"type\":\n\n" + events[5] + "\n7", want: []string{strange}, code: exitFailed, said: "FILE:1: "},
		{name: "broken lines and findings", content: lines + "\n{", want: []string{login, strange, many, into}, code: exitFound, said: "FILE:7: "},
		{name: "a broken array", content: "[" + events[5] + ", {", want: []string{strange}, code: exitFailed, said: "FILE: "},
		{name: "two arrays", content: "[" + events[5] + "]\n[{}]", want: []string{strange}, code: exitFailed, said: "FILE: unexpected content after the array"},
		{name: "no date", content: `{"type":"odd"}`, code: exitFailed, said: "neither date nor log_id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "events.ndjson")
			if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"rules", "scan", "--rules", dir, "--builtin=false", "--var", "odd=odd,strange", "--output", "json"}, tt.flags...)
			var out, said strings.Builder
			code := execute(t.Context(), append(args, file), &app{stdout: &out, stderr: &said})
			var got []string
			for line := range strings.Lines(out.String()) {
				got = append(got, strings.TrimSpace(line))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || code != tt.code {
				t.Errorf("exit %d, want %d (-want +got):\n%s\n%s", code, tt.code, diff, said.String())
			}
			if want := strings.Replace(tt.said, "FILE", file, 1); !strings.Contains(said.String(), want) {
				t.Errorf("said %q, want %q", said.String(), want)
			}
		})
	}
}

// TestRulesCommands is what else they say.
func TestRulesCommands(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"chain.yml": scanRules, "broken.yml": "title: t\ndetection:\n  s: {a|like: 1}\n  condition: s\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "events.ndjson")
	if err := os.WriteFile(file, []byte(strings.Join(scanEvents(t), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := func(name, text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	quiet := filepath.Join(folder("quiet.ndjson", "{\"log_id\":\"1\",\"date\":\"2026-01-01T00:00:00Z\",\"type\":\"none\"}\n"), "quiet.ndjson")
	waits := folder("waits.yml", "title: Waits\nid: waits\nlogsource: {product: auth0}\ndetection:\n  s: {user_name|expand: ['%admins%', 'x%more than one word%']}\n  condition: s\n")
	const windowsRule = "title: Of Windows\nid: windows\nname: w\nlevel: high\nlogsource: {product: Windows, category: x}\ndetection:\n  s: {type: fp}\n  condition: s\n---\n"
	windows := folder("windows.yml", windowsRule+"title: Counted\nid: counted\nlevel: low\ngenerate: true\ncorrelation: {type: event_count, rules: [w], timespan: 1h, condition: {gte: 9}}\n---\n"+
		"title: Of any product\nid: any\nlevel: low\nlogsource: {category: proxy}\ndetection:\n  s: {type: fp}\n  condition: s\n---\n"+
		"title: Filter of Windows\nlogsource: {product: windows}\nfilter:\n  rules: any\n  s: {type: none}\n  condition: not s\n")
	for _, tt := range []struct {
		name string
		args []string
		want []string // in what is printed or said
		code int
	}{
		{"list", []string{"list", "--rules", dir, "--builtin=false", "--output", "csv"}, []string{"enabled,correlation,into,Broken into,chain.yml", "waiting,detection,strange,Strange type,chain.yml,",
			"set the variable odd", `refused,detection,broken.yml#0,t,broken.yml,1,"broken.yml:4: condition ""s"": s: line 3: a|like: unknown modifier ""like"""`}, exitOK},
		{"list of the built-in", []string{"list"}, []string{"Leaked", "enabled"}, exitOK},
		{"a table", []string{"scan", "--rules", dir, "--no-builtin", file}, []string{"Broken into", "user_name ada", "rule refused: broken.yml:4"}, exitFound},
		{"a refused rule", []string{"scan", "--rules", dir, "--no-builtin", "--fail-level", "critical", file}, []string{"1 rules were refused"}, exitFailed},
		{"a rule that waits", []string{"scan", "--rules", waits, "--no-builtin", quiet}, []string{"rule waits: waits.yml:1: Waits: set the variables admins, more than one word", "1 rules wait for variables"}, exitFailed},
		{"a rule that waits, and findings", []string{"scan", "--rules", waits, "--rules", dir, "--no-builtin", file}, []string{"rule waits: waits.yml:1: Waits"}, exitFound},
		{"one that waits and one that is refused", []string{"scan", "--rules", waits, "--rules", dir, "--no-builtin", quiet}, []string{"1 rules were refused, 2 wait"}, exitFailed},
		{"one that waits no longer", []string{"scan", "--rules", waits, "--no-builtin", "--var", "admins=x", "--var", "more than one word=y", quiet}, nil, exitOK},
		{"tests of a rule that waits", []string{"test", "--rules", waits, "--no-builtin"}, []string{"rule waits: waits.yml:1: Waits", "0 of 0 cases"}, exitFailed},
		{"tests of a rule that is refused", []string{"test", "--rules", dir, "--no-builtin"}, []string{"rule refused: broken.yml:4"}, exitFailed},
		{"list of other log sources", []string{"list", "--rules", windows, "--builtin=false", "--output", "csv"}, []string{"other log source,detection,windows,Of Windows,windows.yml,1,", "--all-log-sources", "other log source,correlation,counted,Counted", "enabled,detection,any,Of any product"}, exitOK},
		{"other log sources are not run", []string{"scan", "--rules", windows, "--no-builtin", "--fail-level", "high", file}, nil, exitOK},
		{"other log sources are run when asked for", []string{"scan", "--rules", windows, "--no-builtin", "--all-log-sources", "--fail-level", "high", file}, []string{"Of Windows"}, exitFound},
		{"the built-in over an export", []string{"scan", file}, nil, exitOK},
		{"no folder", []string{"scan", "--rules", filepath.Join(dir, "none"), file}, []string{"none is not a folder"}, exitUsage},
		{"no file", []string{"scan", filepath.Join(dir, "none")}, []string{"none: no such file"}, exitUsage},
		{"no files", []string{"scan"}, []string{`expected "<file> ..."`}, exitUsage},
		{"no such level", []string{"scan", "--fail-level", "bad", file}, []string{"--fail-level"}, exitUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, said strings.Builder
			code := execute(t.Context(), append([]string{"rules"}, tt.args...), &app{stdout: &out, stderr: &said})
			if code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String()+said.String(), want) {
					t.Errorf("%q is not in\n%s\n%s", want, out.String(), said.String())
				}
			}
		})
	}
}

// TestRulesTest runs timeline tests of a folder, and writes what JUnit reads.
func TestRulesTest(t *testing.T) {
	dir := t.TempDir()
	const good = "- name: three\n  events: [{at: 0s, times: 3, every: 1m, event: {type: fp, ip: 192.0.2.1}}]\n  alerts: [{at: 2m, state: firing, level: medium, count: 3, group: {ip: 192.0.2.1}}]\n"
	for name, text := range map[string]string{"chain.yml": scanRules, "chain.test.yml": good + strings.Replace(good, "name: three", "name: \"<early>\"", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	junit := filepath.Join(dir, "junit.xml")
	run := func(args ...string) (int, string) {
		var out, said strings.Builder
		code := execute(t.Context(), append([]string{"rules", "test", "--rules", dir, "--var", "odd=odd"}, args...), &app{stdout: &out, stderr: &said})
		return code, out.String() + said.String()
	}
	if code, out := run("--builtin=false", "--junit", junit); code != exitOK || out != "2 of 2 cases in 1 files passed\n" {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, out := run(); code != exitOK || !strings.Contains(out, " passed\n") || strings.HasPrefix(out, "2 of") {
		t.Errorf("with the built-in: exit %d\n%s", code, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "chain.test.yml"), []byte(good+strings.Replace(strings.Replace(good, "three", "\"<early>\"", 1), "at: 2m", "at: 1m", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := run("--no-builtin", "--junit", junit)
	for _, want := range []string{"FAIL chain.test.yml: <early>\nwant:\n  at 1m0s firing medium, count 3, ip \"192.0.2.1\"\ngot:\n  at 2m0s", "1 of 2 cases in 1 files passed", "1 cases failed"} {
		if code != exitFound || !strings.Contains(out, want) {
			t.Errorf("exit %d, want %q in\n%s", code, want, out)
		}
	}
	data, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<testsuite name="chain.test.yml" tests="2" failures="1"`, `<testcase name="&lt;early&gt;" classname="chain.test.yml"`, `<failure message="other alerts than expected">want:`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is not in\n%s", want, data)
		}
	}
	if code, out := run("--no-builtin", "--junit", filepath.Join(dir, "none", "x.xml")); code != exitFailed || !strings.Contains(out, "--junit: open") {
		t.Errorf("exit %d\n%s", code, out)
	}
}
