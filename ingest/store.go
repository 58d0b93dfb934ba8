package ingest

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// insertTimeout bounds one insert. It is generous: what is broken off has an
// unknown outcome.
const insertTimeout = 2 * time.Minute

// Store is the table events_stored.
type Store struct {
	conn   driver.Conn
	insert string
}

// NewStore returns the store of a connection's database.
func NewStore(conn driver.Conn) *Store {
	columns := []string{"tenant", "date", "type", "log_id", "members", "source", "fetched_at", "details", "rest"}
	columns = append(columns, schema.TextColumns[schema.FirstText:]...)
	return &Store{conn: conn, insert: "INSERT INTO events_stored (" + strings.Join(columns, ", ") + ")"}
}

// Insert stores rows of one month in one block, which ClickHouse takes as a
// whole or not at all. A block that it has already taken under the token is
// acknowledged and dropped.
func (s *Store) Insert(ctx context.Context, rows []StoredEvent, token string) error {
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()
	// Set explicitly, since servers differ in their defaults. An asynchronous
	// insert would be acknowledged without its token, and a view without
	// deduplication would count every repeat.
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"async_insert":               0,
		"insert_deduplicate":         1,
		"insert_deduplication_token": token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
	}))
	batch, err := s.conn.PrepareBatch(ctx, s.insert)
	if err != nil {
		return fmt.Errorf("insert %d events: %w", len(rows), err)
	}
	defer batch.Close()
	if err := appendRows(batch, rows); err != nil {
		return fmt.Errorf("insert %d events: %w", len(rows), err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert %d events: %w", len(rows), err)
	}
	return nil
}

// appendRows fills the columns one after the other.
func appendRows(batch driver.Batch, rows []StoredEvent) error {
	texts := make([]string, len(rows))
	column := func(i int, value func(*StoredEvent) string) error {
		for j := range rows {
			texts[j] = value(&rows[j])
		}
		return batch.Column(i).Append(texts)
	}
	times := make([]time.Time, len(rows))
	column64 := func(i int, value func(*StoredEvent) time.Time) error {
		for j := range rows {
			times[j] = value(&rows[j])
		}
		return batch.Column(i).Append(times)
	}
	members := make([]uint32, len(rows))
	for j := range rows {
		members[j] = rows[j].Row.Members
	}
	steps := []func() error{
		func() error { return column(0, func(e *StoredEvent) string { return e.Tenant }) },
		func() error { return column64(1, func(e *StoredEvent) time.Time { return e.Row.Date }) },
		func() error { return column(2, func(e *StoredEvent) string { return e.Row.Type }) },
		func() error { return column(3, func(e *StoredEvent) string { return e.Row.LogID }) },
		func() error { return batch.Column(4).Append(members) },
		func() error { return column(5, func(e *StoredEvent) string { return string(e.Source) }) },
		func() error { return column64(6, func(e *StoredEvent) time.Time { return e.FetchedAt.UTC() }) },
		func() error { return column(7, func(e *StoredEvent) string { return e.Row.Details }) },
		func() error { return column(8, func(e *StoredEvent) string { return e.Row.Rest }) },
	}
	first := len(steps)
	for i := schema.FirstText; i < len(schema.TextColumns); i++ {
		steps = append(steps, func() error {
			return column(first+i-schema.FirstText, func(e *StoredEvent) string { return e.Row.Texts[i] })
		})
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// byMonth splits rows by the table's partitions: an insert into several is not
// one unit.
func byMonth(rows []StoredEvent) map[string][]StoredEvent {
	const layout = "200601"
	months := map[string][]StoredEvent{}
	if len(rows) == 0 {
		return months
	}
	year, month, _ := rows[0].Row.Date.Date()
	if !slices.ContainsFunc(rows, func(r StoredEvent) bool { y, m, _ := r.Row.Date.Date(); return y != year || m != month }) {
		months[rows[0].Row.Date.Format(layout)] = rows // as nearly always
		return months
	}
	for _, r := range rows {
		month := r.Row.Date.Format(layout)
		months[month] = append(months[month], r)
	}
	return months
}

// token names an insert. Offsets alone would not do: in a topic that was made
// anew they begin again, and ClickHouse believes the token more than the rows.
func token(topic string, c *chunk, month string, rows []StoredEvent) string {
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].Tenant + "/" + rows[i].Row.LogID
	}
	slices.Sort(ids)
	h := xxh3.New()
	for _, id := range ids {
		h.WriteString(id)
		h.WriteString("\n")
	}
	sum := h.Sum128().Bytes()
	return fmt.Sprintf("v1:%s:%d:%d-%d:%s:%s", topic, c.partition, c.first, c.next-1, month, hex.EncodeToString(sum[:]))
}
