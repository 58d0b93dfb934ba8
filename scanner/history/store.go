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

// Store reads events back from ClickHouse.
type Store struct{ conn driver.Conn }

// NewStore reads over a connection.
func NewStore(conn driver.Conn) *Store { return &Store{conn} }

// stored is an event as a query has it.
type stored struct {
	schema.Event
	isNew bool
}

const (
	// pieceSize is how many events are handed on at once.
	pieceSize = 4096
	// mostQuery is how long a query may be, in bytes: it names the groups with open
	// alerts.
	mostQuery = 64 << 20
)

// Read calls yield for each event of a query, once, with the members that the
// query's rules look at; an error of yield ends it.
func (s *Store) Read(ctx context.Context, q *Query, yield func(ev *schema.Event, isNew bool) error) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_query_size": mostQuery}))
	q, err := s.simplest(ctx, q)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	pieces := make(chan []stored, 4)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(pieces)
		if err := s.read(ctx, q, pieces); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		for piece := range pieces {
			for i := range piece {
				if err := yield(&piece[i].Event, piece[i].isNew); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

// simplest is the query with what saves work where the events allow it.
func (s *Store) simplest(ctx context.Context, q *Query) (*Query, error) {
	own := *q
	none := func(count string) (bool, error) {
		if count == "" {
			return false, nil
		}
		var n uint64
		err := s.conn.QueryRow(ctx, count).Scan(&n)
		return n == 0, err
	}
	var err error
	if own.Groups, err = none(q.unclear()); err != nil {
		return nil, err
	}
	own.Columns, err = none(q.elsewhere())
	return &own, err
}

// read hands on the events of one query.
func (s *Store) read(ctx context.Context, q *Query, pieces chan<- []stored) error {
	rows, err := s.conn.Query(ctx, q.SQL())
	if err != nil {
		return err
	}
	defer rows.Close()
	var piece []stored
	send := func() error {
		select {
		case pieces <- piece:
			piece = nil
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	lastTenant, lastID := "", ""
	for rows.Next() {
		var date, fetched int64
		var tenant, logID, source string
		var raw []byte
		var isNew bool
		if err := rows.Scan(&tenant, &date, &logID, &fetched, &source, &isNew, &raw); err != nil {
			return err
		}
		if logID == lastID && tenant == lastTenant {
			continue // stored twice
		}
		lastTenant, lastID = tenant, logID
		if fetched == 0 { // as if it had come at once
			fetched, source = date, string(schema.Tail)
		}
		if piece == nil {
			piece = make([]stored, 0, pieceSize)
		}
		piece = append(piece, stored{schema.Event{Tenant: tenant, Source: schema.Source(source), FetchedAt: time.UnixMilli(fetched).UTC(),
			LogID: logID, Date: time.UnixMilli(date).UTC(), Raw: raw}, isNew})
		if len(piece) == pieceSize {
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

// Newest is the date of each tenant's newest event, of those after since and up to
// until; zero for a tenant that has none. Our own events do not count: they come also
// where a tenant's do not.
func (s *Store) Newest(ctx context.Context, since, until time.Time) (map[string]time.Time, error) {
	newest := map[string]time.Time{}
	for beyond := "true"; ; {
		// By the table's order, so that no more than its marks are read.
		tenants, err := column[string](ctx, s.conn, "SELECT toString(tenant) FROM events_stored WHERE "+beyond+" ORDER BY tenant LIMIT 1")
		if err != nil || len(tenants) == 0 {
			return newest, err
		}
		tenant := tenants[0]
		beyond = "tenant > " + schema.Literal(tenant)
		if newest[tenant], err = s.newest(ctx, tenant, "date > "+timeLiteral(since)+" AND date <= "+timeLiteral(until)); err != nil {
			return nil, err
		}
	}
}

// newest is the date of a tenant's newest event that keeps a condition; zero without
// any.
func (s *Store) newest(ctx context.Context, tenant, where string) (at time.Time, err error) {
	// By the table's order, so that only its end is read.
	dates, err := column[time.Time](ctx, s.conn, "SELECT date FROM events_stored WHERE tenant = ? AND "+where+" AND "+notOwn+" ORDER BY tenant DESC, date DESC LIMIT 1", tenant)
	if err != nil || len(dates) == 0 {
		return at, err
	}
	return dates[0].UTC(), nil
}

// column is what a query's only column has.
func column[T any](ctx context.Context, conn driver.Conn, query string, args ...any) (list []T, err error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return list, nil
}

// notOwn is a condition on a tenant's own events.
const notOwn = "source NOT IN ('" + string(schema.Self) + "', '" + string(schema.Probe) + "')"

// now is the server's clock, by which inserted_at goes.
func (s *Store) now(ctx context.Context) (now time.Time, err error) {
	err = s.conn.QueryRow(ctx, "SELECT now64(3, 'UTC')").Scan(&now)
	return now, err
}

// scannedTo is up to when, in time of insertion, a rule has been run; zero for never.
func (s *Store) scannedTo(ctx context.Context, ruleID string) (time.Time, error) {
	times, err := column[time.Time](ctx, s.conn, "SELECT scanned_to FROM scans WHERE rule_id = ?", ruleID)
	if err != nil || len(times) == 0 {
		return time.Time{}, err
	}
	return times[len(times)-1], nil
}

func (s *Store) noteScanned(ctx context.Context, ruleID string, to time.Time) error {
	if err := s.conn.Exec(ctx, "INSERT INTO scans_stored (rule_id, scanned_to) VALUES (?, "+timeLiteral(to)+")", ruleID); err != nil {
		return fmt.Errorf("write table scans: %w", err)
	}
	return nil
}
