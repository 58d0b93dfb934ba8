package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	kafkago "github.com/segmentio/kafka-go"

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

// lenient lets ClickHouse take what tenants send.
const lenient = "date_time_input_format = 'best_effort', input_format_null_as_default = 1, input_format_skip_unknown_fields = 1, input_format_json_read_objects_as_strings = 1, input_format_json_read_arrays_as_strings = 1"

// benchRounds is how often each of the three is measured, in turn: the machine is noisy,
// and so is ClickHouse's Kafka engine, whose polls decide how large its inserts are.
const benchRounds = 5

// BenchmarkWriter is how fast the writer empties a topic, beside what the same
// ClickHouse takes when it reads the same events from a file into the same table,
// and when its own Kafka engine reads the same topic by a materialized view. The last
// two are warmed up: the time begins with the first rows. Figures are medians; the
// ranges are logged.
func BenchmarkWriter(b *testing.B) {
	for _, tenants := range []int{1, 6} {
		b.Run(fmt.Sprintf("tenants=%d", tenants), func(b *testing.B) {
			for b.Loop() {
				benchmarkWriter(b, 600_000, tenants)
			}
		})
	}
}

// race is what the three readers of the same events share.
type race struct {
	b       *testing.B
	events  int
	conn    driver.Conn
	broker  string
	topic   string
	file    string
	environ []string
}

func benchmarkWriter(b *testing.B, events, tenants int) {
	dir := b.TempDir()
	broker, err := kafkalocal.Start(filepath.Join(dir, "kafka"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	engineDir := filepath.Join(dir, "clickhouse")
	server, err := chlocal.Start(b.Context(), chlocal.Config{Dir: engineDir, Engine: chlocaltest.Engine(b), Connect: broker.Addrs(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	topics := schema.NewTopics("tenantwatch.")
	k := kafka.NewClient(kafka.Config{Brokers: broker.Addrs(), Log: slog.New(slog.DiscardHandler)})
	defer k.Close()
	if _, err := k.EnsureTopics(b.Context(), topics.All(kafkalocal.SegmentBytes)); err != nil {
		b.Fatal(err)
	}
	conn, err := schema.Open(b.Context(), server.DSN(chlocal.Owner, chlocal.Database), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := schema.Migrate(b.Context(), conn); err != nil {
		b.Fatal(err)
	}
	r := &race{b: b, events: events, conn: conn, broker: broker.Addrs()[0], topic: topics.Events,
		file:    filepath.Join(engineDir, "store", "events.ndjson"), // where the engine can read it
		environ: append(settings(b), "KAFKA_BROKERS="+broker.Addrs()[0], "CLICKHOUSE_DSN="+server.DSN(chlocal.Owner, chlocal.Database))}
	bytes := fillTopic(b, k, topics.Events, r.file, events, tenants)
	b.ReportMetric(float64(bytes)/float64(events), "bytes/event")

	var file, writer, engine, ofFile, ofEngine []float64
	for range benchRounds {
		file = append(file, r.fromFile())
		writer = append(writer, r.fromWriter())
		engine = append(engine, r.fromEngine())
		n := len(file) - 1
		ofFile, ofEngine = append(ofFile, writer[n]/file[n]), append(ofEngine, writer[n]/engine[n])
	}
	for _, m := range []struct {
		unit   string
		values []float64
	}{{"events/s", writer}, {"file-events/s", file}, {"engine-events/s", engine}, {"of-file", ofFile}, {"of-engine", ofEngine}} {
		slices.Sort(m.values)
		b.ReportMetric(m.values[len(m.values)/2], m.unit)
		b.Logf("%s: median %.3g, from %.3g to %.3g", m.unit, m.values[len(m.values)/2], m.values[0], m.values[len(m.values)-1])
	}
}

func (r *race) exec(statement string) {
	r.b.Helper()
	if err := r.conn.Exec(r.b.Context(), statement); err != nil {
		r.b.Fatal(err)
	}
}

// fromFile is the events a second that ClickHouse reads from a file.
func (r *race) fromFile() float64 {
	r.exec("CREATE OR REPLACE TABLE from_file AS events_stored")
	began := time.Now()
	r.exec(fmt.Sprintf("INSERT INTO from_file (%s) SELECT %s FROM file('%s', 'JSONEachRow', %s) SETTINGS %s", copied, copied, r.file, schema.Literal(asJSON), lenient))
	rate := float64(r.events) / time.Since(began).Seconds()
	r.exec("DROP TABLE from_file SYNC")
	return rate
}

// fromWriter is the events a second that our writer takes, a process of its own.
func (r *race) fromWriter() float64 {
	r.exec("TRUNCATE TABLE events_stored SYNC")
	p := start(r.b, r.environ, "run", "--roles", "write")
	rate := r.pace("events_stored")
	r.b.ReportMetric(cpuTime(r.b, p.cmd.Process.Pid), "own-cpu-s")
	r.b.ReportMetric(peakMemory(r.b, p.cmd.Process.Pid), "peak-MB")
	p.interrupt()

	// The next round reads the topic from its start.
	client := &kafkago.Client{Addr: kafkago.TCP(r.broker)}
	const group = "tenantwatch." + groupWriter
	if res, err := client.DeleteGroups(r.b.Context(), &kafkago.DeleteGroupsRequest{GroupIDs: []string{group}}); err != nil || res.Errors[group] != nil {
		r.b.Fatal(err, res.Errors)
	}
	return rate
}

// fromEngine is the events a second that ClickHouse's own Kafka engine takes.
func (r *race) fromEngine() float64 {
	r.exec("CREATE OR REPLACE TABLE from_kafka AS events_stored")
	r.exec(fmt.Sprintf("CREATE TABLE queue (%s) ENGINE = Kafka SETTINGS kafka_broker_list = '%s', kafka_topic_list = '%s', kafka_group_name = 'bench%d', kafka_format = 'JSONEachRow', kafka_num_consumers = 2, kafka_thread_per_consumer = 1, %s",
		asJSON, r.broker, r.topic, time.Now().UnixNano(), lenient))
	r.exec(fmt.Sprintf("CREATE MATERIALIZED VIEW queue_to_table TO from_kafka AS SELECT %s FROM queue", copied))
	rate := r.pace("from_kafka")
	r.exec("DROP TABLE queue_to_table SYNC")
	r.exec("DROP TABLE queue SYNC")
	r.exec("DROP TABLE from_kafka SYNC")
	return rate
}

// pace is the events a second from the first rows of a table to the last.
func (r *race) pace(table string) float64 {
	began := waitRows(r.b, r.conn, table, 1)
	var first uint64
	if err := r.conn.QueryRow(r.b.Context(), "SELECT count() FROM "+table).Scan(&first); err != nil {
		r.b.Fatal(err)
	}
	return float64(r.events-int(first)) / waitRows(r.b, r.conn, table, r.events).Sub(began).Seconds()
}

// waitRows waits until a table has as many rows, and tells when it had.
func waitRows(b *testing.B, conn driver.Conn, table string, rows int) time.Time {
	b.Helper()
	poll(b, 100*time.Millisecond, func() bool { // more often would cost the engine what the file does not
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
		e.Tenant, e.Source, e.FetchedAt = fmt.Sprintf("tenant%d", i%tenants), schema.SourceTail, time.Now()
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
