package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

var discard = slog.New(slog.DiscardHandler)

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

// sound is for checkpoints of which none is damaged.
func sound(t *testing.T) func(error) {
	return func(err error) { t.Helper(); t.Error(err) }
}

func hourOf(logID string) time.Time {
	at, _ := schema.IDTime(logID)
	return at.Truncate(time.Hour)
}

// TestCut shows that slices lie end to end, from one bound to the other, under
// names of their own.
func TestCut(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 11))
		begin := noon.Add(-time.Duration(rng.Int64N(int64(10 * 24 * time.Hour))))
		from, until := logID(begin, rng.IntN(5)), schema.SyntheticID(begin.Add(time.Duration(rng.Int64N(int64(time.Hour)<<rng.IntN(8)))))
		if rng.IntN(2) == 0 {
			from = schema.SyntheticID(begin)
		}
		n := 1 + rng.IntN(40)
		list := cut("acme", "first", from, until, n)
		if len(list) > n || len(list) == 0 && checkpoint.Higher(until, from) {
			t.Fatalf("seed %d: %d slices of %s to %s, want up to %d", seed, len(list), from, until, n)
		}
		at, names := from, map[string]bool{}
		for i, c := range list {
			if c.From != at || c.LogID != at || !checkpoint.Higher(c.Until, at) || c.Done || c.Tenant != "acme" {
				t.Fatalf("seed %d: slice %d is %+v, want one from %s on", seed, i, c, at)
			}
			if name, ok := BackfillPlan(c.Chain); !ok || name != "first" || names[c.Chain] {
				t.Fatalf("seed %d: slice %d is named %s", seed, i, c.Chain)
			}
			at, names[c.Chain] = c.Until, true
		}
		if checkpoint.Higher(until, from) && at != until {
			t.Fatalf("seed %d: the slices end at %s, want %s", seed, at, until)
		}
	}
}

// chain is one that pulls a slice, in the steps between which others may act.
type chain struct {
	s     *slice
	step  int
	next  string
	until string
	saved checkpoint.Checkpoint
}

// TestBackfillCoversAtEveryKill lets chains take, cut, pull and save at random.
// Whatever part of the checkpoints was written when we die: what has not been
// acked by then is in some slice that is not done.
func TestBackfillCoversAtEveryKill(t *testing.T) {
	const seconds = 6000
	idOf := func(n int) string { return schema.SyntheticID(noon.Add(time.Duration(n) * time.Second)) }
	second := func(id string) int {
		at, _ := schema.IDTime(id)
		return int(at.Sub(noon) / time.Second)
	}
	cuts := 0
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			var mu sync.Mutex // guards acked
			acked := make([]bool, seconds)
			topic := &book{}
			check := func(n int) checkpoint.Set {
				t.Helper()
				state, err := checkpoint.ReadAll(t.Context(), topicOf(topic.records[:n]...), sound(t))
				if err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				covered := slices.Clone(acked)
				mu.Unlock()
				for _, c := range state {
					if !c.Done {
						for i := second(c.LogID); i < second(c.Until); i++ {
							covered[i] = true
						}
					}
				}
				if i := slices.Index(covered, false); i >= 0 && n > 0 {
					t.Fatalf("seed %d: second %d is in no slice after %d of %d records", seed, i, n, len(topic.records))
				}
				return state
			}
			// Each prefix of what is written is what a kill may leave.
			topic.wrote = func(records []schema.Record) error {
				before := len(topic.records)
				topic.records = append(topic.records, records...)
				for i := range records {
					if before+i+1 >= 4 { // the slices that the tail waits for
						check(before + i + 1)
					}
				}
				topic.records = topic.records[:before]
				return nil
			}
			slicesAtFirst := cut("acme", planFirst, idOf(0), idOf(seconds), 4)
			state := checkpoint.Set{}
			for life := range 4 {
				ctx, kill := context.WithCancel(t.Context())
				saves := checkpoint.NewSaver(topic, discard, func() {})
				go saves.Run(ctx)
				b := newBackfill()
				if life == 0 {
					if err := saves.SaveNow(ctx, slicesAtFirst...); err != nil {
						t.Fatal(err)
					}
					b.add(slicesAtFirst...)
				}
				for _, c := range state {
					b.add(c)
				}
				over, end := context.WithCancel(t.Context())
				end()
				chains := make([]chain, 6)
				for range 200 {
					c := &chains[rng.IntN(len(chains))]
					switch c.step {
					case 0: // take
						s, err := b.claim(over, saves)
						if err != nil {
							break
						}
						if s.at.LogID == s.at.From && !slices.ContainsFunc(slicesAtFirst, func(f checkpoint.Checkpoint) bool { return f.Chain == s.at.Chain }) {
							cuts++
						}
						*c = chain{s: s, step: 1}
					case 1: // a page comes
						c.next = idOf(min(second(c.s.at.LogID)+1+rng.IntN(200), seconds))
						c.until, c.step = b.begin(c.s, c.next), 2
					case 2: // it is acked
						end := c.next
						if checkpoint.Higher(end, c.until) {
							end = c.until
						}
						mu.Lock()
						for i := second(c.s.at.LogID); i < second(end); i++ {
							acked[i] = true
						}
						mu.Unlock()
						c.step = 3
					case 3:
						c.saved, _ = b.advance(c.s, c.next, 1000, false)
						c.step = 4
					case 4:
						saves.Save(c.saved)
						if c.step = 1; c.saved.Done {
							*c = chain{}
						}
					}
					if rng.IntN(4) == 0 {
						time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
					}
				}
				kill()
				synctest.Wait()
				state = check(len(topic.records) - rng.IntN(min(3, len(topic.records)-3)))
			}
		})
	}
	if cuts < 100 {
		t.Errorf("only %d slices were cut in two", cuts)
	}
}

