package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRulesLint is what the command finds, and how it ends.
func TestRulesLint(t *testing.T) {
	const fine = "title: t\nid: a\nname: a\nlevel: low\ndescription: d\nfalsepositives: [none]\ndetection:\n  s: {type: %s}\n  condition: s\n"
	dir := func(text string) string {
		t.Helper()
		dir := t.TempDir()
		for name, text := range map[string]string{"a.yml": text, "a.test.yml": "[]"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	good, slip := dir(strings.Replace(fine, "%s", "fp", 1)), dir(strings.Replace(fine, "%s", "gd_send_smz", 1))
	capped := dir(strings.Replace(fine, "%s", "gd_send_sms", 1) + "---\ntitle: c\nid: c\ncorrelation:\n  type: event_count\n  rules: [a]\n  group-by: [user_id]\n  timespan: 1h\n  condition: {gte: 11}\n")
	waiting := dir(strings.Replace(fine, "%s", "'{x}'", 1))
	for _, tt := range []struct {
		name string
		args []string
		want []string // in what is printed or said
		code int
	}{
		{"fine", []string{"--rules", good, "--output", "csv"}, []string{"severity,check,file,line,id,title,finding\n"}, exitOK},
		{"the built-in", []string{"--builtin"}, []string{"management_api/failed_calls_by_client.yml"}, exitOK},
		{"a warning", []string{"--rules", slip, "--output", "csv"}, []string{"warning,type,a.yml,8,a,t,unknown event type gd_send_smz; did you mean gd_send_sms?\n"}, exitOK},
		{"a warning that counts", []string{"--rules", slip, "--fail-level", "warning"}, []string{"1 row", "1 findings of severity warning or above"}, exitFound},
		{"an error", []string{"--rules", capped, "--output", "json"}, []string{`{"severity":"error","check":"cap","file":"a.yml","line":18,"id":"c","title":"c","finding":"the threshold can never be reached: 11 in 1h`, "1 findings of severity error or above"}, exitFound},
		{"a variable", []string{"--rules", waiting, "--output", "csv"}, []string{"info,load,a.yml,1,a,t,it does not run: set the variable x"}, exitOK},
		{"a variable that is set", []string{"--rules", waiting, "--var", "x=fp", "--fail-level", "warning"}, []string{"0 rows"}, exitOK},
		{"no such level", []string{"--fail-level", "info"}, []string{"--fail-level"}, exitUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, said strings.Builder
			code := execute(t.Context(), append([]string{"rules", "lint", "--builtin=false"}, tt.args...), &app{stdout: &out, stderr: &said})
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
