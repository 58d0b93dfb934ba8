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

	"github.com/tenantwatch/tenantwatch/schema"
)

// Settings of group membership. A process that dies is missed after the session
// timeout; one that stops leaves the group at once.
const (
	sessionTimeout   = 10 * time.Second
	heartbeat        = 2 * time.Second
	rebalanceTimeout = 30 * time.Second
	rejoinPause      = time.Second
)

// Fetch settings of one partition. The broker waits fetchWait for data, so that
// is not a delay for what is there.
const (
	fetchBytes    = 2 << 20
	fetchWait     = 500 * time.Millisecond
	fetchCapacity = 256 // records read ahead
)

// Consume joins a consumer group and calls handle for each partition of the
// topic that this process gets, each in a goroutine of its own, until ctx ends.
// The context given to handle ends when the partition is no longer ours; handle
// must return then. When it returns earlier, with an error, the group is joined
// anew after a pause.
func (c *Client) Consume(ctx context.Context, topic, group string, handle func(context.Context, *Partition) error) error {
	m := &membership{client: c, topic: topic, group: group, handle: handle, parts: map[int]*Partition{}, log: c.cfg.Log.With("topic", topic, "group", group)}
	c.mu.Lock()
	c.groups[group] = m
	c.mu.Unlock()
	for ctx.Err() == nil {
		if err := m.run(ctx); ctx.Err() == nil {
			m.failed(err)
			wait(ctx, rejoinPause)
		}
	}
	return ctx.Err()
}

// membership is this process's part in a consumer group.
type membership struct {
	client       *Client
	topic, group string
	handle       func(context.Context, *Partition) error
	log          *slog.Logger
	state        progress // of the membership itself

	mu    sync.Mutex // guards parts
	parts map[int]*Partition
}

// sayAgain is how often the log tells that a group still cannot be joined.
const sayAgain = time.Minute

func (m *membership) failed(err error) {
	m.state.fail(err)
	if m.state.due() {
		m.log.Warn("consumer group is joined anew, until it succeeds", "err", err)
	}
}

func (m *membership) joined() {
	if m.state.failed() {
		m.log.Info("consumer group is joined again")
	}
	m.state.succeed()
}

// own notes that a partition is ours, and the function that it is no more.
func (m *membership) own(p *Partition) (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[p.id] = p
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.parts[p.id] == p {
			delete(m.parts, p.id)
		}
	}
}

// run is one membership, through all generations of the group, until ctx ends or
// handle fails.
func (m *membership) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
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
			// kafka-go tries again by itself, as the same member where it may: who left
			// and came back would make the others rebalance twice.
			m.failed(fmt.Errorf("join group %s: %w", m.group, err))
			continue
		}
		m.joined()
		var running sync.WaitGroup
		ids := []int{}
		for _, a := range generation.Assignments[m.topic] {
			ids = append(ids, a.ID)
			running.Add(1)
			// Start's function must return soon after its context ends: only then
			// does kafka-go join the next generation, so no partition has two owners.
			generation.Start(func(genCtx context.Context) {
				defer running.Done()
				partCtx, stop := context.WithCancel(ctx)
				defer stop()
				defer context.AfterFunc(genCtx, stop)()
				p := &Partition{client: m.client, topic: m.topic, id: a.ID, next: a.Offset, generation: generation, log: m.log.With("partition", a.ID)}
				defer p.close()
				defer m.own(p)()
				if err := p.open(partCtx); err == nil {
					err = m.handle(partCtx, p)
					if err != nil && partCtx.Err() == nil {
						cancel(err)
					}
				} else if partCtx.Err() == nil {
					cancel(err)
				}
				<-partCtx.Done() // the end of a function ends the whole generation
			})
		}
		m.log.Debug("partitions are ours", "partitions", ids)
		running.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(generation.Assignments[m.topic]) == 0 {
			m.log.Info("no partition for this process; it stands by")
		}
	}
}

// Partition is one partition of a topic while it is ours. One goroutine uses it.
type Partition struct {
	client     *Client
	topic      string
	id         int
	next       int64 // where the group stands
	generation *kafkago.Generation
	reader     *kafkago.Reader
	expected   int64     // the lowest offset that Fetch may return next
	high       int64     // where the partition ended when the last record was read
	failing    time.Time // since when the record there cannot be read; zero while it can
	state      progress
	log        *slog.Logger

	// See waiting.
	waitFor   context.Context
	wait      context.Context
	waitUntil time.Time
	endWait   context.CancelFunc
}

// ID is the partition's number.
func (p *Partition) ID() int { return p.id }

// Committed is the offset of the first record that the group has not committed.
func (p *Partition) Committed() int64 { return p.next }

// open finds out where to go on.
func (p *Partition) open(ctx context.Context) error {
	first, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	switch {
	case p.next == kafkago.FirstOffset:
		p.next = first
	case p.next < first:
		p.log.Error("records were dropped by Kafka's retention before this group read them", "from_offset", p.next, "to_offset", first)
		p.next = first
	case p.next > last:
		p.log.Warn("the topic was made anew; reading it from its start", "committed", p.next, "last", last)
		p.next = first
	}
	return p.SeekOffset(p.next)
}

// bounds are the first offset and the one after the last.
func (p *Partition) bounds(ctx context.Context) (first, last int64, err error) {
	err = p.askLeader(ctx, "read the offsets", func(conn *kafkago.Conn) (err error) {
		first, last, err = conn.ReadOffsets()
		return err
	})
	return first, last, err
}

