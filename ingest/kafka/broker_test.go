package kafka_test

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
)

// shared are the clusters of Apache Kafka that several tests use, by their number
// of brokers. A test has names of its own in them.
var shared struct {
	sync.Mutex
	clusters map[int]*kafkatest.Cluster
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, c := range shared.clusters {
		c.Close()
	}
	os.Exit(code)
}

// cluster is a shared cluster of Apache Kafka, all brokers of which run.
func cluster(t *testing.T, brokers int) *kafkatest.Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	c := shared.clusters[brokers]
	if c == nil {
		c = kafkatest.Launch(t, kafkatest.Config{Brokers: brokers})
		if shared.clusters == nil {
			shared.clusters = map[int]*kafkatest.Cluster{}
		}
		shared.clusters[brokers] = c
	}
	return c.With(t)
}

// testBroker is one broker that can be stopped and started with what it has, and
// a topic of the test there.
type testBroker struct {
	topic string
	addrs func() []string
	stop  func()
	start func(*testing.T)
}

// onEach runs a test on the embedded broker and on Apache Kafka, with a topic of
// some partitions. Tests that stop no broker run beside each other.
func onEach(t *testing.T, partitions int, test func(*testing.T, *testBroker)) {
	t.Parallel()
	onEachAlone(t, partitions, test)
}

// onEachAlone is onEach for a test that stops the broker.
func onEachAlone(t *testing.T, partitions int, test func(*testing.T, *testBroker)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, embedded(t).withTopic(t, partitions))
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		test(t, apache(t).withTopic(t, partitions))
	})
}

func embedded(t *testing.T) *testBroker {
	dir := t.TempDir()
	var broker *kafkalocal.Broker
	b := &testBroker{addrs: func() []string { return broker.Addrs() }, stop: func() {
		if broker != nil {
			broker.Close()
			broker = nil
		}
	}}
	b.start = func(t *testing.T) {
		t.Helper()
		var err error
		if broker, err = kafkalocal.Start(dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	b.start(t)
	t.Cleanup(b.stop)
	return b
}

func apache(t *testing.T) *testBroker {
	c := cluster(t, 1)
	down := false
	b := &testBroker{addrs: c.Addrs,
		stop:  func() { c.Kill(0); down = true },
		start: func(*testing.T) { c.Restart(0); down = false },
	}
	t.Cleanup(func() {
		if down {
			b.start(t)
		}
	})
	return b
}

// topics counts the topics, so that each has a name of its own.
var topics atomic.Int64

func newTopic(t *testing.T) string {
	return fmt.Sprintf("%s.%d", strings.NewReplacer("/", ".").Replace(t.Name()), topics.Add(1))
}

func (b *testBroker) withTopic(t *testing.T, partitions int) *testBroker {
	t.Helper()
	b.topic = newTopic(t)
	c := kafka.NewClient(kafka.Config{Brokers: b.addrs(), Log: slog.New(slog.DiscardHandler)})
	defer c.Close()
	if warnings, err := c.EnsureTopics(t.Context(), []schema.Topic{{Name: b.topic, Partitions: partitions, Config: map[string]string{"cleanup.policy": "delete"}}}); err != nil || len(warnings) > 0 {
		t.Fatalf("EnsureTopics: %v, %q", err, warnings)
	}

	// A topic that was just created may have no leader yet. Reading it waits for one, so that no record
	// has to be produced twice.
	if err := c.ReadAll(t.Context(), b.topic, func(schema.Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return b
}
