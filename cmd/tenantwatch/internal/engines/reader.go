package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// OpenReader connects to the ClickHouse with the data, for reading only. It uses CLICKHOUSE_DSN or the
// engine of the running instance; when none runs, it starts the engine. The caller calls end.
func OpenReader(ctx context.Context, c *config.Config) (conn driver.Conn, end func(), err error) {
	dsn, stop, err := readerDSN(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	conn, err = openReader(ctx, c, dsn)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return conn, func() { conn.Close(); stop() }, nil
}

// readerDSN returns the address of the data for a user who may only read. The caller calls stop.
func readerDSN(ctx context.Context, c *config.Config) (dsn string, stop func(), err error) {
	stop = func() {}
	if c.ClickHouse.DSN != "" {
		return string(c.ClickHouse.DSN), stop, nil
	}

	dir := filepath.Join(c.DataDir, ClickHouseDir)

	// The running instance, or the last one, has left the engine's address and passwords here.
	access, err := chlocal.ReadAccess(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("there is no data in %s: "+
			"set TENANTWATCH_DATA_DIR to the folder of the running instance, or CLICKHOUSE_DSN", c.DataDir)
	}
	if err != nil {
		return "", nil, err
	}

	// Start the engine when none runs.
	if chlocal.Ping(ctx, access) != nil {
		engine, err := chlocal.FindEngine(c.Engine)
		if err != nil {
			return "", nil, err
		}
		quiet := slog.New(slog.DiscardHandler)
		cfg := chlocal.Config{Dir: dir, Engine: engine, Bounds: c.Parsed.SQLBounds, Log: quiet}
		server, err := chlocal.Start(ctx, cfg)
		if err != nil {
			return "", nil, err
		}
		access, stop = server.Access, func() { _ = server.Close() }
	}

	// A login to a database that does not exist fails with an obscure error.
	if ok, err := chlocal.HasDatabase(ctx, access, chlocal.Database); err != nil || !ok {
		stop()
		noData := fmt.Errorf("there is no data in %s yet: try again once tenantwatch has started", c.DataDir)
		return "", nil, errors.Join(noData, err)
	}

	// Where the kernel cannot confine the engine, it admits its owner only; openReader makes that session
	// read-only.
	user := chlocal.Reader
	if access.Unconfined {
		user = chlocal.Owner
	}
	return access.DSN(user, chlocal.Database), stop, nil
}

// openReader connects to ClickHouse for reading only.
func openReader(ctx context.Context, c *config.Config, dsn string) (driver.Conn, error) {
	opts, err := schema.Options(dsn, tune(c))
	if err != nil {
		return nil, err
	}

	// readonly=2 allows no writes but changes of settings, which clients need. The reader of the embedded
	// engine has it already and may not set it.
	if opts.Auth.Username != chlocal.Reader {
		if opts.Settings == nil {
			opts.Settings = clickhouse.Settings{}
		}
		opts.Settings["readonly"] = 2
	}
	return schema.Connect(ctx, opts)
}
