package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// explainRules are those of scanRules, and some that do not run or are called alike.
const explainRules = scanRules + `---
title: Other
id: other-1
name: same
level: low
detection:
  s: {type: x}
  condition: s
---
title: other
id: other-2
level: low
detection:
  s: {type: y}
  condition: s
---
title: Not the office
filter:
  rules: [login]
  office: {ip|cidr: 192.0.2.0/24}
  condition: not office
---
title: Off
id: turned-off
level: low
detection:
  s: {type: z}
  condition: s
`

// explainFolder has the rules, the events and an overlay.
func explainFolder(t *testing.T) (dir, events string) {
	t.Helper()
	dir = t.TempDir()
	events = filepath.Join(dir, "events.ndjson")
	for name, text := range map[string]string{"chain.yml": explainRules, "off.overlay.yml": "rules: {turned-off: {enabled: false, reason: Noise.}}",
		"broken.yml": "title: Broken\nid: broken\ndetection:\n  s: {a|like: 1}\n  condition: s\n", "events.ndjson": strings.Join(scanEvents(t), "\n") + "\n{\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, events
}

// TestRulesExplain explains events of a file.
func TestRulesExplain(t *testing.T) {
	dir, events := explainFolder(t)
	for _, tt := range []struct {
		name, rule, event string
		flags             []string
		want              []string // in what is printed or said
		code              int
	}{
		{"fires", "many", "f2", nil, []string{"Many failed (many, event_count, chain.yml:16)\nevent f2: fp at 2026-01-01T00:02:00.123Z\n\nIt fires: the alert begins with this event.\n\n",
			"── ✓ Many failed, event_count: at least 3 events within 5m\n   ├─ ✓ Failed login, a detection, counted\n   │  └─ ✓ s: type is \"fp\", wanted is \"fp\", \"fu\" (line 6)\n   └─ group: ip \"203.0.113.7\"\n      ├─ ✓ window (2025-12-31T23:57:00.123Z, 2026-01-01T00:02:00.123Z]: 3\n",
			"3 events: f0 f1 f2", "alert open since 2026-01-01T00:02:00.123Z, medium, resolves at 2026-01-01T00:21:00.123Z if nothing more comes", "counted by: Broken into", "events.ndjson:7: "}, exitOK},
		{"too few", "MANY FAILED", "f1", nil, []string{"2 of 3 in the 5m up to the event. The alert begins with the later event f2 at 2026-01-01T00:02:00.123Z.", "✗ window", "2, 1 too few"}, exitOK},
		{"already open", "many", "f3", nil, []string{"The condition holds, but the alert has been open since 2026-01-01T00:02:00.123Z; a further match does not fire again."}, exitOK},
		{"an order", "into", "in", nil, []string{"It fires", "✓ many seen at 2026-01-01T00:02:00.123Z (f2)", "✓ login seen at 2026-01-01T00:04:00.000Z (in)", `filter "Not the office": not`, `✗ office: ip is "198.51.100.1", wanted is cidr "192.0.2.0/24" (line 52)`}, exitOK},
		{"no match", "login", "f1", nil, []string{`It does not match: type is "fp", wanted is "s" (chain.yml:13).`}, exitOK},
		{"by place", "strange", events + ":6", []string{"--var", "odd=odd,strange"}, []string{"It fires", `type is "ODD", wanted is "odd", "strange"`}, exitOK},
		{"waiting", "strange", "f1", nil, []string{"Strange type (strange, chain.yml:27) does not run. It is waiting: set the variable odd"}, exitOK},
		{"turned off", "turned-off", "nowhere", nil, []string{"does not run. It is disabled: off.overlay.yml:1: Noise."}, exitOK},
		{"refused", "broken", "f1", nil, []string{`does not run. It is refused: broken.yml:5`, `unknown modifier "like"`}, exitOK},
		{"by name", "same", "f1", nil, []string{"Other (other-1"}, exitOK},
		{"several", "OTHER", "f1", nil, []string{`--rule: several rules are named "OTHER"; give the id: other-1 (chain.yml:34), other-2 (chain.yml:42)`}, exitUsage},
		{"nearly", "many faild", "f1", nil, []string{`--rule: unknown rule "many faild"; did you mean "Many failed" (many)?`}, exitUsage},
		{"a part of the title", "broken in", "f1", nil, []string{`did you mean "Broken into" (into)`}, exitUsage},
		{"none like it", "zzzzzzzzzzzzzz", "f1", nil, []string{`--rule: unknown rule "zzzzzzzzzzzzzz"` + "\n"}, exitUsage},
		{"no event", "many", "f9", nil, []string{"no such event in the files: f9"}, exitFailed},
		{"a tenant", "many", "f1", []string{"--tenant", "acme"}, []string{"--tenant: events in files have no tenant"}, exitUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, said strings.Builder
			args := append([]string{"rules", "explain", "--builtin=false", "--rules", dir, "--rule", tt.rule, "--event", tt.event, "--file", events}, tt.flags...)
			if code := execute(t.Context(), args, &app{stdout: &out, stderr: &said}); code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String()+said.String(), want) {
					t.Errorf("%q is not in\n%s\n%s", want, out.String(), said.String())
				}
			}
		})
	}
	for _, args := range [][]string{{"--rule", "many", "--event", "f1", "--file", filepath.Join(dir, "none")}, {"--event", "f1"}, {"--rule", "many"}} {
		if code := execute(t.Context(), append([]string{"rules", "explain", "--builtin=false", "--rules", dir}, args...), &app{stdout: &strings.Builder{}, stderr: &strings.Builder{}}); code != exitUsage {
			t.Errorf("%v: exit %d", args, code)
		}
	}
}

