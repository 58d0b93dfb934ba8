package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
	"github.com/tenantwatch/tenantwatch/schema"
)

// patience bounds every wait; only a failing test uses it up.
const patience = time.Minute

// recovery is how soon work goes on by itself when a broker is lost: the brokers
// miss it after 3 s, the group's other members after 10 s.
const recovery = 30 * time.Second

// until waits for what another goroutine or process does in its own time.
func until(t *testing.T, within time.Duration, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("within %s not: %s", within, what)
		}
	}
}

// threeBrokers is the shared cluster of three, and a topic with as many
// partitions, each there three times.
func threeBrokers(t *testing.T) (*kafkatest.Cluster, *testBroker) {
	t.Helper()
	if testing.Short() {
		t.Skip("three brokers take their time: not in short mode, which the race detector is run in")
	}
	c := cluster(t, 3)
	b := &testBroker{addrs: c.Addrs}
	return c, b.withTopic(t, 3)
}

// leaders are the brokers that lead a topic's partitions, numbered from 0 on.
func leaders(t *testing.T, c *kafkatest.Cluster, topic string) []int {
	t.Helper()
	conn, err := kafkago.DialContext(t.Context(), "tcp", c.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions(topic)
	if err != nil {
		t.Fatal(err)
	}
	found := make([]int, len(partitions))
	for _, p := range partitions {
		found[p.ID] = p.Leader.ID - 1
	}
	return found
}

// coordinator is the broker that looks after a group.
func coordinator(t *testing.T, c *kafkatest.Cluster, group string) int {
	t.Helper()
	client := &kafkago.Client{Addr: kafkago.TCP(c.Addrs()...), Transport: &kafkago.Transport{}}
	res, err := client.FindCoordinator(t.Context(), &kafkago.FindCoordinatorRequest{Key: group})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		t.Fatal(err)
	}
	return res.Coordinator.NodeID - 1
}

// traffic produces to a topic and consumes it in a group, all the time.
type traffic struct {
	t     *testing.T
	topic string
	keys  []string

	mu        sync.Mutex     // guards all below
	calls     int            // of Produce that succeeded
	failed    int            // attempts
	delivered map[string]int // how often, by value
	next      map[int]int64  // offset that is to be delivered, by partition
	committed map[int]int64  // by partition
	starts    int            // of partitions
}

// startTraffic begins, and returns how to end: with nothing lost, every key's
// records in order in the topic, and no commit that went back.
func startTraffic(t *testing.T, addrs []string, topic string) (f *traffic, stop func()) {
	f = &traffic{t: t, topic: topic, delivered: map[string]int{}, committed: map[int]int64{}, next: map[int]int64{}}
	for i := range 12 { // so that every partition has some
		f.keys = append(f.keys, fmt.Sprintf("key%d", i))
	}
	client := kafka.NewClient(kafka.Config{Brokers: addrs, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ctx, cancel := context.WithCancel(t.Context())
	enough, enoughCalls := context.WithCancel(ctx)
	producer := client.NewProducer(topic)
	var producing, consuming sync.WaitGroup
	producing.Go(func() {
		// The consumer, which commits often, keeps up with this.
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for ; enough.Err() == nil; <-pace.C {
			f.produce(ctx, producer)
		}
	})
	consuming.Go(func() {
		if err := client.Consume(ctx, topic, topic, f.consume); !errors.Is(err, context.Canceled) {
			t.Errorf("Consume: %v", err)
		}
	})
	end := sync.OnceFunc(func() {
		enoughCalls()
		cancel()
		producing.Wait()
		consuming.Wait()
		producer.Close()
		client.Close()
	})
	t.Cleanup(end)
	f.goesOn(recovery)
	return f, func() {
		t.Helper()
		enoughCalls()
		producing.Wait()
		f.check(client)
		end()
	}
}

// each is how many records of a key one call of Produce has.
const each = 5

func (f *traffic) produce(ctx context.Context, producer *kafka.Producer) {
	var records []schema.Record
	for _, key := range f.keys {
		for i := range each {
			records = append(records, schema.Record{Key: []byte(key), Value: value(key, f.calls*each+i)})
		}
	}
	err := producer.Produce(ctx, records, func(err error) {
		f.t.Logf("%s %v", time.Now().Format("15:04:05.000"), err)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failed++
	})
	if err != nil {
		if ctx.Err() == nil {
			f.t.Errorf("Produce: %v", err)
		}
		return
	}
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
}

func value(key string, n int) []byte { return fmt.Appendf(nil, "%s %d", key, n) }

// consume commits now and then, and holds each start of a partition against
// what was committed.
func (f *traffic) consume(ctx context.Context, p *kafka.Partition) error {
	f.mu.Lock()
	f.starts++
	if p.Committed() < f.committed[p.ID()] {
		f.t.Errorf("partition %d begins at %d after %d was committed", p.ID(), p.Committed(), f.committed[p.ID()])
	}
	f.mu.Unlock()
	expected := p.Committed()
	for n := 0; ; n++ {
		r, err := p.Fetch(ctx)
		if err != nil {
			return nil // another generation goes on
		}
		if r.Offset != expected {
			f.t.Errorf("partition %d: offset %d, want %d", p.ID(), r.Offset, expected)
		}
		expected = r.Offset + 1
		f.mu.Lock()
		f.delivered[string(r.Value)]++
		f.next[p.ID()] = expected
		f.mu.Unlock()
		if n%100 != 99 {
			continue
		}
		if err := p.Commit(r.Offset + 1); err != nil {
			return err
		}
		f.mu.Lock()
		f.committed[p.ID()] = r.Offset + 1
		f.mu.Unlock()
	}
}

// goesOn waits until a call that begins from now on has succeeded, and what it
// wrote has been delivered.
func (f *traffic) goesOn(within time.Duration) {
	f.t.Helper()
	f.mu.Lock()
	call := f.calls + 1
	f.mu.Unlock()
	begin := time.Now()
	until(f.t, within, "a call of Produce succeeds", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.calls > call
	})
	produced := time.Since(begin)
	defer func() {
		if f.t.Failed() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.t.Logf("%d calls of %d records were acknowledged, the next offsets to deliver are %v, committed %v", f.calls, len(f.keys)*each, f.next, f.committed)
		}
	}()
	until(f.t, within-produced, "its records are delivered", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, key := range f.keys {
			if f.delivered[string(value(key, call*each))] == 0 {
				return false
			}
		}
		return true
	})
	f.t.Logf("produced after %s, consumed after %s", produced.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}

