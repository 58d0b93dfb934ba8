package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/schema"
)

// patiently repeats a question while no broker is there that can answer it, as just
// after the start of a cluster and while one broker takes over from another.
func patiently[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	for deadline := time.Now().Add(leaderPatience); ; {
		answer, err := ask(ctx)
		if err == nil || !Passing(err) || time.Now().After(deadline) || !wait(ctx, retryPause) {
			return answer, err
		}
	}
}

// Members is how many processes are members of a consumer group.
func (c *Client) Members(ctx context.Context, group string) (int, error) {
	return patiently(ctx, func(ctx context.Context) (int, error) { return c.members(ctx, group) })
}

func (c *Client) members(ctx context.Context, group string) (int, error) {
	res, err := c.client.DescribeGroups(ctx, &kafkago.DescribeGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", group, err)
	}
	n := 0
	for _, g := range res.Groups { // the one
		if g.Error != nil && !errors.Is(g.Error, kafkago.GroupIdNotFound) {
			return 0, fmt.Errorf("describe group %s: %w", group, g.Error)
		}
		n += len(g.Members)
	}
	return n, nil
}

// settlePoll is the pause before a group's offsets are asked for again.
const settlePoll = 200 * time.Millisecond

// Settled waits until a group has committed all that the topic held when it was
// called. It fails when that takes longer than patience.
func (c *Client) Settled(ctx context.Context, topic, group string, patience time.Duration) error {
	ends, err := c.bounds(ctx, topic)
	if err != nil {
		return err
	}
	var partitions []int
	for id := range ends {
		partitions = append(partitions, id)
	}
	deadline := time.Now().Add(patience)
	for {
		res, err := c.client.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: partitions}})
		if err == nil {
			err = res.Error
		}
		if err != nil {
			return fmt.Errorf("read the offsets of group %s: %w", group, err)
		}
		behind := int64(0)
		for _, p := range res.Topics[topic] {
			if p.Error != nil {
				return fmt.Errorf("read the offset of group %s in partition %d of %s: %w", group, p.Partition, topic, p.Error)
			}
			b := ends[p.Partition]
			behind += max(b.last-max(p.CommittedOffset, b.first), 0)
		}
		if behind == 0 && len(res.Topics[topic]) == len(partitions) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("group %s is %d records behind in %s", group, behind, topic)
		}
		if !wait(ctx, settlePoll) {
			return ctx.Err()
		}
	}
}

// bound is what a partition holds: the first offset and the one after the last.
type bound struct{ first, last int64 }

func (c *Client) bounds(ctx context.Context, topic string) (map[int]bound, error) {
	ids, err := c.partitionIDs(ctx, topic)
	if err != nil {
		return nil, err
	}
	found := map[int]bound{}
	for _, id := range ids {
		p := c.partition(topic, id)
		first, last, err := p.bounds(ctx)
		if err != nil {
			return nil, err
		}
		found[id] = bound{first, last}
	}
	return found, nil
}

func (c *Client) partitionIDs(ctx context.Context, topic string) ([]int, error) {
	meta, err := c.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, fmt.Errorf("read the partitions of %s: %w", topic, err)
	}
	var ids []int
	for _, t := range meta.Topics {
		if t.Error != nil {
			return nil, fmt.Errorf("read the partitions of %s: %w", topic, t.Error)
		}
		for _, p := range t.Partitions {
			ids = append(ids, p.ID)
		}
	}
	return ids, nil
}

// partition is one to be read without a group.
func (c *Client) partition(topic string, id int) *Partition {
	return &Partition{client: c, topic: topic, id: id, log: c.cfg.Log.With("topic", topic, "partition", id)}
}

// PartitionOf is where a producer of the topic puts records of a key.
func (c *Client) PartitionOf(ctx context.Context, topic string, key []byte) (int, error) {
	ids, err := patiently(ctx, func(ctx context.Context) ([]int, error) { return c.partitionIDs(ctx, topic) })
	if err != nil {
		return 0, err
	}
	return place(key, ids...), nil
}

// Follow calls yield for every record that comes into a partition from now on,
// until ctx ends or yield fails. ready is called once no record can be missed.
func (c *Client) Follow(ctx context.Context, topic string, partition int, ready func() error, yield func(schema.Record) error) error {
	p := c.partition(topic, partition)
	defer p.close()
	if err := p.SeekEnd(ctx); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	for {
		r, err := p.Fetch(ctx)
		if err != nil {
			return err
		}
		if err := yield(r); err != nil {
			return err
		}
	}
}
