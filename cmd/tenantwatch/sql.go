package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/dustin/go-humanize"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
)

type sqlCmd struct {
	Query         string `arg:"" help:"The query, such as 'SELECT type, count() FROM events GROUP BY type'."`
	output.Answer `embed:""`
	queryBounds   `embed:""`
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
		limit, err := config.ParseDuration(b.MaxTime)
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

	// The connection cannot write, whatever the query is.
	conn, end, err := a.openReader(ctx)
	if err != nil {
		return err
	}
	defer end()
	rows, err := conn.Query(ctx, q.Query)
	if err != nil {
		return explainBounds(fmt.Errorf("query: %w", err))
	}
	defer rows.Close()
	return explainBounds(q.Print(a.stdout, a.stderr, rows))
}

// explainBounds adds the remedy to an error by which ClickHouse enforces a limit; nil remains nil.
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
