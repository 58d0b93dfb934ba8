package write_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
)

// fakePartition is a partition in memory. A record can be fetched once its time
// has come; a new fakePartition of the same topic goes on at what was committed.
type fakePartition struct {
	records   []schema.Record
	next      atomic.Int64 // the next to fetch
	committed int64        // by the group
	commits   []int64
	failures  int // commits that will fail
	onCommit  func(next int64)
}

func (p *fakePartition) ID() int    { return 3 }
func (p *fakePartition) Lag() int64 { return int64(len(p.records)) - p.next.Load() }

func (p *fakePartition) Fetch(ctx context.Context) (schema.Record, error) {
	if ctx.Err() != nil {
		return schema.Record{}, ctx.Err()
	}
	var due <-chan time.Time
	if next := p.next.Load(); next < int64(len(p.records)) {
		d := time.Until(p.records[next].Time)
		if d <= 0 {
			return p.records[p.next.Add(1)-1], nil
		}
		due = time.After(d)
	}
	select {
	case <-ctx.Done():
		return schema.Record{}, ctx.Err()
	case <-due:
		return p.records[p.next.Add(1)-1], nil
	}
}

func (p *fakePartition) Commit(next int64) error {
	if p.failures > 0 {
		p.failures--
		return errors.New("the coordinator is away")
	}
	if p.onCommit != nil {
		p.onCommit(next)
	}
	p.committed = next
	p.commits = append(p.commits, next)
	return nil
}

// insert is an insert that a fakeStore was asked for.
type insert struct {
	ids  []string
	kept bool
}

// fakeStore is the table in memory.
type fakeStore struct {
	before func(ctx context.Context, n int) error // asked before the n-th insert, from 1; may be nil
	after  func(n int) error                      // asked once its rows are kept; may be nil

	mu      sync.Mutex // guards what follows
	inserts []insert
}

func (s *fakeStore) Insert(ctx context.Context, b *write.Block) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	in := insert{ids: b.LogIDs()}
	s.mu.Lock()
	s.inserts = append(s.inserts, in)
	n := len(s.inserts)
	s.mu.Unlock()
	if s.before != nil {
		if err := s.before(ctx, n); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.inserts[n-1].kept = true
	s.mu.Unlock()
	if s.after != nil {
		return s.after(n)
	}
	return nil
}

func (s *fakeStore) all() []insert {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.inserts)
}

// stored counts the rows by id. As in the table, the same rows again add nothing.
func (s *fakeStore) stored() map[string]int {
	got := map[string]int{}
	for _, in := range s.all() {
		if !in.kept {
			continue
		}
		for _, id := range in.ids {
			got[id] = 1
		}
	}
	return got
}

// recordsOf are events as the events topic carries them, from offset first on,
// gap apart.
func recordsOf(first int64, from time.Time, gap time.Duration, events ...[]logEvent) []schema.Record {
	var records []schema.Record
	for i, e := range slices.Concat(events...) {
		ev := schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: from, Raw: []byte(e.raw)}
		r := ev.Record()
		r.Partition, r.Offset, r.Time = 3, first+int64(i), from.Add(time.Duration(i)*gap)
		records = append(records, r)
	}
	return records
}

// consume runs a writer over a partition for some time.
func consume(t *testing.T, store write.Inserter, dead write.Producer, log *logBook, p write.Partition, d time.Duration) *write.Writer {
	t.Helper()
	w := write.NewWriter(store, dead, slog.New(log), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Consume(ctx, p) }()
	time.Sleep(d)
	synctest.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Consume ended with %v, want nothing after the end of its context", err)
	}
	return w
}

var (
	_ write.Partition = (*fakePartition)(nil)
	_ write.Inserter  = (*fakeStore)(nil)
)

