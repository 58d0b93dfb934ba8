package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

// TestRulesReload changes the rules of a running instance: a new rule sees what
// comes, a broken one changes nothing, and SIGHUP has all read anew.
func TestRulesReload(t *testing.T) {
	s := serve(t, auth0sim.Config{Name: "acme", Seed: 3, HistoryEvents: 100, LiveRate: 20})
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "."+name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "."+name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(title string) string {
		return "title: " + title + "\nid: " + strings.ReplaceAll(title, " ", "-") + "\nlevel: high\nlogsource: {product: auth0}\ndetection:\n  s: {type: s}\n  condition: s\n"
	}
	p := start(t, append(settings(t, unprobed(s)...), "TENANTWATCH_RULES="+dir), "run")
	_, line := p.waitFor("rules loaded.*refused=0", 0)
	_, line = p.waitFor("this process pulls the tenant", line)

	write("first.yml", rule("First of mine"))
	_, line = p.waitFor("rules loaded.*refused=0", line)
	_, line = p.waitFor("ALERT .*First of mine", line)

	write("second.yml", rule("Second of mine")+"---\ntitle: broken\ndetection:\n  s: {a|like: b}\n  condition: s\n")
	_, line = p.waitFor("keeping the previous rules.*second.yml.*unknown modifier", line)
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_, line = p.waitFor("keeping the previous rules.*second.yml.*unknown modifier", line)

	write("second.yml", rule("Second of mine"))
	_, line = p.waitFor("rules loaded.*refused=0", line)
	_, line = p.waitFor("ALERT .*Second of mine", line)
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_, _ = p.waitFor("rules loaded.*refused=0", line)
	if n := strings.Count(p.output(), "First of mine:"); n > 1 {
		t.Errorf("the first rule alerted %d times", n)
	}
}