// check compares what was acknowledged with what the topic has and with what
// was delivered.
func (f *traffic) check(client *kafka.Client) {
	f.t.Helper()
	// Without repeats a key's records are in order. More than was acknowledged
	// can be there.
	next := map[string]int{}
	repeats := 0
	for _, r := range readAll(f.t, client, f.topic) {
		key, text, _ := strings.Cut(string(r.Value), " ")
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n > next[key]:
			f.t.Errorf("%q comes after number %d of its key", r.Value, next[key]-1)
		case n < next[key]:
			repeats++
			continue
		}
		next[key] = n + 1
	}
	for _, key := range f.keys {
		if next[key] < f.calls*each {
			f.t.Errorf("%s has %d records, %d were acknowledged", key, next[key], f.calls*each)
		}
	}
	until(f.t, recovery, "everything is delivered", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, key := range f.keys {
			for n := range f.calls * each {
				if f.delivered[string(value(key, n))] == 0 {
					return false
				}
			}
		}
		return true
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.t.Logf("%d records produced with %d failed attempts, %d repeats; partitions were taken %d times", f.calls*each*len(f.keys), f.failed, repeats, f.starts)
}

// TestLeaderKilled kills the leader of a partition under producer and consumer,
// and starts it again.
func TestLeaderKilled(t *testing.T) {
	c, b := threeBrokers(t)
	f, stop := startTraffic(t, c.Addrs(), b.topic)
	killed := leaders(t, c, b.topic)[0]
	c.Kill(killed)
	f.goesOn(recovery)
	c.Restart(killed)
	f.goesOn(recovery)
	stop()
}

// TestCoordinatorKilled kills the broker that looks after the consumer's group.
func TestCoordinatorKilled(t *testing.T) {
	c, b := threeBrokers(t)
	f, stop := startTraffic(t, c.Addrs(), b.topic)
	killed := coordinator(t, c, b.topic)
	c.Kill(killed)
	f.goesOn(recovery)
	c.Restart(killed)
	f.goesOn(recovery)
	stop()
}

// TestRollingRestart stops and starts one broker after the other, as an upgrade
// does.
func TestRollingRestart(t *testing.T) {
	c, b := threeBrokers(t)
	f, stop := startTraffic(t, c.Addrs(), b.topic)
	for i := range c.Addrs() {
		c.Stop(i)
		c.Restart(i)
		f.goesOn(recovery)
	}
	stop()
}

