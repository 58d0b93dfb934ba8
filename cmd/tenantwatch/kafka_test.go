package main

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
)

// apache is the broker of Apache Kafka that tests share.
var apache struct {
	sync.Mutex
	cluster *kafkatest.Cluster
}

// onEachKafka runs a test with the embedded broker and with one of Apache Kafka,
// where each test has topics of its own. kafka is what the settings say of it:
// nothing of the embedded one.
func onEachKafka(t *testing.T, test func(t *testing.T, kafka ...string)) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t)
	})
	t.Run("apache", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the race detector sees nothing else than with the embedded one")
		}
		t.Parallel()
		broker := func() *kafkatest.Cluster {
			apache.Lock()
			defer apache.Unlock() // also when the launch ends the test
			if apache.cluster == nil {
				apache.cluster = kafkatest.Launch(t, kafkatest.Config{Brokers: 1})
			}
			return apache.cluster.With(t)
		}()
		prefix, _, _ := strings.Cut(t.Name(), "/")
		test(t, "KAFKA_BROKERS="+broker.Addrs()[0], "KAFKA_TOPIC_PREFIX="+prefix+".")
	})
}

// ownBroker is an embedded broker that processes share, and what the settings say
// of it.
func ownBroker(t *testing.T) ([]string, *kafkalocal.Broker) {
	t.Helper()
	broker, err := kafkalocal.Start(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return []string{"KAFKA_BROKERS=" + broker.Addrs()[0], "KAFKA_TOPIC_PREFIX=own."}, broker
}

// topicsOf are the topics of an environment.
func topicsOf(environ []string) schema.Topics {
	prefix := value(environ, "KAFKA_TOPIC_PREFIX")
	if prefix == "" {
		prefix = "tenantwatch."
	}
	return schema.NewTopics(prefix)
}

// TestApacheKafka pulls a tenant through three brokers of Apache Kafka that want
// TLS and a login, one of which is killed meanwhile.
func TestApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("kills one of three brokers, as the tests of ingest/kafka do")
	}
	t.Parallel()
	brokers := kafkatest.Start(t, kafkatest.Config{Brokers: 3, TLS: true, SASL: "SCRAM-SHA-512"})
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 20_000, LiveRate: 40})
	environ := settings(t, append(unprobed(s), "KAFKA_BROKERS="+strings.Join(brokers.Addrs(), ","), "KAFKA_TOPIC_PREFIX=apache.",
		"KAFKA_TLS=true", "KAFKA_CA_FILE="+brokers.CAFile(),
		"KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "KAFKA_USERNAME="+kafkatest.User, "KAFKA_PASSWORD="+kafkatest.Password)...)
	p := start(t, environ, "run")
	p.waitFor("^query: ", 0)
	brokers.Kill(0)
	p.waitFor("backfill done", 0)
	brokers.Restart(0)
	clock.stop()
	compare(t, environ, s.tenant)
	if strings.Contains(p.output(), kafkatest.Password) {
		t.Error("the password was said")
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestKafkaRefuses shows that what a broker refuses ends the start at once, with
// the broker and the reason, and not with the password.
func TestKafkaRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	t.Parallel()
	broker := kafkatest.Start(t, kafkatest.Config{Brokers: 1, TLS: true, SASL: "PLAIN"})
	s := serve(t, auth0sim.Config{})
	for _, tt := range []struct {
		name string
		with []string
		want string
	}{
		{"wrong password", []string{"KAFKA_CA_FILE=" + broker.CAFile(), "KAFKA_PASSWORD=hush"}, "SASL Authentication Failed"},
		{"unknown authority", []string{"KAFKA_PASSWORD=hush"}, "certificate signed by unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			environ := settings(t, append(unprobed(s), append(tt.with, "KAFKA_BROKERS="+broker.Addrs()[0], "KAFKA_TLS=true",
				"KAFKA_SASL_MECHANISM=PLAIN", "KAFKA_USERNAME="+kafkatest.User)...)...)
			p := start(t, environ, "run")
			if code := p.wait(); code != exitFailed {
				t.Errorf("exit %d", code)
			}
			out := p.output()
			if !strings.Contains(out, tt.want) || !strings.Contains(out, broker.Addrs()[0]) || strings.Contains(out, "cannot be reached yet") {
				t.Errorf("want %q and the broker, at once:\n%s", tt.want, out)
			}
			if strings.Contains(out, "hush") {
				t.Errorf("the password was said:\n%s", out)
			}
		})
	}
}
