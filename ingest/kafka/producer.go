package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Batching of a Producer. Callers hand over whole pages, so there is little to
// wait for.
const (
	batchRecords = 400
	batchBytes   = 24 << 20 // uncompressed; also the largest single record, below schema.MaxMessage
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

// Trouble is why records cannot be produced for a while; empty while they can.
func (p *Producer) Trouble() string {
	if text := p.state.trouble(false); text != "" {
		return "producing to " + p.topic + " " + text
	}
	return ""
}

// NewProducer returns a producer for a topic. Records with the same key go to
// the same partition, by the hash that Java clients use. It must be closed.
func (c *Client) NewProducer(topic string) *Producer {
	return c.NewProducerBy(topic, func(key []byte) []byte { return key })
}

// place chooses a key's partition as Java clients do.
func place(key []byte, partitions ...int) int {
	return kafkago.Murmur2Balancer{Consistent: true}.Balance(kafkago.Message{Key: key}, partitions...)
}

// NewProducerBy is NewProducer for a topic where a part of the key decides about
// the partition.
func (c *Client) NewProducerBy(topic string, part func(key []byte) []byte) *Producer {
	return &Producer{client: c, topic: topic, writer: &kafkago.Writer{
		Addr:  kafkago.TCP(c.cfg.Brokers...),
		Topic: topic,
		Balancer: kafkago.BalancerFunc(func(m kafkago.Message, partitions ...int) int {
			return place(part(m.Key), partitions...)
		}),
		RequiredAcks: kafkago.RequireAll, // kafka-go's own default is none
		BatchSize:    batchRecords,
		BatchBytes:   batchBytes,
		BatchTimeout: linger, // kafka-go's own default is a second
		MaxAttempts:  1,      // Produce repeats, so that it can be cancelled and says why
		ReadTimeout:  requestTimeout,
		WriteTimeout: requestTimeout,
		Compression:  kafkago.Snappy,
		Transport:    c.transport,
	}}
}

// Close sends what is still under way.
func (p *Producer) Close() error { return p.writer.Close() }

// Produce writes records and returns when all replicas in sync have them. It
// retries for ever, with growing pauses, until ctx ends; failed, which may be
// nil, hears of every failed attempt. After an error some of the records may
// have been written, and after a retry some may be there twice.
//
// The records must not be changed until it returns.
func (p *Producer) Produce(ctx context.Context, records []schema.Record, failed func(error)) error {
	messages := make([]kafkago.Message, len(records))
	for i, r := range records {
		m := kafkago.Message{Key: r.Key, Value: r.Value, Headers: make([]kafkago.Header, len(r.Headers))}
		for j, h := range r.Headers {
			m.Headers[j] = kafkago.Header{Key: h.Key, Value: h.Value}
		}
		messages[i] = m
	}
	for pause := retryPause; ; pause = min(2*pause, retryPauseMax) {
		// The writer goes on with a message whose caller has left, so an end of
		// ctx is not handed down: what is under way is settled first.
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
		if !wait(ctx, pause) {
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		}
	}
}

// explain makes one line of kafka-go's errors, which list every message.
func (p *Producer) explain(err error, messages []kafkago.Message) error {
	failed := len(messages)
	var each kafkago.WriteErrors
	if errors.As(err, &each) {
		failed = 0
		for _, e := range each {
			if e != nil {
				if failed == 0 {
					err = e
				}
				failed++
			}
		}
	}
	var large kafkago.MessageTooLargeError
	if errors.As(err, &large) || errors.Is(err, kafkago.MessageSizeTooLarge) {
		err = fmt.Errorf("a record is too large; raise max.message.bytes of the topic: %w", err)
	}
	return fmt.Errorf("produce %d of %d records to %s: %w", failed, len(messages), p.topic, err)
}