// TestRulesExplainJSON is what programs read.
func TestRulesExplainJSON(t *testing.T) {
	dir, events := explainFolder(t)
	ask := func(rule, event string) map[string]any {
		t.Helper()
		var out, said strings.Builder
		code := execute(t.Context(), []string{"rules", "explain", "--builtin=false", "--rules", dir, "--rule", rule, "--event", event, "--file", events, "--output", "json"}, &app{stdout: &out, stderr: &said})
		var got map[string]any
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil || code != exitOK {
			t.Fatalf("exit %d, %v\n%s%s", code, err, out.String(), said.String())
		}
		return got
	}
	got := ask("into", "in")
	for name, want := range map[string]any{"status": "enabled", "rule_id": "into", "type": "temporal_ordered", "fires": true, "log_id": "in", "event_type": "s", "at": "2026-01-01T00:04:00Z",
		"timespan_seconds": 600.0, "occurs": true, "level": "high"} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	counts, groups := got["counts"].([]any), got["groups"].([]any)
	if len(counts) != 2 || len(groups) != 1 || counts[1].(map[string]any)["match"].(map[string]any)["holds"] != true {
		t.Errorf("%v", got)
	}
	window := groups[0].(map[string]any)["window"].(map[string]any)
	if window["value"] != 2.0 || window["lasts_until"] != "2026-01-01T00:14:00Z" || fmt.Sprint(window["log_ids"]) != "[f2 f3 in]" {
		t.Errorf("%v", window)
	}
	if got := ask("strange", "in"); got["status"] != "waiting" || got["reason"] != "set the variable odd" || got["line"] != 27.0 {
		t.Errorf("%v", got)
	}
}

