package engines

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The folders of the embedded engines in the data folder.
const (
	KafkaDir      = "kafka"
	ClickHouseDir = "clickhouse"
)

// Engines is the Kafka and the ClickHouse of a process, each embedded or external.
type Engines struct {
	Topics     schema.Topics
	Kafka      *kafka.Client
	Brokers    []string        // of Kafka, host:port
	Conn       driver.Conn     // to ClickHouse
	Store      *write.Store    // where the writer inserts
	ClickHouse *chlocal.Server // nil with an external one

	cfg       *config.Config
	log       *slog.Logger
	metrics   *Metrics
	producers []*kafka.Producer

	mu      sync.Mutex // guards closers
	closers []func()   // called by Close, last one first
}

// Start starts or connects to Kafka and ClickHouse, creates the topics and migrates the tables. After an error
// nothing keeps running.
func Start(
	ctx context.Context, c *config.Config, log *slog.Logger, metrics *Metrics,
) (_ *Engines, err error) {
	e := &Engines{Topics: schema.NewTopics(c.Kafka.Prefix), cfg: c, log: log, metrics: metrics}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()

	// ClickHouse takes longest, so both start in parallel.
	var wg sync.WaitGroup
	var kafkaErr, clickhouseErr error
	wg.Go(func() { kafkaErr = e.startKafka(ctx) })
	wg.Go(func() { clickhouseErr = e.startClickHouse(ctx) })
	wg.Wait()
	if err := errors.Join(kafkaErr, clickhouseErr); err != nil {
		return nil, err
	}
	return e, nil
}

// NewProducer returns a new producer, which is closed with the engines.
func (e *Engines) NewProducer(topic string) *kafka.Producer {
	return e.Keep(e.Kafka.NewProducer(topic))
}

// Keep closes a producer with the engines, and reports its trouble with Kafka's.
func (e *Engines) Keep(producer *kafka.Producer) *kafka.Producer {
	e.producers = append(e.producers, producer)
	return producer
}

// ReadAll returns a function that reads a topic to its present end.
func (e *Engines) ReadAll(topic string) func(context.Context, func(schema.Record) error) error {
	return func(ctx context.Context, yield func(schema.Record) error) error {
		return e.Kafka.ReadAll(ctx, topic, yield)
	}
}

func (e *Engines) onClose(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closers = append(e.closers, f)
}

// closeGrace is how long producers may take to deliver the records in flight.
const closeGrace = 2 * time.Second

// Close closes the producers and stops what was started, in reverse order.
func (e *Engines) Close() {
	// Producers first: they need the broker, which may be embedded.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, producer := range e.producers {
			_ = producer.Close()
		}
	}()
	select {
	case <-done:
	case <-time.After(closeGrace): // a broker is away; records that it has not acknowledged are pulled again
	}

	for i := len(e.closers) - 1; i >= 0; i-- {
		e.closers[i]()
	}
	e.closers = nil
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

		if !sleep.For(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// transient reports whether an error comes from a server that is not up, rather than from one that refuses.
func transient(err error) bool {
	const aborted = 236 // ClickHouse is shutting down
	var refused *clickhouse.Exception
	return kafka.Passing(err) || errors.As(err, &refused) && refused.Code == aborted
}
