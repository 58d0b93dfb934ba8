package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
)

func newClient(t *testing.T, b *testBroker) *kafka.Client {
	t.Helper()
	c := kafka.NewClient(kafka.Config{Brokers: b.addrs(), Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.Close)
	return c
}

func newProducer(t *testing.T, c *kafka.Client, topic string) *kafka.Producer {
	t.Helper()
	p := c.NewProducer(topic)
	t.Cleanup(func() { p.Close() })
	return p
}

// produce writes texts one after the other, all with one key. A topic that was
// just made may have no leader yet.
func produce(t *testing.T, p *kafka.Producer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := p.Produce(t.Context(), []schema.Record{{Key: []byte("acme"), Value: []byte(text)}}, func(err error) { t.Log(err) }); err != nil {
			t.Fatal(err)
		}
	}
}

// readAll is all that a topic holds, in the order of partitions and offsets.
func readAll(t *testing.T, c *kafka.Client, topic string) []schema.Record {
	t.Helper()
	var got []schema.Record
	if err := c.ReadAll(t.Context(), topic, func(r schema.Record) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

// texts are the records' values.
func texts(records []schema.Record) []string {
	var got []string
	for _, r := range records {
		got = append(got, string(r.Value))
	}
	return got
}

// consume runs handle in a group until it calls done.
func (b *testBroker) consume(t *testing.T, c *kafka.Client, group string, handle func(ctx context.Context, p *kafka.Partition, done func()) error) {
	t.Helper()
	ctx, done := context.WithCancel(t.Context())
	defer done()
	err := c.Consume(ctx, b.topic, b.topic+" "+group, func(ctx context.Context, p *kafka.Partition) error { return handle(ctx, p, done) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Consume ended with %v, want the end of its context", err)
	}
}

// fetch is the next n texts of a partition.
func fetch(ctx context.Context, t *testing.T, p *kafka.Partition, n int) []string {
	t.Helper()
	var got []schema.Record
	for range n {
		r, err := p.Fetch(ctx)
		if err != nil {
			t.Errorf("Fetch: %v", err)
			return nil
		}
		got = append(got, r)
	}
	return texts(got)
}

func numbered(prefix string, n int) []string {
	var got []string
	for i := range n {
		got = append(got, fmt.Sprintf("%s %d", prefix, i))
	}
	return got
}

var (
	_ pull.Producer       = (*kafka.Producer)(nil)
	_ checkpoint.Producer = (*kafka.Producer)(nil)
	_ write.Producer      = (*kafka.Producer)(nil)
	_ write.Partition     = (*kafka.Partition)(nil)
)

// TestRoundTrip shows that keys, values and headers come back byte for byte,
// large ones too, and that what has one key stays in order in one partition.
func TestRoundTrip(t *testing.T) { onEach(t, 3, testRoundTrip) }

func testRoundTrip(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	p := newProducer(t, c, b.topic)
	large := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	var want []schema.Record
	for _, key := range []string{"acme", "globex", "initech", "\xff\x00"} {
		for i := range 50 {
			want = append(want, schema.Record{Key: []byte(key), Value: fmt.Appendf(nil, `{"n":%d}`, i),
				Headers: []schema.Header{{Key: "tenant", Value: []byte(key)}, {Key: "twice", Value: []byte("1")}, {Key: "twice", Value: []byte{0, 0xff}}}})
		}
		want = append(want, schema.Record{Key: []byte(key), Value: large})
	}
	before := time.Now().Truncate(time.Millisecond)
	if err := p.Produce(t.Context(), want, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, c, b.topic)
	if len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	byKey := func(records []schema.Record) map[string][]schema.Record {
		m := map[string][]schema.Record{}
		for _, r := range records {
			m[string(r.Key)] = append(m[string(r.Key)], r)
		}
		return m
	}
	if diff := cmp.Diff(byKey(want), byKey(got), cmpopts.IgnoreFields(schema.Record{}, "Partition", "Offset", "Time"), cmpopts.EquateEmpty(), cmp.Comparer(bytes.Equal)); diff != "" {
		t.Errorf("-want +got\n%.2000s", diff)
	}
	partitions := map[string]int{}
	next := map[int]int64{}
	for _, r := range got {
		if was, ok := partitions[string(r.Key)]; ok && was != r.Partition {
			t.Errorf("key %q is in the partitions %d and %d", r.Key, was, r.Partition)
		}
		partitions[string(r.Key)] = r.Partition
		if r.Offset != next[r.Partition] {
			t.Errorf("offset %d of partition %d, want %d", r.Offset, r.Partition, next[r.Partition])
		}
		next[r.Partition]++
		if r.Time.Before(before) || r.Time.After(time.Now()) {
			t.Errorf("produced at %s", r.Time)
		}
	}
}

// TestProduceNothing shows that no records are no error.
func TestProduceNothing(t *testing.T) { onEach(t, 1, testProduceNothing) }

func testProduceNothing(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	if err := newProducer(t, c, b.topic).Produce(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
	if got := readAll(t, c, b.topic); len(got) != 0 {
		t.Errorf("%d records", len(got))
	}
}

// TestProduceTooLarge shows that a record above the limit says so.
func TestProduceTooLarge(t *testing.T) { onEach(t, 1, testProduceTooLarge) }

func testProduceTooLarge(t *testing.T, b *testBroker) {
	p := newProducer(t, newClient(t, b), b.topic)
	ctx, cancel := context.WithCancel(t.Context())
	err := p.Produce(ctx, []schema.Record{{Key: []byte("acme"), Value: make([]byte, 25<<20)}}, func(error) { cancel() })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "max.message.bytes") {
		t.Errorf("got %v, want the end of the context and what to do", err)
	}
}

// TestProduceTooLargeForTopic shows the same of a limit that only the broker knows.
func TestProduceTooLargeForTopic(t *testing.T) { onEach(t, 1, testProduceTooLargeForTopic) }

func testProduceTooLargeForTopic(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	small := schema.Topic{Name: newTopic(t), Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}}
	if _, err := c.EnsureTopics(t.Context(), []schema.Topic{small}); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 5000)
	rand.NewChaCha8([32]byte{}).Read(value) // does not get smaller
	ctx, cancel := context.WithCancel(t.Context())
	err := newProducer(t, c, small.Name).Produce(ctx, []schema.Record{{Key: []byte("acme"), Value: value}}, func(error) { cancel() })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "max.message.bytes") {
		t.Errorf("got %v, want the end of the context and what to do", err)
	}
}

