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
