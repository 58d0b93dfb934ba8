package pull_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// start is when the tests' puller is first started, in their own time.
var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// idAt is a log_id of an event that was stored at t, the n-th of its moment.
func idAt(t time.Time, n int) string {
	t = t.UTC()
	return fmt.Sprintf("900%s%06d%014d%019d", t.Format("20060102150405"), t.Nanosecond()/1000, 0, n)
}

// logEvent is an event of a fakeTenant.
type logEvent struct {
	id      string
	raw     string
	visible time.Time
}

// storedAt is an event that is stored and visible at t.
func storedAt(t time.Time, n int) logEvent { return visibleAt(t, n, t) }

// visibleAt is an event that is stored at t but shows up later.
func visibleAt(t time.Time, n int, visible time.Time) logEvent {
	id := idAt(t, n)
	date := t.Add(-300 * time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z")
	return logEvent{id, `{"log_id":"` + id + `","date":"` + date + `","type":"s", "n":1.0}`, visible}
}

// call is a call that a fakeTenant got.
type call struct {
	from string // "oldest" for Oldest
	take int
	at   time.Time
}

// fakeTenant is a tenant's log in memory. It pages as Auth0 does: what is visible
// after an id, in the order of the ids, with the last one as the next.
type fakeTenant struct {
	fail    func(n int, c call) error         // asked before the n-th call is answered; may be nil
	most    int                               // events in a page, whatever is asked for; 0 for no limit
	takes   time.Duration                     // of a call
	behind  time.Duration                     // of its clock, beside ours; its answers have a Date then
	bucket  int                               // calls that its limit has room for, as many flow in a second; 0 for no limit
	noLink  bool                              // the answers do not say how to go on
	empties func(n int, c call) bool          // whether the n-th call is answered with an empty page; may be nil
	streams func() ([]auth0.LogStream, error) // nil when that is not allowed

	mu     sync.Mutex // guards what follows
	events []logEvent // in the order of their ids
	calls  []call
	served int       // bytes of events in all answers
	tokens float64   // in the bucket
	filled time.Time // when it had so many
}

func newTenant(events ...[]logEvent) *fakeTenant {
	f := &fakeTenant{events: slices.Concat(events...)}
	slices.SortFunc(f.events, func(a, b logEvent) int { return strings.Compare(a.id, b.id) })
	return f
}

func (f *fakeTenant) Logs(ctx context.Context, from string, take int) (auth0.Page, error) {
	return f.page(ctx, call{from, take, time.Now()})
}

func (f *fakeTenant) Oldest(ctx context.Context) (auth0.Page, error) {
	return f.page(ctx, call{"oldest", auth0.MaxTake, time.Now()})
}

func (f *fakeTenant) LogStreams(context.Context) ([]auth0.LogStream, auth0.Limit, error) {
	if f.streams != nil {
		list, err := f.streams()
		return list, auth0.Limit{}, err
	}
	return nil, auth0.Limit{}, &auth0.Error{Method: "GET", Path: "/api/v2/log-streams", Status: 403, Kind: auth0.KindForbidden}
}

func (f *fakeTenant) page(ctx context.Context, c call) (auth0.Page, error) {
	if err := ctx.Err(); err != nil {
		return auth0.Page{}, err
	}
	if f.takes > 0 { // a timer that is due at once can crash the race detector in a bubble (golang/go#78156)
		select {
		case <-ctx.Done():
			return auth0.Page{}, ctx.Err()
		case <-time.After(f.takes):
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	low := c.from == strings.Repeat("0", 56) // a look for ids below all others, which few tests are about
	if !low {
		f.calls = append(f.calls, c)
	}
	if f.fail != nil && !low {
		if err := f.fail(len(f.calls), c); err != nil {
			return auth0.Page{}, err
		}
	}
	p := auth0.Page{Next: c.from}
	if f.bucket > 0 {
		f.tokens = min(f.tokens+time.Since(f.filled).Seconds()*float64(f.bucket), float64(f.bucket))
		if f.filled.IsZero() {
			f.tokens = float64(f.bucket)
		}
		f.filled = time.Now()
		p.Limit = auth0.Limit{Known: true, Limit: f.bucket, Reset: time.Second}
		if f.tokens < 1 {
			return p, &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 429, Kind: auth0.KindRateLimit, Limit: p.Limit}
		}
		f.tokens--
		p.Limit.Remaining = int(f.tokens)
	}
	if f.empties != nil && !low && f.empties(len(f.calls), c) {
		return p, nil
	}
	if f.behind != 0 {
		p.Date, p.Came = c.at.Add(-f.behind).Truncate(time.Second), c.at
		c.at = c.at.Add(-f.behind)
	}
	if c.from == "oldest" {
		c.from, p.Next = "", ""
	}
	if f.most > 0 {
		c.take = min(c.take, f.most)
	}
	future := schema.SyntheticID(c.at.Add(time.Second))
	first, _ := slices.BinarySearchFunc(f.events, c.from, func(e logEvent, from string) int { return strings.Compare(e.id, from) })
	for _, e := range f.events[first:] {
		if len(p.Events) == c.take || e.id >= future && e.visible.After(c.at) { // nor are those that follow
			break
		}
		if e.id > c.from && !e.visible.After(c.at) {
			p.Events = append(p.Events, []byte(e.raw))
			p.Next = e.id
			f.served += len(e.raw)
		}
	}
	if f.noLink {
		p.Next = ""
	}
	return p, nil
}

// drop is the tenant's retention: it forgets what was stored before t.
func (f *fakeTenant) drop(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = slices.DeleteFunc(f.events, func(e logEvent) bool { return e.id < schema.SyntheticID(t) })
}

// bytes is how much all answers had.
func (f *fakeTenant) bytes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served
}

// setFail changes fail while the tenant is called.
func (f *fakeTenant) setFail(fail func(int, call) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *fakeTenant) called() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// fakeTopic is a topic in memory. It keeps to Producer's contract.
type fakeTopic struct {
	// before is asked before records are kept; an error ends the call. It may be nil.
	before func(ctx context.Context, records []schema.Record) error
	// after is asked once they are kept; an error ends the call all the same.
	after func(ctx context.Context, records []schema.Record) error

	mu      sync.Mutex // guards what follows
	down    bool       // attempts fail and are repeated
	records []schema.Record
}

var errDown = errors.New("no broker answers")

func (f *fakeTopic) Produce(ctx context.Context, records []schema.Record, failed func(error)) error {
	for {
		f.mu.Lock()
		down := f.down
		f.mu.Unlock()
		if !down {
			break
		}
		failed(errDown)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), errDown)
		case <-time.After(time.Second):
		}
	}
	if f.before != nil {
		if err := f.before(ctx, records); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.records = append(f.records, records...)
	f.mu.Unlock()
	if f.after != nil {
		return f.after(ctx, records)
	}
	return nil
}