// TestBackfillTake shows who gets what: the oldest first, then half of what has
// most events before it, and nothing that is not worth a cut.
func TestBackfillTake(t *testing.T) {
	at := func(s int) string { return schema.SyntheticID(noon.Add(time.Duration(s) * time.Second)) }
	b, saves := newBackfill(), checkpoint.NewSaver(&book{}, discard, func() {})
	over, end := context.WithCancel(t.Context())
	end()
	b.add(newSlice("acme", "p", at(1000), at(2000)), newSlice("acme", "p", at(0), at(1000)), newSlice("acme", "p", at(0), at(1000)))
	sparse, err := b.claim(over, saves)
	if err != nil || sparse.at.From != at(0) {
		t.Fatalf("got %+v, %v, want the oldest slice", sparse, err)
	}
	dense, err := b.claim(over, saves)
	if err != nil || dense.at.From != at(1000) {
		t.Fatalf("got %+v, %v, want the other slice", dense, err)
	}
	if s, err := b.claim(over, saves); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %+v, %v, though nothing is known of the slices", s, err)
	}
	b.advance(sparse, at(100), 100, false)  // 900 to come
	b.advance(dense, at(1100), 1000, false) // 9000 to come
	for _, want := range []string{at(1550), at(1325), at(1775)} {
		s, err := b.claim(over, saves)
		if err != nil || s.at.From != want || s.at.Done {
			t.Fatalf("got %+v, %v, want a part of the dense slice from %s", s, err, want)
		}
	}
	if got := dense.at.Until; got != at(1325) {
		t.Errorf("the dense slice ends at %s, want %s", got, at(1325))
	}
	// What is little, or short, stays whole.
	b.list = b.list[:0]
	little, short := &slice{at: newSlice("acme", "p", at(0), at(100)), working: true, density: 3.9}, &slice{at: newSlice("acme", "p", at(0), at(3)), working: true, density: 1e6}
	b.list = append(b.list, little, short)
	if s, err := b.claim(over, saves); err == nil {
		t.Errorf("%+v is not worth a cut", s.at)
	}
}

// TestBackfillWaits shows that next and idle wake up when there is more or
// nothing left to do.
func TestBackfillWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, saves := newBackfill(), checkpoint.NewSaver(&book{}, discard, func() {})
		if err := b.waitIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got *slice
		go func() { got, _ = b.claim(t.Context(), saves) }()
		synctest.Wait()
		b.add(newSlice("acme", "p", schema.SyntheticID(noon), schema.SyntheticID(noon.Add(time.Hour))))
		synctest.Wait()
		if got == nil {
			t.Fatal("nobody took the slice")
		}
		idle := false
		go func() { idle = b.waitIdle(t.Context()) == nil }()
		b.advance(got, schema.SyntheticID(noon.Add(time.Minute)), 7, false)
		synctest.Wait()
		if st := b.status(); idle || st.Chains != 1 || st.Events != 7 {
			t.Errorf("idle: %v, status: %+v", idle, st)
		}
		b.advance(got, schema.SyntheticID(noon.Add(time.Minute)), 0, true)
		synctest.Wait()
		if st := b.status(); !idle || st.Chains != 0 || st.Share != 1 {
			t.Errorf("idle: %v, status: %+v", idle, st)
		}
	})
}

// TestBackfillPlan reads names back.
func TestBackfillPlan(t *testing.T) {
	for chain, want := range map[string]string{"backfill/first/20261120": "first", "backfill/x": "x", "audit/first": "", "tail": "", "backfill": ""} {
		if got, ok := BackfillPlan(chain); ok != (want != "") || ok && got != want {
			t.Errorf("%s: got %q, %v, want %q", chain, got, ok, want)
		}
	}
	c := BackfillRequest("acme", "mine", noon.Add(345*time.Millisecond), noon.Add(time.Hour))
	if name, ok := BackfillPlan(c.Chain); name != "mine" || !ok || !c.Requested || c.LogID != c.From || fmt.Sprint(hourOf(c.Until)) != fmt.Sprint(noon.Add(time.Hour)) {
		t.Errorf("%+v", c)
	}
}
