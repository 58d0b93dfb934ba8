package auth0sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// busy is a tenant that has all kinds of events around its anchor.
func busy(t testing.TB, shapes Shapes) (*Tenant, *fakeClock) {
	clock := newClock(noon().Add(20 * time.Second))
	sim := newTenant(t, Config{Now: clock.Now, Anchor: noon(), Seed: 11, HistoryEvents: 700, HistorySpan: time.Hour,
		LiveRate: 40, Shapes: shapes, Attacks: []Attack{
			{Kind: AttackStuffing, At: -30 * time.Minute},
			{Kind: AttackBruteForce, At: 2 * time.Second, Over: 5 * time.Second},
			{Kind: AttackSignups, At: 15 * time.Second, Over: 10 * time.Second},
		}})
	for i := range 30 {
		sim.Inject(func(id string, now time.Time) []byte {
			return fmt.Appendf(nil, `{"log_id":%q,"type":"injected","ip":"10.0.0.%d"}`, id, i)
		})
		clock.advance(50 * time.Millisecond)
	}
	return sim, clock
}

func TestCheckpointPaging(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	sim, _ := busy(t, ShapesMixed)
	s := login(t, sim)
	all := sim.IDs()
	if len(all) != sim.Total() || !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Fatalf("%d ids with total %d are not in order or not unique", len(all), sim.Total())
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 15 {
		// From an event, from between two, or from before or after all.
		from, start := "", 0
		switch n := r.IntN(len(all)); r.IntN(5) {
		case 0:
			from = "90019700101000000" + strings.Repeat("0", 39)
		case 1:
			from, start = "900"+"99991231235959"+strings.Repeat("0", 39), len(all)
		case 2: // a synthetic id: the second the event lies in
			from = all[n][:17] + strings.Repeat("0", 39)
			start, _ = slices.BinarySearch(all, from)
		default:
			from, start = all[n], n+1
		}
		var got []string
		checkpoint := from
		for {
			take := 1 + r.IntN(100)
			w := s.get(fmt.Sprintf("/api/v2/logs?from=%s&take=%d&q=ignored:x&include_totals=true", checkpoint, take))
			if w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			var events []json.RawMessage
			decode(t, w, &events)
			if len(events) > take {
				t.Fatalf("%d events, asked for %d", len(events), take)
			}
			for _, e := range events {
				got = append(got, logID(t, e))
			}
			if len(events) > 0 {
				checkpoint = got[len(got)-1]
			}
			link := fmt.Sprintf(`<http://example.com/api/v2/logs?from=%s&take=%d>; rel="next"`, checkpoint, take)
			if w.Header().Get("Link") != link {
				t.Fatalf("Link is %s, want %s", w.Header().Get("Link"), link)
			}
			if len(events) < take {
				break
			}
		}
		if !slices.Equal(got, all[start:]) {
			t.Fatalf("from %s: got %d events, want %d", from, len(got), len(all)-start)
		}
	}
}

func TestSameConfigSameBytes(t *testing.T) {
	for _, shapes := range []Shapes{ShapesMixed, ShapesClean} {
		a, _ := busy(t, shapes)
		b, _ := busy(t, shapes)
		ids := a.IDs()
		if !slices.Equal(ids, b.IDs()) {
			t.Fatal("the ids differ")
		}
		for _, id := range ids {
			x, _ := a.Event(id)
			y, _ := b.Event(id)
			if !bytes.Equal(x, y) {
				t.Fatalf("%s\n%s", x, y)
			}
		}
	}
}

func TestPagesAreEvents(t *testing.T) {
	sim, _ := busy(t, ShapesMixed)
	s := login(t, sim)
	from := ""
	served := 0
	for _, e := range s.page("/api/v2/logs?take=100") {
		id := logID(t, e)
		want, ok := sim.Event(id)
		if !ok || !bytes.Equal(e, want) {
			t.Fatalf("the page has %s, Event has %s", e, want)
		}
		if one := s.get("/api/v2/logs/" + id); one.Code != http.StatusOK || !bytes.Equal(one.Body.Bytes(), want) {
			t.Fatalf("GET by id: %d %s", one.Code, one.Body)
		}
		served += 2
		from = id
	}
	if from == "" {
		t.Fatal("no events")
	}
	st := sim.Stats()
	if st.Events != int64(served) || st.Calls[Call{"GET /api/v2/logs", 200}] != 1 || st.Calls[Call{"GET /api/v2/logs/{id}", 200}] != 100 {
		t.Errorf("Stats is %+v", st)
	}
}