func (f *fakeTopic) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// from is what was written after the first n records.
func (f *fakeTopic) from(n int) []schema.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[n:len(f.records):len(f.records)]
}

func (f *fakeTopic) all() []schema.Record { return f.from(0) }

// readAll is the topic for ReadCheckpoints.
func (f *fakeTopic) readAll(_ context.Context, yield func(schema.Record) error) error {
	for _, r := range f.all() {
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}

// pulled counts the tenant's events by raw text; our own are left out.
func (f *fakeTopic) pulled() map[string]int {
	got := map[string]int{}
	for _, r := range f.all() {
		if r.Header("source") != string(schema.SourceSelf) {
			got[string(r.Value)]++
		}
	}
	return got
}

// bySource counts records by source.
func (f *fakeTopic) bySource() map[schema.Source]int {
	got := map[schema.Source]int{}
	for _, r := range f.all() {
		got[schema.Source(r.Header("source"))]++
	}
	return got
}

// logBook keeps what is logged.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *logBook) WithGroup(string) slog.Handler            { return b }
func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

// count is how many lines have a text.
func (b *logBook) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, l := range b.lines {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines, "\n")
}

// world is a tenant with the topics that a puller fills.
type world struct {
	t           *testing.T
	tenant      *fakeTenant
	events      *fakeTopic
	checkpoints *fakeTopic
	log         *logBook
	pacer       *pace.Limiter
	kept        audit.Destination          // what audits look at; nil for no audits
	orders      chan checkpoint.Checkpoint // to the puller
}

// newWorld sets the time to start. It is for a synctest bubble.
func newWorld(t *testing.T, tenant *fakeTenant) *world {
	t.Helper()
	time.Sleep(time.Until(start))
	return &world{t: t, tenant: tenant, events: &fakeTopic{}, checkpoints: &fakeTopic{}, log: &logBook{}, pacer: pace.New(0.7),
		orders: make(chan checkpoint.Checkpoint)}
}

// run starts a puller that goes on from the newest checkpoint. stop ends it as a
// kill would, as far as its topics can tell.
func (w *world) run(cfg pull.Config) (p *pull.Puller, stop func()) {
	w.t.Helper()
	cfg.Tenant, cfg.Log, cfg.Metrics = "acme", slog.New(w.log), pull.NewMetrics(prometheus.NewRegistry())
	p = pull.New(cfg, w.tenant, w.pacer, w.events, w.checkpoints, w.kept)
	return p, w.lead(p)
}

// lead lets a puller lead the tenant.
func (w *world) lead(p *pull.Puller) (stop func()) {
	w.t.Helper()
	found, err := checkpoint.ReadAll(w.t.Context(), w.checkpoints.readAll, func(err error) { w.t.Error(err) })
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, found, w.orders) }()
	return func() {
		w.t.Helper()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.t.Errorf("Run ended with %v, want the end of its context", err)
		}
	}
}

// checkpoint is the tail's newest that was written.
func (w *world) checkpoint() checkpoint.Checkpoint {
	w.t.Helper()
	c, _ := w.chains().Of("acme", checkpoint.ChainTail)
	return c
}

