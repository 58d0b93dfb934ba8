package engines

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
)

func (e *Engines) startKafka(ctx context.Context) error {
	c := e.cfg
	segment := 0 // the broker's default
	e.Brokers = c.Kafka.Brokers
	if len(e.Brokers) == 0 {
		broker, err := kafkalocal.Start(filepath.Join(c.DataDir, KafkaDir), e.log.With("part", "kafka"))
		if err != nil {
			return err
		}
		e.onClose(broker.Close)
		// A restart reads a segment whole, so the embedded broker has small ones.
		e.Brokers, segment = broker.Addrs(), kafkalocal.SegmentBytes
	}

	e.Kafka = newKafka(c, e.Brokers, e.log.With("part", "kafka"), e.reportDamage)
	e.onClose(e.Kafka.Close)

	// A broker may accept connections before it can create topics.
	return retryStart(ctx, e.log, "Kafka", func() error {
		warnings, err := e.Kafka.EnsureTopics(ctx, e.Topics.All(segment))
		for _, warning := range warnings {
			e.log.Warn("topic is not as required", "reason", warning)
		}
		return err
	})
}

// reportDamage counts damaged records, and logs the file that holds them when Kafka is embedded.
func (e *Engines) reportDamage(d kafka.Damage) {
	c := e.cfg
	e.metrics.damaged.WithLabelValues(d.Topic).Add(float64(d.To - d.From))
	if len(c.Kafka.Brokers) == 0 {
		file := kafkalocal.File(filepath.Join(c.DataDir, KafkaDir), d.Topic, d.Partition, d.From)
		e.log.Error("file of the embedded Kafka is damaged; the next start moves the damaged part aside",
			"part", "kafka", "file", file, "from_offset", d.From)
	}
}

// RunningBrokers returns the brokers that a command can connect to: those of KAFKA_BROKERS, or the embedded
// one of a running instance. There are none when no instance runs.
func RunningBrokers(c *config.Config) ([]string, error) {
	if len(c.Kafka.Brokers) > 0 {
		return c.Kafka.Brokers, nil
	}
	addr, err := kafkalocal.Running(filepath.Join(c.DataDir, KafkaDir))
	if err != nil || addr == "" {
		return nil, err
	}
	return []string{addr}, nil
}

// NewKafka returns a client of brokers with the settings for Kafka.
func NewKafka(c *config.Config, brokers []string, log *slog.Logger) *kafka.Client {
	return newKafka(c, brokers, log, nil)
}

func newKafka(c *config.Config, brokers []string, log *slog.Logger, damaged func(kafka.Damage)) *kafka.Client {
	return kafka.NewClient(kafka.Config{
		Brokers: brokers, TLS: c.Parsed.KafkaTLS, SASL: c.Parsed.KafkaSASL, Log: log, Damaged: damaged,
	})
}

// OpenKafka returns a client of the Kafka with the data: that of KAFKA_BROKERS or of the running instance. When
// none runs, it starts the embedded broker. The caller calls end.
func OpenKafka(c *config.Config, log *slog.Logger) (client *kafka.Client, end func(), err error) {
	brokers, err := RunningBrokers(c)
	if err != nil {
		return nil, nil, err
	}
	stop := func() {}
	if len(brokers) == 0 {
		dir := filepath.Join(c.DataDir, KafkaDir)
		if _, err := os.Stat(dir); err != nil {
			return nil, nil, fmt.Errorf("there is no data in %s: "+
				"set TENANTWATCH_DATA_DIR to the folder of the instance, or KAFKA_BROKERS", c.DataDir)
		}

		// Its log would only disturb the output.
		broker, err := kafkalocal.Start(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, nil, err
		}
		brokers, stop = broker.Addrs(), broker.Close
	}

	// From here on it makes no difference whose broker it is.
	client = NewKafka(c, brokers, log)
	return client, func() { client.Close(); stop() }, nil
}