// TestWriteChunks shows what bounds an insert: rows, bytes and time.
func TestWriteChunks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		n      int
		size   int // filler of each event
		gap    time.Duration
		chunks []int
	}{
		{"one event waits for others, but not long", 1, 0, 0, []int{1}},
		{"what comes within the time goes together", 10, 0, 120 * time.Millisecond, []int{5, 5}},
		{"rare events go one by one", 4, 0, 3 * time.Second, []int{1, 1, 1, 1}},
		{"rows", 21_000, 0, 0, []int{10_000, 10_000, 1_000}},
		{"bytes", 10, 9 << 19, 0, []int{3, 3, 3, 1}},
		{"a single event larger than a chunk", 2, 13 << 20, 0, []int{1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(start))
				events := every(start.Add(-10*time.Hour), 10*time.Millisecond, tt.n)
				if tt.size > 0 {
					for i := range events {
						events[i].raw = strings.Replace(events[i].raw, `"n":1.0`, `"details":{"x":"`+strings.Repeat("x", tt.size)+`"}`, 1)
					}
				}
				p := &fakePartition{records: recordsOf(100, start, tt.gap, events)}
				store := &fakeStore{}
				w := consume(t, store, &fakeTopic{}, &logBook{}, p, time.Minute)
				var chunks []int
				var commits []int64
				done := int64(100)
				for _, in := range store.all() {
					chunks = append(chunks, len(in.ids))
					done += int64(len(in.ids))
					commits = append(commits, done)
				}
				if !slices.Equal(chunks, tt.chunks) {
					t.Errorf("chunks of %v, want %v", chunks, tt.chunks)
				}
				if !slices.Equal(p.commits, commits) {
					t.Errorf("committed %v, want %v", p.commits, commits)
				}
				if s := w.Status(); s.Rows != uint64(tt.n) || s.Dead != 0 || s.Failing != "" || s.Newest.IsZero() {
					t.Errorf("status: %+v", s)
				}
			})
		})
	}
}

// TestWriteOrder shows that a commit covers only what is stored or kept as a
// dead letter.
func TestWriteOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		events := every(start.Add(-time.Hour), time.Second, 1000)
		for i := range events {
			if i%7 == 3 {
				events[i].raw = fmt.Sprintf(`{"n":%d}`, i)
			}
		}
		p := &fakePartition{records: recordsOf(0, start, 10*time.Millisecond, events)}
		store, dead := &fakeStore{}, &fakeTopic{}
		store.before = func(context.Context, int) error { time.Sleep(300 * time.Millisecond); return nil }
		dead.before = func(context.Context, []schema.Record) error { time.Sleep(200 * time.Millisecond); return nil }
		p.onCommit = func(next int64) {
			stored, letters := store.stored(), dead.written()
			for i := range next {
				if stored[events[i].id] != 1 && letters[events[i].raw] != 1 {
					t.Errorf("offset %d is committed before %d is durable", next, i)
				}
			}
		}
		w := consume(t, store, dead, &logBook{}, p, 5*time.Minute)
		if p.committed != 1000 || len(p.commits) < 5 {
			t.Errorf("committed %v, want several up to 1000", p.commits)
		}
		if s := w.Status(); s.Rows+s.Dead != 1000 || s.Dead != 143 {
			t.Errorf("status: %+v", s)
		}
	})
}

// TestWriteInsertFails shows that a failed insert is repeated with the same rows
// and token until it succeeds, whether its rows were kept or not, and that this
// is told once.
func TestWriteInsertFails(t *testing.T) {
	errAway := errors.New("the server is away")
	for _, n := range []int{1, 5, 40} {
		for _, kept := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d times, rows kept: %v", n, kept), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(time.Until(start))
					events := every(start.Add(-time.Hour), time.Second, 50)
					p := &fakePartition{records: recordsOf(7, start, 0, events)}
					store, log := &fakeStore{}, &logBook{}
					fail := func(i int) error {
						if i <= n {
							return errAway
						}
						return nil
					}
					if kept {
						store.after = fail
					} else {
						store.before = func(_ context.Context, i int) error { return fail(i) }
					}
					p.onCommit = func(int64) {
						if got := len(store.all()); got != n+1 {
							t.Errorf("committed after %d inserts, want %d", got, n+1)
						}
					}
					w := consume(t, store, &fakeTopic{}, log, p, 20*time.Minute)
					inserts := store.all()
					if len(inserts) != n+1 {
						t.Errorf("%d inserts, want %d", len(inserts), n+1)
					}
					for _, in := range inserts {
						if !slices.Equal(in.ids, inserts[0].ids) {
							t.Errorf("a repeat has other rows: %v, had %v", in.ids, inserts[0].ids)
						}
					}
					got := store.stored()
					for _, e := range events {
						if got[e.id] != 1 {
							t.Errorf("%s is stored %d times", e.id, got[e.id])
						}
					}
					if !slices.Equal(p.commits, []int64{57}) {
						t.Errorf("committed %v, want 57", p.commits)
					}
					if a, b := log.count("insert failed"), log.count("inserts succeed again"); a != 1 || b != 1 {
						t.Errorf("told %d and %d times, want 1 and 1:\n%s", a, b, log)
					}
					if s := w.Status(); s.Failing != "" || s.Rows != 50 {
						t.Errorf("status: %+v", s)
					}
				})
			})
		}
	}
}

