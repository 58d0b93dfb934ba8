package write

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// A row is identified by its tenant, date and log_id, and dates are stored in milliseconds.
// If the same event came again with its date in another precision, it would be a second
// row. So the first date of an event counts. Looking it up is expensive: this is only done
// for events whose date is odd, that is, not in Auth0's form, and for those whose date was
// odd before.

// Dates returns the dates under which events are stored.
type Dates interface {
	// Odd calls yield for each event that was stored recently with an odd date.
	Odd(ctx context.Context, yield func(tenant, logID string)) error
	// Kept returns the first date of each of the ids of a tenant that is stored. The dates are
	// about between two times.
	Kept(ctx context.Context, tenant string, ids []string, from, until time.Time) (map[string]time.Time, error)
}

const (
	// queryTimeout bounds one query.
	queryTimeout = time.Minute
	// queryIDs is the number of ids in one query. ClickHouse accepts 256 KB of text.
	queryIDs = 1000
)

// StoredDates are the dates in ClickHouse.
type StoredDates struct{ conn driver.Conn }

// NewStoredDates returns the dates in a database.
func NewStoredDates(conn driver.Conn) *StoredDates { return &StoredDates{conn} }

// Odd reads the last forty days. Auth0 has dropped all older events.
func (s *StoredDates) Odd(ctx context.Context, yield func(tenant, logID string)) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()

	// Bit 2 of members says that the column has all of the date.
	rows, err := s.conn.Query(ctx, `SELECT tenant, log_id FROM events_stored
		WHERE date > now() - INTERVAL 40 DAY AND NOT bitTest(members, 2) AND source NOT IN ('self', 'probe')
		ORDER BY date DESC LIMIT ?`, maxOdd)
	if err != nil {
		return fmt.Errorf("look up odd dates in ClickHouse: %w", err)
	}
	defer rows.Close()

	for rows.Next() {
		var tenant, logID string
		if err := rows.Scan(&tenant, &logID); err != nil {
			return fmt.Errorf("look up odd dates in ClickHouse: %w", err)
		}
		yield(tenant, logID)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look up odd dates in ClickHouse: %w", err)
	}
	return nil
}

// dateSlack is the greatest difference of two forms of one date: a time zone.
const dateSlack = 25 * time.Hour

// Kept looks up ids in the days around their dates.
func (s *StoredDates) Kept(
	ctx context.Context, tenant string, ids []string, from, until time.Time,
) (map[string]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()

	// The bounds of the dates prune the table's partitions.
	found := map[string]time.Time{}
	for some := range slices.Chunk(ids, queryIDs) {
		if err := s.collect(ctx, found, tenant, some, from.Add(-dateSlack), until.Add(dateSlack)); err != nil {
			return nil, fmt.Errorf("look up dates in ClickHouse: %w", err)
		}
	}
	return found, nil
}

// collect adds the first dates of ids to found.
func (s *StoredDates) collect(
	ctx context.Context, found map[string]time.Time, tenant string, ids []string, from, until time.Time,
) error {
	rows, err := s.conn.Query(ctx, `SELECT log_id, argMin(date, inserted_at) FROM events_stored
		WHERE tenant = ? AND date BETWEEN fromUnixTimestamp64Milli(?, 'UTC') AND fromUnixTimestamp64Milli(?, 'UTC')
		AND log_id IN (`+schema.Literals(ids)+") GROUP BY log_id", tenant, from.UnixMilli(), until.UnixMilli())
	if err != nil {
		return err
	}
	defer rows.Close()

	for rows.Next() {
		var id string
		var date time.Time
		if err := rows.Scan(&id, &date); err != nil {
			return err
		}
		found[id] = date.UTC()
	}
	return rows.Err()
}

// maxOdd is the number of events with odd dates that are remembered. One takes about 20 bytes.
const maxOdd = 200_000

// oddDates remembers the events with odd dates.
type oddDates struct {
	mu    sync.Mutex // guards known
	known map[uint64]struct{}
}

