package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// command runs a command in this process.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	code = execute(ctx, args, &app{stdout: &out, stderr: &errs, environ: environ})
	if ctx.Err() != nil {
		t.Fatalf("%v does not end:\n%s%s", args, out.String(), errs.String())
	}
	return code, out.String(), errs.String()
}

// owner connects to the engine of a data folder as one who may do anything. The
// engine is started, until the function that is returned, where none runs.
func owner(t *testing.T, environ []string) (conn driver.Conn, end func()) {
	t.Helper()
	dir := filepath.Join(value(environ, "TENANTWATCH_DATA_DIR"), engines.ClickHouseDir)
	access, err := chlocal.ReadAccess(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {}
	if chlocal.Ping(t.Context(), access) != nil {
		srv := chlocaltest.Start(t, dir)
		access, stop = srv.Access, func() { _ = srv.Close() }
	}
	if conn, err = schema.Open(t.Context(), access.DSN(chlocal.Owner, chlocal.Database), nil); err != nil {
		t.Fatal(err)
	}
	return conn, func() { conn.Close(); stop() }
}

// remove deletes events behind the program's back, spread over the table but for
// the newest.
func remove(t *testing.T, environ []string, n int) {
	t.Helper()
	conn, end := owner(t, environ)
	defer end()
	rows, err := conn.Query(t.Context(), fmt.Sprintf("SELECT log_id FROM events WHERE source NOT IN ('probe', 'self') AND date < now() - INTERVAL 30 MINUTE ORDER BY cityHash64(log_id) LIMIT %d", n))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, schema.Literal(id))
	}
	if len(ids) != n {
		t.Fatalf("there are only %d events", len(ids))
	}
	if err := conn.Exec(t.Context(), "DELETE FROM events_stored WHERE log_id IN ("+strings.Join(ids, ", ")+")"); err != nil {
		t.Fatal(err)
	}
}

// auditRow is an hour as audit --output json prints it.
type auditRow struct {
	Tenant                            string
	Hour                              time.Time
	Expected, Stored, Missing, Healed uint64
	Dead                              uint64    `json:"dead_letters"`
	From                              time.Time `json:"checked_from"`
	Until                             time.Time `json:"checked_to"`
}

// audit runs the command and adds up its hours, which must each add up.
func runAudit(t *testing.T, environ []string, wantCode int, args ...string) checkpoint.Tally {
	t.Helper()
	code, stdout, stderr := command(t, environ, append([]string{"audit", "--output", "json"}, args...)...)
	if code != wantCode {
		t.Errorf("audit %v: exit %d, want %d:\n%s%s", args, code, wantCode, stdout, stderr)
	}
	var rows []auditRow
	if err := json.Unmarshal([]byte(stdout), &rows); err != nil {
		t.Fatalf("%v:\n%s\n%s", err, stdout, stderr)
	}
	var all checkpoint.Tally
	for _, r := range rows {
		if r.Expected != r.Stored+r.Dead+r.Missing || !r.From.Before(r.Until) || r.From.Before(r.Hour) || r.Until.After(r.Hour.Add(time.Hour)) {
			t.Errorf("an hour does not add up: %+v", r)
		}
		all.Add(&checkpoint.Tally{Expected: r.Expected, Stored: r.Stored, Dead: r.Dead, Missing: r.Missing, Healed: r.Healed})
	}
	if code == exitFound && !strings.Contains(stderr, fmt.Sprintf("%d events are missing: --repair pulls them", all.Missing)) {
		t.Errorf("what is missing is not said:\n%s", stderr)
	}
	return all
}

// TestAudit deletes rows of a running instance, of one that is stopped, and of one
// that is just away: the command finds all of them, --repair heals them, and the
// audits in the background do so by themselves.
func TestAudit(t *testing.T) { onEachKafka(t, testAudit) }

