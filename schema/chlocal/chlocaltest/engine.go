// Package chlocaltest provides tests with the real engine. It starts engines that end with their test, and
// crashes them on purpose.
//
// A package that uses it calls chlocal.Host first in its TestMain.
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

// Engine finds the engine, also in the repository's cache. Without one it skips the test, or fails it if
// TENANTWATCH_TEST_ENGINE=1.
func Engine(tb testing.TB) chlocal.Engine {
	tb.Helper()
	engine, err := chlocal.FindEngine(os.Getenv(chlocal.EngineVar))

	// A test runs in its package's folder, so FindEngine does not see the cache of the repository.
	if err != nil {
		folder := "clickhouse-" + chlocal.Version + "-" + runtime.GOARCH
		cached := filepath.Join(root(tb), ".cache", folder, "libchdb.so")
		if _, missing := os.Stat(cached); missing == nil {
			engine, err = chlocal.FindEngine(cached)
		}
	}

	if err != nil {
		if os.Getenv(requiredVar) == "1" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	return engine
}

// root returns the folder of the module.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()

	// The root of the file system is its own parent.
	for err == nil && dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	tb.Fatalf("no go.mod above the test: %v", fs.ErrNotExist)
	return ""
}

// Start starts an engine on a folder. It ends with the test.
func Start(tb testing.TB, dir string) *chlocal.Server {
	tb.Helper()
	cfg := chlocal.Config{Dir: dir, Engine: Engine(tb), Log: slog.New(slog.DiscardHandler)}
	srv, err := chlocal.Start(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { srv.Close() })
	return srv
}

// Open starts an engine on a new folder, migrates its tables and connects to it as its owner.
func Open(tb testing.TB) (conn driver.Conn, dsn string) {
	tb.Helper()
	conn, dsn, _ = OpenServer(tb)
	return conn, dsn
}

// OpenServer is Open with the engine itself, for tests that harm it.
func OpenServer(tb testing.TB) (conn driver.Conn, dsn string, srv *chlocal.Server) {
	tb.Helper()
	srv = Start(tb, tb.TempDir())

	// Past the guard, as the process that runs the engine connects.
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
