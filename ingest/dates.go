package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/cenkalti/backoff/v5"
	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// An event's row is known by its tenant, date and log_id, and dates are kept in
// milliseconds. Where the same event comes once more with its date in another
// precision, it would be a second row: the first date wins. To look for it is dear,
// so that is done for events only whose date is not as Auth0 writes it, and for those
// that have come so before.

// Dates knows under which dates events are kept.
type Dates interface {
	// Odd calls yield for each event that was kept lately with a date that is not as
	// Auth0 writes it.
	Odd(ctx context.Context, yield func(tenant, logID string)) error
	// Kept returns the first date of each of some ids of a tenant that are kept. Their
	// dates are about those between two times.
	Kept(ctx context.Context, tenant string, ids []string, from, until time.Time) (map[string]time.Time, error)
}

// StoredDates are those of ClickHouse.
type StoredDates struct{ conn driver.Conn }

// NewStoredDates returns the dates of a database.
func NewStoredDates(conn driver.Conn) *StoredDates { return &StoredDates{conn} }

// Odd reads the last forty days: what is older, Auth0 has dropped.
func (s *StoredDates) Odd(ctx context.Context, yield func(tenant, logID string)) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	rows, err := s.conn.Query(ctx, `SELECT tenant, log_id FROM events_stored
		WHERE date > now() - INTERVAL 40 DAY AND NOT bitTest(members, 2) AND source NOT IN ('self', 'probe') ORDER BY date DESC LIMIT ?`, mostOdd)
	if err != nil {
		return fmt.Errorf("look for odd dates in ClickHouse: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var tenant, logID string
		if err := rows.Scan(&tenant, &logID); err != nil {
			return fmt.Errorf("look for odd dates in ClickHouse: %w", err)
		}
		yield(tenant, logID)
	}
	return rows.Err()
}

// dateSlack is what two spellings of one date may differ by: a time zone.
const dateSlack = 25 * time.Hour

// Kept looks for ids in the days around their dates.
func (s *StoredDates) Kept(ctx context.Context, tenant string, ids []string, from, until time.Time) (map[string]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found := map[string]time.Time{}
	for some := range slices.Chunk(ids, farIDs) {
		quoted := make([]string, len(some))
		for i, id := range some {
			quoted[i] = plain(id)
		}
		rows, err := s.conn.Query(ctx, `SELECT log_id, argMin(date, inserted_at) FROM events_stored
			WHERE tenant = ? AND date BETWEEN fromUnixTimestamp64Milli(?, 'UTC') AND fromUnixTimestamp64Milli(?, 'UTC') AND log_id IN (`+
			strings.Join(quoted, ", ")+") GROUP BY log_id", tenant, from.Add(-dateSlack).UnixMilli(), until.Add(dateSlack).UnixMilli())
		if err != nil {
			return nil, fmt.Errorf("look for dates in ClickHouse: %w", err)
		}
		for rows.Next() {
			var id string
			var date time.Time
			if err := rows.Scan(&id, &date); err != nil {
				rows.Close()
				return nil, fmt.Errorf("look for dates in ClickHouse: %w", err)
			}
			found[id] = date.UTC()
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, fmt.Errorf("look for dates in ClickHouse: %w", err)
		}
	}
	return found, nil
}

// mostOdd is how many events with odd dates are remembered; one takes some 20 bytes.
const mostOdd = 200_000

// oddDates remembers events whose date was odd.
type oddDates struct {
	mu    sync.Mutex // guards known
	known map[uint64]struct{}
}

// eventKey is an event's identity in memory. Two that collide would cost a look.
func eventKey(tenant, logID string) uint64 {
	return xxh3.HashStringSeed(logID, xxh3.HashString(tenant))
}

func (o *oddDates) add(key uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = map[uint64]struct{}{}
	}
	if len(o.known) >= mostOdd { // any of them has to go
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

// dated is a row of a chunk and its date.
type dated struct {
	key  uint64
	date time.Time
}

// unsettled is an event whose row may be there already, under another date.
type unsettled struct {
	event schema.Event
	row   schema.Row
}

// KeepFirstDates has events keep the date under which they came first.
func (w *Writer) KeepFirstDates(dates Dates) { w.dates = dates }

// loadOdd reads which events have odd dates, as often as it takes: another process
// may have written some.
func (w *Writer) loadOdd(ctx context.Context) error {
	if w.dates == nil {
		return nil
	}
	return w.askDates(ctx, func() error {
		return w.dates.Odd(ctx, func(tenant, logID string) { w.odd.add(eventKey(tenant, logID)) })
	})
}

// askDates repeats a question to ClickHouse until it is answered or ctx ends.
func (w *Writer) askDates(ctx context.Context, question func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 10*time.Second
	said := ""
	for {
		err := question()
		if err == nil {
			if said != "" {
				w.setFailing("")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err.Error() != said {
			said = err.Error()
			w.log.Warn("dates cannot be looked for; trying again, nothing is lost", "err", err)
			w.setFailing(said)
		}
		if !sleep(ctx, pause.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// isUnsettled reports whether a row has to be looked for, and notes it.
func (w *Writer) isUnsettled(c *chunk, e *schema.Event, row *schema.Row) bool {
	if w.dates == nil || e.Source == schema.Self || e.Source == schema.Probe {
		return false
	}
	key := eventKey(e.Tenant, row.LogID)
	if !row.PlainDate() {
		w.odd.add(key)
		return true
	}
	if w.odd.has(key) {
		return true
	}
	c.dated = append(c.dated, dated{key, row.Date})
	return false
}

// settleDates gives the rows of a chunk that were put aside their dates, and adds
// them. All chunks before it must have been inserted.
func (w *Writer) settleDates(ctx context.Context, c *chunk) error {
	byTenant := map[string][]*unsettled{}
	for i := range c.unsettled {
		u := &c.unsettled[i]
		byTenant[u.event.Tenant] = append(byTenant[u.event.Tenant], u)
	}
	first := map[uint64]time.Time{}
	for tenant, list := range byTenant {
		ids, from, until := make([]string, len(list)), list[0].row.Date, list[0].row.Date
		for i, u := range list {
			ids[i] = u.row.LogID
			if u.row.Date.Before(from) {
				from = u.row.Date
			}
			if u.row.Date.After(until) {
				until = u.row.Date
			}
		}
		err := w.askDates(ctx, func() error {
			kept, err := w.dates.Kept(ctx, tenant, ids, from, until)
			for id, date := range kept {
				first[eventKey(tenant, id)] = date
			}
			return err
		})
		if err != nil {
			return err
		}
	}

	// What ClickHouse has goes first, then what came before in the chunk.
	for _, d := range c.dated {
		if _, known := first[d.key]; !known {
			first[d.key] = d.date
		}
	}
	for i := range c.unsettled {
		u := &c.unsettled[i]
		key := eventKey(u.event.Tenant, u.row.LogID)
		if date, known := first[key]; known {
			u.row.KeepUnder(date)
		} else {
			first[key] = u.row.Date
		}
		c.block(u.row.Date, &w.spare).Add(&u.event, &u.row)
	}
	return nil
}
