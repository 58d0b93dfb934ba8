package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// stoppable is a clock that can be stopped, so that a tenant comes to rest and
// what it has told can be compared with what was kept.
type stoppable struct {
	mu   sync.Mutex // guards the others
	at   time.Time
	late time.Duration // how long it has stood in all
}

func (s *stoppable) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() {
		return time.Now().Add(-s.late)
	}
	return s.at
}

func (s *stoppable) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Now().Add(-s.late)
}

// resume makes the clock continue where it stood.
func (s *stoppable) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late += time.Since(s.at.Add(s.late))
	s.at = time.Time{}
}

// unprobed is the settings that reach a tenant, without those of the probe: each
// of its logins would add to the log.
func unprobed(s *sim) []string {
	return slices.DeleteFunc(s.environ(), func(line string) bool { return strings.HasPrefix(line, "PROBE_") })
}

// compare waits until all that the tenant, whose clock stands, has is kept, then looks for what is
// missing, double, foreign or changed.
func compare(t *testing.T, environ []string, tenant *auth0sim.Tenant) {
	t.Helper()
	// Getting a token makes an event too: from the second page on there is one.
	pages := func() int { return tenant.Stats().Calls[auth0sim.Call{Endpoint: "GET /api/v2/logs", Status: 200}] }
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for want, deadline := pages()+2, time.Now().Add(patience); pages() < want; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("nobody pulls")
		}
	}
	name := schema.Literal(tenant.Config().Name)
	theirs := " FROM events WHERE tenant = " + name + " AND source NOT IN ('probe', 'self')"
	eventually(t, environ, "SELECT uniqExact(log_id)"+theirs, strconv.Itoa(tenant.Total()))
	if n := ask(t, environ, "SELECT count() - uniqExact(log_id) FROM events WHERE tenant = "+name); n[0] != "0" {
		t.Errorf("%s events are there twice", n[0])
	}
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"sql", "--output", "json", "SELECT log_id, raw" + theirs}, &app{stdout: &stdout, stderr: &stderr, environ: environ}); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	var rows []struct {
		LogID string `json:"log_id"`
		Raw   string `json:"raw"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{}
	for _, r := range rows {
		kept[r.LogID] = r.Raw
	}
	wrong := 0
	for _, id := range tenant.IDs() {
		want, ok := tenant.Event(id)
		raw, found := kept[id]
		delete(kept, id)
		switch {
		case !ok || !found:
			t.Errorf("%s is missing", id)
		case !sameJSON(t, want, []byte(raw)):
			t.Errorf("%s was changed:\n%s\n%s", id, want, raw)
		default:
			continue
		}
		if wrong++; wrong > 5 {
			t.FailNow()
		}
	}
	for id := range kept {
		t.Errorf("%s is not the tenant's", id)
	}
}

// sameJSON compares values, and numbers by their digits.
func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	decode := func(b []byte) any {
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return v
	}
	return reflect.DeepEqual(decode(a), decode(b))
}

// TestKilledAnywhere kills the process at ten random moments (four with -short, and a
// third of the events), during start, backfill and tail. Afterwards every event is there, once and unchanged.
func TestKilledAnywhere(t *testing.T) { onEachKafka(t, testKilledAnywhere) }

func testKilledAnywhere(t *testing.T, kafka ...string) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	kills, events := 10, 60_000
	if testing.Short() {
		kills, events = 4, 20_000
	}
	var clock stoppable
	s := serve(t, auth0sim.Config{Seed: seed, Now: clock.now, HistoryEvents: events, LiveRate: 60, LateShare: 0.02, LateBy: 3 * time.Second, Latency: 2 * time.Millisecond})
	environ := settings(t, append(unprobed(s), kafka...)...)
	for range kills {
		p := start(t, environ, "run")
		if r.IntN(4) > 0 { // else in the middle of the start
			p.waitFor("^query: ", 0)
		}
		moment := time.NewTimer(time.Duration(r.IntN(2500)) * time.Millisecond)
		select {
		case <-moment.C:
		case <-p.ended:
			t.Fatalf("it ended by itself: %v", p.err)
		}
		p.kill()
	}
	p := start(t, environ, "run")
	p.waitFor("^query: ", 0)
	clock.stop()
	compare(t, environ, s.tenant)
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestBadInput lets a tenant serve events that break rules. Each is stored or
// kept as a dead letter with its reason; those around it are untouched.
func TestBadInput(t *testing.T) { onEachKafka(t, testBadInput) }

func testBadInput(t *testing.T, kafka ...string) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 500, LiveRate: 50})
	environ := settings(t, append(unprobed(s), kafka...)...)
	p := start(t, environ, "run")
	m, _ := p.waitFor(`^Kafka: +(\S+),`, 0)
	p.waitFor("backfill done", 0)

	head := func(id string, now time.Time) string {
		return `{"log_id":"` + id + `","_id":"` + id + `","date":"` + now.UTC().Format("2006-01-02T15:04:05.000Z") + `"`
	}
	stored := map[string]func(id string, now time.Time) []byte{
		"a name twice": func(id string, now time.Time) []byte { return []byte(head(id, now) + `,"type":"s","type":"f"}`) },
		"a 400-digit number": func(id string, now time.Time) []byte {
			return []byte(head(id, now) + `,"n":` + strings.Repeat("9", 400) + `}`)
		},
		"half a surrogate": func(id string, now time.Time) []byte { return []byte(head(id, now) + `,"user_name":"\ud800"}`) },
		"2 MB of details": func(id string, now time.Time) []byte {
			return []byte(head(id, now) + `,"type":"s","details":{"x":"` + strings.Repeat("y", 2<<20) + `"}}`)
		},
		"a date ten years on": func(id string, now time.Time) []byte { return []byte(head(id, now.AddDate(10, 0, 0)) + `,"type":"s"}`) },
		"a date ten years ago": func(id string, now time.Time) []byte {
			return []byte(head(id, now.AddDate(-10, 0, 0)) + `,"type":"s"}`)
		},
		"no date": func(id string, _ time.Time) []byte { return []byte(`{"log_id":"` + id + `","type":"s"}`) },
		"only an _id": func(id string, now time.Time) []byte {
			return []byte(`{"_id":"` + id + `","date":"2026-01-01T00:00:00.000Z"}`)
		},
		"an id below all others": func(_ string, now time.Time) []byte {
			return []byte(`{"log_id":"5d6e7f","date":"` + now.UTC().Format("2006-01-02T15:04:05.000Z") + `","type":"s"}`)
		},
		"nested deeply": func(id string, now time.Time) []byte {
			return []byte(head(id, now) + `,"type":"s","details":` + strings.Repeat(`{"a":`, 9_990) + "1" + strings.Repeat("}", 9_990) + "}")
		},
		"odd types": func(id string, now time.Time) []byte {
			return []byte(head(id, now) + `,"type":7,"ip":{"a":[]},"details":"text","user_id":null}`)
		},
	}
	dead := map[string]string{ // and the reason
		`"a text"`: "not a JSON object",
		`[1,2]`:    "not a JSON object",
		`null`:     "not a JSON object",
		`42`:       "not a JSON object",
		`{"type":"s","date":"2026-01-01T00:00:00.000Z"}`: "neither log_id nor _id",
		`{"log_id":17}`: "neither log_id nor _id",
	}
	for _, levels := range []int{10_050, 200_000} { // beyond what a JSON parser of ours takes
		for _, brackets := range []string{"[]", "{}"} {
			open := map[string]string{"[]": "[", "{}": `{"a":`}[brackets]
			dead[`{"log_id":"x","type":"s","x":`+strings.Repeat(open, levels)+"1"+strings.Repeat(brackets[1:], levels)+"}"] = "not JSON"
		}
	}
	dead[`{"log_id":"x","details":{"a":[1}}`] = "not JSON" // so that nobody sees where it ends
	dead[`{"log_id":"x","details":"}`] = "not JSON"
	dead[`{"log_id":"x","n":01}`] = "not JSON"
	want := map[string][]byte{}
	for name, make := range stored {
		var raw []byte
		id := s.tenant.Inject(func(id string, now time.Time) []byte { raw = make(id, now); return raw })
		if name == "an id below all others" {
			id = "5d6e7f"
		}
		want[id] = raw
	}
	for raw := range dead {
		s.tenant.Inject(func(string, time.Time) []byte { return []byte(raw) })
	}
	clock.stop()
	total := s.tenant.Total() - len(dead)
	eventually(t, environ, "SELECT count() FROM events WHERE source NOT IN ('probe', 'self')", strconv.Itoa(total))
	for id, raw := range want {
		var stdout, stderr bytes.Buffer
		execute(t.Context(), []string{"sql", "--output", "json", "SELECT raw FROM events WHERE log_id = '" + id + "'"}, &app{stdout: &stdout, stderr: &stderr, environ: environ})
		var rows []struct{ Raw string }
		if err := json.Unmarshal(stdout.Bytes(), &rows); err != nil || len(rows) != 1 {
			t.Errorf("%.80s: %d rows, %v %s", raw, len(rows), err, stderr.String())
		} else if bytes.Count(raw, []byte("{")) > 9_000 {
			if !bytes.Contains([]byte(rows[0].Raw), raw[bytes.Index(raw, []byte(`"details"`)):len(raw)-1]) { // encoding/json does not go as deep
				t.Errorf("%.200s was changed to\n%.200s", raw, rows[0].Raw)
			}
		} else if !bytes.Contains(raw, []byte(`"type":"s","type":"f"`)) && !sameJSON(t, raw, []byte(rows[0].Raw)) {
			t.Errorf("%.200s was changed to\n%.200s", raw, rows[0].Raw)
		}
	}
	letters := func() []string { // by their ids: some are large
		var ids []string
		for _, r := range readAll(t, m[1], topicsOf(environ).DeadLetter) {
			ids = append(ids, r.Header("id"))
		}
		return ids
	}
	waitForLetters(t, letters, func(ids []string) bool { slices.Sort(ids); return len(slices.Compact(ids)) >= len(dead) })
	found := map[string]string{}
	for _, r := range readAll(t, m[1], topicsOf(environ).DeadLetter) {
		found[string(r.Value)] = r.Header("reason")
	}
	for raw, reason := range dead {
		if !strings.Contains(found[raw], reason) {
			t.Errorf("dead letter %.100s: reason %q, want %q", raw, found[raw], reason)
		}
		delete(found, raw)
	}
	for raw := range found {
		t.Errorf("%.200s is a dead letter", raw)
	}

	// They can be tried again, and an audit counts them for kept.
	if code, stdout, stderr := command(t, environ, "deadletter", "retry", "--all"); code != exitOK || !strings.Contains(stdout, fmt.Sprintf("%d dead letters were sent", len(dead))) {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	waitForLetters(t, letters, func(ids []string) bool { return len(ids) >= 3*len(dead) }) // also what was noted of the retry
	if got := runAudit(t, environ, exitOK, "--since", "2d"); int(got.Dead) != len(dead) || got.Missing != 0 {
		t.Errorf("%+v, want %d dead letters", got, len(dead))
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestFaultsOfTheTenant lets calls fail in every way. Each is said once, nothing
// is skipped, and nothing secret is said.
func TestFaultsOfTheTenant(t *testing.T) { onEachKafka(t, testFaultsOfTheTenant) }

func testFaultsOfTheTenant(t *testing.T, kafka ...string) {
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 2000, LiveRate: 40})
	environ := settings(t, append(unprobed(s), kafka...)...)
	p := start(t, environ, "run")
	_, line := p.waitFor("backfill done", 0)
	faults := []auth0sim.Fault{
		{Kind: auth0sim.FaultStatus, Status: 401}, {Kind: auth0sim.FaultStatus, Status: 403}, {Kind: auth0sim.FaultStatus, Status: 404},
		{Kind: auth0sim.FaultStatus, Status: 429}, {Kind: auth0sim.FaultStatus, Status: 429, RetryAfter: 1},
		{Kind: auth0sim.FaultStatus, Status: 500}, {Kind: auth0sim.FaultStatus, Status: 503},
		{Kind: auth0sim.FaultHTML, Status: 502}, {Kind: auth0sim.FaultHTML, Status: 200},
		{Kind: auth0sim.FaultHTML, Status: 400}, {Kind: auth0sim.FaultBody, Query: "from=", Status: 400, Body: `{"message":"no route"}`},
		{Kind: auth0sim.FaultCut}, {Kind: auth0sim.FaultNothing}, {Kind: auth0sim.FaultGarbage}, {Kind: auth0sim.FaultContent},
	}
	for _, f := range faults {
		f.Path = "/api/v2/logs"
		before := line
		s.tenant.Fail(f) // until it is said: the HTTP client repeats some calls by itself
		_, line = p.waitFor("call to the tenant failed", line)
		s.tenant.Clear()
		_, line = p.waitFor("succeed again", line)
		said := 0
		for _, l := range p.lines[before:line] {
			if strings.Contains(l, "call to the tenant failed") {
				said++
			}
		}
		// The answer to an earlier call may make all seem well again for a moment.
		if said < 1 || said > 2 {
			t.Errorf("%+v was said %d times", f, said)
		}
	}
	for _, text := range []string{"tenant rejected a call", "tenant rejects"} {
		if strings.Contains(p.output(), text) {
			t.Errorf("a failure was taken for a refusal: %q", text)
		}
	}
	s.tenant.RevokeTokens()
	s.tenant.Fail(auth0sim.Fault{Kind: auth0sim.FaultStatus, Path: "/oauth/token", Status: 401, Times: 2})
	p.waitFor("succeed again", line)
	clock.stop()
	compare(t, environ, s.tenant)
	if got := ask(t, environ, "SELECT count() > 10 FROM events WHERE type = 'tenantwatch_api_error'"); got[0] != "1" {
		t.Error("our own failed calls are no events")
	}
	for _, secret := range []string{s.tenant.Config().ClientSecret, s.tenant.Config().Password, "eyJ"} {
		if strings.Contains(p.output(), secret) {
			t.Errorf("%q was said", secret)
		}
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestSeveralProcesses splits the roles over processes that share a Kafka and a
// ClickHouse server, and kills one of two writers.
func TestSeveralProcesses(t *testing.T) { onEachKafka(t, testSeveralProcesses) }

func testSeveralProcesses(t *testing.T, kafka ...string) {
	var broker *kafkalocal.Broker // our own, if it is
	if len(kafka) == 0 {
		kafka, broker = ownBroker(t)
	}
	// Supervised as in the program: a client that is killed in the middle of its
	// login can take the embedded engine along.
	server := startEngine(t, io.Discard)
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 20_000, LiveRate: 40, Attacks: auth0sim.DemoAttacks()})
	environ := settings(t, append(append(unprobed(s), "TENANTWATCH_LOG_LEVEL=debug", "CLICKHOUSE_DSN="+server.Access.DSN(chlocal.Owner, "shared")), kafka...)...)
	var writers []*process
	for range 2 {
		writers = append(writers, start(t, environ, "run", "--roles", "write,scan,notify,web"))
	}
	// Kill nobody while groups are formed: the embedded broker can keep a member
	// for ever that dies just then, which matters to no real deployment of it.
	for _, w := range writers {
		for _, group := range []string{"writer", "scanner", "notifier"} {
			w.waitFor(`partitions assigned.*group=\S+\.`+group+` partitions="\[\d \d \d\]"`, 0)
		}
	}
	puller := start(t, environ, "run", "--roles", "pull,probe,web")
	puller.waitFor("backfill done", 0)
	writers[0].kill()
	eventually(t, environ, "SELECT count() > 0 FROM alerts WHERE has(tags, 'tenantwatch.authentication')", "1")
	clock.stop()
	compare(t, environ, s.tenant)
	if code := puller.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	web, _ := writers[1].waitFor(`^web: +(http://\S+)`, 0)
	until(t, web[1]+"/readyz", 200, "scan: ok")
	if broker != nil {
		broker.Close()
		until(t, web[1]+"/readyz", 503, "scan: Kafka does not answer")
	}
	if code := writers[1].interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// until asks a URL until it answers as wanted.
func until(t *testing.T, url string, status int, text string) {
	t.Helper()
	get := func() (int, string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			return 0, "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		code, body, err := get()
		if err != nil {
			t.Fatal(err)
		}
		if code == status && strings.Contains(body, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d %s, want %d %s", url, code, body, status, text)
		}
	}
}

// TestHealth asks the endpoints, before and during an outage of the login.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := serve(t, auth0sim.Config{HistoryEvents: 100, LiveRate: 5})
	environ := settings(t, append(s.environ(), "PROBE_INTERVAL=1s")...)
	p := start(t, environ, "run")
	m, _ := p.waitFor(`^web: +(http://\S+)`, 0)
	until(t, m[1]+"/livez", 200, "OK")
	until(t, m[1]+"/health/auth0", 200, "OK")
	until(t, m[1]+"/readyz", 200, "pull: ok")
	for _, metric := range []string{"tenantwatch_pull_events_total", "tenantwatch_write_rows_total", "tenantwatch_scan_events_total",
		"tenantwatch_probe_runs_total", "tenantwatch_alert_transitions_total", "go_goroutines", "process_resident_memory_bytes"} {
		until(t, m[1]+"/metrics", 200, "\n"+metric)
	}
	s.tenant.SetProbeOutage(true, 503)
	until(t, m[1]+"/health/auth0", 503, "login: ")
	eventually(t, environ, "SELECT state FROM alerts WHERE has(tags, 'tenantwatch.probe')", "firing")
	s.tenant.SetProbeOutage(false, 0)
	until(t, m[1]+"/health/auth0", 200, "OK")
	eventually(t, environ, "SELECT state FROM alerts WHERE has(tags, 'tenantwatch.probe')", "resolved")
	s.tenant.Fail(auth0sim.Fault{Kind: auth0sim.FaultStatus, Path: "/api/v2/logs", Status: 403})
	until(t, m[1]+"/readyz", 503, "403")
	s.tenant.Clear()
	until(t, m[1]+"/readyz", 200, "pull: ok")
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestAnswersOfTheSimulator holds the alerts against what the attacks put into
// the log.
func TestAnswersOfTheSimulator(t *testing.T) {
	t.Parallel()
	var clock stoppable
	clock.stop()
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 1000, LiveRate: 20, Attacks: []auth0sim.Attack{
		{Kind: auth0sim.AttackStuffing, At: 2 * time.Second}, {Kind: auth0sim.AttackRateLimit, At: 2 * time.Second},
		{Kind: auth0sim.AttackManagementErrors, At: 3 * time.Second, Over: 2 * time.Second}, {Kind: auth0sim.AttackBruteForce, At: 3 * time.Second, Over: 2 * time.Second},
		{Kind: auth0sim.AttackSecretGuessing, At: 3 * time.Second, Over: 2 * time.Second}, {Kind: auth0sim.AttackPushBombing, At: 3 * time.Second, Over: 2 * time.Second},
		{Kind: auth0sim.AttackSignups, At: 3 * time.Second, Over: 2 * time.Second}, {Kind: auth0sim.AttackTokenReuse, At: 3 * time.Second, Over: 2 * time.Second},
		{Kind: auth0sim.AttackLeakedPasswords, At: 3 * time.Second, Over: 2 * time.Second},
	}})
	environ := settings(t, s.environ()...)
	p := start(t, environ, "run")

	// What is backfilled does not alert, so the attacks begin once the tail follows the log.
	p.waitFor("backfill finished", 0)
	clock.resume()
	for _, a := range s.tenant.Answers() {
		family := map[string]string{auth0sim.FamilyAbuse: "attack"}[a.Family]
		if family == "" {
			family = a.Family
		}
		group := ""
		if a.GroupBy != "" && a.GroupBy != "user_id" { // a blocked user's alert is about the user and the IP
			group = fmt.Sprintf(" AND group['%s'] = '%s'", a.GroupBy, a.Group)
		}
		if a.Kind == auth0sim.AttackBruteForce || a.Kind == auth0sim.AttackPushBombing {
			family, group = "attack", fmt.Sprintf(" AND group['user_id'] = '%s'", a.Group)
		}
		eventually(t, environ, "SELECT count() > 0 FROM alerts WHERE has(tags, 'tenantwatch."+family+"')"+group, "1")
	}
	// Nothing but the attacks alerts: the background is quiet.
	known := map[string]bool{}
	for _, a := range s.tenant.Answers() {
		known[a.Group] = true
	}
	for _, group := range ask(t, environ, "SELECT arrayJoin(mapValues(group)) FROM alerts WHERE length(group) = 1 AND state = 'firing'") {
		if !known[strings.Trim(group, `"`)] {
			t.Errorf("an alert about %s, who has done nothing", group)
		}
	}
	// The query of an alert lists at least what was counted.
	for _, row := range ask(t, environ, "SELECT count, base64Encode(query) FROM alerts WHERE state = 'firing'") {
		count, encoded, _ := strings.Cut(row, ",")
		query := ask(t, environ, "SELECT replaceAll(base64Decode('"+encoded+"'), '\n', ' ')")
		text := strings.Trim(query[0], `"`)
		text = strings.ReplaceAll(text, `""`, `"`)
		// The alert may be there before the rows are.
		eventually(t, environ, "SELECT count() >= "+count+" FROM ("+text+")", "1")
	}
	if lines := strings.Count(p.output(), " ALERT "); lines == 0 {
		t.Error("no alert on the terminal")
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// readAll reads a topic of a broker.
func readAll(t *testing.T, broker, topic string) []schema.Record {
	t.Helper()
	client := kafka.NewClient(kafka.Config{Brokers: []string{broker}, Log: slog.New(slog.DiscardHandler)})
	defer client.Close()
	var list []schema.Record
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := client.ReadAll(ctx, topic, func(r schema.Record) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return slices.Clip(list)
}

// TestEngineDies kills the embedded ClickHouse under the program, twice, while
// events arrive. It is started again where it was, and nothing is missing.
func TestEngineDies(t *testing.T) { onEachKafka(t, testEngineDies) }

func testEngineDies(t *testing.T, kafka ...string) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 30_000, LiveRate: 80, Latency: time.Millisecond})
	environ := settings(t, append(unprobed(s), kafka...)...)
	p := start(t, environ, "run")
	_, line := p.waitFor("^query: ", 0)
	for range 2 {
		for _, pid := range p.children() {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		_, line = p.waitFor("clickhouse restarted", line)
	}
	p.waitFor("backfill done", 0)
	clock.stop()
	compare(t, environ, s.tenant)
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}