// leaderPatience is how long a partition may be without a leader that answers:
// just after its topic was made, and while another broker takes over.
const leaderPatience = 30 * time.Second

// askLeader asks the partition's leader, and asks again while there is none.
func (p *Partition) askLeader(ctx context.Context, what string, ask func(*kafkago.Conn) error) error {
	for deadline := time.Now().Add(leaderPatience); ; {
		err := p.askOnce(ctx, ask)
		if err == nil {
			return nil
		}
		if !Passing(err) || time.Now().After(deadline) || !wait(ctx, retryPause) {
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

// SeekOffset makes Fetch go on at an offset.
func (p *Partition) SeekOffset(offset int64) error {
	if p.reader == nil {
		p.reader = p.client.newReader(p.topic, p.id)
	}
	if err := p.reader.SetOffset(offset); err != nil {
		return fmt.Errorf("seek to offset %d in partition %d of %s: %w", offset, p.id, p.topic, err)
	}
	p.expected, p.failing = offset, time.Time{}
	return nil
}

// SeekEnd makes Fetch go on at the first record that is still to come.
func (p *Partition) SeekEnd(ctx context.Context) error {
	_, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	return p.SeekOffset(last)
}

// Rewind makes Fetch go on at the first record that was produced at or after a
// time, which since tells from the last committed record; where none is
// committed, at the first that is there. It returns the offset of the first
// uncommitted record.
func (p *Partition) Rewind(ctx context.Context, since func(last *schema.Record) time.Time) (committed int64, err error) {
	first, _, err := p.bounds(ctx)
	if err != nil {
		return 0, err
	}
	if p.next <= first {
		return p.next, p.SeekOffset(max(p.next, first))
	}
	if err := p.SeekOffset(p.next - 1); err != nil {
		return 0, err
	}
	last, err := p.Fetch(ctx)
	if err != nil {
		return 0, err
	}
	if last.Offset >= p.next { // the topic is compacted, or the last one has just been dropped
		return p.next, p.SeekOffset(p.next)
	}
	from := since(&last)
	var offset int64
	err = p.askLeader(ctx, "find the offset of "+from.Format(time.RFC3339), func(conn *kafkago.Conn) (err error) {
		offset, err = conn.ReadOffset(from)
		return err
	})
	if err != nil {
		return 0, err
	}
	if offset < 0 || offset > p.next { // none is that late
		offset = p.next
	}
	return p.next, p.SeekOffset(offset)
}

// Fetch returns the next record. It waits for one until ctx ends; errors of the
// brokers are retried, and records that are damaged are left out.
func (p *Partition) Fetch(ctx context.Context) (schema.Record, error) {
	for {
		m, err := p.reader.FetchMessage(p.waiting(ctx))
		switch {
		case err == nil: // before ctx: a record that has come must not be dropped with it
			if err = p.check(&m); err == nil {
				p.expected, p.high, p.failing = m.Offset+1, m.HighWaterMark, time.Time{}
				p.state.fetch(m.Offset)
				return record(m), nil
			}
			// What was read ahead after it is not to be trusted either.
			if err := p.reopen(p.expected); err != nil {
				return schema.Record{}, err
			}
		case ctx.Err() != nil:
			return schema.Record{}, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			p.stopWaiting()
			// Nothing has come: usually there is nothing. But the reader also tries
			// some damage again and again without a word.
			if err = p.stalled(ctx); err == nil {
				continue
			}
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe):
			return schema.Record{}, fmt.Errorf("partition %d of %s: the reader was closed", p.id, p.topic)
		}

		if p.state.due() {
			p.log.Warn("read from Kafka failed; trying again", "offset", p.expected, "err", err)
		}
		if err := p.failed(ctx, err); err != nil {
			return schema.Record{}, err
		}
		if !wait(ctx, retryPause) {
			return schema.Record{}, ctx.Err()
		}
	}
}

// Lag is how many records are there that Fetch has not returned.
func (p *Partition) Lag() int64 { return p.reader.Lag() }

// Commit notes for the group that every record below next is done with. After
// an error the records may be delivered again, to us or to another process.
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

// record copies a message. Its slices belong to the message alone: kafka-go
// reads every message into memory of its own.
func record(m kafkago.Message) schema.Record {
	r := schema.Record{Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time,
		Headers: make([]schema.Header, len(m.Headers))}
	for i, h := range m.Headers {
		r.Headers[i] = schema.Header{Key: h.Key, Value: h.Value}
	}
	return r
}

// ReadAll calls yield for every record that a topic holds now, partition by
// partition, without a group. It is for compacted topics, to rebuild a state.
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

func (c *Client) readPartition(ctx context.Context, topic string, partition int, yield func(schema.Record) error) error {
	p := c.partition(topic, partition)
	defer p.close()
	first, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	if first >= last {
		return nil
	}
	if err := p.SeekOffset(first); err != nil {
		return err
	}
	for {
		short, cancel := context.WithTimeout(ctx, readAllIdle)
		r, err := p.Fetch(short)
		cancel()
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("partition %d: no record within %s although there are some up to offset %d", p.id, readAllIdle, last)
			}
			return err
		}
		if err := yield(r); err != nil {
			return err
		}
		if r.Offset+1 >= last {
			return nil
		}
	}
}

// readAllIdle is how long ReadAll waits for a record below the end.
const readAllIdle = 10 * time.Second
