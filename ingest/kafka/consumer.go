package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Settings of group membership. A process that crashes is noticed after the session timeout;
// one that stops leaves the group at once.
const (
	sessionTimeout   = 10 * time.Second
	heartbeat        = 2 * time.Second
	rebalanceTimeout = 30 * time.Second
	rejoinPause      = time.Second
)

// Fetch settings of one partition. The broker only waits fetchWait if it has no data, so this
// is no delay.
const (
	fetchBytes    = 2 << 20
	fetchWait     = 500 * time.Millisecond
	fetchCapacity = 256 // records read ahead
)

// Consume joins a consumer group and calls handle for each partition of the topic that is
// assigned to this process, each in a separate goroutine, until ctx ends. The context of
// handle ends when the partition is revoked; handle must return then. If handle returns an
// error before, Consume rejoins the group after a pause.
func (c *Client) Consume(
	ctx context.Context, topic, group string, handle func(context.Context, *Partition) error,
) error {
	m := &membership{client: c, topic: topic, group: group, handle: handle, parts: map[int]*Partition{},
		log: c.cfg.Log.With("topic", topic, "group", group)}
	c.mu.Lock()
	c.groups[group] = m
	c.mu.Unlock()

	for ctx.Err() == nil {
		if err := m.run(ctx); ctx.Err() == nil {
			m.failed(err)
			sleep.For(ctx, rejoinPause)
		}
	}
	return ctx.Err()
}

// membership is the membership of this process in a consumer group.
type membership struct {
	client       *Client
	topic, group string
	handle       func(context.Context, *Partition) error
	log          *slog.Logger
	state        progress // of the membership itself

	mu    sync.Mutex // guards parts
	parts map[int]*Partition
}

// logEvery is the interval at which a continuing failure is logged.
const logEvery = time.Minute

func (m *membership) failed(err error) {
	m.state.fail(err)
	if m.state.due() {
		m.log.Warn("join consumer group failed; retrying", "err", err)
	}
}

func (m *membership) joined() {
	if m.state.failed() {
		m.log.Info("rejoined consumer group")
	}
	m.state.succeed()
}

// own adds a partition that was assigned to this process. release removes it.
func (m *membership) own(p *Partition) (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[p.id] = p

	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		// The next generation may have added the partition again.
		if m.parts[p.id] == p {
			delete(m.parts, p.id)
		}
	}
}

// run joins the group and runs all its generations, until ctx ends or handle fails.
func (m *membership) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	// Without committed offsets, a new group starts with the first record.
	members, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID: m.group, Brokers: m.client.cfg.Brokers, Dialer: m.client.dialer, Topics: []string{m.topic},
		GroupBalancers:        []kafkago.GroupBalancer{kafkago.RoundRobinGroupBalancer{}},
		HeartbeatInterval:     heartbeat,
		SessionTimeout:        sessionTimeout,
		RebalanceTimeout:      rebalanceTimeout,
		JoinGroupBackoff:      rejoinPause,
		WatchPartitionChanges: true,
		StartOffset:           kafkago.FirstOffset,
		Timeout:               dialTimeout,
	})
	if err != nil {
		return fmt.Errorf("group %s: %w", m.group, err)
	}
	defer members.Close()

	for {
		generation, err := members.Next(ctx)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			// kafka-go retries, as the same member if possible. A member that leaves and comes back would
			// make the others rebalance twice.
			m.failed(fmt.Errorf("join group %s: %w", m.group, err))
			continue
		}
		m.joined()

		// Start's function must return soon after its context ends. Only then does kafka-go join the
		// next generation, so no partition has two owners.
		var running sync.WaitGroup
		ids := []int{}
		for _, assigned := range generation.Assignments[m.topic] {
			ids = append(ids, assigned.ID)
			running.Add(1)
			generation.Start(func(genCtx context.Context) {
				defer running.Done()
				m.consume(ctx, genCtx, generation, assigned, cancel)
			})
		}
		m.log.Debug("partitions assigned", "partitions", ids)
		running.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(generation.Assignments[m.topic]) == 0 {
			m.log.Info("no partition assigned; standing by")
		}
	}
}

// consume calls handle for a partition, and returns when the membership or the generation
// ends. If handle fails, it ends the membership.
func (m *membership) consume(
	ctx, genCtx context.Context, generation *kafkago.Generation, assigned kafkago.PartitionAssignment,
	cancel context.CancelCauseFunc,
) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(genCtx, stop)()

	p := &Partition{client: m.client, topic: m.topic, id: assigned.ID, next: assigned.Offset,
		generation: generation, log: m.log.With("partition", assigned.ID)}
	defer p.close()
	defer m.own(p)()

	err := p.open(ctx)
	if err == nil {
		err = m.handle(ctx, p)
	}
	if err != nil && ctx.Err() == nil {
		cancel(err)
	}
	<-ctx.Done() // the return of any partition would end the whole generation
}

