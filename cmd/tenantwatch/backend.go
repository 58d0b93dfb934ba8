package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The folders of the embedded engines in the data folder.
const (
	kafkaDir      = "kafka"
	clickhouseDir = "clickhouse"
)

// database is the database of the embedded engine, and of a DSN that names none.
const database = chlocal.Database

// backend is the Kafka and the ClickHouse of a process, each embedded or external.
type backend struct {
	topics  schema.Topics
	kafka   *kafka.Client
	brokers []string
	conn    driver.Conn
	store   *write.Store
	engine  *chlocal.Server // nil with an external ClickHouse
	log     *slog.Logger
	damaged *prometheus.CounterVec // by topic

	mu      sync.Mutex // guards closers
	closers []func()   // called by close, last one first
}

// startBackend starts or connects to Kafka and ClickHouse, creates the topics and migrates the tables. After
// an error nothing keeps running.
func startBackend(ctx context.Context, c *Config, log *slog.Logger,
	reg prometheus.Registerer) (_ *backend, err error) {
	b := &backend{
		topics: schema.NewTopics(c.Kafka.Prefix), log: log,
		damaged: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_kafka_damaged_records_total",
			Help: "Total number of damaged records in Kafka that were skipped, by topic.",
		}, []string{"topic"}),
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()

	// ClickHouse takes longest, so both start in parallel.
	var wg sync.WaitGroup
	var kafkaErr, clickhouseErr error
	wg.Go(func() { kafkaErr = b.startKafka(ctx, c) })
	wg.Go(func() { clickhouseErr = b.startClickHouse(ctx, c) })
	wg.Wait()
	return b, errors.Join(kafkaErr, clickhouseErr)
}

func (b *backend) startKafka(ctx context.Context, c *Config) error {
	segment := 0 // the broker's default
	b.brokers = c.Kafka.Brokers
	if len(b.brokers) == 0 {
		broker, err := kafkalocal.Start(filepath.Join(c.DataDir, kafkaDir), b.log.With("part", "kafka"))
		if err != nil {
			return err
		}
		b.onClose(broker.Close)
		// A restart reads a segment whole, so the embedded broker has small ones.
		b.brokers, segment = broker.Addrs(), kafkalocal.SegmentBytes
	}

	b.kafka = kafka.NewClient(kafka.Config{
		Brokers: b.brokers, TLS: c.kafkaTLS, SASL: c.kafkaSASL, Log: b.log.With("part", "kafka"),
		Damaged: func(d kafka.Damage) { b.reportDamage(c, d) },
	})
	b.onClose(b.kafka.Close)

	// A broker may accept connections before it can create topics.
	return retryStart(ctx, b.log, "Kafka", func() error {
		warnings, err := b.kafka.EnsureTopics(ctx, b.topics.All(segment))
		for _, warning := range warnings {
			b.log.Warn(warning)
		}
		return err
	})
}

// reportDamage counts damaged records, and logs the file that holds them when Kafka is embedded.
func (b *backend) reportDamage(c *Config, d kafka.Damage) {
	b.damaged.WithLabelValues(d.Topic).Add(float64(d.To - d.From))
	if len(c.Kafka.Brokers) == 0 {
		file := kafkalocal.File(filepath.Join(c.DataDir, kafkaDir), d.Topic, d.Partition, d.From)
		b.log.Error("file of the embedded Kafka is damaged; the next start moves the damaged part aside",
			"part", "kafka", "file", file, "from_offset", d.From)
	}
}

func (b *backend) startClickHouse(ctx context.Context, c *Config) error {
	dsn := string(c.ClickHouse.DSN)
	if dsn == "" {
		engine, err := startEngine(ctx, c, b.log.With("part", "clickhouse"))
		if err != nil {
			return err
		}
		b.engine = engine
		b.onClose(func() { _ = engine.Close() })
		dsn = engine.DSN(chlocal.Owner, database)
	}

	opts, err := schema.Options(dsn, c.tuneClickHouse)
	if err != nil {
		return err
	}

	// The writer has its own connections. They are opened when the first chunk is inserted.
	b.store = write.NewStore(opts)
	b.onClose(b.store.Close)

	return retryStart(ctx, b.log, "ClickHouse", func() error { return b.connect(ctx, c, dsn) })
}

