package main

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestDamagedKafka has random bytes in a segment of a running instance, of events that
// wait for a ClickHouse that is away, more than the writer holds: storing continues behind them, the log says which file
// from which offset, the process is ready, and an audit brings back what was there.
func TestDamagedKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	t.Parallel()
	engineDir := t.TempDir()
	engine := chlocaltest.Start(t, engineDir)
	var clock stoppable
	var ahead atomic.Int64
	const outage = 20 * time.Minute
	s := serve(t, auth0sim.Config{Now: func() time.Time { return clock.now().Add(time.Duration(ahead.Load()) - outage) }, HistoryEvents: 100, LiveRate: 50})
	environ := settings(t, append(unprobed(s), "CLICKHOUSE_DSN="+engine.Access.DSN(chlocal.Owner, "kept"))...)
	p := start(t, environ, "run")
	web, _ := p.waitFor(`^web: +http://(\S+)`, 0)
	_, line := p.waitFor("backfill done", 0)
	eventually(t, environ, "SELECT count() >= 100 FROM events", "1")

	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	ahead.Add(int64(outage))
	until := s.tenant.Config().Now()
	waitUntil(t, "all is pulled", func() bool {
		return metric(t, "http://"+web[1], "tenantwatch_pull_position_timestamp_seconds") > float64(until.Add(-10*time.Second).Unix())
	})
	segments, err := filepath.Glob(filepath.Join(value(environ, "TENANTWATCH_DATA_DIR"), "kafka", "log", "partitions", "tenantwatch.events-*", "*.dat"))
	if err != nil {
		t.Fatal(err)
	}
	segment := slices.MaxFunc(segments, func(a, b string) int { return int(base(t, a) - base(t, b)) }) // the newest
	overwrite(t, segment, size(t, segment)/2, 30_000)

	chlocaltest.Start(t, engineDir)
	p.waitFor("skipped damaged records in Kafka.*topic=tenantwatch.events.*from_offset=[0-9]+ to_offset=[0-9]+", line)
	p.waitFor("file="+segment+".*from_offset=[0-9]+", line)
	clock.stop()
	readyz(t, web[1])
	if code, out, stderr := command(t, environ, "audit", "--since", "2d", "--repair"); code != exitOK {
		t.Errorf("audit: exit %d\n%s%s", code, out, stderr)
	}
	compare(t, environ, s.tenant)
	if n := strings.Count(p.output(), "read from Kafka failed"); n > 10 {
		t.Errorf("%d lines about one damage", n)
	}
}

// readyz waits until all roles are ready.
func readyz(t *testing.T, web string) {
	t.Helper()
	waitUntil(t, "all roles are ready", func() bool {
		res, err := http.Get("http://" + web + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// base is the first offset of a segment.
func base(t *testing.T, segment string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(segment), ".dat"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func overwrite(t *testing.T, path string, at int64, length int) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(bytes.Repeat([]byte{0x5a, 0xa5, 0x13}, length/3), at); err != nil {
		t.Fatal(err)
	}
}

// TestSecrets runs everything with secrets that can be told, some of which the tenant
// refuses, and looks for them in all that was written.
func TestSecrets(t *testing.T) {
	t.Parallel()
	s := serve(t, auth0sim.Config{HistoryEvents: 200, LiveRate: 5})
	secrets := map[string]string{"AUTH0_CLIENT_SECRET": "secret-of-the-application", "PROBE_CLIENT_SECRET": "secret-of-the-probe",
		"PROBE_PASSWORD": "password-of-the-probe", "RECEIVE_TOKEN": "token-of-the-log-stream"}
	environ := settings(t, s.environ()...)
	for name, secret := range secrets {
		environ = append(environ, name+"="+secret)
	}
	p := start(t, environ, "run", "--roles", "pull,write,scan,probe,notify,web,receive")
	p.waitFor("level=(WARN|ERROR).*part=pull", 0) // the application's secret is refused
	eventually(t, environ, "SELECT count() > 0 FROM events WHERE type = 'tenantwatch_probe'", "1")
	eventually(t, environ, "SELECT count() > 0 FROM events WHERE type = 'tenantwatch_api_error'", "1")
	web, _ := p.waitFor(`^web: +http://(\S+)`, 0)
	written := p.output()
	for _, path := range []string{"/metrics", "/readyz", "/health/auth0", "/"} {
		res, err := http.Get("http://" + web[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		written += string(text)
	}
	rows := strings.Join(ask(t, environ, "SELECT raw FROM events"), "\n")
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	for name, secret := range secrets {
		if strings.Contains(written, secret) || strings.Contains(rows, secret) {
			t.Errorf("%s was written to the log, a page or an event", name)
		}
		err := filepath.WalkDir(value(environ, "TENANTWATCH_DATA_DIR"), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s is in %s", name, path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestEnvironmentIsClosed shows that a program of the same user cannot read what a running
// instance has in its environment.
func TestEnvironmentIsClosed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run programs as another user: not shown is that a program of the same user cannot read our environment")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "environment")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary := filepath.Join(dir, "tenantwatch")
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}

	cmd := exec.Command(binary, "sim", "--addr", "127.0.0.1:0", "--events", "10")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = []string{mainVar + "=1", "AUTH0_CLIENT_SECRET=can-be-told"}, "/", as
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil { // it runs
		t.Fatal(err)
	}
	for _, file := range []string{"environ", "mem", "maps"} {
		read := exec.Command("head", "-c", "4000", "/proc/"+strconv.Itoa(cmd.Process.Pid)+"/"+file)
		read.SysProcAttr = as
		if got, err := read.CombinedOutput(); err == nil || strings.Contains(string(got), "can-be-told") {
			t.Errorf("%s: got %.200q, %v", file, got, err)
		}
	}
}
