package chlocal_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// startLogged starts an engine and returns it and what it logs meanwhile.
func startLogged(t *testing.T, dir string) (*chlocal.Server, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	srv, err := chlocal.Start(t.Context(), chlocal.Config{Dir: dir, Engine: chlocaltest.Engine(t), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return srv, &log
}

// TestDamagedAccess shows that a cut or foreign access file is named and made again, and
// that the data is there.
func TestDamagedAccess(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see in what the engine refuses")
	}
	for name, text := range map[string]string{"cut": `{"tcp": "127.0.0.1:1`, "empty": "", "foreign": "\x7fELF\x00", "another type": `{"tcp": 7}`, "another host": `{"tcp": "192.0.2.1:9000", "http": "nonsense"}`} {
		dir := t.TempDir()
		srv, _ := startLogged(t, dir)
		if status, body := query(t, srv.Access, chlocal.Owner, srv.Access.OwnerPassword, "CREATE DATABASE d ENGINE = Atomic"); status != 200 {
			t.Fatal(body)
		}
		if err := srv.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "access.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		srv, log := startLogged(t, dir)
		if found, err := chlocal.HasDatabase(t.Context(), srv.Access, "d"); !found || err != nil {
			t.Errorf("%s: the data is gone: %v", name, err)
		}
		if !strings.HasPrefix(srv.Access.TCP, "127.0.0.1:") {
			t.Errorf("%s: it listens on %s", name, srv.Access.TCP)
		}
		_ = srv.Close()
		if name != "another host" && (!strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), path)) {
			t.Errorf("%s: the log does not name it:\n%s", name, log)
		}
		if stored, err := chlocal.ReadAccess(dir); err != nil || stored.OwnerPassword == "" {
			t.Errorf("%s: not made again: %+v, %v", name, stored, err)
		}
	}
}

// TestVanishedStore shows that a store that is gone is told, and a first start is not.
func TestVanishedStore(t *testing.T) {
	dir := t.TempDir()
	srv, log := startLogged(t, dir)
	_ = srv.Close()
	if strings.Contains(log.String(), "store is missing") {
		t.Errorf("first start: %s", log)
	}
	store := filepath.Join(dir, "store")
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	srv, log = startLogged(t, dir)
	_ = srv.Close()
	if !strings.Contains(log.String(), "store is missing") || !strings.Contains(log.String(), store) {
		t.Errorf("without its store:\n%s", log)
	}
}

// TestDamagedLibrary shows that the library that was fetched is compared with its sum, and
// how that is mended.
func TestDamagedLibrary(t *testing.T) {
	cached := chlocaltest.Engine(t).Path
	if !strings.HasSuffix(cached, ".so") {
		t.Skip("the engine here is no library: not shown is that a damaged one is refused")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", dir)
	path := filepath.Join(dir, ".cache", "clickhouse-"+chlocal.Version+"-"+runtime.GOARCH, "libchdb.so")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	copyFile(t, cached, path)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("damage"), 100<<20); err != nil {
		t.Fatal(err)
	}
	engine, err := chlocal.FindEngine("")
	if err != nil || engine.Path != path {
		t.Fatalf("found %v, %v", engine, err)
	}
	_, err = chlocal.Start(t.Context(), chlocal.Config{Dir: filepath.Join(dir, "data"), Engine: engine, Log: slog.New(slog.DiscardHandler)})
	var damaged *chlocal.DamagedEngineError
	if !errors.As(err, &damaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "make engine") {
		t.Errorf("got %v, want a DamagedEngineError that names the file and the fix", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