// chains are the newest checkpoints that were written.
func (w *world) chains() checkpoint.Set {
	w.t.Helper()
	found, err := checkpoint.ReadAll(w.t.Context(), w.checkpoints.readAll, func(err error) { w.t.Error(err) })
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// own are our own events of a type, without repeats.
func (w *world) own(typ string) []schema.Event {
	w.t.Helper()
	var list []schema.Event
	for _, r := range w.events.all() {
		e := schema.EventOf(&r)
		if e.Source != schema.SourceSelf {
			continue
		}
		if err := e.Identify(); err != nil {
			w.t.Fatal(err)
		}
		if e.Type == typ && !slices.ContainsFunc(list, func(o schema.Event) bool { return o.LogID == e.LogID }) {
			list = append(list, e)
		}
	}
	return list
}

// wantOnce checks that each of the events came exactly once and nothing else.
func (w *world) wantOnce(events ...[]logEvent) {
	w.t.Helper()
	w.wantAll(events...)
	said := few{t: w.t}
	for raw, n := range w.events.pulled() {
		if n != 1 {
			said.errorf("%.150s came %d times", raw, n)
		}
	}
}

// few reports errors up to the fifth.
type few struct {
	t *testing.T
	n int
}

func (f *few) errorf(format string, args ...any) {
	f.t.Helper()
	if f.n++; f.n <= 5 {
		f.t.Errorf(format, args...)
	} else {
		f.t.Fail()
	}
}

// wantAll checks that each of the events came and nothing else.
func (w *world) wantAll(events ...[]logEvent) {
	w.t.Helper()
	lost, odd := few{t: w.t}, few{t: w.t}
	got := w.events.pulled()
	for _, e := range slices.Concat(events...) {
		if got[e.raw] == 0 {
			lost.errorf("%.150s is lost", e.raw)
		}
		delete(got, e.raw)
	}
	for raw := range got {
		odd.errorf("%.150s is nobody's event", raw)
	}
}

// every is n events from a time on, gap apart.
func every(from time.Time, gap time.Duration, n int) []logEvent {
	var events []logEvent
	for i := range n {
		events = append(events, storedAt(from.Add(time.Duration(i)*gap), i+1))
	}
	return events
}

var _ pull.Tenant = (*fakeTenant)(nil)

// TestPullBackfillToLive pulls three days of the past and what comes then:
// every event once, byte for byte, what comes live in the order of the ids.
func TestPullBackfillToLive(t *testing.T) {
	for _, most := range []int{0, 100, 60, 7} {
		t.Run(fmt.Sprintf("pages of %d", most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tooOld := every(start.Add(-96*time.Hour), time.Minute, 10)
				past := every(start.Add(-71*time.Hour), 3*time.Minute, 1400)
				live := every(start.Add(time.Second), 700*time.Millisecond, 1000)
				w := newWorld(t, newTenant(tooOld, past, live))
				w.tenant.most = most
				p, stop := w.run(pull.Config{Backfill: 72 * time.Hour})
				time.Sleep(30 * time.Minute)
				stop()

				w.wantOnce(past, live)
				last := ""
				for _, r := range w.events.all() {
					e := schema.EventOf(&r)
					if err := e.Identify(); err != nil {
						t.Fatal(err)
					}
					if e.Source == schema.SourceTail {
						if e.LogID < last {
							t.Errorf("%s came after %s", e.LogID, last)
						}
						last = e.LogID
					}
					if e.Tenant != "acme" || e.FetchedAt.Before(start) {
						t.Errorf("tenant %q, fetched at %s", e.Tenant, e.FetchedAt)
					}
				}
				if got := w.events.bySource(); got[schema.SourceBackfill] != len(past) || got[schema.SourceTail] != len(live) {
					t.Errorf("sources: got %v, want %d of the backfill and %d live", got, len(past), len(live))
				}
				s := p.Status()
				want := live[len(live)-1].id
				if s.LastLogID != want || s.Backfill || s.Events != 2400 || s.Total != 1000 || s.Slices.Events != 1400 || s.CaughtUp.IsZero() || s.Failing != "" {
					t.Errorf("status: %+v", s)
				}
				c := w.checkpoint()
				if c.LogID != want || c.Backfill || c.Events != 1000 || c.Oldest != live[0].id || !c.LiveFrom.Equal(start) {
					t.Errorf("checkpoint: %+v", c)
				}
				if n := w.log.count("backfill finished"); n != 1 {
					t.Errorf("the backfill ended %d times", n)
				}
				if n := w.log.count("WARN") + w.log.count("ERROR") + w.log.count("showed up late"); n != 0 {
					t.Errorf("there is nothing to warn of:\n%s", w.log)
				}
			})
		})
	}
}

// TestPullWhereToBegin shows what a first start asks for.
func TestPullWhereToBegin(t *testing.T) {
	past, live := every(start.Add(-time.Hour), time.Minute, 60), every(start.Add(time.Minute), time.Second, 5)
	ancient := every(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), time.Hour, 3)
	for _, tt := range []struct {
		name     string
		backfill time.Duration
		want     [][]logEvent
	}{
		{"nothing of the past", 0, [][]logEvent{live}},
		{"half an hour", 30 * time.Minute, [][]logEvent{past[30:], live}},
		{"all there is", -1, [][]logEvent{ancient, past, live}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTenant(ancient, past, live))
				p, stop := w.run(pull.Config{Backfill: tt.backfill})
				time.Sleep(5 * time.Minute)
				stop()
				w.wantOnce(tt.want...)
				if p.Status().Backfill {
					t.Error("the backfill is not done")
				}
			})
		})
	}
}

