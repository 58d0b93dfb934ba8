package silence

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Store is what ClickHouse knows of the tenants.
type Store struct{ conn driver.Conn }

// NewStore returns a store that uses a connection.
func NewStore(conn driver.Conn) *Store { return &Store{conn} }

// seenQuery selects a tenant's first and newest event, the number of events in the current hour of the last
// seven days, and the newest probe. Dates more than five minutes in the future are ignored: an event may hold
// any date.
const seenQuery = `SELECT tenant,
		minIf(date, source NOT IN ('self', 'probe')), maxIf(date, source NOT IN ('self', 'probe')),
		countIf(source NOT IN ('self', 'probe') AND toHour(date) = toHour(now('UTC'))),
		maxIf(date, type = 'tenantwatch_probe')
	FROM events_stored
	WHERE date > now() - INTERVAL 7 DAY AND date < now() + INTERVAL 5 MINUTE + toIntervalSecond(?)
	GROUP BY tenant`

// Seen returns a summary of the tenants' stored events of the last seven days, by tenant. The tenants' clocks
// are ahead of ours by so much.
func (s *Store) Seen(ctx context.Context, ahead time.Duration) (map[string]Seen, error) {
	rows, err := s.conn.Query(ctx, seenQuery, int64(ahead.Seconds()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()

	found := map[string]Seen{}
	for rows.Next() {
		var tenant string
		var seen Seen
		if err := rows.Scan(&tenant, &seen.First, &seen.Newest, &seen.SameHour, &seen.Probe); err != nil {
			return nil, err
		}

		// ClickHouse returns 1970 for the minimum and maximum of no rows.
		for _, at := range []*time.Time{&seen.First, &seen.Newest, &seen.Probe} {
			if at.Unix() == 0 {
				*at = time.Time{}
			}
		}
		found[tenant] = seen
	}
	return found, rows.Err()
}
