package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
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

	mu   sync.Mutex // guards idle
	idle []*session // last used last
}

// NewStore returns the store of a database. It connects when it is used.
func NewStore(opts *clickhouse.Options) *Store {
	return &Store{opts: opts}
}

// Insert stores a block, which ClickHouse takes as a whole or not at all. It returns
// once the rows are on disk: the table's settings demand an fsync. A block may be
// inserted any number of times, since its rows have a key.
func (s *Store) Insert(ctx context.Context, b *Block) error {
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()
	c, err := s.take(ctx)
	if err != nil {
		return fmt.Errorf("insert %d events: %w", b.rows, err)
	}
	if err := c.insert(ctx, b); err != nil {
		_ = c.client.Close()
		return fmt.Errorf("insert %d events: %w", b.rows, err)
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

// spare is a connection that is idle, nil when there is none.
func (s *Store) spare() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.idle) > 0 {
		c := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if time.Since(c.used) < staleAfter && !c.client.IsClosed() {
			return c
		}
		_ = c.client.Close()
	}
	return nil
}

// take returns a connection that nobody else has. It holds no lock while it dials:
// nobody is to wait for a server that does not answer another.
func (s *Store) take(ctx context.Context) (*session, error) {
	if c := s.spare(); c != nil {
		return c, nil
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
			return &session{client: client}, nil
		}
		errs = append(errs, fmt.Errorf("connect to ClickHouse at %s as %s: %w", addr, o.Auth.Username, err))
	}
	return nil, errors.Join(errs...)
}

// session is a connection.
type session struct {
	client *ch.Client
	used   time.Time
}

func (c *session) insert(ctx context.Context, b *Block) error {
	input := b.input()

	// Set explicitly, since servers differ in their defaults. An asynchronous insert
	// is acknowledged before its rows are stored. A deduplicated one may be dropped
	// although its rows are not there: a server that is killed remembers an insert
	// before it has it.
	return c.client.Do(ctx, ch.Query{Body: input.Into("events_stored"), Input: input, Settings: []ch.Setting{
		{Key: "async_insert", Value: "0", Important: true},
		{Key: "insert_deduplicate", Value: "0", Important: true},
		// Repeats within a block are left to merges and readers like all others: to look
		// for them here costs a fifth of an insert.
		{Key: "optimize_on_insert", Value: "0", Important: true},
	}})
}