// TestPullCheckpointAfterAck shows the order of writes: whatever a checkpoint
// covers is in the events topic before, also while Kafka is slow.
func TestPullCheckpointAfterAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := slices.Concat(every(start.Add(-time.Hour), time.Second, 1500), every(start, 300*time.Millisecond, 500))
		w := newWorld(t, newTenant(events))
		w.events.before = func(context.Context, []schema.Record) error {
			time.Sleep(1300 * time.Millisecond)
			return nil
		}
		written := 0
		w.checkpoints.before = func(_ context.Context, records []schema.Record) error {
			got := w.events.pulled()
			for _, r := range records {
				c, err := checkpoint.Read(&r)
				if err != nil {
					t.Error(err)
				}
				if string(r.Key) != "acme/"+c.Chain {
					t.Errorf("checkpoint of key %q: %s", r.Key, r.Value)
				}
				from := c.From
				if c.Chain == checkpoint.ChainTail {
					from = schema.SyntheticID(c.LiveFrom)
				}
				for _, e := range events {
					if e.id > from && e.id <= c.LogID && got[e.raw] == 0 {
						t.Errorf("checkpoint %s of %s is written before %s is acked", c.LogID, c.Chain, e.id)
					}
				}
				if c.Behind > c.LogID {
					t.Errorf("behind %s is ahead of %s", c.Behind, c.LogID)
				}
				written++
			}
			return nil
		}
		_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
		time.Sleep(10 * time.Minute)
		stop()
		w.wantOnce(events)
		if written < 10 {
			t.Errorf("only %d checkpoints were written", written)
		}
	})
}

// TestPullRestart kills the puller before and after each durable step and
// starts it again from what its topics hold: nothing is lost.
func TestPullRestart(t *testing.T) {
	errKill := errors.New("killed")
	once := func(after int) func(context.Context, []schema.Record) error {
		var n atomic.Int32
		return func(context.Context, []schema.Record) error {
			if int(n.Add(1)) == after {
				return errKill
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name string
		set  func(*world)
	}{
		{"before events are durable", func(w *world) { w.events.before = once(3) }},
		{"events are durable, no checkpoint", func(w *world) { w.events.after = once(3) }},
		{"before the checkpoint is durable", func(w *world) { w.checkpoints.before = once(2) }},
		{"after the checkpoint is durable", func(w *world) { w.checkpoints.after = once(2) }},
		{"before the very first events", func(w *world) { w.events.before = once(1) }},
		{"before the very first checkpoint", func(w *world) { w.checkpoints.before = once(1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				events := slices.Concat(every(start.Add(-time.Hour), time.Second, 800), every(start, 900*time.Millisecond, 300))
				w := newWorld(t, newTenant(events))
				w.tenant.most = 50
				tt.set(w)
				cfg := pull.Config{Tenant: "acme", Backfill: 2 * time.Hour, Log: slog.New(w.log), Metrics: pull.NewMetrics(prometheus.NewRegistry())}
				p := pull.New(cfg, w.tenant, w.pacer, w.events, w.checkpoints, nil)
				if err := p.Run(t.Context(), checkpoint.Set{}, make(chan checkpoint.Checkpoint)); !errors.Is(err, errKill) || !strings.Contains(err.Error(), "acme") {
					t.Errorf("Run ended with %v, want the topic's error and the tenant", err)
				}
				time.Sleep(3 * time.Minute)
				_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
				time.Sleep(5 * time.Minute)
				stop()
				w.wantAll(events)
			})
		})
	}
}

// TestPullRestartWithoutCheckpoints shows that nothing is pulled before it is
// durable where to begin, and loses every checkpoint of the first run: the second
// one begins where the first did.
func TestPullRestartWithoutCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-time.Hour), time.Second, 3700)
		w := newWorld(t, newTenant(events))
		w.checkpoints.setDown(true)
		_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
		time.Sleep(3 * time.Minute)
		w.wantAll()
		if n := w.log.count("save checkpoints failed"); n != 1 {
			t.Errorf("warned %d times that save checkpoints failed, want 1", n)
		}
		w.checkpoints.setDown(false)
		time.Sleep(3 * time.Minute)
		stop()
		w.wantOnce(events)
		first := w.checkpoint()
		w.checkpoints.records = nil
		time.Sleep(10 * time.Minute)
		_, stop = w.run(pull.Config{Backfill: 2 * time.Hour})
		time.Sleep(3 * time.Minute)
		stop()
		w.wantAll(events)
		for raw, n := range w.events.pulled() {
			if n != 2 {
				t.Fatalf("%s came %d times, want 2", raw, n)
			}
		}
		if c := w.checkpoint(); !c.LiveFrom.After(first.LiveFrom) || c.Events != 0 {
			t.Errorf("checkpoint %+v, want one of a first start after %s", c, first.LiveFrom)
		}
	})
}