// connect connects to ClickHouse, migrates the tables and sets the retention.
func (b *backend) connect(ctx context.Context, c *Config, dsn string) error {
	conn, err := schema.Open(ctx, dsn, c.tuneClickHouse)
	if err != nil && strings.Contains(err.Error(), httpAnswer) {
		return fmt.Errorf("CLICKHOUSE_DSN: this is an HTTP port; "+
			"inserts need the port of the native protocol, usually 9000: %w", err)
	}
	if err != nil {
		return err
	}

	// If we stop between two migrations, the next start applies the rest.
	applied, err := schema.Migrate(ctx, conn)
	if err == nil {
		err = schema.SetRetention(ctx, conn, c.retention)
	}
	if err != nil {
		conn.Close()
		return err
	}
	for _, name := range applied {
		b.log.Info("migration applied", "name", name)
	}

	b.conn = conn
	b.onClose(func() { conn.Close() })
	return nil
}

// httpAnswer is the driver's error text for an answer that starts like HTTP/1.1: 72 is "H". The driver has no
// error type for it.
const httpAnswer = "unexpected packet [72]"

// tuneClickHouse sets the options that a DSN cannot express.
func (c *Config) tuneClickHouse(o *clickhouse.Options) {
	if c.chTLS != nil {
		o.TLS = c.chTLS
	}
	if o.Compression == nil && !loopback(o.Addr) { // on loopback compression costs more than it saves
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	o.DialTimeout = 10 * time.Second
	o.ClientInfo.Products = append(o.ClientInfo.Products, struct{ Name, Version string }{"tenantwatch", version()})
}

// loopback reports whether all addresses are on this machine.
func loopback(addrs []string) bool {
	return !slices.ContainsFunc(addrs, func(addr string) bool {
		host, _, err := net.SplitHostPort(addr)
		ip := net.ParseIP(host)
		return err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback())
	})
}

// connectTimeout is how long a start waits for a server that cannot be reached.
const connectTimeout = 60 * time.Second

// retryStart retries f while the server is not up, for at most connectTimeout: servers often start together
// with us. An error by which the server refuses us is returned at once.
func retryStart(ctx context.Context, log *slog.Logger, server string, f func() error) error {
	deadline := time.Now().Add(connectTimeout)
	logged := false
	for {
		err := f()
		if err == nil || !transient(err) || time.Now().After(deadline) {
			return err
		}
		if !logged {
			logged = true
			log.Warn("server cannot be reached yet; retrying",
				"server", server, "timeout", connectTimeout, "err", err)
		}

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// transient reports whether an error comes from a server that is not up, rather than from one that refuses.
func transient(err error) bool {
	const aborted = 236 // ClickHouse is shutting down
	var refused *clickhouse.Exception
	return kafka.Passing(err) || errors.As(err, &refused) && refused.Code == aborted
}

func (b *backend) onClose(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, f)
}

// close stops what was started, in reverse order.
func (b *backend) close() {
	for i := len(b.closers) - 1; i >= 0; i-- {
		b.closers[i]()
	}
	b.closers = nil
}

// startEngine starts the embedded ClickHouse.
func startEngine(ctx context.Context, c *Config, log *slog.Logger) (*chlocal.Server, error) {
	engine, err := chlocal.FindEngine(c.Engine)
	if err != nil {
		return nil, err
	}

	// Kafka, which starts at the same time, may have created it already.
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}

	return chlocal.Start(ctx, chlocal.Config{
		Dir: filepath.Join(c.DataDir, clickhouseDir), Engine: engine, Log: log,
		Tenants: c.tenantNames(), Bounds: c.sqlBounds,
	})
}