func TestDatesLagBehindIDs(t *testing.T) {
	sim := newTenant(t, Config{HistoryEvents: 2000, HistorySpan: time.Hour, Shapes: ShapesClean})
	var before time.Time
	backwards, shared := 0, 0
	var last pos
	for _, id := range sim.IDs() {
		raw, _ := sim.Event(id)
		var e struct{ Date time.Time }
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		p, _ := parseID(id)
		if lag := time.UnixMicro(p.us).Sub(e.Date); lag < 0 || lag > 2*time.Second+time.Millisecond {
			t.Errorf("lag is %v", lag)
		}
		if e.Date.Before(before) {
			backwards++
		}
		if p.us == last.us {
			shared++
		}
		before, last = e.Date, p
	}
	if backwards < 100 || shared < 100 {
		t.Errorf("%d dates go back and %d events share their time; want many of both", backwards, shared)
	}
}

func TestLateArrivals(t *testing.T) {
	clock := newClock(noon().Add(30 * time.Second))
	cfg := Config{Now: clock.Now, Anchor: noon(), LiveRate: 100, LateShare: 0.05, LateBy: 10 * time.Second}
	sim := newTenant(t, cfg)
	seen := sim.IDs()
	if sim.Total() != len(seen) {
		t.Errorf("Total is %d for %d ids", sim.Total(), len(seen))
	}
	clock.advance(20 * time.Second)
	all := sim.IDs()
	end, _ := slices.BinarySearch(all, seen[len(seen)-1])
	late := end + 1 - len(seen)
	if late < 20 || late > 100 {
		t.Errorf("%d events arrived below the newest id, want about 50", late)
	}
	for _, id := range seen {
		if _, ok := slices.BinarySearch(all, id); !ok {
			t.Errorf("%s has vanished", id)
		}
	}
	// The newest are still incomplete; what is older than LateBy is not.
	cfg.LateShare = 0
	settled := pos{us: micros(clock.Now().Add(-cfg.LateBy))}.id()
	punctual := newTenant(t, cfg).IDs()
	n, _ := slices.BinarySearch(punctual, settled)
	m, _ := slices.BinarySearch(all, settled)
	if !slices.Equal(punctual[:n], all[:m]) {
		t.Error("late events never arrive, or change")
	}
}

func TestRetention(t *testing.T) {
	clock := newClock(noon())
	sim := newTenant(t, Config{Now: clock.Now, HistoryEvents: 1000, HistorySpan: 10 * time.Hour, Retention: 5 * time.Hour,
		RefuseSyntheticFrom: true})
	s := login(t, sim)
	all := sim.IDs()
	if len(all) < 490 || len(all) > 510 {
		t.Errorf("%d events in half of the span, want about 500", len(all))
	}
	clock.advance(time.Hour)
	if _, ok := sim.Event(all[0]); ok {
		t.Error("an event is there past its retention")
	}
	if w := s.get("/api/v2/logs/" + all[0]); w.Code != http.StatusNotFound {
		t.Errorf("status is %d", w.Code)
	}
	// An expired checkpoint is still one that was given out: a silent gap.
	events := s.page("/api/v2/logs?take=1&from=" + all[0])
	if rest := sim.IDs(); len(events) != 1 || logID(t, events[0]) != rest[0] || len(rest) > len(all)-90 {
		t.Errorf("after the gap comes %s, want %s", events, rest[0])
	}
	w := s.get("/api/v2/logs?from=90020260301100000" + strings.Repeat("0", 39))
	wantFailure(t, w, 400, "invalid_query_string", "No log event")
}

func TestEmptyPage(t *testing.T) {
	sim := newTenant(t, Config{})
	s := login(t, sim) // writes seccft
	from := sim.IDs()[0]
	w := s.get("/api/v2/logs?from=" + from + "&take=7")
	if w.Code != 200 || w.Body.String() != "[]" || w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%d %s %s", w.Code, w.Header(), w.Body)
	}
	if got, want := w.Header().Get("Link"), "<http://example.com/api/v2/logs?from="+from+`&take=7>; rel="next"`; got != want {
		t.Errorf("Link is %s, want the same page again", got)
	}
}