// TestProduceWithoutBroker shows that Produce ends with its context and tells
// why it did not succeed.
func TestProduceWithoutBroker(t *testing.T) { onEachAlone(t, 1, testProduceWithoutBroker) }

func testProduceWithoutBroker(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	p := newProducer(t, c, b.topic)
	produce(t, p, "first")
	b.stop()
	ctx, cancel := context.WithCancel(t.Context())
	heard := 0
	err := p.Produce(ctx, []schema.Record{{Value: []byte("x")}}, func(err error) {
		if heard++; heard == 3 {
			cancel()
		}
		if !strings.Contains(err.Error(), b.topic) || strings.Contains(err.Error(), "\n") {
			t.Errorf("failed hears %q, want one line with the topic", err)
		}
	})
	if !errors.Is(err, context.Canceled) || heard != 3 {
		t.Errorf("got %v after %d attempts", err, heard)
	}
}

// TestProduceBrokerRestart restarts the broker in the middle of producing:
// everything acked before and after is there, in order.
func TestProduceBrokerRestart(t *testing.T) { onEachAlone(t, 1, testProduceBrokerRestart) }

func testProduceBrokerRestart(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	p := newProducer(t, c, b.topic)
	const batches = 60
	failed, acked := make(chan struct{}, 1), make(chan int, batches)
	go func() {
		defer close(acked)
		for i := range batches {
			var records []schema.Record
			for _, text := range numbered(fmt.Sprintf("batch %02d", i), 20) {
				records = append(records, schema.Record{Key: []byte("acme"), Value: []byte(text)})
			}
			err := p.Produce(t.Context(), records, func(error) {
				select {
				case failed <- struct{}{}:
				default:
				}
			})
			if err != nil {
				t.Error(err)
				return
			}
			acked <- i
		}
	}()
	for i := range acked {
		if i == 20 {
			b.stop()
			<-failed
			b.start(t)
		}
	}
	got := texts(readAll(t, newClient(t, b), b.topic))
	// A batch of unknown outcome may be there twice; without repeats all is in order.
	seen := map[string]bool{}
	var once []string
	for _, text := range got {
		if !seen[text] {
			once = append(once, text)
		}
		seen[text] = true
	}
	var want []string
	for i := range batches {
		want = append(want, numbered(fmt.Sprintf("batch %02d", i), 20)...)
	}
	if diff := cmp.Diff(want, once); diff != "" {
		t.Errorf("-want +got\n%.2000s", diff)
	}
}

