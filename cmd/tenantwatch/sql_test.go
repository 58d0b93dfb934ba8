package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestSQL asks an engine that the command starts itself, and one that runs.
func TestSQL(t *testing.T) {
	t.Parallel()
	environ := settings(t)
	dir := filepath.Join(value(environ, "TENANTWATCH_DATA_DIR"), engines.ClickHouseDir)
	query := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), append([]string{"sql"}, args...), &app{stdout: &stdout, stderr: &stderr, environ: environ})
		return code, stdout.String(), stderr.String()
	}
	if code, _, stderr := query("SELECT 1"); code != exitFailed || !strings.Contains(stderr, "there is no data in") {
		t.Errorf("no data: exit %d: %s", code, stderr)
	}

	srv := chlocaltest.Start(t, dir)
	if code, _, stderr := query("SELECT 1"); code != exitFailed || !strings.Contains(stderr, "there is no data in") || chlocal.Ping(t.Context(), srv.Access) != nil {
		t.Errorf("an engine without our database: exit %d: %s", code, stderr)
	}
	conn, err := schema.Open(t.Context(), srv.Access.DSN(chlocal.Owner, chlocal.Database), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := schema.Migrate(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	const wide = `SELECT 1 AS n, 'a "b", c' AS text, NULL AS nothing, [1, 2] AS list, map('k', 'v') AS m, toDateTime64('2026-03-04 05:06:07.089', 3, 'UTC') AS at, 1.5 AS f, true AS yes`
	for running := range 2 {
		for _, tt := range []struct{ output, want string }{
			{"json", `[` + "\n" + `{"n":1,"text":"a \"b\", c","nothing":null,"list":[1,2],"m":{"k":"v"},"at":"2026-03-04T05:06:07.089Z","f":1.5,"yes":true}` + "\n]\n"},
			{"csv", "n,text,nothing,list,m,at,f,yes\n" + `1,"a ""b"", c",,"[1,2]","{""k"":""v""}",2026-03-04T05:06:07.089Z,1.5,true` + "\n"},
		} {
			code, stdout, stderr := query("--output", tt.output, wide)
			if code != exitOK || stdout != tt.want {
				t.Errorf("%s: exit %d, %s\n%s\nwant\n%s", tt.output, code, stderr, stdout, tt.want)
			}
		}
		if code, stdout, stderr := query("SELECT 17 AS n, 'x' AS text"); code != exitOK || !strings.Contains(stdout, "17") || !strings.Contains(stdout, "text") {
			t.Errorf("table: exit %d, %s\n%s", code, stderr, stdout)
		}
		if code, stdout, _ := query("--output", "json", "SELECT log_id FROM events"); code != exitOK || strings.TrimSpace(stdout) != "[]" && strings.TrimSpace(stdout) != "[\n]" {
			t.Errorf("no rows: exit %d, %q", code, stdout)
		}
		for _, forbidden := range []string{"INSERT INTO events_stored (log_id) VALUES ('x')", "DROP TABLE events_stored", "CREATE TABLE x (a Int8) ENGINE = Memory",
			"TRUNCATE TABLE events_stored", "SYSTEM SHUTDOWN", "SELECT * FROM file('/etc/passwd')", "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')",
			"SET readonly = 0", "GRANT ALL ON *.* TO reader", "SELECT 1 SETTINGS readonly = 0"} {
			if code, stdout, stderr := query(forbidden); code != exitFailed || !strings.HasPrefix(stderr, "tenantwatch: query: ") {
				t.Errorf("%s: exit %d, %s%s", forbidden, code, stdout, stderr)
			}
		}
		for _, wrong := range []string{"SELEC 1", "SELECT * FROM nowhere", "", "  "} {
			if code, _, stderr := query(wrong); code == exitOK || stderr == "" {
				t.Errorf("%q: exit %d", wrong, code)
			}
		}
		if running == 0 { // now without an engine that runs: the command starts one
			conn.Close()
			if err := srv.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "access.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the passwords: %v, %v", info.Mode(), err)
	}
}
