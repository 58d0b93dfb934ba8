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

// patiently repeats a request while no broker can answer it, as just after the start of a
// cluster and while one broker takes over from another.
func patiently[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	for deadline := time.Now().Add(leaderPatience); ; {
		answer, err := ask(ctx)
		if err == nil || !Passing(err) || time.Now().After(deadline) || !sleep.For(ctx, retryPause) {
			return answer, err
		}
	}
}

// Members returns the number of members of a consumer group.
func (c *Client) Members(ctx context.Context, group string) (int, error) {
	return patiently(ctx, func(ctx context.Context) (int, error) { return c.members(ctx, group) })
}

func (c *Client) members(ctx context.Context, group string) (int, error) {
	resp, err := c.client.DescribeGroups(ctx, &kafkago.DescribeGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", group, err)
	}

	// The response has this group only. A group without members so far is unknown.
	count := 0
	for _, found := range resp.Groups {
		if found.Error != nil && !errors.Is(found.Error, kafkago.GroupIdNotFound) {
			return 0, fmt.Errorf("describe group %s: %w", group, found.Error)
		}
		count += len(found.Members)
	}
	return count, nil
}

// drainPoll is the interval at which the offsets of a group are read.
const drainPoll = 200 * time.Millisecond

// Drained waits until a group has committed all records that the topic had when Drained was
// called. It returns an error if that takes longer than patience.
func (c *Client) Drained(ctx context.Context, topic, group string, patience time.Duration) error {
	ends, err := c.bounds(ctx, topic)
	if err != nil {
		return err
	}
	// Records that are produced during the wait do not count.
	var partitions []int
	for id := range ends {
		partitions = append(partitions, id)
	}

	deadline := time.Now().Add(patience)
	for {
		committed, err := c.committed(ctx, topic, group, partitions)
		if err != nil {
			return err
		}

		// Records before the first offset were dropped, so they need no commit.
		behind := int64(0)
		for id, offset := range committed {
			end := ends[id]
			behind += max(end.last-max(offset, end.first), 0)
		}
		if behind == 0 && len(committed) == len(partitions) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("group %s is %d records behind in %s", group, behind, topic)
		}
		if !sleep.For(ctx, drainPoll) {
			return ctx.Err()
		}
	}
}

// committed returns the offsets that a group has committed, by partition.
func (c *Client) committed(ctx context.Context, topic, group string, partitions []int) (map[int]int64, error) {
	resp, err := c.client.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: partitions}})
	if err == nil {
		err = resp.Error
	}
	if err != nil {
		return nil, fmt.Errorf("read the offsets of group %s: %w", group, err)
	}

	offsets := map[int]int64{}
	for _, p := range resp.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("read the offset of group %s in partition %d of %s: %w",
				group, p.Partition, topic, p.Error)
		}
		offsets[p.Partition] = p.CommittedOffset
	}
	return offsets, nil
}

// bound has the first offset of a partition and the one after the last.
type bound struct{ first, last int64 }

// bounds returns the bounds of all partitions of a topic.
func (c *Client) bounds(ctx context.Context, topic string) (map[int]bound, error) {
	ids, err := c.partitionIDs(ctx, topic)
	if err != nil {
		return nil, err
	}

	found := map[int]bound{}
	for _, id := range ids {
		first, last, err := c.partition(topic, id).bounds(ctx)
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
	for _, found := range meta.Topics {
		if found.Error != nil {
			return nil, fmt.Errorf("read the partitions of %s: %w", topic, found.Error)
		}
		for _, partition := range found.Partitions {
			ids = append(ids, partition.ID)
		}
	}
	return ids, nil
}

// partition returns a partition to read without a group.
func (c *Client) partition(topic string, id int) *Partition {
	return &Partition{client: c, topic: topic, id: id, log: c.cfg.Log.With("topic", topic, "partition", id)}
}

// PartitionOf returns the partition in which a producer puts the records of a key.
func (c *Client) PartitionOf(ctx context.Context, topic string, key []byte) (int, error) {
	ids, err := patiently(ctx, func(ctx context.Context) ([]int, error) { return c.partitionIDs(ctx, topic) })
	if err != nil {
		return 0, err
	}
	return choosePartition(key, ids...), nil
}

// Follow calls yield for every record that is produced to a partition from now on, until
// ctx ends or yield fails. It calls ready once no record can be missed.
func (c *Client) Follow(
	ctx context.Context, topic string, partition int, ready func() error, yield func(schema.Record) error,
) error {
	p := c.partition(topic, partition)
	defer p.close()
	// From here on, every record is at or after the offset of the reader.
	if err := p.SeekEnd(ctx); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}

	for {
		next, err := p.Fetch(ctx)
		if err != nil {
			return err
		}
		if err := yield(next); err != nil {
			return err
		}
	}
}