// TestFetchBrokerRestart restarts the broker under a consumer, which goes on
// where it was.
func TestFetchBrokerRestart(t *testing.T) { onEachAlone(t, 1, testFetchBrokerRestart) }

func testFetchBrokerRestart(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	p := newProducer(t, c, b.topic)
	produce(t, p, numbered("before", 3)...)
	var got []string
	b.consume(t, c, "group", func(ctx context.Context, part *kafka.Partition, done func()) error {
		for {
			r, err := part.Fetch(ctx)
			if err != nil {
				return nil // another generation may go on
			}
			got = append(got, string(r.Value))
			if string(r.Value) == "before 2" && !slices.Contains(got, "after 0") {
				if err := part.Commit(r.Offset + 1); err != nil {
					t.Error(err)
				}
				b.stop()
				b.start(t)
				for _, text := range numbered("after", 3) {
					// The partition may be another generation's meanwhile: ctx says nothing here.
					if err := p.Produce(t.Context(), []schema.Record{{Key: []byte("acme"), Value: []byte(text)}}, nil); err != nil {
						t.Error(err)
					}
				}
			}
			if string(r.Value) == "after 2" {
				done()
			}
		}
	})
	want := append(numbered("before", 3), numbered("after", 3)...)
	for _, w := range want { // some may come twice
		if !slices.Contains(got, w) {
			t.Errorf("%q is lost, got %q", w, got)
		}
	}
}

// TestCommitAndResume shows that a group goes on at what it committed, that
// groups do not know of each other, and that an end without a commit costs a
// repeat and no more.
func TestCommitAndResume(t *testing.T) { onEach(t, 1, testCommitAndResume) }

func testCommitAndResume(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	want := numbered("r", 10)
	produce(t, newProducer(t, c, b.topic), want...)
	for _, tt := range []struct {
		group       string
		start       int64
		read        int
		commit      int64
		lag         int64
		fetchedText string
	}{
		{"a", 0, 4, 3, 6, "r 3"},
		{"a", 3, 2, 5, 5, "r 4"},
		{"b", 0, 1, -1, 9, "r 0"},
		{"b", 0, 10, 10, 0, "r 9"},
		{"a", 5, 5, 10, 0, "r 9"},
		{"a", 10, 0, -1, 0, ""},
		{"b", 10, 0, -1, 0, ""},
	} {
		b.consume(t, c, tt.group, func(ctx context.Context, p *kafka.Partition, done func()) error {
			defer done()
			if p.ID() != 0 || p.Committed() != tt.start {
				t.Errorf("group %s: partition %d begins at %d, want %d", tt.group, p.ID(), p.Committed(), tt.start)
			}
			got := fetch(ctx, t, p, tt.read)
			if tt.read > 0 && !slices.Equal(got, want[tt.start:int(tt.start)+tt.read]) {
				t.Errorf("group %s: got %q from %d on", tt.group, got, tt.start)
			}
			if tt.read > 0 && p.Lag() != tt.lag {
				t.Errorf("group %s: lag %d after %q, want %d", tt.group, p.Lag(), tt.fetchedText, tt.lag)
			}
			if tt.commit >= 0 {
				if err := p.Commit(tt.commit); err != nil || p.Committed() != tt.commit {
					t.Errorf("group %s: commit %d: %v, committed %d", tt.group, tt.commit, err, p.Committed())
				}
			}
			return nil
		})
	}
}