// TestPullLateEvents finds events that became visible after others with higher
// ids, up to the overlap later, whatever happened meanwhile.
func TestPullLateEvents(t *testing.T) {
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for _, tt := range []struct {
		name    string
		late    logEvent
		restart time.Duration // when the puller is stopped and started again; 0 for never
		down    time.Duration // how long it is away
		live    []logEvent
	}{
		{name: "two minutes late", late: visibleAt(at(5*time.Minute+200*time.Millisecond), 7, at(7*time.Minute))},
		{name: "almost ten minutes late", late: visibleAt(at(5*time.Minute+200*time.Millisecond), 7, at(13*time.Minute+30*time.Second))},
		{name: "stored before the first start, below all that was visible", late: visibleAt(at(-2*time.Minute), 7, at(3*time.Minute))},
		{name: "stored before a restart, visible after it", late: visibleAt(at(5*time.Minute+200*time.Millisecond), 7, at(9*time.Minute)), restart: 7 * time.Minute},
		{name: "visible while the puller is away", late: visibleAt(at(5*time.Minute+200*time.Millisecond), 7, at(9*time.Minute)), restart: 7 * time.Minute, down: 40 * time.Minute},
		{name: "of a quiet tenant", late: visibleAt(at(5*time.Minute+200*time.Millisecond), 7, at(9*time.Minute)), live: []logEvent{storedAt(at(time.Minute), 1), storedAt(at(6*time.Minute), 1)}},
		{name: "of a quiet tenant within its first page", late: visibleAt(at(-2*time.Minute), 7, at(3*time.Minute)), live: []logEvent{storedAt(at(-time.Hour), 1), storedAt(at(-3*time.Minute), 1), storedAt(at(-time.Minute), 1)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.live == nil {
					tt.live = every(start.Add(-time.Minute), time.Second, 1000)
				}
				late := []logEvent{tt.late}
				w := newWorld(t, newTenant(tt.live, late))
				_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
				if tt.restart > 0 {
					time.Sleep(tt.restart)
					stop()
					time.Sleep(tt.down)
					_, stop = w.run(pull.Config{Backfill: 2 * time.Hour})
				}
				time.Sleep(30 * time.Minute)
				stop()
				w.wantAll(tt.live, late)
				if tt.restart > 0 {
					return // a start meets the overlap's events again
				}
				w.wantOnce(tt.live, late)
				if got := w.events.bySource()[schema.SourceOverlap]; got != 1 {
					t.Errorf("%d events came by the overlap, want 1", got)
				}
				if n := w.log.count("events showed up late"); n != 1 {
					t.Errorf("late events were told %d times, want 1", n)
				}
			})
		})
	}
}

// TestPullQuietTenant shows that a tenant that falls silent gets nothing
// repeated, however long it stays so.
func TestPullQuietTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, later := every(start, 700*time.Millisecond, 500), every(start.Add(90*time.Minute), 700*time.Millisecond, 50)
		w := newWorld(t, newTenant(busy, later))
		_, stop := w.run(pull.Config{})
		time.Sleep(3 * time.Hour)
		stop()
		w.wantOnce(busy, later)
	})
}

// TestPullFailedCalls shows that every failed call is repeated with growing
// pauses until there is an answer, that each state is logged once, and that our
// own failures become events.
func TestPullFailedCalls(t *testing.T) {
	answer := func(status int, kind auth0.Kind) *auth0.Error {
		return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: status, Kind: kind}
	}
	cut := &auth0.Error{Method: "GET", Path: "/api/v2/logs", Kind: auth0.KindAnswer, Err: io.ErrUnexpectedEOF}
	retryAfter := answer(429, auth0.KindRateLimit)
	retryAfter.RetryAfter = 17 * time.Second
	reset := answer(429, auth0.KindRateLimit)
	reset.Limit = auth0.Limit{Known: true, Limit: 10, Reset: 13 * time.Second}
	unavailable := answer(503, auth0.KindServer)
	unavailable.RetryAfter = 19 * time.Second
	for _, tt := range []struct {
		name  string
		err   error
		pause time.Duration // at least, after each failure
	}{
		{"401", answer(401, auth0.KindUnauthorized), 0},
		{"403", answer(403, auth0.KindForbidden), 0},
		{"404", answer(404, auth0.KindClient), 0},
		{"429", answer(429, auth0.KindRateLimit), 0},
		{"429 with Retry-After", retryAfter, 17 * time.Second},
		{"429 with a reset", reset, 13 * time.Second},
		{"500", answer(500, auth0.KindServer), 0},
		{"503 with Retry-After", unavailable, 19 * time.Second},
		{"no token", answer(401, auth0.KindToken), 0},
		{"half a body", cut, 0},
		{"timeout", &auth0.Error{Method: "GET", Path: "/api/v2/logs", Kind: auth0.KindTimeout, Err: context.DeadlineExceeded}, 0},
		{"another error", errors.New("of no kind"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const failures = 6
				events := every(start, time.Second, 500)
				w := newWorld(t, newTenant(events))
				w.tenant.fail = func(n int, _ call) error {
					if n > 1 && n <= 1+failures { // the first looks for the oldest event
						return tt.err
					}
					return nil
				}
				p, stop := w.run(pull.Config{OverlapEvery: 20 * time.Minute})
				time.Sleep(300 * time.Millisecond) // less than the first pause
				if got := p.Status().Failing; !strings.Contains(got, tt.err.Error()) {
					t.Errorf("failing because of %q, want %q", got, tt.err)
				}
				time.Sleep(10 * time.Minute)
				stop()

				w.wantOnce(events)
				calls := w.tenant.called()
				for i := 1; i < 1+failures; i++ {
					// Half of the first pause is the least that jitter leaves.
					if d := calls[i+1].at.Sub(calls[i].at); d < max(tt.pause, 250*time.Millisecond) {
						t.Errorf("call %d came %s after a failure, want %s", i+1, d, tt.pause)
					}
				}
				if n := w.log.count("call to the tenant failed"); n != 1 {
					t.Errorf("the failure is logged %d times:\n%s", n, w.log)
				}
				if n := w.log.count("succeed again"); n != 1 {
					t.Errorf("the recovery is logged %d times:\n%s", n, w.log)
				}
				if got := p.Status().Failing; got != "" {
					t.Errorf("still failing: %s", got)
				}
				if got := w.events.bySource()[schema.SourceSelf]; got != failures {
					t.Errorf("%d events of our own, want %d", got, failures)
				}
			})
		})
	}
}

