package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/schema"
)

// A log may be damaged on disk. The embedded broker, and others that check the batches they
// return, then answer CORRUPT_MESSAGE at the same offset forever. After damagePatience, such
// records are skipped with an error in the log, and audits repair their events. No other
// failure skips any record.

// Damage is a run of records that can no longer be read.
type Damage struct {
	Topic     string
	Partition int
	From, To  int64 // the first damaged offset, and the first sound one after it
	Err       error // the error at From
}

const (
	// damagePatience is how long an offset is tried before it counts as damaged.
	// Brokers that are down, or that elect a leader, fail in other ways.
	damagePatience = 2 * time.Second
	// idlePatience is how long Fetch waits before it checks the end of the partition.
	idlePatience = 15 * time.Second
	// probeTimeout bounds the attempt to read one record.
	probeTimeout = 5 * time.Second
)

// waiting returns a context that ends when Fetch must check whether there is a record. It
// replaces the last one once half of its time is over, rather than for each record.
func (p *Partition) waiting(ctx context.Context) context.Context {
	patience := p.patience()

	// left is greater than patience if that has become shorter.
	if left := time.Until(p.waitUntil); p.waitFor != ctx || left < patience/2 || left > patience {
		p.stopWaiting()
		p.waitFor, p.waitUntil = ctx, time.Now().Add(patience)
		p.wait, p.endWait = context.WithDeadline(ctx, p.waitUntil)
	}
	return p.wait
}

// stopWaiting releases the context of waiting.
func (p *Partition) stopWaiting() {
	if p.endWait != nil {
		p.endWait()
	}
	p.waitFor, p.wait, p.endWait = nil, nil, nil
}

// patience returns how long Fetch waits for a record before it checks whether there is one.
// It is short if there must be one.
func (p *Partition) patience() time.Duration {
	if p.expected < p.high || !p.failing.IsZero() {
		return damagePatience
	}
	return idlePatience
}

// stalled returns an error if there are records that the reader does not deliver.
func (p *Partition) stalled(ctx context.Context) error {
	_, last, err := p.bounds(ctx)
	if err != nil {
		return err
	}

	// The reader is at the end.
	if p.expected >= last {
		p.failing = time.Time{}
		p.state.succeed()
		return nil
	}
	return fmt.Errorf("no record received although there are some up to offset %d", last)
}

// check returns an error if a message cannot be the next one, as with a damaged offset.
func (p *Partition) check(m *kafkago.Message) error {
	if m.Offset < p.expected || m.HighWaterMark > 0 && m.Offset >= m.HighWaterMark {
		return fmt.Errorf("offset %d is not between %d and %d", m.Offset, p.expected, m.HighWaterMark-1)
	}
	return nil
}

// failed notes that the record at p.expected could not be read. After damagePatience, if the
// partition's leader confirms the damage, it skips the damaged records.
func (p *Partition) failed(ctx context.Context, reason error) error {
	if p.failing.IsZero() {
		p.failing = time.Now()
	}
	p.state.fail(reason)
	if time.Since(p.failing) < damagePatience {
		return nil
	}
	p.failing = time.Now() // whatever the outcome, do not check again at once

	// Skip nothing if the broker has another problem, or goes down.
	_, last, err := p.bounds(ctx)
	if err != nil || p.expected >= last {
		return nil
	}
	good, err := p.endOfDamage(ctx, last)
	if err != nil {
		return ctx.Err()
	}

	// If we stop here, nothing is committed, and the next start finds the same damage.
	if good > p.expected {
		p.client.damaged(Damage{Topic: p.topic, Partition: p.id, From: p.expected, To: good, Err: reason})
	}
	return p.reopen(good)
}

// endOfDamage returns the first offset from p.expected on that can be read, or last if there
// is none. It assumes that the damage is contiguous. An error means that the end is unknown.
func (p *Partition) endOfDamage(ctx context.Context, last int64) (int64, error) {
	// Look for a sound offset, in steps that double.
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

	// Find the first sound one between the two, by bisection.
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

// isDamaged reads the record at an offset without the reader. It is damaged only if the
// broker says so; any other failure is an error.
func (p *Partition) isDamaged(ctx context.Context, offset int64) (bool, error) {
	conn, err := p.client.dialLeader(ctx, p.topic, p.id)
	if err != nil {
		return false, err
	}
	defer conn.Close()

	if err := conn.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return false, err
	}

	if _, err := conn.Seek(offset, kafkago.SeekAbsolute); err != nil {
		return false, err
	}

	// kafka-go calls CORRUPT_MESSAGE InvalidMessage.
	_, err = conn.ReadMessage(schema.MaxMessage)
	if errors.Is(err, kafkago.InvalidMessage) {
		return true, nil
	}
	return false, err
}

// reopen makes Fetch continue at an offset with a new reader, which has read nothing ahead.
func (p *Partition) reopen(offset int64) error {
	// seekOffset creates a reader if there is none.
	failing, before := p.failing, p.expected
	p.close()
	p.reader = nil

	// At the same offset, the failure continues.
	err := p.seekOffset(offset)
	if offset == before {
		p.failing = failing
	}
	return err
}

// damaged reports a damage.
func (c *Client) damaged(d Damage) {
	c.cfg.Log.Error("skipped damaged records in Kafka; audits repair their events",
		"topic", d.Topic, "partition", d.Partition, "from_offset", d.From, "to_offset", d.To, "err", d.Err)
	if c.cfg.Damaged != nil {
		c.cfg.Damaged(d)
	}
}
