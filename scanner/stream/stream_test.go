package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/scannertest"
	"github.com/tenantwatch/tenantwatch/schema"
)

// fakeKafka is the partition of the events topic and the alerts topic of one
// test, in memory. It outlives the streams that a test runs over it.
type fakeKafka struct {
	mu        sync.Mutex
	events    []schema.Record
	alerts    []schema.Record
	committed int64
	at        int64 // the next record to fetch
	rewound   int64 // where the last Rewind went
	more      chan struct{}
	journal   []string // "alert" and "commit N", in order

	commitErr  error // commits fail, and do not count
	produceErr error // alerts cannot be handed over until ctx ends
	fetchErr   error // after the last record
	rewindErr  error
	pastErr    error
	stopAt     int64 // Fetch blocks from this offset on, if it is not 0
}

func newFakeKafka(events []schema.Event) *fakeKafka {
	f := &fakeKafka{more: make(chan struct{})}
	for i := range events {
		f.add(events[i].Record(), events[i].FetchedAt)
	}
	return f
}

func (f *fakeKafka) add(r schema.Record, at time.Time) {
	r.Offset, r.Time = int64(len(f.events)), at
	f.events = append(f.events, r)
}

func (f *fakeKafka) ID() int { return 3 }

func (f *fakeKafka) Rewind(_ context.Context, since func(*schema.Record) time.Time) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.committed
	if f.committed > 0 {
		from := since(&f.events[f.committed-1])
		for f.at = 0; f.at < f.committed && f.events[f.at].Time.Before(from); f.at++ {
		}
	}
	f.rewound = f.at
	return f.committed, f.rewindErr
}

func (f *fakeKafka) Fetch(ctx context.Context) (schema.Record, error) {
	f.mu.Lock()
	if f.at < int64(len(f.events)) && (f.stopAt == 0 || f.at < f.stopAt) && ctx.Err() == nil {
		r := f.events[f.at]
		f.at++
		f.mu.Unlock()
		return r, nil
	}
	err := f.fetchErr
	f.mu.Unlock()
	if err != nil {
		return schema.Record{}, err
	}
	<-ctx.Done()
	return schema.Record{}, ctx.Err()
}

func (f *fakeKafka) Commit(next int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.commitErr != nil {
		return f.commitErr
	}
	f.committed = next
	f.journal = append(f.journal, fmt.Sprint("commit ", next))
	return nil
}

func (f *fakeKafka) Lag() int64 { return int64(len(f.events)) - f.at }

func (f *fakeKafka) Produce(ctx context.Context, records []schema.Record, failed func(error)) error {
	f.mu.Lock()
	err := f.produceErr
	if err == nil {
		for _, r := range records {
			r.Offset = int64(len(f.alerts))
			f.alerts = append(f.alerts, r)
			f.journal = append(f.journal, "alert")
		}
	}
	f.mu.Unlock()
	if err != nil {
		failed(err)
		failed(err)
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (f *fakeKafka) past(_ context.Context, yield func(schema.Record) error) error {
	for _, r := range f.alerts {
		if err := yield(r); err != nil {
			return err
		}
	}
	return f.pastErr
}

// said are the alerts of the topic, from an offset on.
func (f *fakeKafka) said(t *testing.T, from int) []schema.Alert {
	t.Helper()
	var list []schema.Alert
	for _, r := range f.alerts[from:] {
		var a schema.Alert
		if err := json.Unmarshal(r.Value, &a); err != nil {
			t.Fatal(err)
		}
		if string(r.Key) != a.Fingerprint {
			t.Errorf("alert %s has the key %s", a.Fingerprint, r.Key)
		}
		list = append(list, a)
	}
	return list
}

// run consumes until every record is scanned, then for as long more as given,
// and ends. It returns the registry.
func (f *fakeKafka) run(t *testing.T, set *rules.Set, more time.Duration) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(set, scanner.Config{}, f.past, f, slog.New(slog.DiscardHandler), reg)
		ended := make(chan error)
		go func() { ended <- s.Consume(ctx, f) }()
		synctest.Wait()
		if more > 0 {
			time.Sleep(more) // of the bubble's time
			synctest.Wait()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Consume: %v", err)
		}
	})
	return reg
}