// TestClusterDown kills all brokers for a while. Nothing piles up meanwhile.
func TestClusterDown(t *testing.T) {
	c, b := threeBrokers(t)
	f, stop := startTraffic(t, c.Addrs(), b.topic)
	c.Kill(0, 1, 2)
	failures := func() int { f.mu.Lock(); defer f.mu.Unlock(); return f.failed }
	failing := func(n int) {
		t.Helper()
		from := failures()
		until(t, patience, "attempts fail", func() bool { return failures() >= from+n })
	}
	failing(3)
	memory, goroutines := inUse()
	failing(3)
	memoryThen, goroutinesThen := inUse()
	t.Logf("%d kB and %d goroutines, then %d kB and %d", memory>>10, goroutines, memoryThen>>10, goroutinesThen)
	if memoryThen > memory+4<<20 || goroutinesThen > goroutines+10 {
		t.Errorf("%d bytes and %d goroutines, three attempts later %d and %d", memory, goroutines, memoryThen, goroutinesThen)
	}
	c.Restart(0, 1, 2)
	f.goesOn(recovery)
	stop()
}

// inUse is the memory that the collector leaves, and the goroutines.
func inUse() (memory int64, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine()
}

// TestAllReplicasAcknowledge kills two brokers of three. The third appends a
// record, and yet Produce does not return before the others have it too.
func TestAllReplicasAcknowledge(t *testing.T) {
	c, b := threeBrokers(t)
	client := newClient(t, b)
	p := newProducer(t, client, b.topic)
	produce(t, p, "first") // with the key acme
	left := -1
	for partition, leader := range leaders(t, c, b.topic) {
		if appended(t, c, leader, b.topic, partition) > 0 {
			left = leader
			before := appended(t, c, leader, b.topic, partition)
			others := []int{(leader + 1) % 3, (leader + 2) % 3}
			c.Kill(others...)
			returned := make(chan error, 1)
			go func() {
				returned <- p.Produce(t.Context(), []schema.Record{{Key: []byte("acme"), Value: []byte("second")}}, nil)
			}()
			until(t, patience, "the leader has the record", func() bool { return appended(t, c, leader, b.topic, partition) > before })
			select {
			case err := <-returned:
				t.Errorf("Produce returned %v with two of three brokers down", err)
			default:
			}
			c.Restart(others...)
			if err := <-returned; err != nil {
				t.Errorf("Produce: %v", err)
			}
		}
	}
	if left < 0 {
		t.Error("the first record is nowhere")
	}
	if got := texts(readAll(t, client, b.topic)); len(got) < 2 || got[0] != "first" || got[1] != "second" {
		t.Errorf("got %q", got)
	}
}

// appended is the size of what a broker has of a partition.
func appended(t *testing.T, c *kafkatest.Cluster, broker int, topic string, partition int) int64 {
	t.Helper()
	info, err := os.Stat(c.Segment(broker, topic, partition))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestLargeRecords sends records that cannot be compressed up to the largest
// that a producer takes, through three brokers.
func TestLargeRecords(t *testing.T) {
	c, _ := threeBrokers(t)
	b := &testBroker{addrs: c.Addrs, topic: newTopic(t)}
	client := newClient(t, b)
	if _, err := client.EnsureTopics(t.Context(), []schema.Topic{{Name: b.topic, Partitions: 1,
		Config: map[string]string{"max.message.bytes": strconv.Itoa(schema.MaxMessage)}}}); err != nil {
		t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{1})
	var want []schema.Record
	for _, size := range []int{1, 20 << 20, 24<<20 - 100, 2} {
		value := make([]byte, size)
		r.Read(value)
		want = append(want, schema.Record{Key: []byte("acme"), Value: value})
	}
	if err := newProducer(t, client, b.topic).Produce(t.Context(), want, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, client, b.topic)
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i].Value, want[i].Value) {
			t.Errorf("record %d of %d bytes was changed", i, len(want[i].Value))
		}
	}
}

// TestCompressed reads in a broker's file that batches are compressed.
func TestCompressed(t *testing.T) {
	c := cluster(t, 1)
	b := (&testBroker{addrs: c.Addrs}).withTopic(t, 1)
	text := strings.Repeat("the same again, ", 10_000)
	produce(t, newProducer(t, newClient(t, b), b.topic), text)
	data, err := os.ReadFile(c.Segment(0, b.topic, 0))
	if err != nil {
		t.Fatal(err)
	}
	// A batch has its offset in 8 bytes, length in 4, epoch in 4, version in 1,
	// checksum in 4, and then its attributes: the codec in the lowest 3 bits.
	const snappy = 2
	if codec := binary.BigEndian.Uint16(data[21:]) & 7; codec != snappy || len(data) > len(text)/5 {
		t.Errorf("%d bytes are kept in %d, with codec %d", len(text), len(data), codec)
	}
}
