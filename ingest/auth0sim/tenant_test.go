package auth0sim

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAnswersAreInTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	for _, shapes := range []Shapes{ShapesMixed, ShapesClean} {
		clock := newClock(noon().Add(4 * time.Hour))
		var attacks []Attack
		for kind := range scripts() {
			attacks = append(attacks, Attack{Kind: kind, At: -3 * time.Hour, Every: time.Hour, Times: 5})
		}
		slices.SortFunc(attacks, func(a, b Attack) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
		sim := newTenant(t, Config{Now: clock.Now, HistoryEvents: 1500, HistorySpan: 4 * time.Hour, Shapes: shapes, Attacks: attacks})
		answers := sim.Answers()
		if len(answers) != 5*len(scripts()) {
			t.Fatalf("%d answers", len(answers))
		}
		ids := sim.IDs()
		for _, a := range answers {
			from, _ := slices.BinarySearch(ids, a.FirstID)
			to, found := slices.BinarySearch(ids, a.LastID)
			if !found || ids[from] != a.FirstID {
				t.Fatalf("%s: the first or last event is not in the log", a.Kind)
			}
			n := 0
			var types []string
			for _, id := range ids[from : to+1] {
				raw, _ := sim.Event(id)
				var e map[string]any
				if err := json.Unmarshal(raw, &e); err != nil {
					t.Fatal(err)
				}
				date, _ := e["date"].(string)
				at, err := time.Parse(time.RFC3339, date)
				if a.GroupBy == "" || err != nil {
					continue
				}
				if member(e, a.GroupBy) != a.Group || !slices.Contains(a.Types, e["type"].(string)) {
					continue
				}
				n++
				if !slices.Contains(types, e["type"].(string)) {
					types = append(types, e["type"].(string))
				}
				if at.Before(a.Start) || at.After(a.End) {
					t.Errorf("%s: an event of %v is outside of %v to %v", a.Kind, at, a.Start, a.End)
				}
			}
			slices.Sort(types)
			if a.GroupBy != "" && (n != a.Events || !slices.Equal(types, a.Types)) {
				t.Errorf("%s of %s: %d events %v in the log, want %d %v", a.Kind, a.Group, n, types, a.Events, a.Types)
			}
		}
	}
}

// member is the text at a path such as details.limit.bucket.
func member(e map[string]any, path string) string {
	name, rest, deeper := strings.Cut(path, ".")
	if deeper {
		inner, _ := e[name].(map[string]any)
		return member(inner, rest)
	}
	s, _ := e[name].(string)
	return s
}

func TestDemoScripts(t *testing.T) {
	sim := newTenant(t, Config{Attacks: DemoAttacks(), ProbeOutages: DemoOutages()})
	early := make(map[string]bool)
	for _, a := range sim.Answers() {
		if a.Start.Before(noon().Add(25 * time.Second)) {
			early[a.Family] = true
		}
	}
	for _, f := range []string{FamilyRateLimit, FamilyAuthentication, FamilyManagementAPI} {
		if !early[f] {
			t.Errorf("no attack of family %s in the first 25 s", f)
		}
	}
}

func TestLimit(t *testing.T) {
	clock := newClock(noon())
	sim := newTenant(t, Config{Now: clock.Now, Limit: Limit{Burst: 10, PerSecond: 100.0 / 60, RetryAfter: true}})
	s := login(t, sim)
	want := func(w *httptest.ResponseRecorder, status, remaining int, reset int64) {
		t.Helper()
		h := w.Header()
		if w.Code != status || h.Get("X-RateLimit-Limit") != "10" || h.Get("X-RateLimit-Remaining") != strconv.Itoa(remaining) ||
			h.Get("X-RateLimit-Reset") != strconv.FormatInt(noon().Unix()+reset, 10) {
			t.Errorf("%d %v, want %d with %d remaining until +%d", w.Code, h, status, remaining, reset)
		}
	}
	for i := range 10 {
		want(s.get("/api/v2/logs?take=1"), 200, 9-i, 1)
	}
	w := s.get("/api/v2/logs?take=1")
	want(w, 429, 0, 1)
	const body = `{"statusCode":429,"error":"Too Many Requests","message":"Global limit has been reached","errorCode":"too_many_requests"}`
	if w.Body.String() != body || w.Header().Get("Retry-After") != "1" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	if e := lastEvent(t, sim); e["type"] != "api_limit" || member(e, "details.limit.bucket") != managementBucket {
		t.Errorf("event is %v", e)
	}
	// A token comes every 0.6 s. Without one, even who has no token is told 429.
	want(get(sim, "/api/v2/logs", ""), 429, 0, 1)
	clock.advance(600 * time.Millisecond)
	want(get(sim, "/api/v2/logs", ""), 401, 0, 2)
	want(s.get("/api/v2/other"), 429, 0, 2)
	if n := sim.Total(); n != 2 {
		t.Errorf("%d events, want seccft and one api_limit", n)
	}
	clock.advance(time.Minute)
	for range 12 {
		w = s.get("/api/v2/logs?take=1")
	}
	if w.Code != 429 || sim.Total() != 3 {
		t.Errorf("%d with %d events, want one more api_limit after a minute", w.Code, sim.Total())
	}
	if w := get(sim, "/test", ""); w.Code != 200 || w.Header().Get("X-RateLimit-Limit") != "" {
		t.Errorf("the limit is not of the Management API only: %d %v", w.Code, w.Header())
	}
}

