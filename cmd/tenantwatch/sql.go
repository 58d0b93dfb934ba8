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

// queryBounds are what a query may use beyond the default.
type queryBounds struct {
	MaxTime   string `placeholder:"TIME" help:"How long the query may take, such as 5m. Default: 1m in the embedded ClickHouse, which allows up to TENANTWATCH_SQL_MAX_TIME."`
	MaxMemory string `placeholder:"SIZE" help:"How much memory the query may use, such as 2GiB. Default: 1GiB in the embedded ClickHouse, which allows up to TENANTWATCH_SQL_MAX_MEMORY."`
}

// apply puts the bounds into a query's context.
func (b *queryBounds) apply(ctx context.Context) (context.Context, error) {
	settings := clickhouse.Settings{}
	if b.MaxTime != "" {
		longest, err := parseDuration(b.MaxTime)
		if err != nil || longest <= 0 {
			return nil, usageError(fmt.Sprintf("--max-time %q: want a time such as 90s or 5m", b.MaxTime))
		}
		settings["max_execution_time"] = longest.Seconds()
	}
	if b.MaxMemory != "" {
		most, err := humanize.ParseBytes(b.MaxMemory)
		if err != nil || most == 0 {
			return nil, usageError(fmt.Sprintf("--max-memory %q: want a size such as 500MB or 2GiB", b.MaxMemory))
		}
		settings["max_memory_usage"] = most
	}
	if len(settings) == 0 {
		return ctx, nil
	}
	return clickhouse.Context(ctx, clickhouse.WithSettings(settings)), nil
}

// Run asks the query. It reaches the running instance's engine by the address in
// the data folder, starts the engine itself when none runs, and asks
// CLICKHOUSE_DSN when that is set.
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

// explainBounds adds to ClickHouse's refusal what to do about it.
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
		return fmt.Errorf("%w: TENANTWATCH_SQL_MAX_TIME and TENANTWATCH_SQL_MAX_MEMORY of the running instance are the bounds", err)
	}
	return err
}

// connectReader connects for reading, to wherever the data is, and tells what to
// end then.
func connectReader(ctx context.Context, c *Config) (driver.Conn, func(), error) {
	dsn, end, err := readerDSN(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	conn, err := openReader(ctx, c, dsn)
	if err != nil {
		end()
		return nil, nil, err
	}
	return conn, func() { conn.Close(); end() }, nil
}

// readerDSN is where to ask, as a user who may only read, and what to end then.
func readerDSN(ctx context.Context, c *Config) (dsn string, end func(), err error) {
	end = func() {}
	if c.ClickHouse.DSN != "" {
		return string(c.ClickHouse.DSN), end, nil
	}
	dir := filepath.Join(c.DataDir, clickhouseDir)
	access, err := chlocal.ReadAccess(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("there is no data in %s: set TENANTWATCH_DATA_DIR to the folder of the running instance, or CLICKHOUSE_DSN", c.DataDir)
	}
	if err != nil {
		return "", nil, err
	}
	if chlocal.Ping(ctx, access) != nil {
		found, err := chlocal.FindEngine(c.Engine)
		if err != nil {
			return "", nil, err
		}
		srv, err := chlocal.Start(ctx, chlocal.Config{Dir: dir, Engine: found, Bounds: c.sqlBounds, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return "", nil, err
		}
		access, end = srv.Access, func() { _ = srv.Close() }
	}
	if ok, err := chlocal.HasDatabase(ctx, access, database); err != nil || !ok {
		end()
		return "", nil, errors.Join(fmt.Errorf("there is no data in %s yet: ask again once tenantwatch has started", c.DataDir), err)
	}
	user := chlocal.Reader
	if access.Unconfined {
		user = chlocal.Owner // who is let in; openReader makes the session read-only
	}
	return access.DSN(user, database), end, nil
}

// openReader connects for reading only.
func openReader(ctx context.Context, c *Config, dsn string) (driver.Conn, error) {
	opts, err := schema.Options(dsn, c.tuneClickHouse)
	if err != nil {
		return nil, err
	}
	if opts.Auth.Username != chlocal.Reader {
		// 2: read only, but settings may be changed, which clients need. A user who
		// is read-only anyway may not be told so; then the server itself sees to it.
		if opts.Settings == nil {
			opts.Settings = clickhouse.Settings{}
		}
		opts.Settings["readonly"] = 2
	}
	return schema.Connect(ctx, opts)
}
