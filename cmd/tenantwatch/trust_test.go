package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

// TestClockAhead pulls a tenant whose clock is three hours behind ours, as one that takes
// local time for UTC: what happens there comes at once and is alerted on, and the log, a
// metric and an alert tell of the clock.
func TestClockAhead(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	t.Parallel()
	const behind = 190 * time.Minute
	s := serve(t, auth0sim.Config{Now: func() time.Time { return time.Now().Add(-behind) }, HistoryEvents: 300, LiveRate: 2})
	environ := settings(t, unprobed(s)...)
	p := start(t, environ, "run")
	m, _ := p.waitFor(`^web: +http://(\S+)`, 0)
	p.waitFor(`our clock differs from the tenant's.*ahead=3h(10m0s|9m59s|10m1s)`, 0)
	p.waitFor("backfill done", 0)
	live := s.tenant.Inject(func(id string, now time.Time) []byte {
		return []byte(`{"log_id":"` + id + `","date":"` + now.UTC().Format("2006-01-02T15:04:05.000Z") + `","type":"s"}`)
	})
	eventually(t, environ, "SELECT count() FROM events WHERE log_id = '"+live+"' AND source = 'tail'", "1")
	for i := range 30 {
		s.tenant.Inject(func(id string, now time.Time) []byte {
			return []byte(fmt.Sprintf(`{"log_id":"%s","date":"%s","type":"fp","ip":"192.0.2.77","user_name":"u%d"}`, id, now.UTC().Format("2006-01-02T15:04:05.000Z"), i))
		})
	}
	p.waitFor(`ALERT .*192\.0\.2\.77`, 0)
	until(t, "http://"+m[1]+"/metrics", 200, `tenantwatch_pull_clock_skew_seconds{tenant="`+s.tenant.Config().Name+`"} 1`)
	p.waitFor("The clock of the machine that pulls differs", 0) // the alert, within a minute
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestNamesOfTenants: a tenant whose data has another name is not pulled a second time,
// and orders for a tenant that nobody pulls are refused at once.
func TestNamesOfTenants(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	t.Parallel()
	s := serve(t, auth0sim.Config{HistoryEvents: 200})
	environ := settings(t, unprobed(s)...)
	name := func(name string) []string { return append(environ, "TENANTWATCH_TENANT="+name) }
	p := start(t, name("first"), "run")
	p.waitFor("backfill done", 0)
	eventually(t, environ, "SELECT count() >= 200 FROM events WHERE source = 'backfill'", "1")

	folder := []string{"TENANTWATCH_DATA_DIR=" + value(environ, "TENANTWATCH_DATA_DIR"), "TENANTWATCH_CLICKHOUSE=" + value(environ, "TENANTWATCH_CLICKHOUSE")}
	for _, args := range [][]string{{"audit", "--since", "2d"}, {"backfill", "--since", "1h"}} {
		// The folder has one tenant, which needs no name.
		if code, _, stderr := command(t, folder, args...); code != exitOK {
			t.Errorf("%v: exit %d\n%s", args, code, stderr)
		}
		for _, environ := range [][]string{folder, name("first")} {
			code, _, stderr := command(t, environ, append(args, "--tenant", "nope")...)
			if code != exitUsage || !strings.Contains(stderr, "--tenant nope: ") || !strings.Contains(stderr, "first") {
				t.Errorf("%v: exit %d\n%s", args, code, stderr)
			}
		}
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}

	p = start(t, name("second"), "run")
	p.waitFor("TENANTWATCH_TENANT: the events of "+s.url.Host+" are stored under the name first, not second.*set TENANTWATCH_TENANT=first", 0)
	if code := p.wait(); code != exitUsage {
		t.Errorf("exit %d", code)
	}
	p = start(t, name("first"), "run")
	p.waitFor("^query: ", 0)
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}

	// Nobody else may read any of it.
	dir := value(environ, "TENANTWATCH_DATA_DIR")
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(file)
		if err == nil && entry.Type()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", file, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestHTTPPort: a DSN with the port that speaks HTTP is told from one that nobody
// answers at.
func TestHTTPPort(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	t.Parallel()
	server := startEngine(t, io.Discard)
	s := serve(t, auth0sim.Config{})
	p := start(t, settings(t, append(unprobed(s), "CLICKHOUSE_DSN=clickhouse://u:p@"+server.Access.HTTP+"/db")...), "run")
	p.waitFor("CLICKHOUSE_DSN: this is an HTTP port", 0)
	if code := p.wait(); code != exitFailed {
		t.Errorf("exit %d", code)
	}
}
