package history

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Store reads events from ClickHouse.
type Store struct{ conn driver.Conn }

// NewStore returns a store that uses a connection.
func NewStore(conn driver.Conn) *Store { return &Store{conn} }

// stored is a row of a query.
type stored struct {
	schema.Event
	isNew bool
}

const (
	// blockSize is how many events are passed between the goroutines at once.
	blockSize = 4096
	// maxQuery bounds a query, in bytes: it lists the groups with open alerts.
	maxQuery = 64 << 20
)

// Read calls yield once for each event of a query, with the members that the query's
// rules read. An error of yield stops it.
func (s *Store) Read(ctx context.Context, q *Query, yield func(ev *schema.Event, isNew bool) error) error {
	settings := clickhouse.Settings{"max_query_size": maxQuery}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(settings))
	q, err := s.optimize(ctx, q)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}

	// Decode the next block while yield handles the previous one.
	blocks := make(chan []stored, 4)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(blocks)
		if err := s.read(ctx, q, blocks); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		for block := range blocks {
			for i := range block {
				if err := yield(&block[i].Event, block[i].isNew); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

// optimize returns the query with Groups and Columns set as far as the events allow.
func (s *Store) optimize(ctx context.Context, q *Query) (*Query, error) {
	optimized := *q
	none := func(count string) (bool, error) {
		if count == "" {
			return false, nil
		}
		var rows uint64
		err := s.conn.QueryRow(ctx, count).Scan(&rows)
		return rows == 0, err
	}

	var err error
	if optimized.Groups, err = none(q.countUnclear()); err != nil {
		return nil, err
	}
	optimized.Columns, err = none(q.countOutsideColumns())
	return &optimized, err
}

// read sends the events of a query in blocks.
func (s *Store) read(ctx context.Context, q *Query, blocks chan<- []stored) error {
	rows, err := s.conn.Query(ctx, q.SQL())
	if err != nil {
		return err
	}
	defer rows.Close()

	var block []stored
	send := func() error {
		select {
		case blocks <- block:
			block = nil
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}

	lastTenant, lastID := "", ""
	for rows.Next() {
		event, err := scanRow(rows)
		if err != nil {
			return err
		}

		// An event that is stored twice comes twice, one after the other.
		if event.LogID == lastID && event.Tenant == lastTenant {
			continue
		}
		lastTenant, lastID = event.Tenant, event.LogID

		if block == nil {
			block = make([]stored, 0, blockSize)
		}
		block = append(block, event)
		if len(block) == blockSize {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return send()
}

// scanRow reads a row of Query.SQL.
func scanRow(rows driver.Rows) (event stored, err error) {
	var date, fetched int64
	var source string
	err = rows.Scan(&event.Tenant, &date, &event.LogID, &fetched, &source, &event.isNew, &event.Raw)
	if err != nil {
		return event, err
	}

	// The query does not say: treat it as pulled at once.
	if fetched == 0 {
		fetched, source = date, string(schema.SourceTail)
	}
	event.Source, event.FetchedAt = schema.Source(source), time.UnixMilli(fetched).UTC()
	event.Date = time.UnixMilli(date).UTC()
	return event, nil
}

// Newest returns the date of each tenant's newest event after since and up to until;
// zero for a tenant without any. Events of our own are left out: they also arrive
// while the tenant's do not.
func (s *Store) Newest(ctx context.Context, since, until time.Time) (map[string]time.Time, error) {
	span := "date > " + timeLiteral(since) + " AND date <= " + timeLiteral(until)
	newest := map[string]time.Time{}
	for beyond := "true"; ; {
		// In the order of the table, so that only its marks are read.
		query := "SELECT toString(tenant) FROM events_stored WHERE " + beyond + " ORDER BY tenant LIMIT 1"
		tenants, err := column[string](ctx, s.conn, query)
		if err != nil || len(tenants) == 0 {
			return newest, err
		}

		tenant := tenants[0]
		beyond = "tenant > " + schema.Literal(tenant)
		if newest[tenant], err = s.newest(ctx, tenant, span); err != nil {
			return nil, err
		}
	}
}

// newest returns the date of a tenant's newest event that satisfies a condition; zero
// without any.
func (s *Store) newest(ctx context.Context, tenant, where string) (at time.Time, err error) {
	// In the order of the table, so that only its end is read.
	query := "SELECT date FROM events_stored WHERE tenant = ? AND " + where + " AND " + notOwn +
		" ORDER BY tenant DESC, date DESC LIMIT 1"
	dates, err := column[time.Time](ctx, s.conn, query, tenant)
	if err != nil || len(dates) == 0 {
		return at, err
	}
	return dates[0].UTC(), nil
}

// column returns the values of a query with one column.
func column[T any](ctx context.Context, conn driver.Conn, query string, args ...any) (list []T, err error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()

	for rows.Next() {
		var value T
		if err := rows.Scan(&value); err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		list = append(list, value)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return list, nil
}

// notOwn is a condition that excludes events of our own.
const notOwn = "source NOT IN ('" + string(schema.SourceSelf) + "', '" + string(schema.SourceProbe) + "')"

// now returns the server's time, which inserted_at uses.
func (s *Store) now(ctx context.Context) (now time.Time, err error) {
	err = s.conn.QueryRow(ctx, "SELECT now64(3, 'UTC')").Scan(&now)
	return now, err
}

// scannedTo returns the insertion time up to which a rule has run; zero for never.
func (s *Store) scannedTo(ctx context.Context, ruleID string) (time.Time, error) {
	times, err := column[time.Time](ctx, s.conn, "SELECT scanned_to FROM scans WHERE rule_id = ?", ruleID)
	if err != nil || len(times) == 0 {
		return time.Time{}, err
	}
	return times[len(times)-1], nil
}

// saveScanned saves the insertion time up to which a rule has run.
func (s *Store) saveScanned(ctx context.Context, ruleID string, to time.Time) error {
	query := "INSERT INTO scans_stored (rule_id, scanned_to) VALUES (?, " + timeLiteral(to) + ")"
	if err := s.conn.Exec(ctx, query, ruleID); err != nil {
		return fmt.Errorf("write table scans: %w", err)
	}
	return nil
}