// TestLimitWindow shows a fixed window: nothing comes back before its end, and
// then all of it.
func TestLimitWindow(t *testing.T) {
	clock := newClock(noon())
	clock.advance(20 * time.Second)
	sim := newTenant(t, Config{Now: clock.Now, Limit: Limit{Burst: 3, Window: time.Minute}})
	s := login(t, sim)
	for _, want := range []struct {
		after             time.Duration
		status, remaining int
		reset             int64 // since noon
	}{
		{0, 200, 2, 60}, {10 * time.Second, 200, 1, 60}, {20 * time.Second, 200, 0, 60}, {9 * time.Second, 429, 0, 60},
		{time.Second, 200, 2, 120}, {2 * time.Minute, 200, 2, 240},
	} {
		clock.advance(want.after)
		w := s.get("/api/v2/logs?take=1")
		h := w.Header()
		if w.Code != want.status || h.Get("X-RateLimit-Remaining") != strconv.Itoa(want.remaining) ||
			h.Get("X-RateLimit-Reset") != strconv.FormatInt(noon().Unix()+want.reset, 10) {
			t.Errorf("%d %v, want %+v", w.Code, h, want)
		}
	}
}

func TestFaults(t *testing.T) {
	sim := newTenant(t, Config{HistoryEvents: 10, TokenLifetime: time.Hour})
	server := httptest.NewServer(sim)
	defer server.Close()
	s := login(t, sim)
	call := func(path string) (status int, body string, err error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		// The token is for another host; the domain counts, too.
		r.Header.Set("Authorization", "Bearer "+s.token)
		r.Close = true
		resp, err := server.Client().Do(r)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	const logs = "/api/v2/logs?take=5&from=90020000101000000000000000000000000000000000000000000000"
	status, right, err := call(logs)
	if err != nil || status != 200 || !json.Valid([]byte(right)) {
		t.Fatal(status, right, err)
	}

	for _, status := range []int{401, 403, 404, 429, 500, 502, 503} {
		sim.Fail(Fault{Path: "/api/v2", Status: status, Times: 2, RetryAfter: 3})
		for range 2 {
			got, body, err := call(logs)
			if err != nil || got != status || !strings.Contains(body, fmt.Sprintf(`"statusCode":%d`, status)) {
				t.Errorf("want %d: %d %s %v", status, got, body, err)
			}
		}
		if got, body, _ := call(logs); got != 200 || body != right {
			t.Errorf("after two faults: %d %s", got, body)
		}
	}

	sim.Fail(Fault{Kind: FaultHTML, Status: 502, Path: "/api/v2"})
	if got, body, _ := call(logs); got != 502 || !strings.HasPrefix(body, "<html>") {
		t.Errorf("%d %s", got, body)
	}
	if got, body, _ := call("/test"); got != 200 {
		t.Errorf("the fault is not of this path: %d %s", got, body)
	}
	sim.Clear()

	sim.Fail(Fault{Kind: FaultCut, Path: "/api/v2", Times: 1})
	if got, body, err := call(logs); got != 200 || !errors.Is(err, io.ErrUnexpectedEOF) || body != right[:len(right)/2] {
		t.Errorf("%d %d bytes %v", got, len(body), err)
	}
	sim.Fail(Fault{Kind: FaultNothing, Times: 1})
	if got, _, err := call(logs); err == nil {
		t.Errorf("an answer came: %d", got)
	}
	sim.Fail(Fault{Kind: FaultGarbage, Times: 1})
	if got, body, err := call(logs); got != 200 || json.Valid([]byte(body)) || err != nil {
		t.Errorf("%d %s %v", got, body, err)
	}
	sim.Fail(Fault{Kind: FaultContent, Times: 1})
	if got, body, err := call(logs); got != 200 || !json.Valid([]byte(body)) || body[0] == '[' || err != nil {
		t.Errorf("%d %s %v", got, body, err)
	}
	if got, body, err := call(logs); got != 200 || body != right || err != nil {
		t.Errorf("%d %s %v", got, body, err)
	}
	if n := sim.Stats().Calls[Call{"GET /api/v2/logs", 0}]; n != 2 {
		t.Errorf("%d calls without a whole answer, want 2", n)
	}

	sim.Fail(Fault{Path: "/oauth", Status: 429})
	wantFailure(t, postForm(sim, "/oauth/token", machineForm()), 429, "too_many_requests", "Rate limit exceeded.")
}

func TestFaultHang(t *testing.T) {
	sim := newTenant(t, Config{})
	sim.Fail(Fault{Kind: FaultHang})
	ctx, cancel := context.WithCancel(context.Background())
	r := httptest.NewRequestWithContext(ctx, "POST", "/oauth/token", strings.NewReader(machineForm().Encode()))
	gone := make(chan any)
	go func() {
		defer func() { gone <- recover() }()
		sim.ServeHTTP(httptest.NewRecorder(), r)
	}()
	select {
	case <-gone:
		t.Fatal("an answer came")
	default:
	}
	cancel()
	if err, _ := (<-gone).(error); !errors.Is(err, http.ErrAbortHandler) {
		t.Errorf("the handler ended with %v", err)
	}
	if n := sim.Stats().Calls[Call{"POST /oauth/token", 0}]; n != 1 {
		t.Errorf("%d calls without an answer, want 1", n)
	}
}

func TestHealth(t *testing.T) {
	clock := newClock(noon())
	sim := newTenant(t, Config{Now: clock.Now, Incidents: []Incident{
		{From: -time.Hour, To: time.Hour, Title: "Logins <slow>", Description: "Some logins take long.", Impact: "major"},
		{From: time.Minute, Title: "Logs late", Description: "Logs come late."},
	}})
	if w := get(sim, "/test", ""); w.Body.String() != fmt.Sprintf(`{"clock":%d}`, noon().UnixMilli()) ||
		w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("/test: %v %s", w.Header(), w.Body)
	}
	if w := get(sim, "/testall", ""); w.Body.String() != "OK" || w.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("/testall: %v %s", w.Header(), w.Body)
	}

	if w := get(sim, "/api/rss", ""); w.Code != 400 || w.Body.String() != "Domain is required." {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	feed := func(domain string) rssFeed {
		t.Helper()
		w := get(sim, "/api/rss?domain="+domain, "")
		var f rssFeed
		if err := xml.Unmarshal(w.Body.Bytes(), &f); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/rss+xml" {
			t.Fatalf("%v: %d %v %s", err, w.Code, w.Header(), w.Body)
		}
		return f
	}
	f := feed("demo.eu.auth0.com")
	if f.Channel.Title != "Auth0 Status - demo.eu.auth0.com" || len(f.Channel.Items) != 1 ||
		f.Channel.Items[0].Title != "Logins <slow>" || f.Channel.Items[0].Category != "major" {
		t.Errorf("feed is %+v", f)
	}
	if f := feed("other.us.auth0.com"); len(f.Channel.Items) != 0 {
		t.Errorf("another tenant's feed is %+v", f)
	}
	clock.advance(2 * time.Hour)
	f = feed("demo.eu.auth0.com")
	if len(f.Channel.Items) != 2 || f.Channel.Items[0].Title != "Logs late" || f.Channel.Items[0].Category != "minor" ||
		!strings.HasPrefix(f.Channel.Items[1].Description, "Resolved") ||
		f.Channel.Items[1].PubDate != noon().Add(time.Hour).Format(time.RFC1123Z) {
		t.Errorf("feed is %+v", f)
	}
	w := get(sim, "/feed?domain=demo.eu.auth0.com", "")
	var a atomFeed
	if err := xml.Unmarshal(w.Body.Bytes(), &a); err != nil || len(a.Entries) != 2 || a.Entries[1].Title != "Logins <slow>" {
		t.Errorf("%v: %s", err, w.Body)
	}
}

// TestConcurrentUse is for the race detector. It also reads the log to its end
// while others write, and must find every event once.
func TestConcurrentUse(t *testing.T) {
	sim := newTenant(t, Config{Now: time.Now, Anchor: time.Now(), LiveRate: 2000})
	s := login(t, sim)
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 100 {
				sim.Inject(func(id string, _ time.Time) []byte { return fmt.Appendf(nil, `{"log_id":%q}`, id) })
				postForm(sim, "/oauth/token", with(machineForm(), "client_secret", "no"))
				sim.Total()
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	var got []string
	from := pos{}.id()
	for writing := true; writing; {
		select {
		case <-done:
			writing = false
		default:
		}
		for _, e := range s.page("/api/v2/logs?take=100&from=" + from) {
			from = logID(t, e)
			got = append(got, from)
		}
	}
	if all := sim.IDs(); len(got) > len(all) || !slices.Equal(got, all[:len(got)]) {
		t.Errorf("read %d of %d events, or others", len(got), len(all))
	}
	sim.Stats()
}
