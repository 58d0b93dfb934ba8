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

// database is ours in the embedded engine, and in a DSN that names none.
const database = chlocal.Database

// backend is the Kafka and the ClickHouse of a process, embedded or not.
type backend struct {
	topics  schema.Topics
	kafka   *kafka.Client
	brokers []string
	conn    driver.Conn
	store   *write.Store
	engine  *chlocal.Server // nil with an external ClickHouse
	log     *slog.Logger
	damage  *prometheus.CounterVec // records of Kafka that are damaged, by topic

	mu      sync.Mutex // guards closers
	closers []func()   // what to end; last started, first ended
}

// startBackend starts or reaches both, makes the topics and brings the tables up
// to date. Whatever it started ends with close, also after an error.
func startBackend(ctx context.Context, c *Config, log *slog.Logger, reg prometheus.Registerer) (_ *backend, err error) {
	b := &backend{topics: schema.NewTopics(c.Kafka.Prefix), log: log, damage: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "tenantwatch_kafka_damaged_records_total", Help: "Records in Kafka that could not be read and were left out."}, []string{"topic"})}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	// The engine takes longest, so both start at once.
	var wg sync.WaitGroup
	var kafkaErr, clickhouseErr error
	wg.Go(func() { kafkaErr = b.startKafka(ctx, c) })
	wg.Go(func() { clickhouseErr = b.startClickHouse(ctx, c) })
	wg.Wait()
	return b, errors.Join(kafkaErr, clickhouseErr)
}

func (b *backend) startKafka(ctx context.Context, c *Config) error {
	segment := 0
	b.brokers = c.Kafka.Brokers
	if len(b.brokers) == 0 {
		broker, err := kafkalocal.Start(filepath.Join(c.DataDir, kafkaDir), b.log.With("part", "kafka"))
		if err != nil {
			return err
		}
		b.onClose(broker.Close)
		b.brokers, segment = broker.Addrs(), kafkalocal.SegmentBytes
	}
	b.kafka = kafka.NewClient(kafka.Config{Brokers: b.brokers, TLS: c.kafkaTLS, SASL: c.kafkaSASL, Log: b.log.With("part", "kafka"),
		Damaged: func(d kafka.Damage) {
			b.damage.WithLabelValues(d.Topic).Add(float64(d.To - d.From))
			if len(c.Kafka.Brokers) == 0 {
				b.log.Error("the damaged file of the embedded Kafka; the next start moves what is damaged aside", "part", "kafka",
					"file", kafkalocal.File(filepath.Join(c.DataDir, kafkaDir), d.Topic, d.Partition, d.From), "from_offset", d.From)
			}
		}})
	b.onClose(b.kafka.Close)
	return retryStart(ctx, b.log, "Kafka", func() error {
		warnings, err := b.kafka.EnsureTopics(ctx, b.topics.All(segment))
		for _, w := range warnings {
			b.log.Warn(w)
		}
		return err
	})
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
	b.store = write.NewStore(opts)
	b.onClose(b.store.Close)
	return retryStart(ctx, b.log, "ClickHouse", func() error {
		conn, err := schema.Open(ctx, dsn, c.tuneClickHouse)
		if err != nil && strings.Contains(err.Error(), httpAnswers) {
			return fmt.Errorf("CLICKHOUSE_DSN: this is an HTTP port; inserts need that of the native protocol, 9000 as a rule: %w", err)
		}
		if err != nil {
			return err
		}
		ran, err := schema.Migrate(ctx, conn)
		if err == nil {
			err = schema.SetRetention(ctx, conn, c.retention)
		}
		if err != nil {
			conn.Close()
			return err
		}
		for _, m := range ran {
			b.log.Info("migration done", "name", m)
		}
		b.conn = conn
		b.onClose(func() { conn.Close() })
		return nil
	})
}

// httpAnswers is what the driver says of an answer that begins like HTTP/1.1; it has
// no type for it.
const httpAnswers = "unexpected packet [72]"

// tuneClickHouse sets what a DSN cannot say.
func (c *Config) tuneClickHouse(o *clickhouse.Options) {
	if c.chTLS != nil {
		o.TLS = c.chTLS
	}
	if o.Compression == nil && !loopback(o.Addr) { // not worth it there
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	o.DialTimeout = 10 * time.Second
	o.ClientInfo.Products = append(o.ClientInfo.Products, struct{ Name, Version string }{"tenantwatch", version()})
}

// loopback reports whether all of the addresses are on this machine.
func loopback(addrs []string) bool {
	return !slices.ContainsFunc(addrs, func(addr string) bool {
		host, _, err := net.SplitHostPort(addr)
		ip := net.ParseIP(host)
		return err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback())
	})
}

// startFor is how long a start waits for an engine that cannot be reached.
const startFor = 60 * time.Second

// retryStart repeats what fails because a server is not up yet: they often start
// together with us. What a server refuses is not repeated.
func retryStart(ctx context.Context, log *slog.Logger, what string, f func() error) error {
	deadline := time.Now().Add(startFor)
	said := false
	for {
		err := f()
		if err == nil || !passing(err) || time.Now().After(deadline) {
			return err
		}
		if !said {
			said = true
			log.Warn(what+" cannot be reached yet; trying for a minute", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// passing reports whether an error is one of a server that is not there, rather
// than one that refuses.
func passing(err error) bool {
	const aborted = 236 // the server is ending
	var refused *clickhouse.Exception
	return kafka.Passing(err) || errors.As(err, &refused) && refused.Code == aborted
}

func (b *backend) onClose(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, f)
}

// close ends what was started.
func (b *backend) close() {
	for i := len(b.closers) - 1; i >= 0; i-- {
		b.closers[i]()
	}
	b.closers = nil
}

// startEngine starts the embedded ClickHouse.
func startEngine(ctx context.Context, c *Config, log *slog.Logger) (*chlocal.Server, error) {
	found, err := chlocal.FindEngine(c.Engine)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	tenants := []string{}
	for _, t := range c.Tenants {
		tenants = append(tenants, t.Name)
	}
	return chlocal.Start(ctx, chlocal.Config{Dir: filepath.Join(c.DataDir, clickhouseDir), Engine: found, Tenants: tenants, Bounds: c.sqlBounds, Log: log})
}