// Partition is one partition of a topic that is assigned to this process. One goroutine
// uses it.
type Partition struct {
	client     *Client
	topic      string
	id         int
	next       int64 // the offset of the first record that is not committed
	generation *kafkago.Generation
	reader     *kafkago.Reader
	expected   int64     // the lowest offset that Fetch may return next
	high       int64     // end of the partition at the last record
	failing    time.Time // since when the next record cannot be read; zero while it can
	state      progress
	log        *slog.Logger

	// See waiting.
	waitFor   context.Context
	wait      context.Context
	waitUntil time.Time
	endWait   context.CancelFunc
}

// ID returns the partition's number.
func (p *Partition) ID() int { return p.id }

// open seeks to the first record that is not committed, or to the first one that there is.
func (p *Partition) open(ctx context.Context) error {
	first, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}

	switch {
	// The group has committed nothing.
	case p.next == kafkago.FirstOffset:
		p.next = first
	case p.next < first:
		p.log.Error("records were dropped by Kafka's retention before this group read them",
			"from_offset", p.next, "to_offset", first)
		p.next = first
	case p.next > last:
		p.log.Warn("topic was recreated; reading it from its start", "committed", p.next, "last", last)
		p.next = first
	}
	return p.seekOffset(p.next)
}

// bounds returns the first offset and the one after the last.
func (p *Partition) bounds(ctx context.Context) (first, last int64, err error) {
	err = p.askLeader(ctx, "read the offsets", func(conn *kafkago.Conn) (err error) {
		first, last, err = conn.ReadOffsets()
		return err
	})
	return first, last, err
}

// leaderPatience is how long a partition may be without a leader that answers, just after
// its topic was created, and while another broker takes over.
const leaderPatience = 30 * time.Second

// askLeader sends a request to the partition's leader, and retries while there is none.
func (p *Partition) askLeader(ctx context.Context, what string, ask func(*kafkago.Conn) error) error {
	for deadline := time.Now().Add(leaderPatience); ; {
		err := p.askOnce(ctx, ask)
		if err == nil {
			return nil
		}
		if !Passing(err) || time.Now().After(deadline) || !sleep.For(ctx, retryPause) {
			return fmt.Errorf("%s of partition %d of %s: %w", what, p.id, p.topic, err)
		}
	}
}

func (p *Partition) askOnce(ctx context.Context, ask func(*kafkago.Conn) error) error {
	conn, err := p.client.dialLeader(ctx, p.topic, p.id)
	if err != nil {
		return err
	}
	defer conn.Close()

	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	return ask(conn)
}

// seekOffset makes Fetch continue at an offset.
func (p *Partition) seekOffset(offset int64) error {
	if p.reader == nil {
		p.reader = p.client.newReader(p.topic, p.id)
	}

	if err := p.reader.SetOffset(offset); err != nil {
		return fmt.Errorf("seek to offset %d in partition %d of %s: %w", offset, p.id, p.topic, err)
	}
	p.expected, p.failing = offset, time.Time{}
	return nil
}

// SeekEnd makes Fetch continue at the end of the partition, with the next new record.
func (p *Partition) SeekEnd(ctx context.Context) error {
	_, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	return p.seekOffset(last)
}

// Rewind makes Fetch continue at the first record that was produced at or after a time,
// which since returns for the last committed record. If no record is committed, Fetch
// continues at the first one. Rewind returns the offset of the first uncommitted record.
func (p *Partition) Rewind(
	ctx context.Context, since func(last *schema.Record) time.Time,
) (committed int64, err error) {
	first, _, err := p.bounds(ctx)
	if err != nil {
		return 0, err
	}
	if p.next <= first {
		return p.next, p.seekOffset(max(p.next, first))
	}

	// Read the last committed record. It may be gone: the topic is compacted, or Kafka has just
	// dropped it.
	if err := p.seekOffset(p.next - 1); err != nil {
		return 0, err
	}
	last, err := p.Fetch(ctx)
	if err != nil {
		return 0, err
	}
	if last.Offset >= p.next {
		return p.next, p.seekOffset(p.next)
	}

	// Ask the broker for the offset of that time.
	from := since(&last)
	var offset int64
	err = p.askLeader(ctx, "find the offset of "+from.Format(time.RFC3339), func(conn *kafkago.Conn) (err error) {
		offset, err = conn.ReadOffset(from)
		return err
	})
	if err != nil {
		return 0, err
	}

	// There may be no record from that time on.
	if offset < 0 || offset > p.next {
		offset = p.next
	}
	return p.next, p.seekOffset(offset)
}