// TestPullFailedCallsOfSlices shows that chains of the past repeat failed calls,
// each at its own place, and do not hold up the tail.
func TestPullFailedCallsOfSlices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past, live := every(start.Add(-2*time.Hour), time.Second, 7000), every(start, time.Second, 60)
		w := newWorld(t, newTenant(past, live))
		healed := start.Add(10 * time.Minute)
		w.tenant.fail = func(n int, c call) error {
			if n > 1 && c.from < past[6000].id && time.Now().Before(healed) {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
			}
			return nil
		}
		p, stop := w.run(pull.Config{Backfill: 3 * time.Hour})
		time.Sleep(5 * time.Minute)
		if c := w.checkpoint(); c.LogID != live[59].id {
			t.Errorf("the tail is at %s, want %s", c.LogID, live[59].id)
		}
		if s := p.Status(); !s.Backfill || s.Slices.Chains == 0 {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(10 * time.Minute)
		stop()
		w.wantOnce(past, live)
		if got := w.events.bySource()[schema.SourceOverlap]; got != 0 {
			t.Errorf("%d events of the past count as late", got)
		}
	})
}

// TestPullLogsChangesOfFailure shows that a failure of another kind is news.
func TestPullLogsChangesOfFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTenant(every(start.Add(-time.Hour), time.Second, 10)))
		w.tenant.fail = func(n int, _ call) error {
			switch {
			case n <= 3:
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
			case n <= 6:
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 403, Kind: auth0.KindForbidden, Advice: "grant the scope"}
			}
			return nil
		}
		_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
		time.Sleep(3 * time.Minute)
		stop()
		if a, b := w.log.count("500 Internal Server Error"), w.log.count("403 Forbidden (grant the scope)"); a != 1 || b != 1 {
			t.Errorf("logged %d and %d times, want 1 and 1:\n%s", a, b, w.log)
		}
	})
}

// TestPullSelfEvents shows our own failed calls as events that rules can read.
func TestPullSelfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTenant())
		w.tenant.fail = func(n int, _ call) error {
			switch n {
			case 1:
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 403, Kind: auth0.KindForbidden, Code: "insufficient_scope", Message: "no \"scope\""}
			case 2:
				return &auth0.Error{Method: "POST", Path: "/oauth/token", Kind: auth0.KindNetwork, Err: errors.New("connection refused")}
			}
			return nil
		}
		_, stop := w.run(pull.Config{})
		time.Sleep(30 * time.Second)
		stop()
		ids := map[string]bool{}
		var got []string
		for _, r := range w.events.all() {
			e := schema.EventOf(&r)
			if err := e.Identify(); err != nil {
				t.Fatal(err)
			}
			ids[e.LogID] = true
			if e.Source != schema.SourceSelf || e.Type != schema.TypeAPIError || e.Tenant != "acme" || e.Date.Before(start) {
				t.Errorf("event %+v", e)
			}
			_, details, _ := strings.Cut(string(e.Raw), `"details":`)
			got = append(got, details)
		}
		want := []string{
			`{"request":{"method":"GET","path":"/api/v2/logs"},"response":{"statusCode":403,"body":{"error":"forbidden","errorCode":"insufficient_scope","message":"no \"scope\""}}}}`,
			`{"request":{"method":"POST","path":"/oauth/token"},"response":{"statusCode":0,"body":{"error":"network","message":"connection refused"}}}}`,
		}
		if !slices.Equal(got, want) || len(ids) != 2 {
			t.Errorf("got %q\nwant %q", got, want)
		}
	})
}

