package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestWholeResults shows that an answer is whole or says that it is not, whatever its
// form, of a query and of an investigation.
func TestWholeResults(t *testing.T) {
	t.Parallel()
	environ := settings(t)
	srv := chlocaltest.Start(t, filepath.Join(value(environ, "TENANTWATCH_DATA_DIR"), engines.ClickHouseDir))
	conn, err := schema.Open(t.Context(), srv.DSN(chlocal.Owner, chlocal.Database), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := schema.Migrate(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	const all = 11_546
	if err := conn.Exec(t.Context(), "INSERT INTO events_stored (tenant, date, type, log_id, user_id, ip, source) SELECT 'acme', now(), 's', toString(number), 'auth0|1', '192.0.2.1', 'tail' FROM numbers(11546)"); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (stdout, stderr string) {
		var out, errs bytes.Buffer
		if code := execute(t.Context(), args, &app{stdout: &out, stderr: &errs, environ: environ}); code != exitOK {
			t.Fatalf("%v: exit %d: %s", args, code, errs.String())
		}
		return out.String(), errs.String()
	}
	rowsIn := func(output, text string) int {
		switch output {
		case "json":
			var rows []map[string]any
			if err := json.Unmarshal([]byte(text), &rows); err != nil {
				t.Errorf("json: %v", err)
			}
			return len(rows)
		case "ndjson":
			for line := range strings.Lines(text) {
				if !json.Valid([]byte(line)) {
					t.Errorf("ndjson: %q", line)
				}
			}
			return strings.Count(text, "\n")
		case "csv":
			records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
			if err != nil {
				t.Errorf("csv: %v", err)
			}
			return len(records) - 1
		}
		return strings.Count(text, "192.0.2.1")
	}
	for _, command := range [][]string{
		{"sql", "SELECT log_id, ip FROM events"},
		{"investigate", "user", "--value", "auth0|1"},
	} {
		for _, tt := range []struct {
			output, limit  string
			rows           int
			stdout, stderr string // endings
		}{
			{"table", "", 1000, "\n1,000 of 11,546 rows; --limit, --output\n", ""},
			{"table", "0", all, "\n11,546 rows\n", ""},
			{"table", "20000", all, "\n11,546 rows\n", ""},
			{"json", "", all, "\n]\n", ""},
			{"ndjson", "", all, "}\n", ""},
			{"csv", "", all, "\n", ""},
			{"json", "7", 7, "\n]\n", "7 of 11,546 rows; --limit\n"},
			{"ndjson", "7", 7, "}\n", "7 of 11,546 rows; --limit\n"},
			{"csv", "7", 7, "\n", "7 of 11,546 rows; --limit\n"},
		} {
			args := append(command, "--output", tt.output)
			if tt.limit != "" {
				args = append(args, "--limit", tt.limit)
			}
			stdout, stderr := run(args...)
			if n := rowsIn(tt.output, stdout); n != tt.rows || !strings.HasSuffix(stdout, tt.stdout) || stderr != tt.stderr {
				t.Errorf("%v: %d rows, want %d; it ends with %q and says %q, want %q and %q", args, n, tt.rows, stdout[max(0, len(stdout)-60):], stderr, tt.stdout, tt.stderr)
			}
		}
	}
	if stdout, _ := run("sql", "--output", "ndjson", "SELECT 1 WHERE 0"); stdout != "" {
		t.Errorf("no rows: %q", stdout)
	}
}

// TestQueryBounds shows what a query may ask for, and what it is told beyond.
func TestQueryBounds(t *testing.T) {
	t.Parallel()
	environ := settings(t, "TENANTWATCH_SQL_MAX_TIME=5m", "TENANTWATCH_SQL_MAX_MEMORY=2GiB")
	c, err := config.Load(environ, config.Need{})
	if err != nil {
		t.Fatal(err)
	}
	c.Engine = chlocaltest.Engine(t).Path
	srv, err := engines.StartClickHouse(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	conn, err := schema.Open(t.Context(), srv.DSN(chlocal.Owner, chlocal.Database), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--max-time", "5m", "SELECT getSetting('max_execution_time')"}, exitOK, "300"},
		{[]string{"--max-memory", "2GiB", "SELECT getSetting('max_memory_usage')"}, exitOK, "2147483648"},
		{[]string{"SELECT getSetting('max_execution_time'), getSetting('max_memory_usage')"}, exitOK, "1073741824"},
		{[]string{"--max-time", "6m", "SELECT 1"}, exitFailed, "TENANTWATCH_SQL_MAX_TIME"},
		{[]string{"--max-memory", "3GiB", "SELECT 1"}, exitFailed, "TENANTWATCH_SQL_MAX_MEMORY"},
		{[]string{"--max-time", "soon", "SELECT 1"}, exitUsage, "--max-time"},
		{[]string{"--max-memory", "much", "SELECT 1"}, exitUsage, "--max-memory"},
		{[]string{"--max-time", "1s", "SELECT count() FROM numbers(10000000000) WHERE NOT ignore(SHA512(toString(number)))"}, exitFailed, "ask for more with --max-time"},
		{[]string{"SELECT length(groupArray(number)) FROM numbers(1000000000)"}, exitFailed, "ask for more with --max-memory"},
	} {
		var out, errs bytes.Buffer
		code := execute(t.Context(), append([]string{"sql", "--output", "csv"}, tt.args...), &app{stdout: &out, stderr: &errs, environ: environ})
		if code != tt.code || !strings.Contains(out.String()+errs.String(), tt.want) {
			t.Errorf("%v: exit %d, want %d with %q:\n%.300s%.500s", tt.args, code, tt.code, tt.want, out.String(), errs.String())
		}
	}
}