// TestWriteFailing shows why inserts fail while they do.
func TestWriteFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		p := &fakePartition{records: recordsOf(0, start, 0, every(start, time.Second, 1))}
		store := &fakeStore{before: func(context.Context, int) error { return errors.New("the disk is full") }}
		w := consume(t, store, &fakeTopic{}, &logBook{}, p, time.Minute)
		if s := w.Status(); s.Failing != "the disk is full" || s.Rows != 0 {
			t.Errorf("status: %+v", s)
		}
		if len(p.commits) != 0 {
			t.Errorf("committed %v", p.commits)
		}
	})
}

// TestWriteDeadLetters shows that what cannot be stored is kept with its bytes
// and the reason, and that its neighbors are stored.
func TestWriteDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		events := every(start.Add(-time.Hour), time.Second, 12)
		bad := map[int]struct{ raw, reason string }{
			0: {`null`, schema.ErrNotObject.Error()},
			3: {`{"type":"s"}`, schema.ErrNoID.Error()},
			4: {`{"log_id":"x"}`, schema.ErrNoDate.Error()},
			7: {"\x00\xff garbage", "not JSON: "},
			8: {``, "not JSON: "},
		}
		for i, b := range bad {
			events[i].raw = b.raw
		}
		records := recordsOf(0, start, 0, events)
		records[3].Headers, records[3].Key = nil, []byte("globex") // as another program might write it
		p := &fakePartition{records: records}
		store, dead, log := &fakeStore{}, &fakeTopic{down: true}, &logBook{}
		time.AfterFunc(20*time.Second, func() { dead.setDown(false) })
		p.onCommit = func(int64) {
			if len(dead.all()) != len(bad) {
				t.Errorf("committed when %d dead letters were kept", len(dead.all()))
			}
		}
		w := consume(t, store, dead, log, p, time.Minute)

		got := store.stored()
		for i, e := range events {
			want := 1
			if _, ok := bad[i]; ok {
				want = 0
			}
			if got[e.id] != want {
				t.Errorf("event %d is stored %d times, want %d", i, got[e.id], want)
			}
		}
		letters := map[string]schema.DeadLetter{}
		for _, r := range dead.all() {
			d := schema.DeadLetterOf(&r)
			letters[string(d.Raw)] = d
		}
		for i, b := range bad {
			d, ok := letters[b.raw]
			tenant := "acme"
			if i == 3 {
				tenant = "globex"
			}
			if !ok || !strings.HasPrefix(d.Reason, b.reason) || d.Tenant != tenant || d.Source != schema.SourceTail || len(d.ID) != 64 || !d.FetchedAt.Equal(start) {
				t.Errorf("dead letter %d: %+v, want reason %q of %s", i, d, b.reason, tenant)
			}
		}
		if s := w.Status(); s.Rows != 7 || s.Dead != 5 || len(letters) != 5 {
			t.Errorf("status: %+v, %d dead letters", s, len(letters))
		}
		if !slices.Equal(p.commits, []int64{12}) {
			t.Errorf("committed %v, want 12", p.commits)
		}
		if n := log.count("event cannot be stored"); n != 5 {
			t.Errorf("%d events were told of, want 5", n)
		}
	})
}

// TestWriteOnlyDeadLetters shows that a chunk without rows is committed, too.
func TestWriteOnlyDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		p := &fakePartition{records: recordsOf(0, start, 0, []logEvent{{raw: `1`}, {raw: `2`}})}
		store, dead := &fakeStore{}, &fakeTopic{}
		consume(t, store, dead, &logBook{}, p, time.Minute)
		if len(store.all()) != 0 || len(dead.all()) != 2 || p.committed != 2 {
			t.Errorf("%d inserts, %d dead letters, committed %d", len(store.all()), len(dead.all()), p.committed)
		}
	})
}

