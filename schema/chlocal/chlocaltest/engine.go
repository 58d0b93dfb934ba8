// Package chlocaltest gives tests the real engine.
//
// A package that uses it calls chlocal.Host first thing in its TestMain.
package chlocaltest

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// requiredVar set to 1 makes a missing engine a failure.
const requiredVar = "TENANTWATCH_TEST_ENGINE"

// Engine finds the engine, also in the repository's cache. Without one the test
// is skipped, unless TENANTWATCH_TEST_ENGINE=1 says that there must be one.
func Engine(tb testing.TB) chlocal.Engine {
	tb.Helper()
	e, err := chlocal.FindEngine(os.Getenv(chlocal.EngineVar))
	if err != nil {
		cached := filepath.Join(root(tb), ".cache", "clickhouse-"+chlocal.Version+"-"+runtime.GOARCH, "libchdb.so")
		if _, missing := os.Stat(cached); missing == nil {
			e, err = chlocal.FindEngine(cached)
		}
	}
	if err != nil {
		if os.Getenv(requiredVar) == "1" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	return e
}

// root is the module's folder.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	tb.Fatalf("no go.mod above the test: %v", fs.ErrNotExist)
	return ""
}

// Start starts an engine in a folder, which ends with the test.
func Start(tb testing.TB, dir string) *chlocal.Server {
	tb.Helper()
	srv, err := chlocal.Start(tb.Context(), chlocal.Config{Dir: dir, Engine: Engine(tb), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { srv.Close() })
	return srv
}

// Open starts an engine in a folder of its own, brings its tables up to date
// and connects to it, as its owner.
func Open(tb testing.TB) (conn driver.Conn, dsn string) {
	tb.Helper()
	conn, dsn, _ = OpenServer(tb)
	return conn, dsn
}

// OpenServer is Open with the engine itself, for tests that harm it.
func OpenServer(tb testing.TB) (conn driver.Conn, dsn string, srv *chlocal.Server) {
	tb.Helper()
	srv = Start(tb, tb.TempDir())
	dsn = srv.DSN(chlocal.Owner, chlocal.Database)
	conn, err := schema.Open(tb.Context(), dsn, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	if _, err := schema.Migrate(tb.Context(), conn); err != nil {
		tb.Fatal(err)
	}
	return conn, dsn, srv
}