// metric is the value of a counter or gauge, summed over its labels.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// burst is a rule that fires at three in a minute and ends two minutes after.
func burst(t *testing.T) *rules.Set {
	t.Helper()
	set, report := rules.Load(nil, fstest.MapFS{"burst.yml": &fstest.MapFile{Data: []byte(`
title: hits
name: hits
id: hits
detection:
  s: {type: hit}
  condition: s
---
title: burst
id: burst
level: high
correlation:
  type: event_count
  rules: hits
  group-by: ip
  timespan: 1m
  condition: {gte: 3}
x-tenantwatch-alert: {keep_firing_for: 1m, resolve_below: 1}
`)}})
	if report.Count(rules.StatusEnabled) != 2 {
		t.Fatalf("%+v", report.Documents)
	}
	return set
}

// hits are events of one address, at these times.
func hits(t *testing.T, ip string, at ...time.Duration) []schema.Event {
	t.Helper()
	var list []schema.Event
	for _, d := range at {
		list = append(list, scannertest.Event(t, scannertest.Start.Add(d), int(d/time.Millisecond), map[string]any{"type": "hit", "ip": ip}))
	}
	return list
}

const seconds = time.Second

// TestStreamSaysWhatTheEngineSays runs a storm through a stream: the alerts are
// those of one engine, and none is behind an offset that is committed.
func TestStreamSaysWhatTheEngineSays(t *testing.T) {
	set := scannertest.Builtin(t)
	events := scannertest.Storm(t, 5, 400)
	var want []schema.Alert
	upTo := []int{0} // alerts of the first n events
	engine := scanner.NewEngine(set, scanner.Config{})
	for i := range events {
		want = append(want, engine.Observe(&events[i])...)
		upTo = append(upTo, len(want))
	}
	f := newFakeKafka(events)
	reg := f.run(t, set, 2*commitEvery)
	for i := range want {
		want[i] = *scannertest.Through(t, want[i])
	}
	if diff := cmp.Diff(want, f.said(t, 0)); diff != "" || len(want) < 5 {
		t.Fatalf("%d alerts (-engine +stream):\n%s", len(want), diff)
	}
	produced, commits := 0, 0
	for _, line := range f.journal {
		next := 0
		if _, err := fmt.Sscanf(line, "commit %d", &next); err != nil {
			produced++
			continue
		}
		commits++
		if produced < upTo[next] {
			t.Errorf("%s after %d alerts; %d were due", line, produced, upTo[next])
		}
	}
	if commits == 0 || f.committed != int64(len(events)) {
		t.Errorf("%d commits, up to %d", commits, f.committed)
	}
	for name, want := range map[string]float64{"tenantwatch_scan_events_total": float64(len(events)), "tenantwatch_scan_alerts_total": float64(len(want)),
		"tenantwatch_scan_replayed_total": 0, "tenantwatch_scan_unreadable_total": 0, "tenantwatch_scan_lag_records": 0,
		"tenantwatch_scan_open_alerts": float64(engine.Status().Open), "tenantwatch_scan_groups": float64(engine.Status().Groups)} {
		if got := metric(t, reg, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// TestStreamCommits is when: not at once, and at the end.
func TestStreamCommits(t *testing.T) {
	set := burst(t)
	f := newFakeKafka(hits(t, "192.0.2.1", 0, 1*seconds))
	f.run(t, set, 2*commitEvery)
	if diff := cmp.Diff([]string{"commit 2"}, f.journal); diff != "" {
		t.Errorf("after a while (-want +got):\n%s", diff)
	}
	f = newFakeKafka(hits(t, "192.0.2.1", 0, 1*seconds))
	f.run(t, set, 0)
	if diff := cmp.Diff([]string{"commit 2"}, f.journal); diff != "" {
		t.Errorf("at the end (-want +got):\n%s", diff)
	}
	f = newFakeKafka(nil)
	f.run(t, set, 10*commitEvery)
	if len(f.journal) != 0 {
		t.Errorf("without an event: %v", f.journal)
	}
	// A commit that fails is no reason to stop.
	f = newFakeKafka(hits(t, "192.0.2.1", 0, 1*seconds, 2*seconds))
	f.commitErr = errors.New("rebalance")
	f.run(t, set, 2*commitEvery)
	if len(f.alerts) != 1 || f.committed != 0 {
		t.Errorf("%d alerts, committed %d", len(f.alerts), f.committed)
	}
}

// TestStreamProduceFails keeps the offset before the event whose alert Kafka
// does not have; the next run says it.
func TestStreamProduceFails(t *testing.T) {
	set := burst(t)
	f := newFakeKafka(hits(t, "192.0.2.1", 0, 1*seconds, 2*seconds, 3*seconds))
	f.produceErr = errors.New("no leader")
	f.run(t, set, 10*commitEvery)
	if f.committed > 2 || len(f.alerts) != 0 {
		t.Fatalf("committed %d, %d alerts", f.committed, len(f.alerts))
	}
	f.produceErr = nil
	f.run(t, set, 0)
	want := scannertest.Scan(scanner.NewEngine(set, scanner.Config{}), hits(t, "192.0.2.1", 0, 1*seconds, 2*seconds, 3*seconds))
	if diff := cmp.Diff(want, f.said(t, 0)); diff != "" || len(want) != 1 || f.committed != 4 {
		t.Errorf("committed %d (-engine +stream):\n%s", f.committed, diff)
	}
}

// identity is what makes a transition the same row.
func identity(list []schema.Alert) []string {
	var keys []string
	for _, a := range list {
		keys = append(keys, fmt.Sprint(a.Fingerprint, a.StartsAt, a.State, a.Level))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// TestStreamRestart kills runs at random places, with and without what they
// scanned being committed. All together they say what one run says; what is said
// twice is the same transition.
func TestStreamRestart(t *testing.T) {
	set, twice := scannertest.Builtin(t), 0
	for seed := range uint64(2) {
		events := scannertest.Storm(t, seed, 600)
		var want []schema.Alert
		for _, a := range scannertest.Scan(scanner.NewEngine(set, scanner.Config{}), events) {
			want = append(want, *scannertest.Through(t, a))
		}
		f := newFakeKafka(events)
		for stop := int64(37 + 12*seed); stop < int64(len(events)); stop += 61 {
			f.stopAt, f.commitErr = stop, nil
			if stop%2 == 0 {
				f.commitErr = errors.New("killed")
			}
			f.run(t, set, 0)
		}
		f.stopAt, f.commitErr = 0, nil
		f.run(t, set, 0)
		if diff := cmp.Diff(identity(want), identity(f.said(t, 0))); diff != "" {
			t.Errorf("seed %d (-one run +many):\n%s", seed, diff)
		}
		twice += len(f.alerts) - len(want)
	}
	if twice == 0 {
		t.Error("nothing was said twice; the test shows nothing")
	}
}

// TestStreamSaysTheSameAgain loses a commit: the alert comes once more, the same
// in every part.
func TestStreamSaysTheSameAgain(t *testing.T) {
	set := burst(t)
	f := newFakeKafka(append(hits(t, "192.0.2.1", 0, 20*seconds, 40*seconds), hits(t, "192.0.2.2", 10*time.Minute)...))
	f.stopAt = 2
	f.run(t, set, 0)
	f.stopAt, f.commitErr = 0, errors.New("killed")
	f.run(t, set, 0)
	f.commitErr = nil
	f.run(t, set, 0)
	got := f.said(t, 0)
	if len(got) != 4 {
		t.Fatalf("%d transitions: %+v", len(got), got)
	}
	if diff := cmp.Diff(got[:2], got[2:]); diff != "" {
		t.Errorf("-first +second\n%s", diff)
	}
	if !got[0].StartsAt.Equal(scannertest.Start.Add(40*seconds)) || got[1].State != schema.StateResolved {
		t.Errorf("got %+v", got)
	}
}

// TestStreamEndsLongAlerts has an alert that began long before what a start reads
// again: it goes on as what it is, and ends once.
func TestStreamEndsLongAlerts(t *testing.T) {
	set := burst(t)
	var at []time.Duration
	for d := time.Duration(0); d <= 40*time.Minute; d += 15 * seconds {
		at = append(at, d)
	}
	events := append(hits(t, "192.0.2.1", at...), hits(t, "192.0.2.2", time.Hour, time.Hour+1*seconds)...)
	want := scannertest.Scan(scanner.NewEngine(set, scanner.Config{}), events)
	if len(want) != 2 || want[1].State != schema.StateResolved {
		t.Fatalf("%+v", want)
	}
	for name, lost := range map[string]error{"after the end": nil, "after the end, with the commit lost": errors.New("killed")} {
		t.Run(name, func(t *testing.T) {
			f := newFakeKafka(events)
			f.stopAt = int64(len(at)) - 1
			f.run(t, set, 0)
			f.stopAt, f.commitErr = int64(len(at))+1, lost
			reg := f.run(t, set, 0)
			if f.rewound == 0 || metric(t, reg, "tenantwatch_scan_replayed_total") != float64(int64(len(at))-1-f.rewound) {
				t.Errorf("read again from %d on", f.rewound)
			}
			f.stopAt, f.commitErr = 0, nil
			f.run(t, set, 0)
			if diff := cmp.Diff(identity(want), identity(f.said(t, 0))); diff != "" {
				t.Errorf("-one run +three\n%s", diff)
			}
		})
	}
}

// TestStreamTakesUpOpenAlerts resolves what an earlier run left firing, of which
// nothing is left in the events topic.
func TestStreamTakesUpOpenAlerts(t *testing.T) {
	set := burst(t)
	said := scannertest.Scan(scanner.NewEngine(set, scanner.Config{}), hits(t, "192.0.2.1", 0, 1*seconds, 2*seconds))
	f := newFakeKafka(hits(t, "192.0.2.2", time.Hour))
	for _, value := range []string{"", "no alert", `{"state":"firing","rule_id":"gone","fingerprint":"g"}`, `{"state":"firing","rule_id":"burst","fingerprint":"h"}`} {
		f.alerts = append(f.alerts, schema.Record{Key: []byte("k" + value), Value: []byte(value)})
	}
	for _, a := range said {
		value, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		f.alerts = append(f.alerts, schema.Record{Key: []byte(a.Fingerprint), Value: value})
	}
	before := len(f.alerts)
	f.run(t, set, 0)
	got := f.said(t, before)
	if len(got) != 1 || got[0].State != schema.StateResolved || got[0].Fingerprint != said[0].Fingerprint || !got[0].StartsAt.Equal(said[0].StartsAt) {
		t.Errorf("got %+v, want the end of %+v", got, said)
	}
	// Once resolved it is left alone.
	f.committed = 0
	f.run(t, set, 0)
	if len(f.alerts) != before+1 {
		t.Errorf("%d alerts more", len(f.alerts)-before-1)
	}
}

// TestStreamPassesOver counts what is no event, and goes on.
func TestStreamPassesOver(t *testing.T) {
	set := burst(t)
	good := hits(t, "192.0.2.1", 0, 1*seconds, 2*seconds)
	f := newFakeKafka(good[:2])
	for _, value := range []string{"", "{", "null", "[]", `{"type":"hit"}`, "\xff", `{"log_id":"x"}`} {
		f.add(schema.Record{Key: []byte("acme"), Value: []byte(value)}, good[1].FetchedAt)
	}
	f.add(good[2].Record(), good[2].FetchedAt)
	reg := f.run(t, set, 0)
	if got := metric(t, reg, "tenantwatch_scan_unreadable_total"); got != 7 {
		t.Errorf("%v unreadable", got)
	}
	if len(f.alerts) != 1 || f.committed != 10 {
		t.Errorf("%d alerts, committed %d", len(f.alerts), f.committed)
	}
	// They are passed over in the replay, too.
	f.events = append(f.events, hits(t, "192.0.2.1", 3*seconds)[0].Record())
	f.events[10].Offset, f.events[10].Time = 10, good[2].FetchedAt
	if reg = f.run(t, set, 0); metric(t, reg, "tenantwatch_scan_replayed_total") != 3 || f.committed != 11 {
		t.Errorf("%v replayed, committed %d", metric(t, reg, "tenantwatch_scan_replayed_total"), f.committed)
	}
	if len(f.alerts) != 1 {
		t.Errorf("%d alerts", len(f.alerts))
	}
}

// TestStreamErrors end Consume, unless ctx has ended.
func TestStreamErrors(t *testing.T) {
	broken := errors.New("broken")
	for name, set := range map[string]func(*fakeKafka){
		"fetch": func(f *fakeKafka) { f.fetchErr = broken }, "rewind": func(f *fakeKafka) { f.rewindErr = broken }, "alerts": func(f *fakeKafka) { f.pastErr = broken },
	} {
		f := newFakeKafka(hits(t, "192.0.2.1", 0))
		set(f)
		s := New(burst(t), scanner.Config{}, f.past, f, slog.New(slog.DiscardHandler), prometheus.NewPedanticRegistry())
		if err := s.Consume(t.Context(), f); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Consume(ctx, f); err != nil {
			t.Errorf("%s, after the end: got %v", name, err)
		}
	}
}

// TestReload puts other rules in force between two events: they see what was
// before in their windows, and the old ones say nothing more.
func TestReload(t *testing.T) {
	load := func(id, threshold string) *rules.Set {
		set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte("title: hits\nid: hits\ndetection:\n  s: {type: hit}\n  condition: s\n---\ntitle: t\nid: " + id +
			"\nlevel: high\ncorrelation: {type: event_count, rules: hits, group-by: ip, timespan: 1m, condition: {gte: " + threshold + "}}\n")}})
		if report.Count(rules.StatusEnabled) != 2 {
			t.Fatalf("%+v", report.Documents)
		}
		return set
	}
	f := newFakeKafka(hits(t, "192.0.2.1", 0, 10*seconds, 20*seconds, 30*seconds))
	f.stopAt = 2
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(load("old", "3"), scanner.Config{}, f.past, f, slog.New(slog.DiscardHandler), prometheus.NewPedanticRegistry())
		ended := make(chan error)
		go func() { ended <- s.Consume(ctx, f) }()
		synctest.Wait()
		if f.at != 2 || len(f.alerts) != 0 {
			t.Fatalf("%d events, %d alerts", f.at, len(f.alerts))
		}
		s.Reload(load("passing", "2")) // it has seen these two before
		synctest.Wait()
		f.mu.Lock()
		f.stopAt = 0
		f.mu.Unlock()
		s.Reload(load("new", "4"))
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Consume: %v", err)
		}
	})
	got := f.said(t, 0)
	// That of the passing rules was true before they were in force; the fourth event
	// is new to the last ones.
	if len(got) != 1 || got[0].RuleID != "new" || got[0].Count != 4 || !got[0].StartsAt.Equal(scannertest.Start.Add(30*seconds)) || f.committed != 4 {
		t.Errorf("%d committed, alerts %+v", f.committed, got)
	}
}

