package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// copied is the columns of events_stored that an event's JSON gives without much
// ado, as ClickHouse reads them from JSONEachRow.
const copied = `date, type, log_id, tenant_name, environment_name, description, client_id, client_name, connection, connection_id, ip, client_ip,
	user_id, user_name, identity_user_id, user_agent, hostname, strategy, strategy_type, organization_id, organization_name, audience, scope, details`

// asJSON is how ClickHouse is to read these columns from an event.
const asJSON = `date DateTime64(3, 'UTC'), type String, log_id String, tenant_name String, environment_name String, description String, client_id String,
	client_name String, connection String, connection_id String, ip String, client_ip String, user_id String, user_name String, identity_user_id String,
	user_agent String, hostname String, strategy String, strategy_type String, organization_id String, organization_name String, audience String,
	scope String, details String`

// flushInterval is how long the Kafka engine gathers for an insert: ClickHouse's
// stream_flush_interval_ms.
const flushInterval = 7500 * time.Millisecond

// lenient lets ClickHouse take what tenants send.
const lenient = "date_time_input_format = 'best_effort', input_format_null_as_default = 1, input_format_skip_unknown_fields = 1, input_format_json_read_objects_as_strings = 1, input_format_json_read_arrays_as_strings = 1"

// BenchmarkWriter is how fast the writer empties a topic, beside what the same
// ClickHouse takes when it reads the same events from a file into the same table,
// and when its own Kafka engine reads the same topic by a materialized view.
func BenchmarkWriter(b *testing.B) {
	for _, tenants := range []int{1, 6} {
		b.Run(fmt.Sprintf("tenants=%d", tenants), func(b *testing.B) {
			for b.Loop() {
				benchmarkWriter(b, 300_000, tenants)
			}
		})
	}
}

func benchmarkWriter(b *testing.B, events, tenants int) {
	dir := b.TempDir()
	broker, err := kafkalocal.Start(filepath.Join(dir, "kafka"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	server, err := startEngine(b.Context(), &Config{DataDir: dir, Engine: chlocaltest.Engine(b).Path}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	environ := append(settings(b), "KAFKA_BROKERS="+broker.Addrs()[0], "CLICKHOUSE_DSN="+server.DSN(chlocal.Owner, database))
	topics := schema.NewTopics("tenantwatch.")
	k := kafka.NewClient(kafka.Config{Brokers: broker.Addrs(), Log: slog.New(slog.DiscardHandler)})
	defer k.Close()
	if _, err := k.EnsureTopics(b.Context(), topics.All(kafkalocal.SegmentBytes)); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(dir, "events.ndjson")
	bytes := fillTopic(b, k, topics.Events, file, events, tenants)
	b.ReportMetric(float64(bytes)/float64(events), "bytes/event")
	conn, err := schema.Open(b.Context(), server.DSN(chlocal.Owner, database), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := schema.Migrate(b.Context(), conn); err != nil {
		b.Fatal(err)
	}
	exec := func(statement string) {
		b.Helper()
		if err := conn.Exec(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	count := func(table string) int {
		b.Helper()
		var n uint64
		if err := conn.QueryRow(b.Context(), "SELECT count() FROM "+table).Scan(&n); err != nil {
			b.Fatal(err)
		}
		return int(n)
	}

	// From a file.
	exec("CREATE TABLE from_file AS events_stored")
	began := time.Now()
	exec(fmt.Sprintf("INSERT INTO from_file (%s) SELECT %s FROM file('%s', 'JSONEachRow', %s) SETTINGS %s", copied, copied, file, schema.Literal(asJSON), lenient))
	fromFile := time.Since(began)
	if n := count("from_file"); n != events {
		b.Fatalf("%d rows from the file", n)
	}
	exec("DROP TABLE from_file")

	// Our writer, its start left out.
	p := start(b, environ, "run", "--roles", "write")
	began = waitRows(b, conn, "events_stored", 1)
	first := count("events_stored")
	ended := waitRows(b, conn, "events_stored", events)
	ours := ended.Sub(began) * time.Duration(events) / time.Duration(events-first)
	b.ReportMetric(cpuTime(b, p.cmd.Process.Pid), "own-cpu-s")
	b.ReportMetric(peakMemory(b, p.cmd.Process.Pid), "peak-MB")
	p.kill()

	// ClickHouse's own. Its inserts are few and large, so the first tells nothing of
	// its pace; what it waits for before that one is left out.
	exec("CREATE TABLE from_kafka AS events_stored")
	exec(fmt.Sprintf("CREATE TABLE queue (%s) ENGINE = Kafka SETTINGS kafka_broker_list = '%s', kafka_topic_list = '%s', kafka_group_name = 'bench', kafka_format = 'JSONEachRow', kafka_num_consumers = 2, kafka_thread_per_consumer = 1, %s",
		asJSON, broker.Addrs()[0], topics.Events, lenient))
	exec(fmt.Sprintf("CREATE MATERIALIZED VIEW queue_to_table TO from_kafka AS SELECT %s FROM queue", copied))
	began = time.Now()
	theirs := max(waitRows(b, conn, "from_kafka", events).Sub(began)-flushInterval, time.Millisecond)
	exec("DROP TABLE queue_to_table")
	exec("DROP TABLE queue")

	b.ReportMetric(float64(events)/ours.Seconds(), "events/s")
	b.ReportMetric(float64(events)/fromFile.Seconds(), "file-events/s")
	b.ReportMetric(float64(fromFile)/float64(ours), "of-file")
	b.ReportMetric(float64(events)/theirs.Seconds(), "engine-events/s")
	b.ReportMetric(float64(theirs)/float64(ours), "of-engine")
}

// waitRows waits until a table has as many rows, and tells when it had.
func waitRows(b *testing.B, conn driver.Conn, table string, rows int) time.Time {
	b.Helper()
	poll(b, 100*time.Millisecond, func() bool {
		var n uint64
		return conn.QueryRow(context.Background(), "SELECT count() FROM "+table).Scan(&n) == nil && int(n) >= rows
	})
	return time.Now()
}

// fillTopic produces events as the puller does, and writes them to a file.
func fillTopic(b *testing.B, k *kafka.Client, topic, file string, events, tenants int) (bytes int) {
	b.Helper()
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	tenant := auth0sim.New(auth0sim.Config{HistoryEvents: events, Shapes: auth0sim.ShapesClean})
	producer := k.NewProducer(topic)
	defer producer.Close()
	var records []schema.Record
	for i, id := range tenant.IDs() {
		raw, _ := tenant.Event(id)
		e := schema.Event{Raw: raw}
		if err := e.Identify(); err != nil {
			b.Fatal(err)
		}
		e.Tenant, e.Source, e.FetchedAt = fmt.Sprintf("tenant%d", i%tenants), schema.Tail, time.Now()
		records = append(records, e.Record())
		_, _ = w.Write(raw)
		_ = w.WriteByte('\n')
		bytes += len(raw)
		if len(records) == 2000 || i == events-1 {
			if err := producer.Produce(b.Context(), records, nil); err != nil {
				b.Fatal(err)
			}
			records = records[:0]
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	return bytes
}