func TestLogFailures(t *testing.T) {
	sim, _ := busy(t, ShapesMixed)
	s := login(t, sim)
	for _, c := range []struct {
		target  string
		status  int
		code    string
		message string
	}{
		{"/api/v2/logs?from=abc", 400, "invalid_query_string", "on property from"},
		{"/api/v2/logs?from=", 400, "invalid_query_string", "on property from"},
		{"/api/v2/logs?take=0", 400, "invalid_query_string", "less than minimum 1"},
		{"/api/v2/logs?take=101", 400, "invalid_query_string", "greater than maximum 100"},
		{"/api/v2/logs?take=ten", 400, "invalid_query_string", "type integer"},
		{"/api/v2/logs?per_page=101", 400, "invalid_query_string", "greater than maximum 100"},
		{"/api/v2/logs?per_page=100&page=10", 400, "invalid_paging", "Requesting page 11 exceeds the allowed maximum of 1000 records"},
		{"/api/v2/logs?sort=ip:1", 400, "invalid_query_string", "on property sort"},
		{"/api/v2/logs?q=color:red", 400, "invalid_query_string", "unknown field"},
		{"/api/v2/logs?q=(type:fp", 400, "invalid_query_string", "never closed"},
		{"/api/v2/logs/" + pos{1, 1}.id(), 404, "", "Log not found."},
		{"/api/v2/logs/x", 404, "", "Log not found."},
		{"/api/v2/clients", 404, "", "Not Found"},
	} {
		t.Run(c.target, func(t *testing.T) {
			wantFailure(t, s.get(c.target), c.status, c.code, c.message)
		})
	}
}

func TestSearch(t *testing.T) {
	sim, _ := busy(t, ShapesClean)
	s := login(t, sim)
	all := sim.IDs()
	slices.Reverse(all)
	var got []string
	for page := range 10 {
		for _, e := range s.page(fmt.Sprintf("/api/v2/logs?per_page=100&page=%d", page)) {
			got = append(got, logID(t, e))
		}
	}
	if !slices.Equal(got, all[:1000]) {
		t.Errorf("search without q is not the newest 1,000 ids downwards: %d", len(got))
	}
	if n := len(s.page("/api/v2/logs")); n != 50 {
		t.Errorf("a page has %d events, want 50", n)
	}

	for _, sort := range []string{"date:1", "date:-1"} {
		var dates []string
		for page := range 3 {
			for _, e := range s.page(fmt.Sprintf("/api/v2/logs?sort=%s&per_page=100&page=%d", sort, page)) {
				var v struct{ Date string }
				if err := json.Unmarshal(e, &v); err != nil {
					t.Fatal(err)
				}
				if v.Date != "" { // injected events have none
					dates = append(dates, v.Date)
				}
			}
		}
		if sort == "date:-1" {
			slices.Reverse(dates)
		}
		if !slices.IsSorted(dates) || len(dates) < 250 {
			t.Errorf("sort=%s is not sorted, or short: %d", sort, len(dates))
		}
	}

	w := s.get("/api/v2/logs?include_totals=true&per_page=3&page=2&fields=type,ip&include_fields=true")
	var totals struct {
		Start, Limit, Length, Total int
		Logs                        []map[string]any
	}
	decode(t, w, &totals)
	if totals.Start != 6 || totals.Limit != 3 || totals.Length != 3 || totals.Total != 3 || len(totals.Logs) != 3 {
		t.Errorf("totals are %+v", totals)
	}
	for _, e := range totals.Logs {
		delete(e, "ip")
		if e["type"] == nil || len(e) != 1 {
			t.Errorf("fields=type,ip gave %v", e)
		}
	}
	for _, e := range s.page("/api/v2/logs?per_page=20&fields=details&include_fields=false") {
		if strings.Contains(string(e), `"details"`) || logID(t, e) == "" {
			t.Errorf("include_fields=false gave %s", e)
		}
	}
}

