package audit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Archive is the Destination of ClickHouse and the deadletter topic.
type Archive struct {
	conn    driver.Conn
	drained func(context.Context) error
	dead    func(context.Context, func(schema.Record) error) error
	saving  sync.Mutex // held from the read to the write of SaveCoverage, since audits run in parallel
}

// NewArchive returns the archive of a database. drained waits until the writer has written
// all that was in the events topic when it was called; dead reads every record of the
// deadletter topic.
func NewArchive(
	conn driver.Conn,
	drained func(context.Context) error,
	dead func(context.Context, func(schema.Record) error) error,
) *Archive {
	return &Archive{conn: conn, drained: drained, dead: dead}
}

// queryTimeout bounds one query.
const queryTimeout = time.Minute

// queryIDs is the number of ids in one query. ClickHouse accepts 256 KB of text.
const queryIDs = 1000

// Stored returns which of the events of a tenant are in ClickHouse.
func (a *Archive) Stored(ctx context.Context, tenant string, events []schema.Event) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	found := map[string]bool{}

	// Nearly all events have a date close to the time of their id, and are neighbors in the
	// table's order: one query finds them.
	near, far := nearAndFar(events)
	if near.low != "" {
		const query = `SELECT log_id FROM events_stored WHERE tenant = ?
			AND date BETWEEN fromUnixTimestamp64Milli(?, 'UTC') AND fromUnixTimestamp64Milli(?, 'UTC')
			AND log_id BETWEEN ? AND ?`
		err := a.collect(ctx, found, query,
			tenant, near.from.UnixMilli(), near.until.UnixMilli(), near.low, near.high)
		if err != nil {
			return nil, err
		}
	}

	// An event that first had another date is not where it is expected. Look up these, and the
	// events with a distant date, by their ids.
	for i := range events {
		if id := events[i].LogID; id >= near.low && id <= near.high && !found[id] && near.low != "" {
			far = append(far, id)
		}
	}
	slices.Sort(far)
	for some := range slices.Chunk(slices.Compact(far), queryIDs) {
		query := "SELECT log_id FROM events_stored WHERE tenant = ? AND log_id IN (" + schema.Literals(some) + ")"
		if err := a.collect(ctx, found, query, tenant); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// idRange has the bounds of the dates and ids of some events; low is empty if there are none.
type idRange struct {
	from, until time.Time
	low, high   string
}

// nearAndFar returns the range of the events whose date is close to the time of their id,
// and the ids of the others.
func nearAndFar(events []schema.Event) (near idRange, far []string) {
	for i := range events {
		event := &events[i]
		at, ok := schema.IDTime(event.LogID)
		if !ok || event.Date.Before(at.Add(-time.Hour)) || event.Date.After(at.Add(time.Hour)) {
			far = append(far, event.LogID)
			continue
		}

		if near.low == "" || event.LogID < near.low {
			near.low = event.LogID
		}
		near.high = max(near.high, event.LogID)
		if near.from.IsZero() || event.Date.Before(near.from) {
			near.from = event.Date
		}
		if event.Date.After(near.until) {
			near.until = event.Date
		}
	}
	return near, far
}

// collect adds the ids that a query returns to found.
func (a *Archive) collect(ctx context.Context, found map[string]bool, query string, args ...any) error {
	rows, err := a.conn.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("look up events in ClickHouse: %w", err)
	}
	defer rows.Close()

	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("look up events in ClickHouse: %w", err)
		}
		found[id] = true
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look up events in ClickHouse: %w", err)
	}
	return nil
}

// DeadLetters returns the ids of a tenant's dead letters.
func (a *Archive) DeadLetters(ctx context.Context, tenant string) (map[string]bool, error) {
	found := map[string]bool{}
	err := a.dead(ctx, func(r schema.Record) error {
		// A letter that was given to the writer again counts as well: it comes back, or is stored.
		if letter := schema.DeadLetterOf(&r); letter.Tenant == tenant {
			found[letter.ID] = true
		}
		return nil
	})
	return found, err
}

// Drained waits for the writer.
func (a *Archive) Drained(ctx context.Context) error { return a.drained(ctx) }

// SaveCoverage saves one row an hour: that of the newest audit, with all events that were
// ever healed. If the tenant has dropped a part of an hour since the last audit, the row of
// that audit stays. It may be repeated with the same rows.
func (a *Archive) SaveCoverage(ctx context.Context, list []schema.Coverage) error {
	a.saving.Lock()
	defer a.saving.Unlock()
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()

	known, err := ReadCoverage(ctx, a.conn, list[0].Tenant, list[0].Hour, list[len(list)-1].Hour.Add(time.Hour))
	if err != nil {
		return err
	}
	batch, err := a.conn.PrepareBatch(ctx, "INSERT INTO coverage_stored")
	if err != nil {
		return fmt.Errorf("save the coverage: %w", err)
	}
	defer batch.Close()

	// A row replaces the one of the last audit of its hour.
	for n, c := range list {
		i, ok := slices.BinarySearchFunc(known, c.Hour, func(k schema.Coverage, hour time.Time) int {
			return k.Hour.Compare(hour)
		})
		if ok {
			before := known[i]
			if before.CheckedAt.Equal(c.CheckedAt) {
				continue // the same row: its insert has succeeded although it returned an error
			}

			// The row with the highest CheckedAt counts, but another audit in parallel may have written a
			// higher one. A repeat must know the row again.
			if c.CheckedAt.Before(before.CheckedAt) {
				c.CheckedAt = before.CheckedAt.Add(time.Millisecond)
				list[n].CheckedAt = c.CheckedAt
			}
			c = merged(c, before)
		}

		if err := batch.Append(c.Tenant, c.Hour, c.Expected, c.Stored, c.Dead, c.Missing, c.Healed,
			c.From, c.Until, c.CheckedAt); err != nil {
			return fmt.Errorf("save the coverage: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("save the coverage: %w", err)
	}
	return nil
}

// merged returns the coverage of an hour that was audited before.
func merged(c, before schema.Coverage) schema.Coverage {
	c.Healed += before.Healed
	if c.Expected < before.Expected { // the tenant has dropped events since
		c.Expected, c.Dead, c.From, c.Until = before.Expected, before.Dead, before.From, before.Until
		c.Stored = c.Expected - min(c.Expected, c.Dead+c.Missing)
	}
	return c
}

// ReadCoverage returns the results of audits for the hours between two times, in their order.
func ReadCoverage(
	ctx context.Context, conn driver.Conn, tenant string, from, until time.Time,
) ([]schema.Coverage, error) {
	rows, err := conn.Query(ctx, `SELECT tenant, hour, expected, stored, dead_letters, missing, healed,
			checked_from, checked_to, checked_at FROM coverage
		WHERE tenant = ? AND hour >= toDateTime(?, 'UTC') AND hour < toDateTime(?, 'UTC') ORDER BY hour`,
		tenant, from.Unix(), until.Unix())
	if err != nil {
		return nil, fmt.Errorf("read the coverage: %w", err)
	}
	defer rows.Close()

	var list []schema.Coverage
	for rows.Next() {
		var c schema.Coverage
		if err := rows.Scan(&c.Tenant, &c.Hour, &c.Expected, &c.Stored, &c.Dead, &c.Missing, &c.Healed,
			&c.From, &c.Until, &c.CheckedAt); err != nil {
			return nil, fmt.Errorf("read the coverage: %w", err)
		}
		list = append(list, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the coverage: %w", err)
	}
	return list, nil
}
