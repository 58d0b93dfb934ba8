package chlocal_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// parentVar makes this test binary the parent of an engine in the folder that
// it names, to be killed.
const parentVar = "CHLOCAL_TEST_PARENT"

func TestMain(m *testing.M) {
	chlocal.Host()
	if dir := os.Getenv(parentVar); dir != "" {
		parent(dir)
	}
	os.Exit(m.Run())
}

func parent(dir string) {
	engine, err := chlocal.FindEngine(os.Getenv(chlocal.EngineVar))
	if err != nil {
		panic(err)
	}
	srv, err := chlocal.Start(context.Background(), chlocal.Config{Dir: dir, Engine: engine, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	fmt.Println(srv.PID())
	select {}
}

func start(t *testing.T, dir string, e chlocal.Engine) *chlocal.Server {
	t.Helper()
	srv, err := chlocal.Start(t.Context(), chlocal.Config{Dir: dir, Engine: e, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// query asks over HTTP and returns status and body.
func query(t *testing.T, a chlocal.Access, user, password, sql string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.HTTP+"/", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func TestDataAndAddressAreKeptOverRestarts(t *testing.T) {
	e, dir := chlocaltest.Engine(t), filepath.Join(t.TempDir(), "with a space & <more>")
	first := start(t, dir, e)
	for _, sql := range []string{
		"CREATE DATABASE d ENGINE = Atomic",
		"CREATE TABLE d.t (n UInt32) ENGINE = MergeTree ORDER BY n",
		"INSERT INTO d.t SELECT number FROM numbers(1000)",
	} {
		if status, body := query(t, first.Access, chlocal.Owner, first.Access.OwnerPassword, sql); status != 200 {
			t.Fatalf("%s: %d %s", sql, status, body)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, dir, e)
	if _, got := query(t, second.Access, chlocal.Owner, second.Access.OwnerPassword, "SELECT sum(n) FROM d.t"); got != "499500" {
		t.Errorf("sum over a restart: got %q, want 499500", got)
	}
	if diff := cmp.Diff(first.Access, second.Access); diff != "" {
		t.Errorf("address changed over a restart:\n%s", diff)
	}
	stored, err := chlocal.ReadAccess(dir)
	if diff := cmp.Diff(second.Access, stored, cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Errorf("access file: %v\n%s", err, diff)
	}
	info, err := os.Stat(filepath.Join(dir, "access.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("access file mode: got %v, %v, want 0600", info.Mode(), err)
	}
}

// The engine is gone within 2 s when its parent is killed with -9, at rest and
// in the middle of a query, and the folder can be used again at once.
func TestEngineEndsWithItsParent(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%v", busy), func(t *testing.T) {
			e, dir := chlocaltest.Engine(t), t.TempDir()
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), parentVar+"="+dir, chlocal.EngineVar+"="+e.Path)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pid int
			if _, err := fmt.Fscanln(bufio.NewReader(out), &pid); err != nil {
				t.Fatal(err)
			}
			access, err := chlocal.ReadAccess(dir)
			if err != nil {
				t.Fatal(err)
			}
			if busy {
				conn, err := net.Dial("tcp", access.HTTP)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				const sql = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-ClickHouse-User: %s\r\nX-ClickHouse-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
					chlocal.Owner, access.OwnerPassword, len(sql), sql)
				for n := "0"; n == "0"; { // until it runs
					_, n = query(t, access, chlocal.Owner, access.OwnerPassword, "SELECT count() FROM system.processes WHERE query LIKE '%sipHash%' AND query NOT LIKE '%processes%'")
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			killed := time.Now()
			// The next start waits for the old engine's end, which holds the lock.
			start(t, dir, e)
			t.Logf("running again %v after the kill", time.Since(killed))
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) && !zombie(pid) {
				t.Errorf("the killed parent's engine %d still runs", pid)
			}
		})
	}
}

// zombie reports whether the process has ended and only waits to be reaped by
// whoever inherited it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestFolderInUse(t *testing.T) {
	e, dir := chlocaltest.Engine(t), t.TempDir()
	start(t, dir, e)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // do not wait for the other to go away
	_, err := chlocal.Start(ctx, chlocal.Config{Dir: dir, Engine: e, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, chlocal.ErrInUse) {
		t.Errorf("second start: got %v, want ErrInUse", err)
	}
}

func TestPortTakenMeanwhile(t *testing.T) {
	e, dir := chlocaltest.Engine(t), t.TempDir()
	first := start(t, dir, e)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", first.Access.TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	second := start(t, dir, e)
	if second.Access.TCP == first.Access.TCP {
		t.Errorf("got the port that is taken, %s", first.Access.TCP)
	}
}

func TestNotAnEngine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(path, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := chlocal.Start(t.Context(), chlocal.Config{Dir: t.TempDir(), Engine: chlocal.Engine{Path: path}, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "file too short") {
		t.Errorf("got %v, want an error that names the file and what is wrong with it", err)
	}
}

func TestFindEngine(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", dir)
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CACHE_HOME", dir)

	_, err := chlocal.FindEngine("")
	var none *chlocal.NoEngineError
	if !errors.As(err, &none) {
		t.Fatalf("got %v, want a NoEngineError", err)
	}
	for _, want := range []string{"PATH", filepath.Join(dir, ".cache"), "make engine", chlocal.EngineVar, "CLICKHOUSE_DSN"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q:\n%v", want, err)
		}
	}
	if _, err := chlocal.FindEngine("missing"); err == nil || !strings.Contains(err.Error(), chlocal.EngineVar) {
		t.Errorf("named engine missing: got %v", err)
	}
	binary := filepath.Join(dir, "clickhouse")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := chlocal.FindEngine(""); err != nil || got.Path != binary {
		t.Errorf("clickhouse on PATH: got %v, %v", got, err)
	}
}