// TestNewRuleFires adds a rule whose condition holds already: nothing is said of
// what was before, and it fires with the next event.
func TestNewRuleFires(t *testing.T) {
	f := newFakeKafka(hits(t, "192.0.2.1", 0, 10*seconds, 20*seconds, 30*seconds))
	silent, _ := rules.Load(nil, fstest.MapFS{})
	f.stopAt = 3
	f.run(t, silent, 2*commitEvery)
	if f.committed != 3 || len(f.alerts) != 0 {
		t.Fatalf("%d committed, %d alerts", f.committed, len(f.alerts))
	}
	f.stopAt = 0
	f.run(t, burst(t), 2*commitEvery)
	got := f.said(t, 0)
	if len(got) != 1 || got[0].RuleID != "burst" || got[0].Count != 4 || !got[0].StartsAt.Equal(scannertest.Start.Add(30*seconds)) {
		t.Errorf("%+v", got)
	}
}

// TestRestoreOfWhatNoLongerAlerts takes up alerts of rules that are gone, that only
// serve another one now, or that are grouped in another way.
func TestRestoreOfWhatNoLongerAlerts(t *testing.T) {
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(`
title: hits
id: hits
detection:
  s: {type: hit}
  condition: s
---
title: inner
id: inner
correlation: {type: event_count, rules: [hits], group-by: [ip], timespan: 1m, condition: {gte: 2}}
---
title: outer
id: outer
correlation: {type: event_count, rules: [inner], group-by: [ip], timespan: 1m, condition: {gte: 2}}
`)}})
	if report.Count(rules.StatusEnabled) != 3 {
		t.Fatalf("%+v", report.Documents)
	}
	e := scanner.NewEngine(set, scanner.Config{})
	for _, id := range []string{"hits", "inner", "gone", "outer"} {
		e.Restore(&schema.Alert{Tenant: "acme", RuleID: id, State: schema.StateFiring, Level: "low", StartsAt: scannertest.Start, UpdatedAt: scannertest.Start})
	}
	e.CloseUnpublished("acme")
	if n := e.Status().Open; n != 0 {
		t.Errorf("%d alerts were taken up", n)
	}
	var got []schema.Alert
	for _, ev := range hits(t, "192.0.2.1", 0, seconds, 2*seconds) {
		got = append(got, e.Observe(&ev)...)
	}
	if len(got) != 1 || got[0].RuleID != "outer" {
		t.Errorf("%+v", got)
	}
}

