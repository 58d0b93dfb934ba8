package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/schema"
)

var discard = slog.New(slog.DiscardHandler)

// topicOf is a topic that holds records.
func topicOf(records ...schema.Record) func(context.Context, func(schema.Record) error) error {
	return func(_ context.Context, yield func(schema.Record) error) error {
		for i, r := range records {
			r.Offset = int64(i)
			if err := yield(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestCheckpointRecord pins the text that later versions must still read.
func TestCheckpointRecord(t *testing.T) {
	c := Checkpoint{Tenant: "acme", Chain: ChainTail, LogID: logID(noon, 2), Behind: logID(noon, 1), LiveFrom: noon,
		Backfill: true, Oldest: "900", Events: 1<<64 - 1, UpdatedAt: noon.Add(123456789)}
	r, err := c.Record()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"tenant":"acme","chain":"tail","log_id":"90020261120120000000000000000000000000000000000000000002",` +
		`"events":18446744073709551615,"updated_at":"2026-11-20T12:00:00.123456789Z",` +
		`"behind":"90020261120120000000000000000000000000000000000000000001","live_from":"2026-11-20T12:00:00Z","backfill":true,"oldest":"900"}`
	if string(r.Key) != "acme/tail" || string(r.Value) != want {
		t.Errorf("got %s: %s\nwant %s", r.Key, r.Value, want)
	}
	found, err := ReadAll(t.Context(), topicOf(r), sound(t))
	if err != nil {
		t.Fatal(err)
	}
	got, ok := found.Of("acme", ChainTail)
	if diff := cmp.Diff(c, got); !ok || diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, ok := found.Of("acme", "other"); ok {
		t.Error("a chain that never was has a checkpoint")
	}
}

// TestReadCheckpoints holds the topic against a map: the newest of each chain
// counts, and a tombstone takes it away.
func TestReadCheckpoints(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		want := Set{}
		var records []schema.Record
		for i := range rng.IntN(200) {
			c := Checkpoint{Tenant: fmt.Sprintf("tenant/%d é", rng.IntN(5)), Chain: []string{ChainTail, "slice-1"}[rng.IntN(2)],
				LogID: fmt.Sprint(i), Events: rng.Uint64(), UpdatedAt: noon.Add(time.Duration(i) * time.Second)}
			r, err := c.Record()
			if err != nil {
				t.Fatal(err)
			}
			want[c.Key()] = c
			if rng.IntN(5) == 0 {
				r.Value = nil
				delete(want, c.Key())
			}
			records = append(records, r)
		}
		got, err := ReadAll(t.Context(), topicOf(records...), sound(t))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: -want +got\n%s", seed, diff)
		}
	}
}

// sound is for checkpoints of which none is damaged.
func sound(t *testing.T) func(error) {
	return func(err error) { t.Helper(); t.Error(err) }
}

// TestDamagedCheckpoints shows that one that is cut, or another one's, is named and that
// the one before it counts: the pull goes on from there.
func TestDamagedCheckpoints(t *testing.T) {
	good := schema.Record{Key: []byte("acme/tail"), Value: []byte(`{"tenant":"acme","chain":"tail","log_id":"7"}`)}
	for _, value := range []string{`{`, `[]`, `"x"`, `{"log_id":1}`, `{"events":-1}`, `{"events":1e99}`, `{"live_from":"yesterday"}`, "\x00", `{}{}`,
		`{"tenant":"acme","chain":"tail","log_id":"8"`, `{"tenant":"other","chain":"tail","log_id":"8"}`, `{"tenant":"acme","chain":"backfill/1/2"}`, `{}`} {
		var told []error
		found, err := ReadAll(t.Context(), topicOf(good, schema.Record{Key: []byte("acme/tail"), Value: []byte(value)}), func(err error) { told = append(told, err) })
		if err != nil || len(told) != 1 || !strings.Contains(told[0].Error(), `"acme/tail" at offset 1 of partition 0`) {
			t.Errorf("%q: got %v, told %v", value, err, told)
		}
		if c, ok := found.Of("acme", ChainTail); !ok || c.LogID != "7" || len(found) != 1 {
			t.Errorf("%q: got %v", value, found)
		}
	}
	errAway := errors.New("no broker answers")
	if _, err := ReadAll(t.Context(), func(context.Context, func(schema.Record) error) error { return errAway }, sound(t)); !errors.Is(err, errAway) {
		t.Errorf("got %v, want the topic's error", err)
	}
}

// FuzzReadCheckpoints reads what anybody may have written to the topic. What is
// taken can be written again and reads the same.
func FuzzReadCheckpoints(f *testing.F) {
	for _, text := range []string{``, `null`, `{}`, `{"tenant":"acme","chain":"tail","log_id":"900","events":7}`, `{"live_from":"0000-01-01T00:00:00Z"}`,
		`{"updated_at":"9999-12-31T23:59:59.999999999+23:59"}`, "{\"tenant\":\"\xff\"}", `{"TENANT":"a","tenant":"b"}`, `{"tenant":"\ud800"}`, `[[[[`} {
		f.Add([]byte("acme/tail"), []byte(text))
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		damaged := 0
		found, err := ReadAll(t.Context(), topicOf(schema.Record{Key: key, Value: value}), func(error) { damaged++ })
		if err != nil {
			t.Fatal(err)
		}
		if want := min(len(value), 1) - damaged; len(found) != want {
			t.Fatalf("%d checkpoints, want %d", len(found), want)
		}
		for _, c := range found {
			r, err := c.Record()
			if err != nil {
				return // a year that JSON has no form for
			}
			again, err := ReadAll(t.Context(), topicOf(r), sound(t))
			if err != nil {
				t.Fatalf("%s: %v", r.Value, err)
			}
			if diff := cmp.Diff(found, again); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		}
	})
}
