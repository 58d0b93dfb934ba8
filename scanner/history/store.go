package history

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Store reads events back from ClickHouse.
type Store struct{ conn driver.Conn }

// NewStore reads over a connection.
func NewStore(conn driver.Conn) *Store { return &Store{conn} }

// Read calls yield for each event of a query, once, with the members that the
// query's rules look at; an error of yield ends it. The event is valid until yield
// returns.
func (s *Store) Read(ctx context.Context, q *Query, yield func(ev *schema.Event, isNew bool) error) error {
	if count := q.clear(); count != "" {
		var unclear uint64
		if err := s.conn.QueryRow(ctx, count).Scan(&unclear); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if unclear > 0 {
			whole := *q
			whole.Groups = false
			q = &whole
		}
	}
	rows, err := s.conn.Query(ctx, q.SQL())
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer rows.Close()
	var ev schema.Event
	for rows.Next() {
		var date, fetched int64
		var tenant, logID, source, raw string
		var isNew bool
		if err := rows.Scan(&tenant, &date, &fetched, &logID, &source, &isNew, &raw); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if logID == ev.LogID && tenant == ev.Tenant {
			continue // stored twice
		}
		ev = schema.Event{Tenant: tenant, Source: schema.Source(source), FetchedAt: time.UnixMilli(fetched).UTC(), LogID: logID,
			Date: time.UnixMilli(date).UTC(), Raw: []byte(raw)}
		if err := yield(&ev, isNew); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

// Newest is the date of each tenant's newest event, of those after since and up to
// until.
func (s *Store) Newest(ctx context.Context, since, until time.Time) (map[string]time.Time, error) {
	rows, err := s.conn.Query(ctx, "SELECT tenant, max(date) FROM events_stored WHERE date > "+timeLiteral(since)+" AND date <= "+timeLiteral(until)+" GROUP BY tenant")
	if err != nil {
		return nil, fmt.Errorf("read the newest events' dates: %w", err)
	}
	defer rows.Close()
	newest := map[string]time.Time{}
	for rows.Next() {
		var tenant string
		var at time.Time
		if err := rows.Scan(&tenant, &at); err != nil {
			return nil, fmt.Errorf("read the newest events' dates: %w", err)
		}
		newest[tenant] = at.UTC()
	}
	return newest, rows.Err()
}
