package write

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// insertTimeout bounds one insert. It is generous, since an aborted insert has an unknown
// outcome.
const insertTimeout = 2 * time.Minute

// staleAfter is the idle time after which a connection is not used again: a server or a
// proxy may have dropped it.
const staleAfter = 30 * time.Second

// Store is the table events_stored. It uses ch-go rather than clickhouse-go, which creates
// new columns for every insert. Its methods may be called concurrently.
type Store struct {
	opts *clickhouse.Options

	mu   sync.Mutex // guards idle
	idle []*session // the last one was used last
}

// NewStore returns the store of a database. It connects when it is first used.
func NewStore(opts *clickhouse.Options) *Store {
	return &Store{opts: opts}
}

// Insert inserts a block, completely or not at all. It returns once the rows are on disk,
// since the table's settings demand an fsync. A block may be inserted any number of times:
// its rows have a key.
func (s *Store) Insert(ctx context.Context, b *Block) error {
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()

	conn, err := s.acquire(ctx)
	if err != nil {
		return fmt.Errorf("insert %d events: %w", b.rows, err)
	}
	if err := conn.insert(ctx, b); err != nil {
		_ = conn.client.Close()
		return fmt.Errorf("insert %d events: %w", b.rows, err)
	}

	conn.used = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, conn)
	return nil
}

// Close closes the idle connections.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.idle {
		_ = conn.client.Close()
	}
	s.idle = nil
}

// acquire returns a connection for one caller. It holds no lock while it dials, so that a
// server that does not answer delays no other caller.
func (s *Store) acquire(ctx context.Context) (*session, error) {
	if conn := s.takeIdle(); conn != nil {
		return conn, nil
	}
	return s.dial(ctx)
}

// takeIdle returns an idle connection, or nil if there is none.
func (s *Store) takeIdle() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.idle) > 0 {
		last := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if time.Since(last.used) < staleAfter && !last.client.IsClosed() {
			return last
		}
		_ = last.client.Close()
	}
	return nil
}

// dial connects to the first server that answers.
func (s *Store) dial(ctx context.Context) (*session, error) {
	opts := s.opts
	compression := ch.CompressionDisabled
	if opts.Compression != nil && opts.Compression.Method != clickhouse.CompressionNone {
		compression = ch.CompressionLZ4
	}

	var errs []error
	for _, addr := range opts.Addr {
		client, err := ch.Dial(ctx, ch.Options{
			Address:          addr,
			Database:         opts.Auth.Database,
			User:             opts.Auth.Username,
			Password:         opts.Auth.Password,
			TLS:              opts.TLS,
			DialTimeout:      max(opts.DialTimeout, 10*time.Second),
			ReadTimeout:      insertTimeout,
			HandshakeTimeout: 30 * time.Second,
			Compression:      compression,
			ClientName:       "tenantwatch",
		})
		if err == nil {
			return &session{client: client}, nil
		}
		errs = append(errs, fmt.Errorf("connect to ClickHouse at %s as %s: %w", addr, opts.Auth.Username, err))
	}
	return nil, errors.Join(errs...)
}

// session is a connection.
type session struct {
	client *ch.Client
	used   time.Time
}

func (s *session) insert(ctx context.Context, b *Block) error {
	input := b.input()

	// The settings are explicit, since servers differ in their defaults.
	return s.client.Do(ctx, ch.Query{Body: input.Into("events_stored"), Input: input, Settings: []ch.Setting{
		// An asynchronous insert is acknowledged before its rows are stored.
		{Key: "async_insert", Value: "0", Important: true},
		// A deduplicated insert may be dropped although its rows are not stored: a server that is
		// killed remembers an insert before it has it.
		{Key: "insert_deduplicate", Value: "0", Important: true},
		// Merges and readers drop the repeats within a block, like all others. Doing it here costs a
		// fifth of an insert.
		{Key: "optimize_on_insert", Value: "0", Important: true},
	}})
}
