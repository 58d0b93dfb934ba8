package kafka

import (
	"context"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Bytes of a log may be damaged on disk. The embedded broker, and others that check what
// they serve, answer with an error then, for ever at the same place; kafka-go also waits at
// some damage for bytes that never come. A place that cannot be read for damagePatience is
// left behind, loudly: the audit brings back the events that were there.

// Damage is a run of records that cannot be read any more.
type Damage struct {
	Topic     string
	Partition int
	From, To  int64 // offsets: the first that is damaged, and the first after it that is not
	Err       error // what was found
}

const (
	// damagePatience is how long a place is tried before it is taken for damaged.
	// Brokers that are away, or that elect a leader, fail in other ways.
	damagePatience = 2 * time.Second
	// idlePatience is how long a partition may be silent before its end is looked at.
	idlePatience = 15 * time.Second
	// lookTimeout bounds the attempt to read one record.
	lookTimeout = 5 * time.Second
)

// waiting is ctx with an end after which Fetch looks whether a record is there. It is made
// again when half of it is over, rather than for each record.
func (p *Partition) waiting(ctx context.Context) context.Context {
	patience := p.patience()
	if left := time.Until(p.waitUntil); p.waitFor != ctx || left < patience/2 || left > patience {
		p.stopWaiting()
		p.waitFor, p.waitUntil = ctx, time.Now().Add(patience)
		p.wait, p.endWait = context.WithDeadline(ctx, p.waitUntil)
	}
	return p.wait
}

// stopWaiting releases what waiting holds.
func (p *Partition) stopWaiting() {
	if p.endWait != nil {
		p.endWait()
	}
	p.waitFor, p.wait, p.endWait = nil, nil, nil
}

// patience is how long Fetch waits for a record before it looks whether there is one:
// not long when there should be.
func (p *Partition) patience() time.Duration {
	if p.expected < p.high || !p.failing.IsZero() {
		return damagePatience
	}
	return idlePatience
}

// stalled returns an error when records are there that the reader does not deliver.
func (p *Partition) stalled(ctx context.Context) error {
	_, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	if p.expected >= last {
		p.failing = time.Time{}
		p.state.succeed()
		return nil
	}
	return fmt.Errorf("no record comes although there are some up to offset %d", last)
}

// check returns why a message is not what was produced, or nil.
func (p *Partition) check(m *kafkago.Message) error {
	if m.Offset < p.expected || m.HighWaterMark > 0 && m.Offset >= m.HighWaterMark {
		return fmt.Errorf("offset %d where one from %d to %d is possible", m.Offset, p.expected, m.HighWaterMark-1)
	}
	return nil
}

// failed notes that the record at p.expected could not be read. Once that has been so
// for a while, although the partition's leader answers, the damaged records are left
// behind.
func (p *Partition) failed(ctx context.Context, reason error) error {
	if p.failing.IsZero() {
		p.failing = time.Now()
	}
	p.state.fail(reason)
	if time.Since(p.failing) < damagePatience {
		return nil
	}
	p.failing = time.Now() // whatever comes of it, not again at once

	_, last, err := p.bounds(ctx)
	if err != nil || p.expected >= last {
		return nil // the broker has another trouble
	}
	readable := func(offset int64) bool { return p.look(ctx, offset) == nil }
	if readable(p.expected) {
		return p.reopen(p.expected)
	}

	// The damage is taken to be in one piece: its end is found by steps that double,
	// and then by halves.
	bad, good := p.expected, p.expected+1
	for step := int64(1); good < last && !readable(good); step *= 2 {
		bad, good = good, min(good+step, last)
	}
	for good-bad > 1 {
		if middle := bad + (good-bad)/2; readable(middle) {
			good = middle
		} else {
			bad = middle
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A broker that went away meanwhile makes everything unreadable.
	if _, _, err := p.bounds(ctx); err != nil {
		return nil
	}
	p.client.damaged(Damage{Topic: p.topic, Partition: p.id, From: p.expected, To: good, Err: reason})
	return p.reopen(good)
}

// look reads the record at an offset, past any reader.
func (p *Partition) look(ctx context.Context, offset int64) (err error) {
	conn, err := p.client.dialLeader(ctx, p.topic, p.id)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(lookTimeout)); err != nil {
		return err
	}
	if _, err := conn.Seek(offset, kafkago.SeekAbsolute); err != nil {
		return err
	}
	m, err := conn.ReadMessage(schema.MaxMessage)
	if err != nil {
		return err
	}
	at := Partition{expected: offset}
	return at.check(&m)
}

// reopen makes Fetch go on at an offset with a reader that has read nothing ahead.
func (p *Partition) reopen(offset int64) error {
	failing, before := p.failing, p.expected
	p.close()
	p.reader = nil
	err := p.SeekOffset(offset)
	if offset == before { // still at the same place
		p.failing = failing
	}
	return err
}

// damaged reports a damage.
func (c *Client) damaged(d Damage) {
	c.cfg.Log.Error("records in Kafka are damaged and left out; audits bring back the events that were there",
		"topic", d.Topic, "partition", d.Partition, "from_offset", d.From, "to_offset", d.To, "err", d.Err)
	if c.cfg.Damaged != nil {
		c.cfg.Damaged(d)
	}
}
