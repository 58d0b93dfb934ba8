package ingest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/semaphore"

	"github.com/tenantwatch/tenantwatch/schema"
)

// insertTimeout bounds one insert. It is generous: what is broken off has an
// unknown outcome.
const insertTimeout = 2 * time.Minute

// staleAfter is when a connection that was not used is given up, before a
// server or something in between drops it.
const staleAfter = 30 * time.Second

// Store is the table events_stored. It speaks ch-go rather than clickhouse-go,
// which makes new columns for every insert. Its methods may be called at once.
type Store struct {
	opts *clickhouse.Options
	busy *semaphore.Weighted // inserts at once

	mu   sync.Mutex // guards idle
	idle []*session // last used last
}

// NewStore returns the store of a database. It connects when it is used.
func NewStore(opts *clickhouse.Options) *Store {
	return &Store{opts: opts, busy: semaphore.NewWeighted(mostInserts)}
}

// mostInserts is how many inserts go on at once: each has the memory of a block.
const mostInserts = 2

// Insert stores rows of one month in one block, which ClickHouse takes as a
// whole or not at all. A block that it has already taken under the token is
// acknowledged and dropped.
func (s *Store) Insert(ctx context.Context, rows []StoredEvent, token string) error {
	if err := s.busy.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.busy.Release(1)
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()
	c, err := s.take(ctx)
	if err != nil {
		return fmt.Errorf("insert %d events: %w", len(rows), err)
	}
	if err := c.insert(ctx, rows, token); err != nil {
		_ = c.client.Close()
		return fmt.Errorf("insert %d events: %w", len(rows), err)
	}
	c.used = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, c)
	return nil
}

// Close ends the connections that are idle.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		_ = c.client.Close()
	}
	s.idle = nil
}

// take returns a connection that nobody else has.
func (s *Store) take(ctx context.Context) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.idle) > 0 {
		c := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if time.Since(c.used) < staleAfter && !c.client.IsClosed() {
			return c, nil
		}
		_ = c.client.Close()
	}
	return s.dial(ctx)
}

// dial connects to the first server that answers.
func (s *Store) dial(ctx context.Context) (*session, error) {
	o := s.opts
	compression := ch.CompressionDisabled
	if o.Compression != nil && o.Compression.Method != clickhouse.CompressionNone {
		compression = ch.CompressionLZ4
	}
	var errs []error
	for _, addr := range o.Addr {
		client, err := ch.Dial(ctx, ch.Options{Address: addr, Database: o.Auth.Database, User: o.Auth.Username, Password: o.Auth.Password,
			TLS: o.TLS, DialTimeout: max(o.DialTimeout, 10*time.Second), ReadTimeout: insertTimeout, HandshakeTimeout: 30 * time.Second,
			Compression: compression, ClientName: "tenantwatch"})
		if err == nil {
			return &session{client: client, columns: newColumns()}, nil
		}
		errs = append(errs, fmt.Errorf("connect to ClickHouse at %s as %s: %w", addr, o.Auth.Username, err))
	}
	return nil, errors.Join(errs...)
}

// session is a connection with the memory that its inserts use again and again.
type session struct {
	client  *ch.Client
	columns *columns
	used    time.Time
}

func (c *session) insert(ctx context.Context, rows []StoredEvent, token string) error {
	c.columns.fill(rows)
	input := c.columns.input()
	// Set explicitly, since servers differ in their defaults. An asynchronous
	// insert would be acknowledged without its token, and a view without
	// deduplication would count every repeat.
	return c.client.Do(ctx, ch.Query{Body: input.Into("events_stored"), Input: input, Settings: []ch.Setting{
		{Key: "async_insert", Value: "0", Important: true},
		{Key: "insert_deduplicate", Value: "1", Important: true},
		{Key: "insert_deduplication_token", Value: token, Important: true},
		{Key: "deduplicate_blocks_in_dependent_materialized_views", Value: "1", Important: true},
	}})
}

// columns are a block of the table events_stored.
type columns struct {
	tenant, typ, logID, source textColumn
	date, fetchedAt            *proto.ColDateTime64
	members                    *proto.ColUInt32
	details, rest              textColumn
	texts                      []textColumn // of schema.TextColumns, from schema.FirstText on
}

// textColumn is a String or a LowCardinality(String).
type textColumn interface {
	proto.ColInput
	Append(string)
	Reset()
}

func plainText() textColumn { return new(proto.ColStr) }
func lowText() textColumn   { return new(proto.ColStr).LowCardinality() }

func newColumns() *columns {
	moment := func() *proto.ColDateTime64 {
		return new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	}
	c := &columns{tenant: lowText(), typ: lowText(), logID: plainText(), source: lowText(), date: moment(), fetchedAt: moment(),
		members: new(proto.ColUInt32), details: plainText(), rest: plainText()}
	for _, name := range schema.TextColumns[schema.FirstText:] {
		switch name { // values that are nearly as many as events, see the migrations
		case "description", "ip", "client_ip", "user_id", "user_name", "identity_user_id":
			c.texts = append(c.texts, plainText())
		default:
			c.texts = append(c.texts, lowText())
		}
	}
	return c
}

func (c *columns) input() proto.Input {
	in := proto.Input{{Name: "tenant", Data: c.tenant}, {Name: "date", Data: c.date}, {Name: "type", Data: c.typ}, {Name: "log_id", Data: c.logID},
		{Name: "members", Data: c.members}, {Name: "source", Data: c.source}, {Name: "fetched_at", Data: c.fetchedAt},
		{Name: "details", Data: c.details}, {Name: "rest", Data: c.rest}}
	for i, col := range c.texts {
		in = append(in, proto.InputColumn{Name: schema.TextColumns[schema.FirstText+i], Data: col})
	}
	return in
}

func (c *columns) fill(rows []StoredEvent) {
	for _, col := range c.input() {
		col.Data.(interface{ Reset() }).Reset()
	}
	for i := range rows {
		e := &rows[i]
		c.tenant.Append(e.Tenant)
		c.date.Append(e.Row.Date)
		c.typ.Append(e.Row.Type)
		c.logID.Append(e.Row.LogID)
		c.members.Append(e.Row.Members)
		c.source.Append(string(e.Source))
		c.fetchedAt.Append(e.FetchedAt)
		c.details.Append(e.Row.Details)
		c.rest.Append(e.Row.Rest)
		for j, col := range c.texts {
			col.Append(e.Row.Texts[schema.FirstText+j])
		}
	}
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
		_, _ = h.WriteString(id)
		_, _ = h.WriteString("\n")
	}
	sum := h.Sum128().Bytes()
	return fmt.Sprintf("v1:%s:%d:%d-%d:%s:%s", topic, c.partition, c.first, c.next-1, month, hex.EncodeToString(sum[:]))
}