func TestQuery(t *testing.T) {
	sim, _ := busy(t, ShapesClean)
	s := login(t, sim)
	var events []map[string]any
	for _, id := range sim.IDs() {
		raw, _ := sim.Event(id)
		var e map[string]any
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	text := func(e map[string]any, name string) string { v, _ := e[name].(string); return v }
	middle := text(events[len(events)/2], "log_id")
	for q, want := range map[string]func(map[string]any) bool{
		"type:fp":           func(e map[string]any) bool { return e["type"] == "fp" },
		"type:fp OR fu":     func(e map[string]any) bool { return e["type"] == "fp" || e["type"] == "fu" },
		"type:gd_*":         func(e map[string]any) bool { return strings.HasPrefix(text(e, "type"), "gd_") },
		"NOT type:sertft":   func(e map[string]any) bool { return e["type"] != "sertft" },
		`ip:"203.0.113.1"`:  func(e map[string]any) bool { return e["ip"] == "203.0.113.1" },
		"type:f* AND ip:2*": func(e map[string]any) bool { return text(e, "type")[0] == 'f' && strings.HasPrefix(text(e, "ip"), "2") },
		"(type:fp OR type:fu) AND NOT ip:203.0.113.1": func(e map[string]any) bool {
			return (e["type"] == "fp" || e["type"] == "fu") && e["ip"] != "203.0.113.1"
		},
		"log_id:[" + middle + " TO *]": func(e map[string]any) bool { return text(e, "log_id") >= middle },
		"log_id:{" + middle + " TO *]": func(e map[string]any) bool { return text(e, "log_id") > middle },
		"date:[2026-03-01T11:30 TO 2026-03-01T11:31}": func(e map[string]any) bool {
			return text(e, "date") >= "2026-03-01T11:30" && text(e, "date") < "2026-03-01T11:31"
		},
		"date:2026-03-01T12:00:1*": func(e map[string]any) bool { return strings.HasPrefix(text(e, "date"), "2026-03-01T12:00:1") },
	} {
		t.Run(q, func(t *testing.T) {
			var ids []string
			for page := range 2 {
				found := s.page(fmt.Sprintf("/api/v2/logs?sort=log_id:1&per_page=100&page=%d&q=%s", page,
					strings.NewReplacer(" ", "+", `"`, "%22").Replace(q)))
				for _, e := range found {
					ids = append(ids, logID(t, e))
				}
				if len(found) < 100 {
					break
				}
			}
			var expected []string
			for _, e := range events {
				if want(e) && len(expected) < 200 {
					expected = append(expected, text(e, "log_id"))
				}
			}
			if !slices.Equal(ids, expected) || len(ids) == 0 {
				t.Errorf("found %d events, want %d", len(ids), len(expected))
			}
		})
	}
}

func TestInjectHostileBytes(t *testing.T) {
	sim := newTenant(t, Config{})
	s := login(t, sim)
	huge := bytes.Repeat([]byte("x"), 2<<20)
	for _, raw := range [][]byte{[]byte(`42`), []byte(`{"a":1,"a":2}`), []byte(`{`), {}, append(append([]byte(`"`), huge...), '"')} {
		before := sim.IDs()
		id := sim.Inject(func(string, time.Time) []byte { return raw })
		if ids := sim.IDs(); ids[len(ids)-1] != id || len(ids) != len(before)+1 {
			t.Fatalf("%s is not the newest of %d", id, len(ids))
		}
		w := s.get("/api/v2/logs?from=" + before[len(before)-1])
		if want := "[" + string(raw) + "]"; w.Body.String() != want {
			t.Errorf("the page is not the event of %d bytes", len(raw))
		}
		if !strings.Contains(w.Header().Get("Link"), id) {
			t.Errorf("Link is %s", w.Header().Get("Link"))
		}
	}
}

// TestPageBorders pages while the log grows, and must miss nothing.
func TestPageBorders(t *testing.T) {
	sim, clock := busy(t, ShapesMixed)
	s := login(t, sim)
	r := rand.New(rand.NewPCG(3, 4))
	from := pos{}.id()
	var got []string
	for range 400 {
		for _, e := range s.page(fmt.Sprintf("/api/v2/logs?from=%s&take=%d", from, 1+r.IntN(40))) {
			from = logID(t, e)
			got = append(got, from)
		}
		if r.IntN(3) == 0 {
			sim.Inject(func(id string, _ time.Time) []byte { return fmt.Appendf(nil, `{"log_id":%q}`, id) })
		}
		clock.advance(time.Duration(r.IntN(200)) * time.Millisecond)
	}
	all := sim.IDs()
	if len(got) < 1000 || !slices.Equal(got, all[:len(got)]) {
		t.Errorf("read %d of %d events, or others", len(got), len(all))
	}
}

func BenchmarkPages(b *testing.B) {
	sim := newTenant(b, Config{HistoryEvents: 10_000_000, HistorySpan: 24 * time.Hour, Attacks: []Attack{
		{Kind: AttackStuffing, At: -12 * time.Hour, Times: 100, Every: time.Minute}}})
	v := sim.view()
	var raw []byte
	events := 0
	s := v.all()
	b.ReportAllocs()
	for b.Loop() {
		if s.count() < 100 {
			s = v.all()
		}
		var n int
		raw, n, _ = v.appendPage(raw[:0], &s, 100)
		events += n
		b.SetBytes(int64(len(raw)))
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkRequests is the same through the handler, token check included.
func BenchmarkRequests(b *testing.B) {
	sim := newTenant(b, Config{HistoryEvents: 10_000_000, HistorySpan: 24 * time.Hour})
	s := login(b, sim)
	from := pos{}.id()
	b.ReportAllocs()
	events := 0
	for b.Loop() {
		w := s.get("/api/v2/logs?take=100&from=" + from)
		_, rest, ok := strings.Cut(w.Header().Get("Link"), "from=")
		if !ok {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
		from = rest[:idLength]
		events += 100
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
