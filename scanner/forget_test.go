package scanner

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner/scannertest"
	"github.com/tenantwatch/tenantwatch/schema"
)

// byIP loads correlations by IP over one detection.
func byIP(t testing.TB, correlations ...string) *rules.Set {
	t.Helper()
	var docs strings.Builder
	docs.WriteString("title: hits\nid: hits\nname: hits\ndetection:\n  s: {type: hit}\n  condition: s\n")
	for i, c := range correlations {
		fmt.Fprintf(&docs, "---\ntitle: c%[1]d\nid: c%[1]d\nlevel: low\ncorrelation:\n  rules: hits\n  group-by: ip\n%[2]s", i, c)
	}
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(docs.String())}})
	if n := report.Count(rules.StatusEnabled); n != 1+len(correlations) {
		t.Fatalf("%+v", report.Documents)
	}
	return set
}

// TestHotGroupsStay has many addresses come once and a few again and again, among
// which there is never more than half of what an engine keeps. The few are counted as
// if there were room for all.
func TestHotGroupsStay(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 21))
		set := byIP(t, "  type: event_count\n  timespan: 2h\n  condition: {gte: 40}\n", "  type: value_count\n  timespan: 2h\n  condition: {field: user_id, gte: 30}\n")
		small, large := NewEngine(set, Config{MaxGroups: 100}), NewEngine(set, Config{})
		due := [5]int{}
		var got, want []schema.Alert
		for i := range 3000 {
			ip := fmt.Sprintf("cold%d", i)
			for hot := range due {
				if i >= due[hot] {
					ip, due[hot] = fmt.Sprintf("hot%d", hot), i+1+r.IntN(20)
					break
				}
			}
			e := scannertest.Event(t, scannertest.Start.Add(time.Duration(i)*time.Second-time.Duration(r.IntN(5000))*time.Millisecond), i,
				map[string]any{"type": "hit", "ip": ip, "user_id": fmt.Sprint("u", r.IntN(50))})
			got = append(got, small.Observe(&e)...)
			want = append(want, large.Observe(&e)...)
			if n := small.Status().Groups; n > 100 {
				t.Fatalf("seed %d: %d groups", seed, n)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) < 10 {
			t.Fatalf("seed %d, %d alerts (-room for all +100):\n%s", seed, len(want), diff)
		}
		if s := small.Status(); s.Evicted["c0"] == 0 || s.Evicted["c1"] == 0 || len(large.Status().Evicted) > 0 {
			t.Fatalf("seed %d: %+v", seed, s)
		}
	}
}

// TestIdleGroupsMakeRoom: what no window reaches any more is no loss.
func TestIdleGroupsMakeRoom(t *testing.T) {
	engine := NewEngine(byIP(t, "  type: event_count\n  timespan: 1m\n  condition: {gte: 40}\n"), Config{MaxGroups: 100})
	for i := range 5000 {
		e := scannertest.Event(t, scannertest.Start.Add(time.Duration(i)*30*time.Second), i, map[string]any{"type": "hit", "ip": fmt.Sprint(i)})
		engine.Observe(&e)
	}
	if s := engine.Status(); len(s.Evicted) > 0 || s.Groups > 60 {
		t.Errorf("%+v", s)
	}
}

// TestForgettingIsTold: people hear of it once, and when it is over.
func TestForgettingIsTold(t *testing.T) {
	set := scannertest.Builtin(t).Select(func(r *rules.Rule) bool { return r.Name == "client_secret_failures" || r.Name == "groups_forgotten" })
	var events []schema.Event
	at := scannertest.Start
	flood := func(n int, every time.Duration) {
		for range n {
			at = at.Add(every)
			i := len(events)
			events = append(events, scannertest.Event(t, at, i, map[string]any{"type": "feccft", "client_id": fmt.Sprintf("app%d", i)}))
		}
	}
	flood(3000, 100*time.Millisecond)
	at = at.Add(time.Hour)
	events = append(events, scannertest.Event(t, at, len(events), map[string]any{"type": "s"}))
	flood(3000, 100*time.Millisecond)
	run := func() (list []schema.Alert) {
		for _, a := range scannertest.Scan(NewEngine(set, Config{MaxGroups: 500}), events) {
			if scannertest.RuleOf(set, a.RuleID).Name == "groups_forgotten" {
				list = append(list, a)
			}
		}
		return list
	}
	got := run()
	var told []string
	for _, a := range got {
		title := a.Group[1].Value
		if a.Tenant != "acme" || a.Level != "medium" || scannertest.RuleOf(set, a.Group[0].Value).Title != title || a.State == schema.StateFiring && !strings.Contains(a.Summary, title) {
			t.Errorf("%+v", a)
		}
		told = append(told, string(a.State))
	}
	if diff := cmp.Diff([]string{"firing", "resolved", "firing"}, told); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
	if quiet := got[1].ResolvedAt.Sub(scannertest.Start.Add(300 * time.Second)); quiet < 14*time.Minute || quiet > 15*time.Minute {
		t.Errorf("resolved %s after the flood", quiet)
	}
	if diff := cmp.Diff(got, run()); diff != "" {
		t.Errorf("another run says (-first +second):\n%s", diff)
	}
}

// TestGroupsFitMemory gives an engine 100,000 groups of one to four events each.
func TestGroupsFitMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	set := byIP(t, "  type: event_count\n  timespan: 2h\n  condition: {gte: 50}\n", "  type: value_count\n  timespan: 2h\n  condition: {field: user_id, gte: 50}\n")
	engine := NewEngine(set, Config{})
	before := heap()
	n := 0
	for i := range 50_000 { // two groups each
		for range 1 + i%4 {
			at := scannertest.Start.Add(time.Duration(n) * 20 * time.Millisecond)
			e := schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: at, LogID: fmt.Sprintf("900%053d", n), Date: at,
				Raw: fmt.Appendf(nil, `{"type":"hit","ip":"2001:db8:85a3::8a2e:370:%d","user_id":"auth0|%024d"}`, i, n)}
			engine.Observe(&e)
			n++
		}
	}
	used := (heap() - before) >> 20
	s := engine.Status()
	t.Logf("%d groups with %d occurrences take %d MB", s.Groups, 2*n, used)
	if s.Groups != 100_000 || len(s.Evicted) > 0 || used >= 100 {
		t.Errorf("%+v", s)
	}
	runtime.KeepAlive(engine)
}
