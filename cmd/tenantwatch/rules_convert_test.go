package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRulesConvert prints rules as SQL; what the SQL finds is tested in package
// history.
func TestRulesConvert(t *testing.T) {
	dir, _ := explainFolder(t)
	beyond := "title: Beyond\nid: beyond\nlevel: low\ndetection:\n  s: {ip|re: 'a(?!b)'}\n  condition: s\n"
	if err := os.WriteFile(filepath.Join(dir, "beyond.yml"), []byte(beyond), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, rule string
		flags      []string
		want       []string // in what is printed or said
		code       int
	}{
		{"a correlation", "MANY FAILED", nil, []string{"/* Many failed (many), event_count, chain.yml:16\n", "WITH\n", "FROM events\n    WHERE date > now64(3, 'UTC') - INTERVAL 1445 MINUTE\n",
			"SELECT at, log_id, tenant, key1 AS ip, value\n", "WHERE at > now64(3, 'UTC') - INTERVAL 1 DAY AND value >= 3\nORDER BY at, log_id\n"}, exitOK},
		{"a detection", "same", []string{"--since", "2026-01-02", "--until", "1h", "--tenant", "acme"}, []string{"FROM events\nWHERE date > toDateTime64('2026-01-02 00:00:00.000', 3, 'UTC')\n" +
			"  AND date <= now64(3, 'UTC') - INTERVAL 1 HOUR\n  AND tenant = 'acme'\n  AND lower(type) = 'x'\nORDER BY date, log_id\n"}, exitOK},
		{"a variable", "strange", []string{"--var", "odd=odd,strange"}, []string{"lower(type) IN ('odd', 'strange')"}, exitOK},
		{"waiting", "strange", nil, []string{"Strange type (strange, chain.yml:27) does not run. It is waiting: set the variable odd"}, exitFailed},
		{"beyond RE2", "beyond", nil, []string{"beyond.yml:1: Beyond: the regular expression a(?!b): RE2 does not support it, and ClickHouse has no other engine"}, exitFailed},
		{"unknown", "many faild", nil, []string{`--rule: unknown rule "many faild"; did you mean "Many failed" (many)?`}, exitUsage},
		{"no time", "many", []string{"--since", "soon"}, []string{`--since: "soon": want a time ago`}, exitUsage},
		{"no span", "many", []string{"--since", "1h", "--until", "2h"}, []string{"is not before --until"}, exitUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, said strings.Builder
			args := append([]string{"rules", "convert", "--builtin=false", "--rules", dir, "--rule", tt.rule}, tt.flags...)
			if code := execute(t.Context(), args, &app{stdout: &out, stderr: &said}); code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			if tt.code != exitOK && out.String() != "" {
				t.Errorf("printed all the same: %s", out.String())
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String()+said.String(), want) {
					t.Errorf("%q is not in\n%s\n%s", want, out.String(), said.String())
				}
			}
		})
	}
}
