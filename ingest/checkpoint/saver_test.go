package checkpoint

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// book is a topic in memory that can fail.
type book struct {
	records []schema.Record
	wrote   func(records []schema.Record) error // asked before records are kept; may be nil
}

func (b *book) Produce(ctx context.Context, records []schema.Record, _ func(error)) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if b.wrote != nil {
		if err := b.wrote(records); err != nil {
			return err
		}
	}
	b.records = append(b.records, records...)
	return nil
}

// written lists the chains in a topic's records with where they stand.
func written(t *testing.T, records []schema.Record) []string {
	t.Helper()
	var list []string
	for _, r := range records {
		c, err := Read(&r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c.Chain+" "+c.LogID)
	}
	return list
}

// TestSaver shows what is written of what is put: of each chain the newest only,
// in the order of the last puts, but a chain's beginning always, where it was put.
func TestSaver(t *testing.T) {
	at := func(chain, id string) Checkpoint {
		return Checkpoint{Tenant: "acme", Chain: chain, From: "0", LogID: id, Events: 1}
	}
	for _, tt := range []struct {
		name string
		put  []Checkpoint
		want []string
	}{
		{"one", []Checkpoint{at("a", "1")}, []string{"a 1"}},
		{"the newest", []Checkpoint{at("a", "1"), at("a", "3"), at("a", "2")}, []string{"a 2"}},
		{"the order of the last puts", []Checkpoint{at("a", "1"), at("b", "1"), at("c", "1"), at("a", "2")}, []string{"b 1", "c 1", "a 2"}},
		{"a new slice before the one that it was cut off", []Checkpoint{at("old", "1"), at("new", "0"), at("old", "2"), at("new", "1"), at("new", "2")},
			[]string{"new 0", "old 2", "new 2"}},
		{"a new slice that is cut itself", []Checkpoint{at("new", "0"), at("old", "1"), at("newer", "0"), at("new", "0"), at("newer", "1"), at("old", "2")},
			[]string{"new 0", "newer 0", "new 0", "newer 1", "old 2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				topic := &book{}
				s := NewSaver(topic, discard, func() {})
				for _, c := range tt.put {
					s.Save(c)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx) }()
				synctest.Wait()
				if got := written(t, topic.records); !slices.Equal(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("run ended with %v", err)
				}
			})
		})
	}
}

// TestSaverPace shows that writes are apart, that nothing put meanwhile is
// forgotten, and that the topic is left alone when there is nothing new.
func TestSaverPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var times []time.Duration
		topic := &book{wrote: func([]schema.Record) error { times = append(times, time.Since(begin)); return nil }}
		wrote := 0
		s := NewSaver(topic, discard, func() { wrote++ })
		go s.Run(t.Context())
		for i := range 250 {
			s.Save(Checkpoint{Tenant: "acme", Chain: "tail", LogID: "900", Events: uint64(i)})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}
		if !slices.Equal(times, want) || wrote != len(want) {
			t.Errorf("written at %v, told %d times, want %v", times, wrote, want)
		}
		last, err := Read(&topic.records[len(topic.records)-1])
		if err != nil || last.Events != 249 || last.UpdatedAt.IsZero() || len(topic.records) != len(want) {
			t.Errorf("the last of %d is %+v, %v", len(topic.records), last, err)
		}
	})
}

// TestSaverSettle shows that settle returns once all that was put before is
// durable, and not without.
func TestSaverSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := &book{wrote: func([]schema.Record) error { time.Sleep(10 * time.Second); return nil }}
		s := NewSaver(topic, discard, func() {})
		go s.Run(t.Context())
		s.Save(Checkpoint{Tenant: "acme", Chain: "a"})
		time.Sleep(time.Second) // the write of a is under way
		s.Save(Checkpoint{Tenant: "acme", Chain: "b"})
		if err := s.SaveNow(t.Context(), Checkpoint{Tenant: "acme", Chain: "c"}); err != nil {
			t.Fatal(err)
		}
		if got := written(t, topic.records); !slices.Equal(got, []string{"a ", "b ", "c "}) {
			t.Errorf("durable: %q", got)
		}
		if err := s.SaveNow(t.Context()); err != nil {
			t.Errorf("with nothing to write: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.SaveNow(ctx, Checkpoint{Tenant: "acme", Chain: "d"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v before the write, want the end of the context", err)
		}
		time.Sleep(time.Minute)
	})
}

// TestSaverFails shows that what cannot be written ends run, and that nobody is
// told that it was.
func TestSaverFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errAway := errors.New("the topic is gone")
		s := NewSaver(&book{wrote: func([]schema.Record) error { return errAway }}, discard, func() { t.Error("told of a write") })
		ended := make(chan error, 1)
		go func() { ended <- s.Run(t.Context()) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.SaveNow(ctx, Checkpoint{Tenant: "acme", Chain: "a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("settle: %v", err)
		}
		if err := <-ended; !errors.Is(err, errAway) {
			t.Errorf("run ended with %v, want %v", err, errAway)
		}
	})
}
