package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Batching of a Producer. Callers produce whole pages, so there is little reason to wait.
const (
	batchRecords = 400
	batchBytes   = 24 << 20 // uncompressed; also the size of the largest record, below schema.MaxMessage
	linger       = 5 * time.Millisecond
)

// retryPause is the pause after the first failed attempt; it doubles up to retryPauseMax.
const (
	retryPause    = 100 * time.Millisecond
	retryPauseMax = 10 * time.Second
)

// Producer writes records to one topic.
type Producer struct {
	client *Client
	topic  string
	writer *kafkago.Writer
	state  progress
}

// Trouble returns why records could not be produced for a while, or an empty text.
func (p *Producer) Trouble() string {
	if text := p.state.trouble(false); text != "" {
		return "producing to " + p.topic + " " + text
	}
	return ""
}

// NewProducer returns a producer for a topic, which must be closed. Records with the same
// key go to the same partition, by the hash that Java clients use.
func (c *Client) NewProducer(topic string) *Producer {
	return c.NewProducerBy(topic, func(key []byte) []byte { return key })
}

// choosePartition returns the partition of a key, as Java clients choose it.
func choosePartition(key []byte, partitions ...int) int {
	return kafkago.Murmur2Balancer{Consistent: true}.Balance(kafkago.Message{Key: key}, partitions...)
}

// NewProducerBy is NewProducer for a topic whose partition depends on a part of the key.
func (c *Client) NewProducerBy(topic string, part func(key []byte) []byte) *Producer {
	return &Producer{client: c, topic: topic, writer: &kafkago.Writer{
		Addr:  kafkago.TCP(c.cfg.Brokers...),
		Topic: topic,
		Balancer: kafkago.BalancerFunc(func(m kafkago.Message, partitions ...int) int {
			return choosePartition(part(m.Key), partitions...)
		}),
		RequiredAcks: kafkago.RequireAll, // the default is none
		BatchSize:    batchRecords,
		BatchBytes:   batchBytes,
		BatchTimeout: linger, // the default is a second
		MaxAttempts:  1,      // Produce retries, so that it can be canceled and reports failures
		ReadTimeout:  requestTimeout,
		WriteTimeout: requestTimeout,
		Compression:  kafkago.Snappy,
		Transport:    c.transport,
	}}
}

// Close sends the records that are not sent yet.
func (p *Producer) Close() error { return p.writer.Close() }

// Produce writes records and returns nil once all in-sync replicas have acknowledged them.
// It retries with growing pauses until ctx ends, and calls failed, which may be nil, after
// every failed attempt. After an error some of the records may have been written; after a
// retry some may be there twice.
//
// The records must not be changed until Produce returns.
func (p *Producer) Produce(ctx context.Context, records []schema.Record, failed func(error)) error {
	messages := make([]kafkago.Message, len(records))
	for i, record := range records {
		headers := make([]kafkago.Header, len(record.Headers))
		for j, header := range record.Headers {
			headers[j] = kafkago.Header{Key: header.Key, Value: header.Value}
		}
		messages[i] = kafkago.Message{Key: record.Key, Value: record.Value, Headers: headers}
	}

	for pause := retryPause; ; pause = min(2*pause, retryPauseMax) {
		// The writer continues to send a message after the end of its context. So do not pass the
		// end of ctx on: the outcome of this attempt must be known before Produce returns.
		err := p.writer.WriteMessages(context.WithoutCancel(ctx), messages...)
		if err == nil {
			p.state.succeed()
			return nil
		}

		err = p.explain(err, messages)
		p.state.fail(err)
		if failed != nil {
			failed(err)
		}
		if !sleep.For(ctx, pause) {
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		}
	}
}

// explain returns the errors of kafka-go, which list every message, as one line.
func (p *Producer) explain(err error, messages []kafkago.Message) error {
	// Count the failed messages, and keep the first error.
	failed := len(messages)
	var each kafkago.WriteErrors
	if errors.As(err, &each) {
		failed = 0
		for _, one := range each {
			if one == nil {
				continue
			}
			if failed == 0 {
				err = one
			}
			failed++
		}
	}

	// Only the operator can fix this one.
	var large kafkago.MessageTooLargeError
	if errors.As(err, &large) || errors.Is(err, kafkago.MessageSizeTooLarge) {
		err = fmt.Errorf("a record is too large; raise max.message.bytes of the topic: %w", err)
	}
	return fmt.Errorf("produce %d of %d records to %s: %w", failed, len(messages), p.topic, err)
}
