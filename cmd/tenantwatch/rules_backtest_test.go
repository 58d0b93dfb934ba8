package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestRulesBacktest runs rules over what ClickHouse keeps, as the command does.
func TestRulesBacktest(t *testing.T) {
	conn, dsn := chlocaltest.Open(t)
	// 40 failed logins of one address within ten minutes, twice, and 25 of another.
	until := time.Now().UTC().Truncate(time.Hour)
	const members = "2056" // type and ip are in their columns
	for _, burst := range []struct{ ago, n, ip string }{{"50", "40", "192.0.2.1"}, {"20", "40", "192.0.2.1"}, {"10", "25", "192.0.2.2"}} {
		if err := conn.Exec(t.Context(), "INSERT INTO events_stored (tenant, date, type, ip, members, log_id, source) SELECT 'acme', toDateTime('"+until.Format(time.DateTime)+"', 'UTC') - toIntervalHour("+burst.ago+") + toIntervalSecond(number * 10), 'fp', '"+
			burst.ip+"', "+members+", concat('"+burst.ip+burst.ago+"', toString(number)), 'tail' FROM numbers("+burst.n+")"); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, string, int) {
		var out, errs bytes.Buffer
		code := execute(t.Context(), append([]string{"rules", "backtest"}, args...), &app{stdout: &out, stderr: &errs, environ: []string{"CLICKHOUSE_DSN=" + dsn}})
		return out.String(), errs.String(), code
	}
	older := filepath.Join(t.TempDir(), "older")
	if err := os.MkdirAll(older, 0o755); err != nil {
		t.Fatal(err)
	}
	rule, err := os.ReadFile("../../rules/builtin/authentication/failed_logins_by_ip.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(older, "r.yml"), bytes.Replace(rule, []byte("gte: 20"), []byte("gte: 30"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	out, errs, code := run("--since", "7d", "--rule", "failed_logins_by_ip", "--max-per-week", "2", "--against", older, "--output", "json")
	var list []history.Report
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != exitOK || len(list) != 1 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	r := list[0]
	if r.Alerts != 3 || r.AlertGroups != 2 || r.Groups != 2 || r.Highest != 40 || r.P50 != 25 || *r.Threshold != 20 || len(r.Days) != 8 || r.PerWeek != 3 {
		t.Errorf("%+v", r)
	}
	if r.Suggested == nil || r.Suggested.Threshold != 26 || r.Suggested.Alerts != 2 {
		t.Errorf("suggested: %+v", r.Suggested)
	}
	if v := r.Against; v == nil || v.Alerts != 2 || v.Both != 2 || len(v.Gone) != 0 || len(v.New) != 1 || v.New[0].Group["ip"] != "192.0.2.2" {
		t.Errorf("against: %+v", r.Against)
	}
	if g := r.TopGroups; len(g) != 2 || g[0].Group["ip"] != "192.0.2.1" || g[0].Value != 40 || g[0].Alerts != 2 {
		t.Errorf("top groups: %+v", g)
	}
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"--since", "7d", "--rule", "Many failed logins from one IP", "--max-per-week", "2", "--against", older}, "26 would have given 2 alerts", exitOK},
		{[]string{"--since", "7d", "--rule", "failed_logins_by_ip", "--against", older}, "+ ", exitOK},
		{[]string{"--since", "7d"}, "Many failed logins from one IP", exitOK},
		{[]string{"--since", "7d", "--tenant", "other", "--rule", "failed_logins_by_ip"}, "alerts     0,", exitOK},
		{[]string{"--since", "7d", "--rule", "nothing"}, `unknown rule "nothing"`, exitUsage},
		{[]string{"--since", "7d", "--rule", "failed_login"}, "only counted by other rules", exitUsage},
		{[]string{"--rule", "failed_logins_by_ip"}, "--since", exitUsage},
		{[]string{"--since", "7d", "--max-per-week", "-1"}, "--max-per-week", exitUsage},
		{[]string{"--since", "7d", "--against", filepath.Join(older, "none")}, "is not a folder", exitUsage},
	} {
		out, errs, code := run(c.args...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}
