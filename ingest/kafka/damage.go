package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Bytes of a log may be damaged on disk. The embedded broker, and others that check what
// they serve, then answer with CORRUPT_MESSAGE, for ever at the same place. Such a place is
// left behind after damagePatience, loudly: the audit brings back the events that were
// there. No other failure makes us leave anything behind.

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
// for a while, and the partition's leader says that it is damaged, the damaged records are
// left behind. If we die here, the next start finds the same.
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
	good, err := p.endOfDamage(ctx, last)
	if err != nil {
		return ctx.Err() // nothing is left behind because of a broker that goes away
	}
	if good > p.expected {
		p.client.damaged(Damage{Topic: p.topic, Partition: p.id, From: p.expected, To: good, Err: reason})
	}
	return p.reopen(good)
}

// endOfDamage is the first offset from p.expected on that can be read, last where there is
// none. The damage is taken to be in one piece: its end is found by steps that double, and
// then by halves. An error means that it cannot be told.
func (p *Partition) endOfDamage(ctx context.Context, last int64) (int64, error) {
	bad, good := p.expected-1, p.expected
	for step := int64(1); good < last; step *= 2 {
		damaged, err := p.isDamaged(ctx, good)
		if err != nil {
			return 0, err
		}
		if !damaged {
			break
		}
		bad, good = good, min(good+step, last)
	}

	for good-bad > 1 {
		middle := bad + (good-bad)/2
		damaged, err := p.isDamaged(ctx, middle)
		if err != nil {
			return 0, err
		}
		if damaged {
			bad = middle
		} else {
			good = middle
		}
	}
	return good, nil
}

// isDamaged reads the record at an offset, past any reader. It is damaged when the broker
// says so; any other failure is an error.
func (p *Partition) isDamaged(ctx context.Context, offset int64) (bool, error) {
	conn, err := p.client.dialLeader(ctx, p.topic, p.id)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(lookTimeout)); err != nil {
		return false, err
	}
	if _, err := conn.Seek(offset, kafkago.SeekAbsolute); err != nil {
		return false, err
	}
	_, err = conn.ReadMessage(schema.MaxMessage)
	if errors.Is(err, kafkago.InvalidMessage) {
		return true, nil
	}
	return false, err
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