// TestPullSmallerPages shows that answers that always break off are asked for
// in smaller pieces, down to single events, and then in larger ones again.
func TestPullSmallerPages(t *testing.T) {
	for _, kind := range []auth0.Kind{auth0.KindAnswer, auth0.KindTimeout, auth0.KindTooLarge} {
		for _, most := range []int{30, 1} {
			t.Run(fmt.Sprintf("%s above %d", kind, most), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					events := every(start.Add(-time.Hour), time.Second, 350)
					w := newWorld(t, newTenant(events))
					// Only one stretch of the log is too much at once.
					w.tenant.fail = func(_ int, c call) error {
						if c.take > most && c.from >= events[99].id && c.from < events[130].id {
							return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Kind: kind, Err: io.ErrUnexpectedEOF}
						}
						return nil
					}
					_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
					time.Sleep(time.Hour)
					stop()
					w.wantOnce(events)
					calls := w.tenant.called()
					if n := calls[len(calls)-1].take; n != auth0.MaxTake {
						t.Errorf("asks for %d events at the end, want %d", n, auth0.MaxTake)
					}
				})
			})
		}
	}
}

// TestPullRefusedCursor shows the ways on when the tenant answers 400: from the
// checkpoint to its time, from there to the oldest event.
func TestPullRefusedCursor(t *testing.T) {
	refuse := func(when func(from string) bool) func(int, call) error {
		return func(_ int, c call) error {
			if when(c.from) {
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 400, Kind: auth0.KindClient, Code: "invalid_query_string"}
			}
			return nil
		}
	}
	synthetic := func(id string) bool { return strings.HasSuffix(id, strings.Repeat("0", 39)) }

	t.Run("the tenant takes only its own ids", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			past, live := every(start.Add(-time.Hour), time.Second, 450), every(start, time.Second, 400)
			w := newWorld(t, newTenant(past, live))
			w.tenant.fail = refuse(synthetic)
			p, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
			time.Sleep(20 * time.Minute)
			stop()
			w.wantAll(past, live)
			// Only the events of the way in come twice.
			for raw, n := range w.events.pulled() {
				if n > 2 || n == 2 && raw > past[100].raw {
					t.Errorf("%s came %d times", raw, n)
				}
			}
			if a, b := w.log.count("backfilling serially"), w.log.count("starting at its oldest event"); a != 1 || b != 1 {
				t.Errorf("told %d and %d times, want 1 and 1:\n%s", a, b, w.log)
			}
			if got := p.Status().Failing; got != "" {
				t.Errorf("failing: %s", got)
			}
		})
	})
	t.Run("an empty tenant takes only its own ids", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			live := every(start.Add(10*time.Minute), time.Second, 20)
			w := newWorld(t, newTenant(live))
			w.tenant.fail = refuse(synthetic)
			_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
			time.Sleep(20 * time.Minute)
			stop()
			w.wantAll(live)
		})
	})
	t.Run("the checkpoint is refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			events := every(start.Add(-time.Hour), time.Second, 3700)
			w := newWorld(t, newTenant(events))
			_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
			time.Sleep(30 * time.Second)
			stop()
			last := w.checkpoint().LogID
			time.Sleep(5 * time.Minute)
			w.tenant.fail = refuse(func(from string) bool { return from == last })
			_, stop = w.run(pull.Config{Backfill: 2 * time.Hour})
			time.Sleep(5 * time.Minute)
			stop()
			w.wantAll(events)
			if n := w.log.count("tenant rejects the checkpoint"); n == 0 {
				t.Errorf("nobody was told:\n%s", w.log)
			}
		})
	})
	t.Run("everything is refused for a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			events := every(start.Add(-time.Hour), time.Second, 300)
			w := newWorld(t, newTenant(events))
			healed := start.Add(10 * time.Minute)
			w.tenant.fail = refuse(func(string) bool { return time.Now().Before(healed) })
			p, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
			time.Sleep(5 * time.Minute)
			if got := p.Status().Failing; !strings.Contains(got, "400 Bad Request") {
				t.Errorf("failing because of %q, want the refusal", got)
			}
			if n := w.log.count("400 Bad Request"); n != 1 {
				t.Errorf("the refusal is logged %d times, want 1:\n%s", n, w.log)
			}
			if n := len(w.tenant.called()); n > 15 {
				t.Errorf("%d calls within five minutes of refusals", n)
			}
			time.Sleep(20 * time.Minute)
			stop()
			w.wantAll(events)
			if got := p.Status().Failing; got != "" {
				t.Errorf("still failing: %s", got)
			}
		})
	})
}

// TestPullFailingEnds shows that a failure is over with the next answer, also
// when it changed its kind before.
func TestPullFailingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTenant(every(start.Add(-time.Hour), time.Second, 30)))
		w.tenant.fail = func(n int, _ call) error {
			switch n {
			case 1:
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 500, Kind: auth0.KindServer}
			case 2:
				return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 400, Code: "invalid_query_string", Kind: auth0.KindClient}
			}
			return nil
		}
		p, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
		time.Sleep(time.Minute)
		stop()
		if got := p.Status().Failing; got != "" {
			t.Errorf("still failing: %s", got)
		}
	})
}

