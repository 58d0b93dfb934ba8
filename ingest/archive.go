package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Archive is what ClickHouse and the deadletter topic keep, for audits.
type Archive struct {
	conn    driver.Conn
	settled func(context.Context) error
	dead    func(context.Context, func(schema.Record) error) error
	noting  sync.Mutex // held from the reading of notes to their writing: audits go on side by side
}

// NewArchive returns the archive of a database. settled waits until the writer has
// written all that was in the events topic when it was called; dead reads every
// record of the deadletter topic.
func NewArchive(conn driver.Conn, settled func(context.Context) error, dead func(context.Context, func(schema.Record) error) error) *Archive {
	return &Archive{conn: conn, settled: settled, dead: dead}
}

// askTimeout bounds one query.
const askTimeout = time.Minute

// farIDs is how many ids stand in one query; ClickHouse takes 256 KB of text.
const farIDs = 1000

// Stored returns which of the events of a tenant are in ClickHouse.
func (a *Archive) Stored(ctx context.Context, tenant string, events []schema.Event) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found := map[string]bool{}
	// Nearly all events have a date close to the time in their id, and lie side by
	// side in the table's order. The others are looked for one by one.
	var far []string
	var from, until time.Time
	var low, high string
	for i := range events {
		e := &events[i]
		at, ok := schema.IDTime(e.LogID)
		if !ok || e.Date.Before(at.Add(-time.Hour)) || e.Date.After(at.Add(time.Hour)) {
			far = append(far, e.LogID)
			continue
		}
		if low == "" || e.LogID < low {
			low = e.LogID
		}
		high = max(high, e.LogID)
		if from.IsZero() || e.Date.Before(from) {
			from = e.Date
		}
		if e.Date.After(until) {
			until = e.Date
		}
	}
	if low != "" {
		const near = "SELECT log_id FROM events_stored WHERE tenant = ? AND date BETWEEN fromUnixTimestamp64Milli(?, 'UTC') AND fromUnixTimestamp64Milli(?, 'UTC') AND log_id BETWEEN ? AND ?"
		if err := a.collect(ctx, found, near, tenant, from.UnixMilli(), until.UnixMilli(), low, high); err != nil {
			return nil, err
		}
	}
	// One that came first with another date is a little away from where it is expected.
	for i := range events {
		if id := events[i].LogID; id >= low && id <= high && !found[id] && low != "" {
			far = append(far, id)
		}
	}
	slices.Sort(far)
	for some := range slices.Chunk(slices.Compact(far), farIDs) {
		quoted := make([]string, len(some))
		for i, id := range some {
			quoted[i] = plain(id)
		}
		if err := a.collect(ctx, found, "SELECT log_id FROM events_stored WHERE tenant = ? AND log_id IN ("+strings.Join(quoted, ", ")+")", tenant); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// plain is a string literal of letters, digits and escapes only: the driver takes
// ?, $1, @x and {x:y} for its parameters, also within quotes.
func plain(text string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, c := range []byte(text) {
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + "'"
}

func (a *Archive) collect(ctx context.Context, found map[string]bool, query string, args ...any) error {
	rows, err := a.conn.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("look for events in ClickHouse: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("look for events in ClickHouse: %w", err)
		}
		found[id] = true
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for events in ClickHouse: %w", err)
	}
	return nil
}

// Dead returns the ids of a tenant's dead letters.
func (a *Archive) Dead(ctx context.Context, tenant string) (map[string]bool, error) {
	found := map[string]bool{}
	err := a.dead(ctx, func(r schema.Record) error {
		if d := schema.DeadLetterOf(&r); d.Tenant == tenant {
			found[d.ID] = true // one that was handed to the writer again comes back or is stored
		}
		return nil
	})
	return found, err
}

// Settled waits for the writer.
func (a *Archive) Settled(ctx context.Context) error { return a.settled(ctx) }

// Note keeps one row an hour: the newest audit's, with all that was ever healed of
// it. An hour of which the tenant has dropped a part meanwhile stays as it was. It
// may be repeated with the same rows.
func (a *Archive) Note(ctx context.Context, list []schema.Coverage) error {
	a.noting.Lock()
	defer a.noting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	known, err := ReadCoverage(ctx, a.conn, list[0].Tenant, list[0].Hour, list[len(list)-1].Hour.Add(time.Hour))
	if err != nil {
		return err
	}
	batch, err := a.conn.PrepareBatch(ctx, "INSERT INTO coverage_stored")
	if err != nil {
		return fmt.Errorf("note what an audit found: %w", err)
	}
	defer batch.Close()
	for n, c := range list {
		i, ok := slices.BinarySearchFunc(known, c.Hour, func(k schema.Coverage, hour time.Time) int { return k.Hour.Compare(hour) })
		if ok {
			k := known[i]
			if k.CheckedAt.Equal(c.CheckedAt) {
				continue // the same row, which was there although its insert seemed to fail
			}
			if c.CheckedAt.Before(k.CheckedAt) { // of two audits side by side; the last row counts
				c.CheckedAt = k.CheckedAt.Add(time.Millisecond)
				list[n].CheckedAt = c.CheckedAt // known again by a repeat
			}
			c.Healed += k.Healed
			if c.Expected < k.Expected {
				c.Expected, c.Dead, c.From, c.Until = k.Expected, k.Dead, k.From, k.Until
				c.Stored = c.Expected - min(c.Expected, c.Dead+c.Missing)
			}
		}
		if err := batch.Append(c.Tenant, c.Hour, c.Expected, c.Stored, c.Dead, c.Missing, c.Healed, c.From, c.Until, c.CheckedAt); err != nil {
			return fmt.Errorf("note what an audit found: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("note what an audit found: %w", err)
	}
	return nil
}

// ReadCoverage returns what audits have found out about the hours from one time
// to another, in their order.
func ReadCoverage(ctx context.Context, conn driver.Conn, tenant string, from, until time.Time) ([]schema.Coverage, error) {
	rows, err := conn.Query(ctx, `SELECT tenant, hour, expected, stored, dead_letters, missing, healed, checked_from, checked_to, checked_at
		FROM coverage WHERE tenant = ? AND hour >= toDateTime(?, 'UTC') AND hour < toDateTime(?, 'UTC') ORDER BY hour`,
		tenant, from.Unix(), until.Unix())
	if err != nil {
		return nil, fmt.Errorf("read the coverage: %w", err)
	}
	defer rows.Close()
	var list []schema.Coverage
	for rows.Next() {
		var c schema.Coverage
		if err := rows.Scan(&c.Tenant, &c.Hour, &c.Expected, &c.Stored, &c.Dead, &c.Missing, &c.Healed, &c.From, &c.Until, &c.CheckedAt); err != nil {
			return nil, fmt.Errorf("read the coverage: %w", err)
		}
		list = append(list, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the coverage: %w", err)
	}
	return list, nil
}
