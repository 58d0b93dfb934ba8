package kafka_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	wrong   = "not-the-password"
	hangsUp = "wants TLS or a login"
)

func scramMechanism(t *testing.T, algorithm scram.Algorithm, password string) sasl.Mechanism {
	t.Helper()
	m, err := scram.Mechanism(algorithm, kafkatest.User, password)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSecurity connects in every way to clusters that want TLS, a login or both,
// and holds what is said of a connection that is refused against what an
// operator has to know.
func TestSecurity(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	t.Parallel()
	plainText := func(password string) sasl.Mechanism {
		return plain.Mechanism{Username: kafkatest.User, Password: password}
	}
	right, wrongOne := scramMechanism(t, scram.SHA512, kafkatest.Password), scramMechanism(t, scram.SHA512, wrong)
	stranger := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	for _, tt := range []struct {
		name  string
		cfg   kafkatest.Config
		tries []try
	}{
		{"TLS", kafkatest.Config{Brokers: 1, TLS: true}, []try{
			{name: "authority", trusts: true},
			{name: "another authority", tls: stranger, want: "certificate"},
			{name: "no TLS", want: hangsUp},
		}},
		{"TLS and login", kafkatest.Config{Brokers: 1, TLS: true, SASL: "PLAIN,SCRAM-SHA-512"}, []try{
			{name: "PLAIN", trusts: true, sasl: plainText(kafkatest.Password)},
			{name: "SCRAM-SHA-512", trusts: true, sasl: right},
			{name: "PLAIN, wrong password", trusts: true, sasl: plainText(wrong), want: "SASL Authentication Failed"},
			{name: "SCRAM-SHA-512, wrong password", trusts: true, sasl: wrongOne, want: "SASL Authentication Failed"},
			{name: "another authority", tls: stranger, sasl: right, want: "certificate"},
			{name: "no login", trusts: true, want: hangsUp},
		}},
		{"login", kafkatest.Config{Brokers: 1, SASL: "PLAIN,SCRAM-SHA-512"}, []try{
			{name: "PLAIN", sasl: plainText(kafkatest.Password)},
			{name: "SCRAM-SHA-512", sasl: right},
			{name: "SCRAM-SHA-512, wrong password", sasl: wrongOne, want: "SASL Authentication Failed"},
			{name: "SCRAM-SHA-256", sasl: scramMechanism(t, scram.SHA256, kafkatest.Password), want: "Unsupported SASL Mechanism"},
			{name: "TLS", tls: stranger, sasl: right, want: hangsUp},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := kafkatest.Start(t, tt.cfg)
			for _, try := range tt.tries {
				t.Run(try.name, func(t *testing.T) { try.run(t, c) })
			}
		})
	}
}

// try is one way to connect.
type try struct {
	name   string
	trusts bool        // in the cluster's authority
	tls    *tls.Config // if not
	sasl   sasl.Mechanism
	want   string // part of the error, if there is to be one
}

func (try try) run(t *testing.T, c *kafkatest.Cluster) {
	b := &testBroker{addrs: c.Addrs, topic: newTopic(t)}
	cfg := kafka.Config{Brokers: c.Addrs(), TLS: try.tls, SASL: try.sasl, Log: slog.New(slog.DiscardHandler)}
	if try.trusts {
		pem, err := os.ReadFile(c.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		cfg.TLS.RootCAs.AppendCertsFromPEM(pem)
	}
	client := kafka.NewClient(cfg)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begin := time.Now()
	_, err := client.EnsureTopics(ctx, []schema.Topic{{Name: b.topic, Partitions: 1}})
	if try.want != "" {
		switch {
		case err == nil:
			t.Fatal("the broker was content")
		case !strings.Contains(err.Error(), try.want) || !strings.Contains(err.Error(), c.Addrs()[0]):
			t.Errorf("got %v, want %q and the broker's address", err, try.want)
		case strings.Contains(err.Error(), wrong) || strings.Contains(err.Error(), kafkatest.Password):
			t.Errorf("the error tells the password: %v", err)
		}
		// What the broker or we refuse does not pass; a hang-up may.
		if passes := try.want == hangsUp; kafka.Passing(err) != passes {
			t.Errorf("%v: passing %v, want %v", err, !passes, passes)
		}
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("said after %s", took)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want := numbered("r", 3)
	produce(t, newProducer(t, client, b.topic), want...)
	if got := texts(readAll(t, client, b.topic)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	b.consume(t, client, "group", func(ctx context.Context, p *kafka.Partition, done func()) error {
		defer done()
		if got := fetch(ctx, t, p, 3); !slices.Equal(got, want) {
			t.Errorf("the group got %q, want %q", got, want)
		}
		return p.Commit(3)
	})
}