// TestPullWhatCannotBeIdentified shows that broken events are handed on as they
// are and do not stop the chain. Where slices meet they may come twice: without
// an id they belong to either.
func TestPullWhatCannotBeIdentified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-time.Hour), time.Second, 250)
		for i, raw := range map[int]string{20: `null`, 99: `{"date":"2026"}`, 101: `[1,2]`, 249: `"last"`} {
			events[i].raw = raw
		}
		w := newWorld(t, newTenant(events))
		_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
		time.Sleep(5 * time.Minute)
		stop()
		w.wantAll(events)
		for raw, n := range w.events.pulled() {
			if n > 2 || n > 1 && strings.Contains(raw, "log_id") {
				t.Errorf("%s came %d times", raw, n)
			}
		}
	})
}

// TestPullStuckPage shows that a page that does not say how to go on is asked
// for until it does, without a storm of calls.
func TestPullStuckPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-time.Hour), time.Second, 20)
		w := newWorld(t, newTenant(events))
		stuck := &stuckTenant{fakeTenant: w.tenant, until: start.Add(5 * time.Minute)}
		p := pull.New(pull.Config{Tenant: "acme", Backfill: 2 * time.Hour, Log: slog.New(w.log),
			Metrics: pull.NewMetrics(prometheus.NewRegistry())}, stuck, w.pacer, w.events, w.checkpoints, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := p.Run(ctx, checkpoint.Set{}, make(chan checkpoint.Checkpoint)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v", err)
		}
		w.wantOnce(events)
		if n := w.log.count("neither ids nor a next link"); n != 1 {
			t.Errorf("told %d times, want 1", n)
		}
		if stuck.calls > 33 { // one looks for an id behind the first event, one for ids below all others
			t.Errorf("%d calls within five minutes", stuck.calls)
		}
	})
}

// stuckTenant answers events without ids for a while.
type stuckTenant struct {
	*fakeTenant
	until time.Time
	calls int
}

func (s *stuckTenant) Logs(ctx context.Context, from string, take int) (auth0.Page, error) {
	if time.Now().Before(s.until) {
		s.calls++
		return auth0.Page{Events: [][]byte{[]byte(`{}`), []byte(`{"a":1}`)}}, ctx.Err()
	}
	return s.fakeTenant.Logs(ctx, from, take)
}

// TestPullWithoutKafka shows that while Kafka is away only so much is pulled
// ahead, that this is told once, and that everything arrives afterwards.
func TestPullWithoutKafka(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-100*time.Hour), time.Second, 6_000)
		w := newWorld(t, newTenant(events))
		w.events.setDown(true)
		p, stop := w.run(pull.Config{Backfill: 200 * time.Hour})
		time.Sleep(20 * time.Minute)
		if n := w.tenant.bytes() / len(events[0].raw); n > 20*auth0.MaxTake {
			t.Errorf("%d events were pulled while Kafka was away", n)
		}
		if s := p.Status(); s.Events != 0 {
			t.Errorf("%d events count as acked", s.Events)
		}
		for _, r := range w.checkpoints.all() {
			c, err := checkpoint.Read(&r)
			if err != nil || c.Events > 0 || c.From < events[0].id && c.LogID > c.From && c.Chain != checkpoint.ChainTail {
				t.Errorf("checkpoint %s, %v", r.Value, err)
			}
		}
		w.events.setDown(false)
		time.Sleep(20 * time.Minute)
		stop()
		w.wantOnce(events)
		if a, b := w.log.count("produce to Kafka failed"), w.log.count("produce to Kafka succeeds again"); a != 1 || b != 1 {
			t.Errorf("told %d and %d times, want 1 and 1:\n%s", a, b, w.log)
		}
	})
}

// TestPullLargePages shows that the bytes pulled ahead are bounded, too.
func TestPullLargePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := every(start.Add(-time.Hour), time.Second, 50)
		filler := strings.Repeat("x", 2<<20)
		for i := range events {
			events[i].raw = strings.Replace(events[i].raw, `"n":1.0`, `"details":{"body":"`+filler+`"}`, 1)
		}
		w := newWorld(t, newTenant(events))
		w.tenant.most = 10 // 20 MB a page
		w.events.setDown(true)
		_, stop := w.run(pull.Config{Backfill: 2 * time.Hour})
		time.Sleep(time.Minute)
		if n := w.tenant.bytes() >> 20; n > 80 {
			t.Errorf("%d MB were pulled while Kafka was away", n)
		}
		w.events.setDown(false)
		time.Sleep(5 * time.Minute)
		stop()
		got := w.events.pulled()
		for _, e := range events {
			if got[e.raw] != 1 {
				t.Errorf("%s came %d times", e.id, got[e.raw])
			}
		}
	})
}

// TestPullEndsWithItsFailure: once another process leads the tenant, what failed
// here is nobody's trouble any more.
func TestPullEndsWithItsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTenant())
		w.tenant.fail = func(int, call) error {
			return &auth0.Error{Method: "GET", Path: "/api/v2/logs", Status: 503, Kind: auth0.KindServer}
		}
		p, stop := w.run(pull.Config{})
		time.Sleep(time.Minute)
		if s := p.Status(); !s.Running || s.Failing == "" {
			t.Errorf("while calls fail: %+v", s)
		}
		stop()
		if s := p.Status(); s.Running || s.Failing != "" {
			t.Errorf("afterwards: %+v", s)
		}
	})
}