func testAudit(t *testing.T, kafka ...string) {
	s := serve(t, auth0sim.Config{HistoryEvents: 400, HistorySpan: 5 * time.Hour})
	environ := settings(t, append(unprobed(s), kafka...)...)
	p := start(t, environ, "run")
	p.waitFor("backfill finished", 0)
	dead := []string{`"a text"`, `{"type":"s"}`}
	for _, raw := range dead {
		s.tenant.Inject(func(string, time.Time) []byte { return []byte(raw) })
	}
	stored := func() string { return strconv.Itoa(s.tenant.Total() - len(dead)) }
	eventually(t, environ, "SELECT count() FROM events WHERE source NOT IN ('probe', 'self')", stored())
	// The first round in the background would see what we delete too.
	eventually(t, environ, "SELECT count() > 0 FROM coverage", "1")

	all := s.tenant.Total()
	want := func(got checkpoint.Tally, missing, healed int) {
		t.Helper()
		if w := (checkpoint.Tally{Expected: uint64(all), Stored: uint64(all - len(dead) - missing), Dead: uint64(len(dead)), Missing: uint64(missing), Healed: uint64(healed)}); got != w {
			t.Errorf("audit: %+v, want %+v", got, w)
		}
	}
	want(runAudit(t, environ, exitOK, "--since", "6h"), 0, 0)
	remove(t, environ, 7)
	want(runAudit(t, environ, exitFound, "--since", "6h"), 7, 0)
	want(runAudit(t, environ, exitFound, "--since", "6h", "--until", "0s"), 7, 0)
	want(runAudit(t, environ, exitOK, "--since", "6h", "--repair"), 0, 7)
	want(runAudit(t, environ, exitOK, "--since", "6h"), 0, 7)
	if code, stdout, _ := command(t, environ, "audit", "--since", "6h"); code != exitOK || !strings.Contains(stdout, "2 dead letters, 0 missing, 0 healed") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
	eventually(t, environ, "SELECT count() > 0 FROM alerts WHERE title = 'Events were missing in ClickHouse'", "1")

	// Nobody runs: the command does the work itself. Its own login is the next
	// start's affair.
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	stopped := time.Now().Add(-time.Second)
	for _, id := range slices.Backward(s.tenant.IDs()) {
		if id <= schema.SyntheticID(stopped.Add(time.Second)) {
			break
		}
		t.Logf("%s is too new to be looked at", id)
		all--
	}
	until := stopped.UTC().Format(time.RFC3339Nano)
	remove(t, environ, 5)
	want(runAudit(t, environ, exitFound, "--since", "6h", "--until", until), 5, 7)
	want(runAudit(t, environ, exitOK, "--since", "6h", "--until", until, "--repair"), 0, 12)
	want(runAudit(t, environ, exitOK, "--since", "6h", "--until", until), 0, 12)

	// A start begins with a round over everything.
	remove(t, environ, 4)
	p = start(t, environ, "run")
	p.waitFor("^query: ", 0) // a query before that would start an engine of its own
	eventually(t, environ, "SELECT sum(healed), sum(missing) FROM coverage", "16,0")

	// The instance dies while the command waits for it.
	remove(t, environ, 3)
	m, _ := p.waitFor(`^Kafka: +(\S+),`, 0)
	s.tenant.Fail(auth0sim.Fault{Kind: auth0sim.FaultStatus, Path: "/api/v2/logs", Status: 503})
	waiting := start(t, environ, "audit", "--since", "6h", "--repair")
	awaitChain(t, m[1], topicsOf(environ).Checkpoints, "audit/2")
	p.kill()
	s.tenant.Clear()
	p = start(t, environ, "run")
	p.waitFor("^query: ", 0)
	if code := waiting.wait(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	eventually(t, environ, "SELECT count() FROM events WHERE source NOT IN ('probe', 'self')", stored())
	all = s.tenant.Total()
	want(runAudit(t, environ, exitOK, "--since", "6h"), 0, 19)
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// awaitChain waits until a chain is open whose name has a prefix: the last of its
// checkpoints says so, since those of earlier chains stay in the topic as well.
func awaitChain(t *testing.T, broker, topic, prefix string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		open := map[string]bool{}
		for _, r := range readAll(t, broker, topic) {
			c, err := checkpoint.Read(&r)
			open[string(r.Key)] = err == nil && !c.Done && strings.HasPrefix(c.Chain, prefix)
		}
		for _, waits := range open {
			if waits {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no chain %s… is open", prefix)
		}
	}
}

// TestBackfillCommand pulls stretches of the past: beside an instance that is
// killed meanwhile, and alone, killed and taken up again.
func TestBackfillCommand(t *testing.T) { onEachKafka(t, testBackfillCommand) }

func testBackfillCommand(t *testing.T, kafka ...string) {
	s := serve(t, auth0sim.Config{HistoryEvents: 6000, HistorySpan: 6 * time.Hour, Limit: auth0sim.Limit{Burst: 5, PerSecond: 5}})
	environ := settings(t, append(append(unprobed(s), "TENANTWATCH_BACKFILL=none"), kafka...)...)
	p := start(t, environ, "run")
	p.waitFor("this process pulls the tenant", 0)
	now := time.Now()
	stamp := func(ago time.Duration) string { return now.Add(-ago).UTC().Truncate(time.Second).Format(time.RFC3339) }
	kept := func(since, until time.Duration) string {
		return fmt.Sprintf("SELECT uniqExact(log_id), count() FROM events WHERE source = 'backfill' AND log_id BETWEEN '%s' AND '%s'",
			schema.SyntheticID(now.Add(-since)), schema.SyntheticID(now.Add(-until)))
	}
	whole := func(since, until time.Duration) {
		t.Helper()
		first, last := schema.SyntheticID(now.Add(-since)), schema.SyntheticID(now.Add(-until))
		n := 0
		for _, id := range s.tenant.IDs() {
			if id > first && id <= last {
				n++
			}
		}
		if n == 0 {
			t.Fatal("the tenant has nothing there")
		}
		eventually(t, environ, kept(since, until), fmt.Sprintf("%d,%d", n, n))
	}

	waiting := start(t, environ, "backfill", "--since", stamp(6*time.Hour), "--until", stamp(4*time.Hour))
	eventually(t, environ, "SELECT count() > 100 FROM events WHERE source = 'backfill'", "1")
	p.kill()
	p = start(t, environ, "run")
	if code := waiting.wait(); code != exitOK || !strings.Contains(waiting.output(), "backfill done: ") {
		t.Errorf("exit %d", code)
	}
	whole(6*time.Hour, 4*time.Hour)
	if n := ask(t, environ, "SELECT count() FROM events WHERE source = 'backfill' AND log_id > '"+schema.SyntheticID(now.Add(-4*time.Hour))+"'"); n[0] != "0" {
		t.Errorf("%s events were pulled that nobody asked for", n[0])
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}

	alone := start(t, environ, "backfill", "--since", stamp(4*time.Hour), "--until", stamp(2*time.Hour))
	alone.waitFor("this command does the work itself", 0)
	alone.waitFor("this process pulls the tenant", 0)
	eventually(t, environ, "SELECT count() > 100 FROM events WHERE source = 'backfill' AND log_id > '"+schema.SyntheticID(now.Add(-4*time.Hour))+"'", "1")
	alone.kill()
	// The next one takes up what was left, before or after its own.
	if code, _, stderr := command(t, environ, "backfill", "--since", stamp(90*time.Minute), "--until", stamp(time.Hour)); code != exitOK {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
	whole(90*time.Minute, time.Hour)
	p = start(t, environ, "run") // and what it did not come to
	p.waitFor("^query: ", 0)
	whole(4*time.Hour, 2*time.Hour)
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestDeadLetterCommand lists, shows and retries what could not be stored.
func TestDeadLetterCommand(t *testing.T) { onEachKafka(t, testDeadLetterCommand) }

func testDeadLetterCommand(t *testing.T, kafka ...string) {
	s := serve(t, auth0sim.Config{HistoryEvents: 10})
	environ := settings(t, append(unprobed(s), kafka...)...)
	if code, _, stderr := command(t, environ, "deadletter", "list"); len(kafka) == 0 && (code != exitFailed || !strings.Contains(stderr, "there is no data in")) {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
	p := start(t, environ, "run")
	m, _ := p.waitFor(`^Kafka: +(\S+),`, 0)
	p.waitFor("backfill finished", 0)
	s.tenant.Inject(func(string, time.Time) []byte { return []byte(`{"type":"\u001b[31m"}`) })
	p.waitFor("moving it to the deadletter topic", 0)
	// Something that an older program could not store, and this one can.
	mended := schema.NewDeadLetter(&schema.Event{Tenant: s.tenant.Config().Name, Source: schema.SourceTail, FetchedAt: time.Now(),
		Raw: []byte(`{"log_id":"mended","date":"2026-01-01T00:00:00.000Z","type":"s"}`)}, io.ErrUnexpectedEOF)
	produce(t, m[1], topicsOf(environ).DeadLetter, mended.Record())

	type letter struct {
		ID, Tenant, Source, Reason string
		Bytes                      int
		FetchedAt                  time.Time `json:"fetched_at"`
	}
	list := func() []letter {
		t.Helper()
		code, stdout, stderr := command(t, environ, "deadletter", "list", "--output", "json")
		var all []letter
		if err := json.Unmarshal([]byte(stdout), &all); code != exitOK || err != nil {
			t.Fatalf("exit %d, %v:\n%s%s", code, err, stdout, stderr)
		}
		return all
	}
	all := waitForLetters(t, list, func(l []letter) bool { return len(l) == 2 })
	if all[0].Tenant != s.tenant.Config().Name || all[0].Bytes != 21 || !strings.Contains(all[0].Reason, "neither log_id nor _id") || all[1].ID != mended.ID {
		t.Fatalf("%+v", all)
	}
	if code, stdout, _ := command(t, environ, "deadletter", "list", "--tenant", "other"); code != exitOK || !strings.Contains(stdout, "0 rows") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
	code, stdout, _ := command(t, environ, "deadletter", "show", all[0].ID[:12])
	if code != exitOK || !strings.Contains(stdout, `{"type":"\u001b[31m"}`) || !strings.Contains(stdout, "reason:     neither") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
	if code, stdout, _ := command(t, environ, "deadletter", "show", "--raw", mended.ID); code != exitOK || stdout != string(mended.Raw) {
		t.Errorf("exit %d: %q", code, stdout)
	}
	if code, _, stderr := command(t, environ, "deadletter", "show", "nothing"); code != exitFailed || !strings.Contains(stderr, "no dead letter nothing") {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
	for _, args := range [][]string{{"deadletter", "retry"}, {"deadletter", "retry", "--all", all[0].ID}, {"deadletter", "list", "--output", "xml"}} {
		if code, _, stderr := command(t, environ, args...); code != exitUsage {
			t.Errorf("%v: exit %d:\n%s", args, code, stderr)
		}
	}

	// One is stored now, the other comes back.
	if code, stdout, stderr := command(t, environ, "deadletter", "retry", "--all"); code != exitOK || !strings.Contains(stdout, "2 dead letters were sent") {
		t.Errorf("exit %d:\n%s%s", code, stdout, stderr)
	}
	eventually(t, environ, "SELECT source, raw FROM events WHERE log_id = 'mended'", `repair,"`+strings.ReplaceAll(string(mended.Raw), `"`, `""`)+`"`)
	again := waitForLetters(t, list, func(l []letter) bool { return len(l) == 1 && l[0].ID == all[0].ID })
	if again[0].Source != string(schema.SourceRepair) {
		t.Errorf("%+v", again)
	}
	// Nobody runs.
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if code, stdout, stderr := command(t, environ, "deadletter", "retry", all[0].ID); code != exitOK {
		t.Errorf("exit %d:\n%s%s", code, stdout, stderr)
	}
	if left := list(); len(left) != 0 {
		t.Errorf("%+v", left)
	}
	p = start(t, environ, "run")
	p.waitFor("^query: ", 0)
	waitForLetters(t, list, func(l []letter) bool { return len(l) == 1 && l[0].ID == all[0].ID })
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func waitForLetters[T any](t *testing.T, list func() []T, ok func([]T) bool) []T {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		all := list()
		if ok(all) {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", all)
		}
	}
}

// produce hands records to a topic.
func produce(t *testing.T, broker, topic string, records ...schema.Record) {
	t.Helper()
	client := kafka.NewClient(kafka.Config{Brokers: []string{broker}, Log: slog.New(slog.DiscardHandler)})
	defer client.Close()
	producer := client.NewProducer(topic)
	defer producer.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := producer.Produce(ctx, records, nil); err != nil {
		t.Fatal(err)
	}
}

// asTenants is the settings that reach several tenants.
func asTenants(sims ...*sim) []string {
	var environ []string
	for i, s := range sims {
		environ = append(environ, tenantSettings(i, s.tenant, s.url.String())...)
	}
	return environ
}

func tenantSettings(i int, tenant *auth0sim.Tenant, url string) []string {
	c := tenant.Config()
	var environ []string
	for name, value := range map[string]string{"NAME": c.Name, "DOMAIN": url, "CLIENT_ID": c.ClientID, "CLIENT_SECRET": c.ClientSecret} {
		environ = append(environ, fmt.Sprintf("TENANTS_%d_%s=%s", i, name, value))
	}
	return environ
}

// TestSeveralTenants pulls three tenants in one process.
func TestSeveralTenants(t *testing.T) { onEachKafka(t, testSeveralTenants) }

func testSeveralTenants(t *testing.T, kafka ...string) {
	var clock stoppable
	var sims []*sim
	for i, name := range []string{"one", "two", "three"} {
		sims = append(sims, serve(t, auth0sim.Config{Name: name, Seed: uint64(i), Now: clock.now, HistoryEvents: 2000, LiveRate: 20}))
	}
	environ := settings(t, append(asTenants(sims...), kafka...)...)
	p := start(t, environ, "run")
	p.waitFor("backfill finished", 0)
	clock.stop()
	for _, s := range sims {
		compare(t, environ, s.tenant)
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// front is one of several addresses of a tenant: it tells who calls.
type front struct {
	*httptest.Server
	pages atomic.Int64
}

func newFront(t *testing.T, tenant *auth0sim.Tenant) *front {
	f := &front{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v2/logs" {
			f.pages.Add(1)
		}
		tenant.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// TestLeadership shares two tenants between two processes: each is pulled by one
// of them at a time, and by the other one soon after a kill.
func TestLeadership(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Start(t, kafkatest.Config{Brokers: 1})
	server := startEngine(t, io.Discard)
	var clock stoppable
	var tenants []*auth0sim.Tenant
	var fronts [2][2]*front // by process and tenant
	var environs [2][]string
	for i, name := range []string{"east", "west"} {
		tenant := auth0sim.New(auth0sim.Config{Name: name, Seed: uint64(i), Now: clock.now, HistoryEvents: 1000, LiveRate: 20})
		tenants = append(tenants, tenant)
		for who := range environs {
			fronts[who][i] = newFront(t, tenant)
			environs[who] = append(environs[who], tenantSettings(i, tenant, fronts[who][i].URL)...)
		}
	}
	var processes [2]*process
	for who := range processes {
		environs[who] = settings(t, append(environs[who], "KAFKA_BROKERS="+brokers.Addrs()[0], "KAFKA_TOPIC_PREFIX=lead.",
			"CLICKHOUSE_DSN="+server.Access.DSN(chlocal.Owner, "lead"))...)
		processes[who] = start(t, environs[who], "run", "--roles", "pull,write")
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	// leader waits until one process alone asks for the next pages of a tenant.
	leader := func(tenant, patient int, within time.Duration) int {
		t.Helper()
		counts := func() [2]int64 { return [2]int64{fronts[0][tenant].pages.Load(), fronts[1][tenant].pages.Load()} }
		before := counts()
		for deadline := time.Now().Add(within); ; <-tick.C {
			now := counts()
			for who := range now {
				if now[who]-before[who] >= int64(patient) && now[1-who] == before[1-who] {
					return who
				}
			}
			if now[0] > before[0] && now[1] > before[1] {
				before = now
			}
			if time.Now().After(deadline) {
				t.Fatalf("tenant %d: no leader within %s", tenant, within)
			}
		}
	}
	// Both groups have formed when both processes have heard of it.
	led := [2]int{leader(0, 20, patience), leader(1, 20, patience)}
	victim := led[0]
	other := 1 - victim
	processes[victim].kill()
	killed := time.Now()
	for i := range tenants {
		if who := leader(i, 3, 30*time.Second); who != other {
			t.Errorf("tenant %d is pulled by a dead process", i)
		}
	}
	t.Logf("taken over within %s", time.Since(killed).Round(100*time.Millisecond))
	clock.stop()
	for _, tenant := range tenants {
		compare(t, environs[other], tenant)
	}
	processes[victim] = start(t, environs[victim], "run", "--roles", "pull,write")
	for i := range tenants {
		leader(i, 20, patience)
	}
	for _, p := range processes {
		if code := p.interrupt(); code != exitOK {
			t.Errorf("exit %d", code)
		}
	}
}

// TestRolesApart runs every role in a process of its own kind: together they do
// what one does.
func TestRolesApart(t *testing.T) { onEachKafka(t, testRolesApart) }

func testRolesApart(t *testing.T, kafka ...string) {
	if len(kafka) == 0 {
		kafka, _ = ownBroker(t)
	}
	server := startEngine(t, io.Discard)
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 3000, LiveRate: 30,
		Attacks: []auth0sim.Attack{{Kind: auth0sim.AttackStuffing, At: 15 * time.Second, Every: 20 * time.Second}}})
	environ := settings(t, append(append(s.environ(), "PROBE_INTERVAL=1s", "CLICKHOUSE_DSN="+server.Access.DSN(chlocal.Owner, "apart")), kafka...)...)
	var all []*process
	for _, roles := range []string{"pull", "write", "scan,probe,notify,web"} {
		all = append(all, start(t, environ, "run", "--roles", roles))
	}
	all[0].waitFor("backfill finished", 0)
	all[2].waitFor(" ALERT ", 0)
	eventually(t, environ, "SELECT count() > 0 FROM alerts WHERE has(tags, 'tenantwatch.authentication')", "1")
	eventually(t, environ, "SELECT count() > 2 FROM probes WHERE ok", "1")
	if code := all[2].interrupt(); code != exitOK { // its logins would add to the log
		t.Errorf("exit %d", code)
	}
	clock.stop()
	compare(t, environ, s.tenant)
	for _, p := range all[:2] {
		if code := p.interrupt(); code != exitOK {
			t.Errorf("exit %d", code)
		}
	}
}

// receiveToken is what a log stream sends.
const receiveToken = "a-token-of-the-log-stream"

// TestReceive lets Auth0's log stream bring events before the pull does.
func TestReceive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broker, err := kafkalocal.Start(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(broker.Close)
	t.Cleanup(func() { stop() })
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: clock.now, HistoryEvents: 100, LiveRate: 5})
	environ := settings(t, append(unprobed(s), "KAFKA_BROKERS="+broker.Addrs()[0], "RECEIVE_ADDR=127.0.0.1:0", "RECEIVE_TOKEN="+receiveToken)...)
	p := start(t, environ, "run", "--roles", "pull,write,scan,probe,notify,web,receive")
	m, _ := p.waitFor(`^log stream: (http://\S+)/logs/TENANT`, 0)
	p.waitFor("backfill finished", 0)
	name := s.tenant.Config().Name
	post := func(path, token, body string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m[1]+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}

	// The pull stands still meanwhile.
	s.tenant.Fail(auth0sim.Fault{Kind: auth0sim.FaultStatus, Path: "/api/v2/logs", Status: 503})
	p.waitFor("call to the tenant failed", 0)
	var ids, items []string
	for range 6 {
		id := s.tenant.Inject(func(id string, now time.Time) []byte {
			return fmt.Appendf(nil, `{"_id":%q,"log_id":%q,"date":%q,"type":"s","details":{"n":1.50}}`, id, id, now.UTC().Format("2006-01-02T15:04:05.000Z"))
		})
		raw, _ := s.tenant.Event(id)
		ids, items = append(ids, "'"+id+"'"), append(items, fmt.Sprintf(`{"log_id":%q,"data":%s}`, id, raw))
	}
	for _, tt := range []struct {
		what, path, token, body string
		want                    int
	}{
		{"no token", "/logs/" + name, "", items[0], 401},
		{"a wrong token", "/logs/" + name, receiveToken + "x", items[0], 401},
		{"another tenant", "/logs/other", receiveToken, items[0], 401},
		{"another path", "/other", receiveToken, items[0], 401},
		{"too large", "/logs/" + name, receiveToken, strings.Repeat(" ", 9<<20), 413},
		{"no JSON", "/logs/" + name, receiveToken, items[0] + "\n{", 400},
		{"an array of arrays", "/logs/" + name, receiveToken, "[[" + items[0] + "]]", 400},
		{"a text", "/logs/" + name, receiveToken, `"text"`, 400},
		{"nothing", "/logs/" + name, receiveToken, "", 200},
		{"JSONARRAY", "/logs/" + name, receiveToken, "[" + strings.Join(items[:2], ",") + "]", 200},
		{"JSONLINES", "/logs/" + name, "Bearer " + receiveToken, strings.Join(items[2:4], "\n") + "\n", 200},
		{"JSONOBJECT", "/logs", receiveToken, items[4], 200},
	} {
		if got := post(tt.path, tt.token, tt.body); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.what, got, tt.want)
		}
	}
	const five = "SELECT count(), uniqExact(log_id) FROM events WHERE source = 'stream'"
	eventually(t, environ, five, "5,5")

	// Without Kafka nothing is accepted; Auth0 sends it again.
	stop()
	if got := post("/logs/"+name, receiveToken, items[5]); got != 503 {
		t.Errorf("without Kafka: %d", got)
	}
	if broker, err = kafkalocal.Start(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(broker.Close)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); post("/logs/"+name, receiveToken, items[5]) != 200; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("nothing is accepted any more")
		}
	}
	eventually(t, environ, "SELECT uniqExact(log_id) FROM events WHERE log_id IN ("+strings.Join(ids, ", ")+")", "6")

	// The pull brings the same events: they stay single.
	s.tenant.Clear()
	clock.stop()
	compare(t, environ, s.tenant)
	if n := ask(t, environ, "SELECT count() FROM events WHERE log_id IN ("+strings.Join(ids, ", ")+")"); n[0] != "6" {
		t.Errorf("%s rows, want 6", n[0])
	}
	if strings.Contains(p.output(), receiveToken) {
		t.Error("the token was said")
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestGap stops an instance for longer than its tenant keeps its log. What is
// lost is said with its bounds; what is left is pulled.
func TestGap(t *testing.T) { onEachKafka(t, testGap) }

func testGap(t *testing.T, kafka ...string) {
	const retention = 2 * 24 * time.Hour
	var clock stoppable
	var ahead atomic.Int64
	s := serve(t, auth0sim.Config{Now: func() time.Time { return clock.now().Add(time.Duration(ahead.Load())) }, HistoryEvents: 200, LiveRate: 0.01, Retention: retention})
	environ := settings(t, append(unprobed(s), kafka...)...)
	p := start(t, environ, "run")
	p.waitFor("backfill finished", 0)
	began := time.Now()
	eventually(t, environ, "SELECT uniqExact(log_id) FROM events WHERE source NOT IN ('probe', 'self')", strconv.Itoa(s.tenant.Total()))
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	ended := time.Now()
	clock.stop()
	ahead.Store(int64(retention + 24*time.Hour))
	first, ok := schema.IDTime(s.tenant.IDs()[0])
	if !ok || first.Before(ended) {
		t.Fatalf("the tenant still has %s", first)
	}
	p = start(t, environ, "run")
	p.waitFor("tenant dropped events before they were pulled", 0)
	kept := make([]string, 0, s.tenant.Total())
	for _, id := range s.tenant.IDs() {
		kept = append(kept, "'"+id+"'")
	}
	eventually(t, environ, "SELECT uniqExact(log_id) FROM events WHERE log_id IN ("+strings.Join(kept, ", ")+")", strconv.Itoa(len(kept)))
	eventually(t, environ, "SELECT state, level FROM alerts WHERE title = 'Auth0 dropped events before they were pulled'", "firing,critical")
	gap := strings.Split(ask(t, environ, "SELECT toUnixTimestamp64Milli(since), toUnixTimestamp64Milli(until), seconds FROM gaps")[0], ",")
	if n := ask(t, environ, "SELECT count() FROM gaps"); n[0] != "1" {
		t.Errorf("%s gaps", n[0])
	}
	since, _ := strconv.ParseInt(gap[0], 10, 64)
	until, _ := strconv.ParseInt(gap[1], 10, 64)
	// Auth0's ids are taken by the second.
	if from := time.UnixMilli(since); from.Before(began.Add(-time.Minute)) || from.After(ended) {
		t.Errorf("the gap begins at %s, the instance ran until %s", from, ended)
	}
	if to := time.UnixMilli(until); to.After(first) || to.Before(first.Add(-time.Second)) {
		t.Errorf("the gap ends at %s, the tenant begins at %s", to, first)
	}
	id := s.tenant.Inject(func(id string, now time.Time) []byte {
		return fmt.Appendf(nil, `{"log_id":%q,"date":%q,"type":"s"}`, id, now.UTC().Format("2006-01-02T15:04:05.000Z"))
	})
	eventually(t, environ, "SELECT count() FROM events WHERE log_id = '"+id+"'", "1")
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestLogStreams watches the tenant's log streams where that is allowed.
func TestLogStreams(t *testing.T) {
	t.Parallel()
	s := serve(t, auth0sim.Config{HistoryEvents: 10, Scopes: []string{"read:logs", "read:log_streams"},
		LogStreams: []auth0sim.LogStream{{ID: "lst_1", Name: "to the SIEM"}, {ID: "lst_2", Name: "to us", Type: "eventbridge"}}})
	environ := settings(t, unprobed(s)...)
	listed := func(status int) func() bool {
		return func() bool {
			return s.tenant.Stats().Calls[auth0sim.Call{Endpoint: "GET /api/v2/log-streams", Status: status}] > 0
		}
	}
	p := start(t, environ, "run")
	p.waitFor("backfill finished", 0)
	waitUntil(t, "the streams are read", listed(200))
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if strings.Contains(p.output(), "log stream status") {
		t.Error("streams that are active are nothing to tell")
	}
	if !s.tenant.SetLogStream("lst_1", "paused") {
		t.Fatal("no such stream")
	}
	p = start(t, environ, "run")
	p.waitFor(`log stream status.*stream="to the SIEM" id=lst_1 status=paused`, 0)
	eventually(t, environ, "SELECT JSONExtractString(details, 'id'), JSONExtractString(details, 'status'), source FROM events WHERE type = 'tenantwatch_log_stream'", "lst_1,paused,self")
	eventually(t, environ, "SELECT state, group['details.id'] FROM alerts WHERE title = 'A log stream has stopped'", "firing,lst_1")
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}

	// Without the scope nothing but a line.
	s = serve(t, auth0sim.Config{HistoryEvents: 10, LogStreams: []auth0sim.LogStream{{ID: "lst_1", Name: "to the SIEM", Status: "suspended"}}})
	environ = settings(t, unprobed(s)...)
	p = start(t, environ, "run")
	p.waitFor(`level=INFO msg="log streams of the tenant are not watched: the scope read:log_streams is missing"`, 0)
	p.waitFor("backfill finished", 0)
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	for line := range strings.Lines(p.output()) {
		if strings.Contains(line, "log_streams") && !strings.Contains(line, "are not watched") || strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			t.Errorf("it says more: %s", line)
		}
	}
	if n := ask(t, environ, "SELECT count() FROM events WHERE source = 'self'"); n[0] != "0" {
		t.Errorf("%s events of our own", n[0])
	}
}

// waitUntil waits for what this process can see.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s", what)
		}
	}
}