// store puts events into ClickHouse as the writer does.
func store(t *testing.T, conn driver.Conn, events []schema.Event) {
	t.Helper()
	columns := append([]string{"tenant", "date", "type", "log_id", "members", "details", "rest", "source", "fetched_at"}, schema.TextColumns()...)
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO events_stored ("+strings.Join(columns, ", ")+")")
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Close()
	for _, ev := range events {
		r, err := schema.ParseRow(ev.Raw)
		if err != nil {
			t.Fatal(err)
		}
		values := []any{ev.Tenant, r.Date, r.Type, r.LogID, r.Members, r.Details, r.Rest, string(ev.Source), ev.FetchedAt}
		for _, text := range r.Texts[schema.FirstText:] {
			values = append(values, text)
		}
		if err := batch.Append(values...); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
}

// TestRulesExplainStored explains events of the real ClickHouse.
func TestRulesExplainStored(t *testing.T) {
	t.Parallel()
	environ := settings(t)
	dir, _ := explainFolder(t)
	srv := chlocaltest.Start(t, filepath.Join(value(environ, "TENANTWATCH_DATA_DIR"), engines.ClickHouseDir))
	conn, err := schema.Open(t.Context(), srv.Access.DSN(chlocal.Owner, chlocal.Database), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := schema.Migrate(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	event := func(tenant, id string, after time.Duration, pulled time.Duration, source schema.Source, more string) schema.Event {
		at := start.Add(after)
		return schema.Event{Tenant: tenant, Source: source, FetchedAt: at.Add(pulled),
			Raw: fmt.Appendf(nil, `{"log_id":%q,"date":%q,%s}`, id, at.Format("2006-01-02T15:04:05.000Z"), more)}
	}
	failed := func(id string, after time.Duration, more string) schema.Event {
		return event("acme", id, after, time.Second, schema.SourceTail, `"type":"fp","user_name":"ada"`+more)
	}
	const from = `,"ip":"203.0.113.7"`
	store(t, conn, []schema.Event{
		failed("f0", 0, from), failed("f1", time.Minute, from), failed("f1x", 70*time.Second, `,"ip":"198.51.100.9"`), failed("f1y", 80*time.Second, ""),
		failed("f2", 2*time.Minute, `,"ip":["203.0.113.7","x"]`), // no plain text, but the same address
		failed("f3", 3*time.Minute, from), event("acme", "in", 4*time.Minute, time.Second, schema.SourceTail, `"type":"s","user_name":"ada"`),
		event("other", "f0", 0, time.Second, schema.SourceTail, `"type":"fp","ip":"192.0.2.1"`),
		failed("g0", time.Hour, from), failed("g1", time.Hour+time.Minute, from),
		event("acme", "g2", time.Hour+2*time.Minute, time.Second, schema.SourceBackfill, `"type":"fp","ip":"203.0.113.7"`),
		event("acme", "g3", time.Hour+3*time.Minute, 125*time.Minute, schema.SourceTail, `"type":"fp","ip":"203.0.113.7"`),
		failed("h0", 2*time.Hour, from), failed("h1", 2*time.Hour+time.Minute, from), failed("h2", 2*time.Hour+2*time.Minute, from),
	})
	store(t, conn, []schema.Event{failed("f1", time.Minute, from)}) // once more
	group := []schema.GroupValue{{Field: "ip", Value: "203.0.113.7"}}
	insert := fmt.Sprintf(`INSERT INTO alerts_stored (tenant, starts_at, fingerprint, state, level, rule_id, updated_at, group, count, log_ids)
		VALUES ('acme', '2026-01-01 01:30:00.000', '%s', 'firing', 'medium', 'many', '2026-01-01 01:30:00.000', {'ip': '203.0.113.7'}, 3, ['gx'])`, schema.Fingerprint("acme", "many", group))
	if err := conn.Exec(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rule, event string
		flags, want []string
		code        int
	}{
		{"many", "f2", nil, []string{"event f2 of acme: fp at 2026-01-01T00:02:00.000Z, pulled 1s later (tail)", "It fires", "3 events: f0 f1 f2"}, exitOK},
		{"many", "f1", nil, []string{"2 of 3 in the 5m up to the event. The alert begins with the later event f2"}, exitOK},
		{"many", "f1y", nil, []string{"The event has no ip, so it belongs to no group."}, exitOK},
		{"many", "f3", nil, []string{"open since 2026-01-01T00:02:00.000Z", "4 events: f0 f1 f2 f3"}, exitOK},
		{"into", "in", nil, []string{"It fires", "✓ many seen at 2026-01-01T00:02:00.000Z (f2)"}, exitOK},
		{"many", "g2", nil, []string{"The condition holds, but the event was backfilled"}, exitOK},
		{"many", "g3", nil, []string{"The condition holds, but the event was 2h5m old when it was pulled"}, exitOK},
		{"many", "h2", nil, []string{"the alert has been open since 2026-01-01T01:30:00.000Z", "recorded transitions of the alert:\n  2026-01-01T01:30:00.000Z firing medium, count 3"}, exitOK},
		{"login", "in", nil, []string{"It fires", "alert open since 2026-01-01T00:04:00.000Z, low, closes silently at 2026-01-02T00:04:00.000Z", "counted by: Broken into", `filter "Not the office"`}, exitOK},
		{"strange", "nowhere", nil, []string{"does not run. It is waiting"}, exitOK},
		{"many", "nowhere'\\?", nil, []string{`no such event in ClickHouse: nowhere'\?; it may not have been pulled yet`}, exitFailed},
		{"many", "f0", nil, []string{"several tenants have this event, choose one with --tenant: acme, other"}, exitUsage},
		{"many", "f0", []string{"--tenant", "other"}, []string{"event f0 of other", "1 of 3 in the 5m"}, exitOK},
		{"many", "f0", []string{"--tenant", "none"}, []string{"no such event in ClickHouse: f0"}, exitFailed},
	} {
		var out, said bytes.Buffer
		args := slices.Concat([]string{"rules", "explain", "--builtin=false", "--rules", dir, "--rule", tt.rule, "--event", tt.event}, tt.flags)
		if code := execute(t.Context(), args, &app{stdout: &out, stderr: &said, environ: environ}); code != tt.code {
			t.Errorf("%s %s: exit %d, want %d", tt.rule, tt.event, code, tt.code)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String()+said.String(), want) {
				t.Errorf("%s %s: %q is not in\n%s\n%s", tt.rule, tt.event, want, out.String(), said.String())
			}
		}
	}
}
