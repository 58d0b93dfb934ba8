package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/dustin/go-humanize"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

type sqlCmd struct {
	Query       string `arg:"" help:"The query, such as 'SELECT type, count() FROM events GROUP BY type'."`
	rowsOutput  `embed:""`
	queryBounds `embed:""`
}

// Help describes the bounds.
func (*sqlCmd) Help() string {
	return "In the embedded ClickHouse, a query has 1m and 1GiB by default. " +
		"--max-time and --max-memory ask for more, up to TENANTWATCH_SQL_MAX_TIME and " +
		"TENANTWATCH_SQL_MAX_MEMORY of the running instance."
}

// queryBounds is the flags for a query's limits.
type queryBounds struct {
	MaxTime   string `placeholder:"TIME" help:"Time limit of the query, such as 5m. Default: 1m when embedded."`
	MaxMemory string `placeholder:"SIZE" help:"Memory limit of the query, such as 2GiB. Default: 1GiB when embedded."`
}

// apply adds the limits to a query's context.
func (b *queryBounds) apply(ctx context.Context) (context.Context, error) {
	limits := clickhouse.Settings{}
	if b.MaxTime != "" {
		limit, err := parseDuration(b.MaxTime)
		if err != nil || limit <= 0 {
			return nil, usageError(fmt.Sprintf("--max-time %q: want a duration such as 90s or 5m", b.MaxTime))
		}
		limits["max_execution_time"] = limit.Seconds()
	}
	if b.MaxMemory != "" {
		limit, err := humanize.ParseBytes(b.MaxMemory)
		if err != nil || limit == 0 {
			return nil, usageError(fmt.Sprintf("--max-memory %q: want a size such as 500MB or 2GiB", b.MaxMemory))
		}
		limits["max_memory_usage"] = limit
	}

	// Without flags the defaults of the server apply.
	if len(limits) == 0 {
		return ctx, nil
	}
	return clickhouse.Context(ctx, clickhouse.WithSettings(limits)), nil
}

// Run runs the query and prints its rows.
func (q *sqlCmd) Run(ctx context.Context, a *app) error {
	if strings.TrimSpace(q.Query) == "" {
		return usageError("the query is empty")
	}
	ctx, err := q.apply(ctx)
	if err != nil {
		return err
	}
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}

	// The connection cannot write, whatever the query is.
	conn, end, err := connectReader(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	rows, err := conn.Query(ctx, q.Query)
	if err != nil {
		return fmt.Errorf("query: %w", explainBounds(err))
	}
	defer rows.Close()
	return q.print(a, rows)
}

// explainBounds adds the remedy to an error by which ClickHouse enforces a limit.
func explainBounds(err error) error {
	var refused *clickhouse.Exception
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case 159: // TIMEOUT_EXCEEDED
		return fmt.Errorf("%w: ask for more with --max-time", err)
	case 241: // MEMORY_LIMIT_EXCEEDED
		return fmt.Errorf("%w: ask for more with --max-memory", err)
	case 452: // SETTING_CONSTRAINT_VIOLATION
		return fmt.Errorf("%w: the limits are TENANTWATCH_SQL_MAX_TIME and TENANTWATCH_SQL_MAX_MEMORY "+
			"of the running instance", err)
	}
	return err
}

// connectReader connects to the ClickHouse with the data, for reading only. It uses CLICKHOUSE_DSN or the
// engine of the running instance; when none runs, it starts the engine. The caller calls end.
func connectReader(ctx context.Context, c *Config) (conn driver.Conn, end func(), err error) {
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
func readerDSN(ctx context.Context, c *Config) (dsn string, stop func(), err error) {
	stop = func() {}
	if c.ClickHouse.DSN != "" {
		return string(c.ClickHouse.DSN), stop, nil
	}

	dir := filepath.Join(c.DataDir, clickhouseDir)

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
		cfg := chlocal.Config{Dir: dir, Engine: engine, Bounds: c.sqlBounds, Log: quiet}
		server, err := chlocal.Start(ctx, cfg)
		if err != nil {
			return "", nil, err
		}
		access, stop = server.Access, func() { _ = server.Close() }
	}

	// A login to a database that does not exist fails with an obscure error.
	if ok, err := chlocal.HasDatabase(ctx, access, database); err != nil || !ok {
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
	return access.DSN(user, database), stop, nil
}

// openReader connects to ClickHouse for reading only.
func openReader(ctx context.Context, c *Config, dsn string) (driver.Conn, error) {
	opts, err := schema.Options(dsn, c.tuneClickHouse)
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
