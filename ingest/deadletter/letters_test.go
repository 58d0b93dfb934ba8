package deadletter_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/deadletter"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
)

// TestLetters lists dead letters once each and the oldest first, retries one, and has it
// come back.
func TestLetters(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	broker, err := kafkalocal.Start(t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	client := kafka.NewClient(kafka.Config{Brokers: broker.Addrs(), Log: quiet})
	t.Cleanup(client.Close)
	topics := schema.NewTopics("dead.")
	if _, err := client.EnsureTopics(t.Context(), topics.All(kafkalocal.SegmentBytes)); err != nil {
		t.Fatal(err)
	}
	producer := client.NewProducer(topics.DeadLetter)
	t.Cleanup(func() { _ = producer.Close() })
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	letter := func(raw string, after time.Duration) schema.DeadLetter {
		event := schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: at.Add(after), Raw: []byte(raw)}
		return schema.NewDeadLetter(&event, errors.New("no reason"))
	}
	produce := func(list ...schema.DeadLetter) {
		t.Helper()
		for i := range list {
			if err := producer.Produce(t.Context(), []schema.Record{list[i].Record()}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	letters := deadletter.New(client, topics, quiet)
	want := func(want ...schema.DeadLetter) []schema.DeadLetter {
		t.Helper()
		list, err := letters.Read(t.Context())
		if err != nil || len(list) != len(want) {
			t.Fatalf("%d dead letters, %v; want %d", len(list), err, len(want))
		}
		for i := range want {
			if list[i].ID != want[i].ID || string(list[i].Raw) != string(want[i].Raw) {
				t.Errorf("%d: %s %s", i, list[i].ID, list[i].Raw)
			}
		}
		return list
	}

	old, young := letter(`{"log_id":"1","date":"2026-01-01T00:00:00.000Z","type":"s"}`, 0), letter(`42`, time.Hour)
	produce(young, old, young) // a repeat
	list := want(old, young)
	if n := len(deadletter.WithID(list, young.ID[:12])); n != 1 {
		t.Errorf("%d have the beginning of an id", n)
	}
	if n := len(deadletter.WithID(list, "")) + len(deadletter.WithID(list, "nothing")); n != 0 {
		t.Errorf("%d have no id", n)
	}

	if err := letters.Retry(t.Context(), list[:1]); err != nil {
		t.Fatal(err)
	}
	want(young)
	var events []schema.Record
	if err := client.ReadAll(t.Context(), topics.Events, func(r schema.Record) error { events = append(events, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 || string(events[0].Value) != string(old.Raw) {
		t.Errorf("retried: %v", events)
	}

	// The writer still cannot store it.
	produce(old)
	want(old, young)
	if err := letters.Retry(t.Context(), nil); err == nil {
		t.Error("nothing was retried")
	}
}
