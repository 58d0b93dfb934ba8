package kafkalocal_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
)

// TestRestart shows that records, topics and a group's offsets outlive the
// broker, and that the address stays the same.
func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with space")
	topics := schema.NewTopics("t.")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var addr string
	for run := range 3 {
		broker, err := kafkalocal.Start(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if addr != "" && broker.Addrs()[0] != addr {
			t.Errorf("run %d listens on %s, was %s", run, broker.Addrs()[0], addr)
		}
		addr = broker.Addrs()[0]
		if _, err := kafkalocal.Start(dir, slog.New(slog.DiscardHandler)); !errors.Is(err, kafkalocal.ErrInUse) {
			t.Errorf("second broker in the same folder: got %v, want ErrInUse", err)
		}
		client := kafka.NewClient(kafka.Config{Brokers: broker.Addrs(), Log: slog.New(slog.DiscardHandler)})
		warnings, err := client.EnsureTopics(ctx, topics.All(kafkalocal.SegmentBytes))
		if err != nil || len(warnings) > 0 {
			t.Fatalf("EnsureTopics: %v, warnings %q", err, warnings)
		}
		producer := client.NewProducer(topics.Events)
		var want []string
		var records []schema.Record
		for i := range 10 {
			value := fmt.Sprintf("run %d record %d", run, i)
			want = append(want, value)
			records = append(records, schema.Record{Key: []byte("acme"), Value: []byte(value)})
		}
		// One large record, as an event with 2 MB of details is.
		large := make([]byte, 5<<20)
		records = append(records, schema.Record{Key: []byte("acme"), Value: large})
		if err := producer.Produce(ctx, records, func(err error) { t.Error(err) }); err != nil {
			t.Fatal(err)
		}

		// Only this run's records come: the others were committed.
		done, stop := context.WithCancel(ctx)
		var got []string
		err = client.Consume(done, topics.Events, "group", func(ctx context.Context, p *kafka.Partition) error {
			for {
				r, err := p.Fetch(ctx)
				if err != nil {
					return nil
				}
				if len(r.Value) == len(large) {
					if err := p.Commit(r.Offset + 1); err != nil {
						t.Error(err)
					}
					stop()
					return nil
				}
				got = append(got, string(r.Value))
			}
		})
		stop()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Consume: %v", err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("run %d: got %q, want %q", run, got, want)
		}
		n := 0
		if err := client.ReadAll(ctx, topics.Events, func(schema.Record) error { n++; return nil }); err != nil {
			t.Error(err)
		}
		if n != 11*(run+1) {
			t.Errorf("ReadAll: %d records, want %d", n, 11*(run+1))
		}
		producer.Close()
		client.Close()
		broker.Close()
	}
}

// TestModes: nobody else may read what the broker writes, nor what an older version
// of us has written.
func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kafka")
	before := syscall.Umask(0o022)
	defer syscall.Umask(before)
	old := filepath.Join(dir, "log", "old")
	if err := os.MkdirAll(old, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := kafkalocal.Start(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client := kafka.NewClient(kafka.Config{Brokers: b.Addrs(), Log: slog.New(slog.DiscardHandler)})
	topic := schema.NewTopics("x.").All(kafkalocal.SegmentBytes)
	if _, err := client.EnsureTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	producer := client.NewProducer(topic[0].Name)
	if err := producer.Produce(t.Context(), []schema.Record{{Key: []byte("k"), Value: []byte("v")}}, nil); err != nil {
		t.Fatal(err)
	}
	_ = producer.Close()
	client.Close()
	b.Close()

	files := 0
	err = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		}
		if files++; info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Errorf("%d files, %v", files, err)
	}
}