// Fetch returns the next record. It waits for one until ctx ends, retries errors of the
// brokers, and skips damaged records.
func (p *Partition) Fetch(ctx context.Context) (schema.Record, error) {
	for {
		message, err := p.reader.FetchMessage(p.waiting(ctx))
		switch {
		// This case is before that of ctx: a record that was received must not be lost.
		case err == nil:
			if err = p.check(&message); err == nil {
				p.expected, p.high, p.failing = message.Offset+1, message.HighWaterMark, time.Time{}
				p.state.fetch(message.Offset)
				return record(message), nil
			}
			// The records that were read ahead after it may be wrong too.
			if err := p.reopen(p.expected); err != nil {
				return schema.Record{}, err
			}

		case ctx.Err() != nil:
			return schema.Record{}, ctx.Err()

		// Usually there is no record. But the reader also retries some damage without an error.
		case errors.Is(err, context.DeadlineExceeded):
			p.stopWaiting()
			if err = p.stalled(ctx); err == nil {
				continue
			}

		case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe):
			return schema.Record{}, fmt.Errorf("partition %d of %s: the reader was closed", p.id, p.topic)
		}

		// The read has failed. failed skips the record if it is damaged.
		if p.state.due() {
			p.log.Warn("read from Kafka failed; retrying", "offset", p.expected, "err", err)
		}
		if err := p.failed(ctx, err); err != nil {
			return schema.Record{}, err
		}
		if !sleep.For(ctx, retryPause) {
			return schema.Record{}, ctx.Err()
		}
	}
}

// Lag returns the number of records that Fetch has not returned.
func (p *Partition) Lag() int64 { return p.reader.Lag() }

// Commit commits every record below next for the group. After an error the records may be
// delivered again, to this process or to another one.
func (p *Partition) Commit(next int64) error {
	err := p.generation.CommitOffsets(map[string]map[int]int64{p.topic: {p.id: next}})
	if err != nil {
		return fmt.Errorf("commit offset %d of partition %d of %s: %w", next, p.id, p.topic, err)
	}
	p.next = next
	p.state.commit(next)
	return nil
}

func (p *Partition) close() {
	p.stopWaiting()
	if p.reader != nil {
		p.reader.Close()
	}
}

func (c *Client) newReader(topic string, partition int) *kafkago.Reader {
	return kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: c.cfg.Brokers, Dialer: c.dialer, Topic: topic, Partition: partition,
		MinBytes: 1, MaxBytes: fetchBytes, MaxWait: fetchWait, QueueCapacity: fetchCapacity,
		ReadBackoffMin: retryPause, ReadBackoffMax: time.Second, ReadLagInterval: -1,
	})
}

// record returns a message as a record. It need not copy the key and the value: kafka-go
// reads every message into separate memory.
func record(m kafkago.Message) schema.Record {
	headers := make([]schema.Header, len(m.Headers))
	for i, header := range m.Headers {
		headers[i] = schema.Header{Key: header.Key, Value: header.Value}
	}
	return schema.Record{Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time,
		Headers: headers}
}

// ReadAll calls yield for every record that a topic has now, partition by partition, without
// a group. It is for compacted topics, to rebuild a state.
func (c *Client) ReadAll(ctx context.Context, topic string, yield func(schema.Record) error) error {
	ids, err := c.partitionIDs(ctx, topic)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := c.readPartition(ctx, topic, id, yield); err != nil {
			return fmt.Errorf("read topic %s: %w", topic, err)
		}
	}
	return nil
}

func (c *Client) readPartition(
	ctx context.Context, topic string, partition int, yield func(schema.Record) error,
) error {
	p := c.partition(topic, partition)
	defer p.close()

	first, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	if first >= last {
		return nil
	}
	if err := p.seekOffset(first); err != nil {
		return err
	}

	for {
		// There must be a record, so do not wait forever.
		short, cancel := context.WithTimeout(ctx, readAllIdle)
		next, err := p.Fetch(short)
		cancel()
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("partition %d: no record within %s although there are some up to offset %d",
					p.id, readAllIdle, last)
			}
			return err
		}

		// Records that are produced during the read are not read.
		if err := yield(next); err != nil {
			return err
		}
		if next.Offset+1 >= last {
			return nil
		}
	}
}

// readAllIdle is how long ReadAll waits for a record below the end.
const readAllIdle = 10 * time.Second