// TestHandleFails shows that an error of the handler gives the partition back
// and takes it again, at what was committed.
func TestHandleFails(t *testing.T) { onEach(t, 1, testHandleFails) }

func testHandleFails(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	produce(t, newProducer(t, c, b.topic), numbered("r", 4)...)
	var starts []int64
	b.consume(t, c, "group", func(ctx context.Context, p *kafka.Partition, done func()) error {
		starts = append(starts, p.Committed())
		fetch(ctx, t, p, 2)
		if len(starts) == 2 {
			done()
			return nil
		}
		if err := p.Commit(1); err != nil {
			t.Error(err)
		}
		return errors.New("the store is broken")
	})
	if !slices.Equal(starts, []int64{0, 1}) {
		t.Errorf("began at %v, want 0 and 1", starts)
	}
}

// TestSeek shows that a partition can be read again from any offset.
func TestSeek(t *testing.T) { onEach(t, 1, testSeek) }

func testSeek(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	produce(t, newProducer(t, c, b.topic), numbered("r", 5)...)
	b.consume(t, c, "group", func(ctx context.Context, p *kafka.Partition, done func()) error {
		defer done()
		for _, offset := range []int64{3, 0, 4, 1} {
			if err := p.SeekOffset(offset); err != nil {
				t.Error(err)
			}
			if got := fetch(ctx, t, p, 1); len(got) != 1 || got[0] != fmt.Sprintf("r %d", offset) {
				t.Errorf("got %q at offset %d", got, offset)
			}
		}
		return nil
	})
}

// TestRewind shows where Rewind goes back to: by a time that the last committed
// record tells, and never beyond the first uncommitted one.
func TestRewind(t *testing.T) { onEach(t, 1, testRewind) }

func testRewind(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	// Each has a time of its own: a producer lingers for longer than a
	// millisecond.
	produce(t, newProducer(t, c, b.topic), numbered("r", 8)...)
	records := readAll(t, c, b.topic)
	for i := 1; i < len(records); i++ {
		if !records[i].Time.After(records[i-1].Time) {
			t.Fatalf("records %d and %d are of the same time", i-1, i)
		}
	}
	for _, tt := range []struct {
		name   string
		commit int64
		since  time.Time
		want   int
	}{
		{"to a record", 5, records[2].Time, 2},
		{"to just after a record", 5, records[2].Time.Add(time.Millisecond), 3},
		{"to the last committed", 5, records[4].Time, 4},
		{"nowhere", 5, records[6].Time, 5},
		{"into the future", 5, records[7].Time.Add(time.Hour), 5},
		{"beyond the start", 5, records[0].Time.Add(-time.Hour), 0},
		{"all committed, to the start", 8, records[0].Time.Add(-time.Hour), 0},
		{"all committed, into the future", 8, records[7].Time.Add(time.Hour), 8},
		{"nothing committed", 0, records[0].Time.Add(-time.Hour), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.consume(t, c, "group "+tt.name, func(ctx context.Context, p *kafka.Partition, done func()) error {
				defer done()
				if err := p.Commit(tt.commit); err != nil {
					t.Error(err)
				}
				asked := false
				committed, err := p.Rewind(ctx, func(last *schema.Record) time.Time {
					if asked = true; last.Offset != tt.commit-1 || string(last.Value) != fmt.Sprintf("r %d", tt.commit-1) {
						t.Errorf("asked about offset %d, want the last committed of %d", last.Offset, tt.commit)
					}
					return tt.since
				})
				if err != nil || committed != tt.commit || asked != (tt.commit > 0) {
					t.Errorf("Rewind: committed %d, asked: %v, %v, want %d", committed, asked, err, tt.commit)
				}
				if got := fetch(ctx, t, p, 8-tt.want); !slices.Equal(got, numbered("r", 8)[tt.want:]) {
					t.Errorf("got %q, want from %d on", got, tt.want)
				}
				if p.Committed() != tt.commit {
					t.Errorf("%d is committed afterwards, want %d", p.Committed(), tt.commit)
				}
				return nil
			})
		})
	}
}