// eventKey identifies an event in memory. A collision would cost one lookup.
func eventKey(tenant, logID string) uint64 {
	return xxh3.HashStringSeed(logID, xxh3.HashString(tenant))
}

func (o *oddDates) add(key uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = map[uint64]struct{}{}
	}

	// If the map is full, remove any of the keys.
	if len(o.known) >= maxOdd {
		for old := range o.known {
			delete(o.known, old)
			break
		}
	}
	o.known[key] = struct{}{}
}

func (o *oddDates) has(key uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, known := o.known[key]
	return known
}

// dated is a row of a chunk with its date.
type dated struct {
	key  uint64
	date time.Time
}

// undated is an event whose row may be stored already under another date.
type undated struct {
	event schema.Event
	row   schema.Row
}

// KeepFirstDates makes the writer store each event under its first date.
func (w *Writer) KeepFirstDates(dates Dates) { w.dates = dates }

// loadOdd loads the events with odd dates, at each start of a partition: another process
// may have written some.
func (w *Writer) loadOdd(ctx context.Context) error {
	if w.dates == nil {
		return nil
	}
	return w.askDates(ctx, func() error {
		return w.dates.Odd(ctx, func(tenant, logID string) { w.odd.add(eventKey(tenant, logID)) })
	})
}

// askDates repeats a query until it succeeds or ctx ends. While ClickHouse is down, chunks wait here as they do
// for inserts.
func (w *Writer) askDates(ctx context.Context, query func() error) error {
	_, err := w.retry(ctx, query, func(err error) {
		w.log.Warn("look up dates failed; retrying, no event is lost", "err", err)
	})
	return err
}

// isUndated reports whether the date of a row has to be looked up, and notes it.
func (w *Writer) isUndated(c *chunk, event *schema.Event, row *schema.Row) bool {
	// Our own events have one date only.
	if w.dates == nil || event.Source == schema.SourceSelf || event.Source == schema.SourceProbe {
		return false
	}

	key := eventKey(event.Tenant, row.LogID)
	if !row.PlainDate() {
		w.odd.add(key)
		return true
	}
	if w.odd.has(key) {
		return true
	}

	// The same event may follow in this chunk with an odd date.
	c.dated = append(c.dated, dated{key, row.Date})
	return false
}

// resolveDates gives the undated rows of a chunk their first dates, and adds them to its
// blocks. All chunks before it must have been inserted.
func (w *Writer) resolveDates(ctx context.Context, c *chunk) error {
	// Of several dates, that in ClickHouse counts, then the first one in the chunk.
	first, err := w.storedDates(ctx, c)
	if err != nil {
		return err
	}
	for _, row := range c.dated {
		if _, known := first[row.key]; !known {
			first[row.key] = row.date
		}
	}

	for i := range c.undated {
		item := &c.undated[i]
		key := eventKey(item.event.Tenant, item.row.LogID)
		if date, known := first[key]; known {
			item.row.KeepUnder(date)
		} else {
			first[key] = item.row.Date
		}
		c.block(item.row.Date, &w.spare).Add(&item.event, &item.row)
	}
	return nil
}

// storedDates returns the dates that ClickHouse has of the undated events of a chunk, by
// their keys.
func (w *Writer) storedDates(ctx context.Context, c *chunk) (map[uint64]time.Time, error) {
	byTenant := map[string][]*undated{}
	for i := range c.undated {
		item := &c.undated[i]
		byTenant[item.event.Tenant] = append(byTenant[item.event.Tenant], item)
	}

	// One lookup for each tenant, nearly always one in all.
	stored := map[uint64]time.Time{}
	for tenant, list := range byTenant {
		ids, from, until := make([]string, len(list)), list[0].row.Date, list[0].row.Date
		for i, item := range list {
			ids[i] = item.row.LogID
			if item.row.Date.Before(from) {
				from = item.row.Date
			}
			if item.row.Date.After(until) {
				until = item.row.Date
			}
		}

		err := w.askDates(ctx, func() error {
			kept, err := w.dates.Kept(ctx, tenant, ids, from, until)
			for id, date := range kept {
				stored[eventKey(tenant, id)] = date
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return stored, nil
}