// TestWriteRevoked takes the partition away at every stage of a chunk: nothing
// is committed, and the next owner stores everything.
func TestWriteRevoked(t *testing.T) {
	errAway := errors.New("away")
	for _, tt := range []struct {
		name string
		set  func(*fakeStore, *fakeTopic)
		at   time.Duration
	}{
		{"while the chunk is gathered", func(*fakeStore, *fakeTopic) {}, 400 * time.Millisecond},
		{"while inserts fail", func(s *fakeStore, _ *fakeTopic) {
			s.before = func(context.Context, int) error { return errAway }
		}, time.Minute},
		{"while an insert hangs", func(s *fakeStore, _ *fakeTopic) {
			s.before = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		}, time.Minute},
		{"while dead letters are not taken", func(_ *fakeStore, d *fakeTopic) { d.down = true }, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(start))
				events := every(start.Add(-time.Hour), time.Second, 30)
				events[5].raw = `"bad"`
				records := recordsOf(0, start, 0, events)
				p := &fakePartition{records: records}
				store, dead := &fakeStore{}, &fakeTopic{}
				tt.set(store, dead)
				consume(t, store, dead, &logBook{}, p, tt.at)
				if len(p.commits) != 0 {
					t.Errorf("committed %v", p.commits)
				}
				store.before = nil
				dead.setDown(false)
				next := &fakePartition{records: records}
				next.next.Store(p.committed)
				consume(t, store, dead, &logBook{}, next, time.Minute)
				got := store.stored()
				for i, e := range events {
					if i != 5 && got[e.id] == 0 {
						t.Errorf("%s is lost", e.id)
					}
				}
				if dead.written()[`"bad"`] == 0 || next.committed != 30 {
					t.Errorf("dead letters %v, committed %d", dead.written(), next.committed)
				}
			})
		})
	}
}

// TestWriteStopLetsInsertFinish shows that a stop does not break off an insert
// that is about to succeed.
func TestWriteStopLetsInsertFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		p := &fakePartition{records: recordsOf(0, start, 0, every(start, time.Second, 3))}
		store := &fakeStore{before: func(ctx context.Context, _ int) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(1500 * time.Millisecond):
				return nil
			}
		}}
		consume(t, store, &fakeTopic{}, &logBook{}, p, time.Second) // ends half a second into the insert
		if got := len(store.stored()); got != 3 || p.committed != 3 {
			t.Errorf("%d rows stored, %d committed, want 3 and 3", got, p.committed)
		}
	})
}

// TestWriteCommitFails shows that a commit that fails costs nothing but a repeat.
func TestWriteCommitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		events := every(start.Add(-time.Hour), time.Second, 3)
		p := &fakePartition{records: recordsOf(0, start, 2*time.Second, events), failures: 2}
		store, log := &fakeStore{}, &logBook{}
		consume(t, store, &fakeTopic{}, log, p, time.Minute)
		if got := len(store.stored()); got != 3 || !slices.Equal(p.commits, []int64{3}) {
			t.Errorf("%d rows stored, committed %v", got, p.commits)
		}
		if n := log.count("commit failed"); n != 2 {
			t.Errorf("told %d times, want 2", n)
		}
	})
}

// brokenPartition ends with an error of its own.
type brokenPartition struct{ fakePartition }

var errClosed = errors.New("the reader was closed")

func (p *brokenPartition) Fetch(ctx context.Context) (schema.Record, error) {
	if p.Lag() == 0 {
		return schema.Record{}, errClosed
	}
	return p.fakePartition.Fetch(ctx)
}

// TestWriteReadFails shows that an error of the partition ends Consume without a
// commit of what was gathered.
func TestWriteReadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		p := &brokenPartition{fakePartition{records: recordsOf(0, start, 0, every(start, time.Second, 3))}}
		w := write.NewWriter(&fakeStore{}, &fakeTopic{}, slog.New(&logBook{}), prometheus.NewRegistry())
		if err := w.Consume(t.Context(), p); !errors.Is(err, errClosed) || len(p.commits) != 0 {
			t.Errorf("Consume: %v, committed %v", err, p.commits)
		}
	})
}