// TestRewindEmpty shows that a partition without anything to go back to stays
// where it is.
func TestRewindEmpty(t *testing.T) { onEach(t, 1, testRewindEmpty) }

func testRewindEmpty(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	p := newProducer(t, c, b.topic)
	b.consume(t, c, "group", func(ctx context.Context, part *kafka.Partition, done func()) error {
		defer done()
		committed, err := part.Rewind(ctx, func(*schema.Record) time.Time { t.Error("asked about no record"); return time.Time{} })
		if err != nil || committed != 0 {
			t.Errorf("Rewind of an empty partition: %d, %v", committed, err)
		}
		produce(t, p, "first")
		if got := fetch(ctx, t, part, 1); !slices.Equal(got, []string{"first"}) {
			t.Errorf("got %q", got)
		}
		return nil
	})
}

// TestTwoConsumers shows that two processes share a topic's partitions, and that
// the one that is left takes over all of them where they were committed.
func TestTwoConsumers(t *testing.T) { onEach(t, 4, testTwoConsumers) }

func testTwoConsumers(t *testing.T, b *testBroker) {
	type taken struct {
		who, id int
	}
	type text struct {
		who int
		schema.Record
	}
	takes, gives, read := make(chan taken, 100), make(chan taken, 100), make(chan text, 1000)
	start := func(who int) (stop func()) {
		c := newClient(t, b)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- c.Consume(ctx, b.topic, b.topic+" group", func(ctx context.Context, p *kafka.Partition) error {
				takes <- taken{who, p.ID()}
				defer func() { gives <- taken{who, p.ID()} }()
				for {
					r, err := p.Fetch(ctx)
					if err != nil {
						return nil
					}
					read <- text{who, r}
					if err := p.Commit(r.Offset + 1); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}()
		return func() {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Consume: %v", err)
			}
		}
	}
	// owners waits until each consumer has as many partitions as it is due.
	owned := map[taken]bool{}
	owners := func(want ...int) {
		t.Helper()
		for {
			n := make([]int, len(want))
			for o := range owned {
				n[o.who]++
			}
			if slices.Equal(n, want) {
				return
			}
			select {
			case o := <-gives: // before the next owner takes it
				delete(owned, o)
			case o := <-takes:
				for drained := false; !drained; {
					select {
					case g := <-gives:
						delete(owned, g)
					default:
						drained = true
					}
				}
				for other := range owned {
					if other.id == o.id {
						t.Errorf("partition %d has two owners", o.id)
					}
				}
				owned[o] = true
			case <-t.Context().Done():
				t.Fatal("the test has ended")
			}
		}
	}
	p := newProducer(t, newClient(t, b), b.topic)
	var sent int
	send := func() map[string]bool {
		want := map[string]bool{}
		var records []schema.Record
		for range 200 {
			value := fmt.Sprintf("record %d", sent)
			want[value] = true
			records = append(records, schema.Record{Key: []byte(value), Value: []byte(value)})
			sent++
		}
		if err := p.Produce(t.Context(), records, func(err error) { t.Error(err) }); err != nil {
			t.Fatal(err)
		}
		return want
	}
	receive := func(want map[string]bool) (by map[int]bool) {
		by = map[int]bool{}
		for len(want) > 0 {
			r := <-read
			by[r.who] = true
			delete(want, string(r.Value))
		}
		return by
	}

	stop0 := start(0)
	owners(4, 0)
	receive(send())
	stop1 := start(1)
	owners(2, 2)
	if by := receive(send()); len(by) != 2 {
		t.Errorf("records came to %v, want both", by)
	}
	stop0()
	owners(0, 4)
	if by := receive(send()); by[0] || !by[1] {
		t.Errorf("records came to %v, want the second only", by)
	}
	stop1()
}

// TestReadAllCompacted rebuilds checkpoints from their compacted topic: the last
// record of each key counts, and one without a value takes the key away.
func TestReadAllCompacted(t *testing.T) { onEachAlone(t, 1, testReadAllCompacted) }

func testReadAllCompacted(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	topics := schema.NewTopics(b.topic + ".")
	if _, err := c.EnsureTopics(t.Context(), topics.All(kafkalocal.SegmentBytes)); err != nil {
		t.Fatal(err)
	}
	read := func(c *kafka.Client) checkpoint.Set {
		t.Helper()
		found, err := checkpoint.ReadAll(t.Context(), func(ctx context.Context, yield func(schema.Record) error) error {
			return c.ReadAll(ctx, topics.Checkpoints, yield)
		}, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if got := read(c); len(got) != 0 {
		t.Errorf("an empty topic has %v", got)
	}
	p := newProducer(t, c, topics.Checkpoints)
	want := checkpoint.Set{}
	for i := range 100 {
		at := checkpoint.Checkpoint{Tenant: fmt.Sprintf("tenant%d", i%7), Chain: checkpoint.ChainTail, LogID: fmt.Sprint(i), Events: uint64(i)}
		r, err := at.Record()
		if err != nil {
			t.Fatal(err)
		}
		want[string(r.Key)] = at
		if i%10 == 9 {
			r.Value = nil
			delete(want, string(r.Key))
		}
		if err := p.Produce(t.Context(), []schema.Record{r}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, read(c)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	b.stop()
	b.start(t)
	if diff := cmp.Diff(want, read(newClient(t, b))); diff != "" {
		t.Errorf("after a restart: -want +got\n%s", diff)
	}
}

// TestReadAllEnds shows what ends ReadAll early.
func TestReadAllEnds(t *testing.T) { onEach(t, 2, testReadAllEnds) }

func testReadAllEnds(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	produce(t, newProducer(t, c, b.topic), numbered("r", 5)...)
	errEnough := errors.New("enough")
	n := 0
	err := c.ReadAll(t.Context(), b.topic, func(schema.Record) error {
		if n++; n == 3 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || n != 3 {
		t.Errorf("got %v after %d records", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.ReadAll(ctx, b.topic, func(schema.Record) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if err := c.ReadAll(t.Context(), "unknown", func(schema.Record) error { return nil }); err == nil {
		t.Error("a topic that does not exist is read")
	}
}

// TestEnsureTopics shows what is said of topics that are there already.
func TestEnsureTopics(t *testing.T) { onEach(t, 2, testEnsureTopics) }

func testEnsureTopics(t *testing.T, b *testBroker) {
	c := newClient(t, b)
	for _, tt := range []struct {
		name string
		in   schema.Topic
		want []string // parts of the warnings
	}{
		{"as it is", schema.Topic{Name: b.topic, Partitions: 2, Config: map[string]string{"cleanup.policy": "delete"}}, nil},
		{"fewer partitions", schema.Topic{Name: b.topic, Partitions: 1}, nil},
		{"more partitions", schema.Topic{Name: b.topic, Partitions: 6}, []string{"has 2 partitions, fewer than 6"}},
		{"another policy", schema.Topic{Name: b.topic, Partitions: 2, Config: map[string]string{"cleanup.policy": "compact"}}, []string{"cleanup.policy=delete, not compact"}},
		{"larger records", schema.Topic{Name: b.topic, Partitions: 2, Config: map[string]string{"max.message.bytes": "999999999999"}}, []string{"less than 999999999999"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			warnings, err := c.EnsureTopics(t.Context(), []schema.Topic{tt.in})
			if err != nil || len(warnings) != len(tt.want) {
				t.Fatalf("got %q, %v, want %q", warnings, err, tt.want)
			}
			for i, w := range tt.want {
				if !strings.Contains(warnings[i], w) {
					t.Errorf("got %q, want %q", warnings[i], w)
				}
			}
		})
	}
}