// TestOrderComesLate delivers what comes first in an order after the rest, within
// the lateness and beyond it, in one group and beside others.
func TestOrderComesLate(t *testing.T) {
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte("title: a\nid: a\ndetection:\n  s: {type: a}\n  condition: s\n---\ntitle: b\nid: b\ndetection:\n  s: {type: b}\n  condition: s\n---\n" +
		"title: o\nid: o\ncorrelation: {type: temporal_ordered, rules: [a, b], group-by: [ip], timespan: 10m}\n")}})
	if report.Count(rules.StatusEnabled) != 3 {
		t.Fatalf("%+v", report.Documents)
	}
	n := 0
	event := func(typ, ip string, at time.Duration) schema.Event {
		n++
		return scannertest.Event(t, scannertest.Start.Add(at), n, map[string]any{"type": typ, "ip": ip})
	}
	for _, tt := range []struct {
		name   string
		events []schema.Event
		want   time.Duration // when it fires; 0 for never
	}{
		{"in order", []schema.Event{event("a", "x", seconds), event("b", "x", 3*seconds)}, 3 * seconds},
		{"late", []schema.Event{event("b", "x", 3*seconds), event("b", "y", 4*seconds), event("a", "x", seconds)}, 3 * seconds},
		{"late, of another group", []schema.Event{event("b", "x", 3*seconds), event("a", "y", seconds)}, 0},
		{"late, but after it", []schema.Event{event("b", "x", 3*seconds), event("b", "y", 9*seconds), event("a", "x", 5*seconds)}, 0},
		{"just in time", []schema.Event{event("b", "x", 60*seconds), event("z", "x", 359*seconds), event("a", "x", 59*seconds)}, 60 * seconds},
		{"the first time again", []schema.Event{event("a", "x", seconds), event("b", "x", 700*seconds), event("b", "x", 705*seconds), event("a", "x", 702*seconds)}, 705 * seconds},
	} {
		e := scanner.NewEngine(set, scanner.Config{})
		for i := range tt.events {
			tt.events[i].FetchedAt = scannertest.Start.Add(time.Hour)
		}
		got := scannertest.Scan(e, tt.events)
		if len(got) != min(int(tt.want), 1) || len(got) == 1 && !got[0].StartsAt.Equal(scannertest.Start.Add(tt.want)) {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// TestStreamAnyRule runs random rules of every type in a stream that is killed, with and without what it
// had scanned being committed.
func TestStreamAnyRule(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 32))
		scenario, ok := scannertest.NewScenario(t, r)
		if !ok {
			continue
		}
		text, set, events := scenario.Text, scenario.Set, scenario.Events
		var want []schema.Alert
		for _, a := range scannertest.Scan(scanner.NewEngine(set, scanner.Config{}), events) {
			want = append(want, *scannertest.Through(t, a))
		}
		f := newFakeKafka(events)
		for stop := int64(1 + r.IntN(9)); stop < int64(len(events)); stop += int64(1 + r.IntN(25)) {
			f.stopAt, f.commitErr = stop, nil
			if r.IntN(2) == 0 {
				f.commitErr = errors.New("killed")
			}
			f.run(t, set, 0)
		}
		f.stopAt, f.commitErr = 0, nil
		f.run(t, set, 0)
		if diff := cmp.Diff(identity(want), identity(f.said(t, 0))); diff != "" {
			t.Fatalf("seed %d (-one run +many):\n%s\n%s", seed, diff, text)
		}
	}
}
