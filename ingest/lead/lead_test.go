package lead

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// start returns a client of an embedded broker with the topic of checkpoints.
func start(t *testing.T) (*kafka.Client, string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	broker, err := kafkalocal.Start(t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	client := kafka.NewClient(kafka.Config{Brokers: broker.Addrs(), Log: quiet})
	t.Cleanup(client.Close)
	topics := schema.NewTopics("lead.")
	if _, err := client.EnsureTopics(t.Context(), topics.All(kafkalocal.SegmentBytes)); err != nil {
		t.Fatal(err)
	}
	return client, topics.Checkpoints
}

// TestAsk has nobody pull: with an external Kafka the caller may serve the request
// itself, with an embedded one the data folder is another process's.
func TestAsk(t *testing.T) {
	client, topic := start(t)
	for embedded, want := range map[bool]string{false: ErrNoInstance.Error(), true: "another tenantwatch uses the data folder"} {
		i := Instances{Kafka: client, Topic: topic, Group: "lead.puller", Embedded: embedded, Log: slog.New(slog.DiscardHandler)}
		err := i.Ask(t.Context(), func(context.Context, *Requests) error { t.Error("asked"); return nil })
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNoInstance) == embedded {
			t.Errorf("embedded %t: %v", embedded, err)
		}
	}
}

// TestSubmit answers a request for a backfill as its leader does: the requested chain is
// done before a slice that was cut off from it.
func TestSubmit(t *testing.T) {
	client, topic := start(t)
	quiet := slog.New(slog.DiscardHandler)
	requests := NewRequests(client, topic, quiet)
	now := time.Now()
	request := pull.BackfillRequest("acme", NewName(), now.Add(-time.Hour), now)

	var seen []string
	requests.OnAnswer(func(c checkpoint.Checkpoint) { seen = append(seen, c.Chain) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	leader, follows := make(chan error, 1), make(chan struct{})
	go func() {
		partition, err := client.PartitionOf(ctx, topic, []byte("acme"))
		if err != nil {
			leader <- err
			return
		}
		answered := errors.New("answered")
		err = client.Follow(ctx, topic, partition, func() error { close(follows); return nil }, func(r schema.Record) error {
			c, err := checkpoint.Read(&r)
			if err != nil || !c.Requested {
				return err
			}
			slice := c
			slice.Chain += "x" // of the same plan
			for _, each := range []*checkpoint.Checkpoint{&c, &slice} {
				each.Requested, each.Events = false, 7
			}
			first, last := c, slice
			first.Done = true
			other := first
			other.Tenant = "other"
			done := slice
			done.Done = true
			var records []schema.Record
			for _, each := range []checkpoint.Checkpoint{other, last, first, done} {
				record, err := each.Record()
				if err != nil {
					return err
				}
				records = append(records, record)
			}
			producer := NewProducer(client, topic)
			defer producer.Close()
			return errors.Join(producer.Produce(ctx, records, nil), answered)
		})
		if errors.Is(err, answered) {
			err = nil
		}
		leader <- err
	}()
	select {
	case <-follows:
	case err := <-leader:
		t.Fatal(err)
	}

	done, err := requests.Submit(ctx, []checkpoint.Checkpoint{request})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-leader; err != nil {
		t.Fatal(err)
	}
	if len(done) != 2 || !done[0].Done || !done[1].Done || len(seen) != 3 {
		t.Errorf("%+v after %v", done, seen)
	}
}

// TestAnswers tells the answers to a request from other checkpoints.
func TestAnswers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	request := pull.BackfillRequest("acme", "one", at, at.Add(time.Hour))
	answer := func(change func(*checkpoint.Checkpoint)) checkpoint.Checkpoint {
		c := request
		c.Requested = false
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name   string
		answer checkpoint.Checkpoint
		want   bool
	}{
		{"the chain", answer(func(*checkpoint.Checkpoint) {}), true},
		{"the request itself", request, false},
		{"a slice of it", answer(func(c *checkpoint.Checkpoint) { c.Chain += "1" }), true},
		{"another backfill", answer(func(c *checkpoint.Checkpoint) {
			c.Chain = pull.BackfillRequest("acme", "two", at, at.Add(time.Hour)).Chain
		}), false},
		{"another tenant", answer(func(c *checkpoint.Checkpoint) { c.Tenant = "other" }), false},
		{"the tail", answer(func(c *checkpoint.Checkpoint) { c.Chain = checkpoint.ChainTail }), false},
	} {
		if got := answers(tt.answer, request); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestProgress sums two chains of an hour each.
func TestProgress(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	chain := func(name string, part time.Duration, events uint64, done bool) checkpoint.Checkpoint {
		c := pull.BackfillRequest("acme", name, at, at.Add(time.Hour))
		c.LogID, c.Events, c.Done = schema.SyntheticID(at.Add(part)), events, done
		return c
	}
	all := NewProgress(2 * time.Hour)
	for _, tt := range []struct {
		add    checkpoint.Checkpoint
		events uint64
		share  float64
	}{
		{chain("a", 30*time.Minute, 10, false), 10, 0.75}, // the other one has not answered
		{chain("b", 0, 0, false), 10, 0.25},
		{chain("b", 15*time.Minute, 5, true), 15, 0.75}, // done early: there was nothing more
		{chain("a", time.Hour, 20, true), 25, 1},
	} {
		if events, share := all.Add(tt.add); events != tt.events || share != tt.share {
			t.Errorf("%d events, %v; want %d, %v", events, share, tt.events, tt.share)
		}
	}
}
