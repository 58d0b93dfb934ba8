package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The environment of TestChaos.
const (
	chaosVar     = "CHAOS"      // how long; the test is skipped without it
	chaosSeedVar = "CHAOS_SEED" // default: a new one
)

// The kinds of actions.
const (
	killInstance = "kill -9 of an instance"
	killBroker   = "kill -9 of a broker"
	killEngine   = "kill -9 of ClickHouse"
	deleteRows   = "deletion in ClickHouse"
	auditRepair  = "audit --repair"
	backfillPart = "backfill"
	changeFaults = "change of the share of faults"
)

// action is one thing that is done to the whole.
type action struct {
	at     time.Duration
	kind   string
	target int           // which instance or broker
	pause  time.Duration // until what was killed comes back, or before an audit
	share  float64       // of calls that fail
	from   float64       // of the time that the log covers
	until  float64
}

// schedule is the same for the same seed.
func schedule(seed uint64, length time.Duration) []action {
	r := rand.New(rand.NewPCG(seed, 1))
	kinds := []string{killInstance, killInstance, killInstance, killBroker, killEngine, deleteRows, deleteRows, backfillPart, changeFaults}
	var list []action
	for at := time.Duration(0); ; {
		at += time.Second + time.Duration(r.Int64N(int64(4*time.Second)))
		if at > length {
			return list
		}
		a := action{at: at, kind: kinds[r.IntN(len(kinds))], target: r.IntN(3), pause: time.Duration(r.Int64N(int64(4 * time.Second))),
			share: 0.2 + 0.2*r.Float64(), from: r.Float64(), until: r.Float64()}
		if a.until < a.from {
			a.from, a.until = a.until, a.from
		}
		list = append(list, a)
	}
}

// TestChaos kills everything again and again while two tenants are pulled whose
// calls fail, and deletes rows behind our back. Afterwards all is there, once and
// unchanged, and goes on.
func TestChaos(t *testing.T) {
	if os.Getenv(chaosVar) == "" {
		t.Skip("make chaos runs it")
	}
	length, err := time.ParseDuration(os.Getenv(chaosVar))
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if text := os.Getenv(chaosSeedVar); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	c := newChaos(t, seed)
	c.say("seed %d, %s: repeat it with make chaos CHAOS=%s CHAOS_SEED=%d", seed, length, length, seed)
	defer c.tell(length)
	c.run(schedule(seed, length), length)
	c.settle()
	c.judge()
}

// chaos is the whole and what is done to it.
type chaos struct {
	t       *testing.T
	dir     string // of logs
	seed    uint64
	began   time.Time
	over    chan struct{} // closed when nothing is killed any more
	brokers *kafkatest.Cluster
	engine  *chlocal.Server
	conn    driver.Conn
	kafka   *kafka.Client
	environ []string
	clock   stoppable
	tenants []*sim
	parts   []*instance
	share   atomic.Uint64 // of calls that fail, in 1/1000

	broken   sync.Mutex     // held while a broker is down
	watchers sync.WaitGroup // of the instances
	commands sync.WaitGroup // audits, deletions and restarts that are under way

	mu      sync.Mutex // guards what follows
	count   map[string]int
	deleted map[string]bool // tenant/log_id of all rows that we deleted
	said    *os.File
}

// chaosSpan is how far back the tenants' logs reach.
const chaosSpan = 4 * time.Hour

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{t: t, seed: seed, began: time.Now(), over: make(chan struct{}), count: map[string]int{}, deleted: map[string]bool{}}
	var err error
	if c.dir, err = os.MkdirTemp("", fmt.Sprintf("tenantwatch-chaos-%d-", seed)); err != nil {
		t.Fatal(err)
	}
	if c.said, err = os.Create(filepath.Join(c.dir, "chaos.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.say("FAILED with seed %d; the logs are in %s", seed, c.dir)
		} else if err := os.RemoveAll(c.dir); err != nil {
			t.Error(err)
		}
	})
	c.brokers = kafkatest.Start(t, kafkatest.Config{Brokers: 3})
	engineLog, err := os.Create(filepath.Join(c.dir, "engine.log"))
	if err != nil {
		t.Fatal(err)
	}
	c.engine = startEngine(t, engineLog)
	c.environ = settings(t, "KAFKA_BROKERS="+strings.Join(c.brokers.Addrs(), ","), "KAFKA_TOPIC_PREFIX=chaos.",
		"CLICKHOUSE_DSN="+c.engine.Access.DSN(chlocal.Owner, "chaos"))
	for i, cfg := range []auth0sim.Config{
		{Name: "steady", HistoryEvents: 15_000, LiveRate: 30},
		{Name: "late", HistoryEvents: 10_000, LiveRate: 20, LateShare: 0.05, LateBy: 5 * time.Second, Latency: 5 * time.Millisecond},
	} {
		cfg.Seed, cfg.Now, cfg.HistorySpan = seed+uint64(i), c.clock.now, chaosSpan
		s := serve(t, cfg)
		c.tenants = append(c.tenants, s)
		for _, line := range unprobed(s) {
			name, value, _ := strings.Cut(line, "=")
			name = strings.TrimPrefix(strings.Replace(name, "TENANTWATCH_TENANT", "AUTH0_NAME", 1), "AUTH0_")
			c.environ = append(c.environ, fmt.Sprintf("TENANTS_%d_%s=%s", i, name, value))
		}
	}
	c.share.Store(200)
	for i, roles := range []string{"pull,write,scan,notify,probe,web", "pull,write,web", "write,scan,web"} {
		p := &instance{c: c, name: string(rune('a' + i)), roles: roles}
		c.parts = append(c.parts, p)
		p.start()
	}
	t.Cleanup(func() {
		for _, p := range c.parts {
			p.end()
		}
		c.watchers.Wait()
	})
	c.kafka = kafka.NewClient(kafka.Config{Brokers: c.brokers.Addrs(), Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.kafka.Close)
	return c
}

// say prints a line at once, and keeps it.
func (c *chaos) say(format string, args ...any) {
	line := fmt.Sprintf("%7.1f s  %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
	fmt.Println(line)
	fmt.Fprintln(c.said, line)
}

func (c *chaos) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[what] += n
}

// instance is one of our processes, which comes back when it was killed.
type instance struct {
	c           *chaos
	name, roles string

	mu    sync.Mutex // guards what follows
	p     *process
	runs  int
	asked bool // to end
}

func (i *instance) start() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.runs++
	i.p, i.asked = spawn(i.c.t, i.c.environ, "run", "--roles", i.roles), false
	p, run := i.p, i.runs
	i.c.watchers.Go(func() { i.watch(p, run) })
}

// watch keeps what a process has said, and does not take it that one ends by
// itself.
func (i *instance) watch(p *process, run int) {
	<-p.ended
	i.mu.Lock()
	asked := i.asked
	i.mu.Unlock()
	name := filepath.Join(i.c.dir, fmt.Sprintf("%s-%03d.log", i.name, run))
	if err := os.WriteFile(name, []byte(p.output()+"\n"), 0o600); err != nil {
		i.c.say("%v", err)
	}
	if !asked {
		i.c.t.Errorf("instance %s ended by itself: %v; see %s", i.name, p.err, name)
		i.c.say("instance %s ended by itself: %v", i.name, p.err)
	}
}

// kill reports whether there was something to kill.
func (i *instance) kill() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.asked {
		return false
	}
	i.asked = true
	i.p.kill()
	return true
}

func (i *instance) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.asked && i.c.t.Failed() {
		i.asked = true
		i.p.dump()
	}
	i.asked = true
	i.p.kill()
}

func (i *instance) process() *process {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.p
}

// run does what the schedule says. Whatever it began has ended when it returns.
func (c *chaos) run(list []action, length time.Duration) {
	begin := time.Now()
	ctx, cancel := context.WithCancel(c.t.Context())
	var faults sync.WaitGroup
	for i, s := range c.tenants {
		faults.Go(func() { c.fail(ctx, s.tenant, rand.New(rand.NewPCG(c.seed, uint64(100+i)))) })
	}
	for _, a := range list {
		time.Sleep(time.Until(begin.Add(a.at)))
		c.do(a)
	}
	time.Sleep(time.Until(begin.Add(length)))
	cancel()
	faults.Wait()
	calls, failed := c.calls()
	c.add("calls during the chaos", calls)
	c.add("calls that failed", failed)
	for _, s := range c.tenants {
		s.tenant.Clear()
	}
	c.say("the chaos is over; what is under way comes to its end")
	close(c.over)
	c.commands.Wait()
}

// calls counts what the tenants were asked.
func (c *chaos) calls() (all, failed int) {
	for _, s := range c.tenants {
		for call, n := range s.tenant.Stats().Calls {
			all += n
			if call.Status != http.StatusOK {
				failed += n
			}
		}
	}
	return all, failed
}

// chaosFaults are what calls run into.
var chaosFaults = []auth0sim.Fault{
	{Kind: auth0sim.FaultStatus, Status: 401}, {Kind: auth0sim.FaultStatus, Status: 403}, {Kind: auth0sim.FaultStatus, Status: 404},
	{Kind: auth0sim.FaultStatus, Status: 429}, {Kind: auth0sim.FaultStatus, Status: 429, RetryAfter: 1},
	{Kind: auth0sim.FaultStatus, Status: 500}, {Kind: auth0sim.FaultStatus, Status: 503},
	{Kind: auth0sim.FaultHTML, Status: 502}, {Kind: auth0sim.FaultHTML, Status: 200},
	{Kind: auth0sim.FaultCut}, {Kind: auth0sim.FaultNothing}, {Kind: auth0sim.FaultGarbage}, {Kind: auth0sim.FaultContent},
}

// fail lets a share of a tenant's calls fail, in every way, until ctx ends.
func (c *chaos) fail(ctx context.Context, tenant *auth0sim.Tenant, r *rand.Rand) {
	calls := func() (n int) {
		for _, times := range tenant.Stats().Calls {
			n += times
		}
		return n
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	due, before := 0.0, calls()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := calls()
		due += float64(now-before) * float64(c.share.Load()) / 1000
		before = now
		for due >= 1 {
			f := chaosFaults[r.IntN(len(chaosFaults))]
			f.Path, f.Times = "/api/v2", 1+r.IntN(3)
			if r.IntN(10) == 0 {
				f.Path = "/oauth/token"
			}
			tenant.Fail(f)
			c.add("faults set", f.Times)
			due -= float64(f.Times)
		}
	}
}

func (c *chaos) do(a action) {
	c.add(a.kind, 1)
	switch a.kind {
	case killInstance:
		p := c.parts[a.target]
		if !p.kill() {
			return // it is down already
		}
		c.say("%s %s, for %s", a.kind, p.name, a.pause.Round(time.Millisecond))
		c.commands.Go(func() { time.Sleep(a.pause); p.start() })
	case killBroker:
		c.commands.Go(func() {
			c.broken.Lock()
			defer c.broken.Unlock()
			c.say("%s %d, for %s", a.kind, a.target, a.pause.Round(time.Millisecond))
			c.brokers.Kill(a.target)
			time.Sleep(a.pause)
			c.brokers.Restart(a.target)
			c.say("broker %d is back", a.target)
		})
	case killEngine:
		select {
		case <-c.engine.Done():
			return
		default:
		}
		c.say("%s", a.kind)
		_ = syscall.Kill(c.engine.PID(), syscall.SIGKILL)
	case deleteRows:
		c.commands.Go(func() {
			c.delete(a)
			time.Sleep(a.pause)
			c.command(a, auditRepair, "audit", "--since", c.ago(a.from), "--repair")
		})
	case backfillPart:
		c.commands.Go(func() { c.command(a, backfillPart, "backfill", "--since", c.ago(a.from), "--until", c.ago(a.until)) })
	case changeFaults:
		c.share.Store(uint64(1000 * a.share))
		c.say("%.0f %% of the calls fail", 100*a.share)
	}
}

// ago is a place in the log as the commands take it: 0 is its beginning, 1 now.
func (c *chaos) ago(place float64) string {
	whole := chaosSpan + time.Since(c.began) + time.Minute
	return time.Duration((1 - place) * float64(whole)).Round(time.Second).String()
}

// command runs a command beside the instances. It may fail when Kafka or
// ClickHouse is away just then, but it must not hang.
func (c *chaos) command(a action, kind string, args ...string) {
	p := spawn(c.t, c.environ, args...)
	c.say("%v begins", args)
	select {
	case <-p.ended:
	case <-c.over: // orders queue up while nobody lives long enough to end one
		select {
		case <-p.ended:
		case <-time.After(chaosPatience):
			p.dump()
			c.t.Errorf("%v does not end", args)
		}
	}
	code := p.cmd.ProcessState.ExitCode()
	c.add(fmt.Sprintf("%s, exit %d", kind, code), 1)
	lines := strings.Split(strings.TrimSpace(p.output()), "\n")
	c.say("%v: exit %d: %s", args, code, lines[len(lines)-1])
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.said, "%s\n", p.output())
	if code == exitUsage {
		c.t.Errorf("%v: exit %d:\n%s", args, code, p.output())
	}
}

// chaosPatience bounds each wait; only a failing run uses it up.
const chaosPatience = 5 * time.Minute

// connect keeps one connection pool, once the program has made the database.
func (c *chaos) connect() (driver.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		conn, err := schema.Open(c.t.Context(), c.engine.Access.DSN(chlocal.Owner, "chaos"), nil)
		if err != nil {
			return nil, err
		}
		c.conn = conn
		c.t.Cleanup(func() { conn.Close() })
	}
	return c.conn, nil
}

// delete takes rows away as somebody with a client would.
func (c *chaos) delete(a action) {
	conn, err := c.connect()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	var twice int64
	if conn.QueryRow(ctx, "SELECT toInt64(count()) - toInt64(uniqExact(tenant, log_id)) FROM events_stored").Scan(&twice) == nil {
		c.mu.Lock()
		c.count["stored twice before merges, at most"] = max(c.count["stored twice before merges, at most"], int(twice))
		c.mu.Unlock()
	}
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT DISTINCT toString(tenant), log_id FROM events_stored WHERE source NOT IN ('probe', 'self') AND cityHash64(log_id, %d) %% 100 = 0 LIMIT 300", a.at))
	if err != nil {
		return
	}
	defer rows.Close()
	var ids []string
	c.mu.Lock()
	for rows.Next() {
		var tenant, id string
		if err = rows.Scan(&tenant, &id); err != nil {
			break
		}
		ids = append(ids, schema.Literal(id))
		c.deleted[tenant+"/"+id] = true // whether it comes to that or not
	}
	c.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	query := "ALTER TABLE events_stored DELETE WHERE log_id IN (" + strings.Join(ids, ",") + ") SETTINGS mutations_sync = 1"
	if a.target == 0 {
		query = "DELETE FROM events_stored WHERE log_id IN (" + strings.Join(ids, ",") + ")"
	}
	err = conn.Exec(ctx, query)
	c.add("rows deleted", len(ids))
	c.say("%s of %d events: %v", deleteRows, len(ids), err)
}

// settle waits until everything is up and all that the tenants have is kept,
// but for what we deleted ourselves.
func (c *chaos) settle() {
	t := c.t
	t.Helper()
	for _, p := range c.parts {
		proc := p.process()
		m, _ := proc.waitFor(`^web: +(http://\S+)`, 0)
		c.until(p.name+" is ready", func() error { return get(m[1] + "/readyz") })
	}
	c.until("ClickHouse answers", func() error { _, err := c.connect(); return err })
	c.until("the mutations are done", func() error { return c.want("0", "SELECT count() FROM system.mutations WHERE NOT is_done") })
	c.say("all is up")
	c.clock.stop()
	c.pulled()
	for _, s := range c.tenants {
		c.until("all that "+s.tenant.Config().Name+" has is kept", func() error {
			return c.complete(s.tenant)
		})
	}
}

// complete is an error while something is missing that nobody deleted.
func (c *chaos) complete(tenant *auth0sim.Tenant) error {
	lost, err := c.lost(tenant)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("%d of %d are missing, such as %s", len(lost), tenant.Total(), lost[0])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count["lost of "+tenant.Config().Name] = len(lost)
	return err
}

// pulled waits until every tenant was asked anew.
func (c *chaos) pulled() {
	for _, s := range c.tenants {
		pages := func() int { return s.tenant.Stats().Calls[auth0sim.Call{Endpoint: "GET /api/v2/logs", Status: 200}] }
		want := pages() + 2
		c.until(s.tenant.Config().Name+" is pulled", func() error {
			if n := pages(); n < want {
				return fmt.Errorf("%d pages, want %d", n, want)
			}
			return nil
		})
	}
}

// lost are the events that are missing although nobody deleted them.
func (c *chaos) lost(tenant *auth0sim.Tenant) ([]string, error) {
	kept := map[string]bool{}
	name := tenant.Config().Name
	ids := tenant.IDs()
	lines, err := tryAsk(c.t.Context(), c.environ, "SELECT DISTINCT log_id FROM events WHERE tenant = "+schema.Literal(name))
	if err != nil {
		return nil, err
	}
	for _, id := range lines {
		kept[id] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(ids, func(id string) bool { return kept[id] || c.deleted[name+"/"+id] }), nil
}

// until repeats what is to succeed.
func (c *chaos) until(what string, f func() error) {
	c.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(chaosPatience); ; <-tick.C {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.add("stuck", 1)
			c.say("stuck: waiting until %s: %v", what, err)
			c.t.Fatalf("waiting until %s: %v", what, err)
		}
	}
}

func (c *chaos) want(want, query string) error {
	got, err := tryAsk(c.t.Context(), c.environ, query)
	if err == nil && strings.Join(got, "\n") != want {
		err = fmt.Errorf("%s: %v, want %s", query, got, want)
	}
	return err
}

// get wants a 200.
func get(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", url, resp.StatusCode, body)
	}
	return err
}

// judge heals what was deleted and looks at everything.
func (c *chaos) judge() {
	t := c.t
	if n := c.number("SELECT count() - uniqExact(tenant, log_id) FROM events"); n != 0 {
		c.add("duplicated", n)
		t.Errorf("%d events are there twice", n)
	}
	c.healedUnasked()
	since := (chaosSpan + time.Since(c.began) + time.Hour).Round(time.Second).String()
	if code := c.finish("audit", "--since", since, "--repair"); code != exitOK {
		t.Errorf("the audit that repairs ends with %d", code)
	}
	if code := c.finish("audit", "--since", since); code != exitOK {
		t.Errorf("the last audit ends with %d", code)
	}
	c.coverage()
	for _, s := range c.tenants {
		compare(t, c.environ, s.tenant)
	}
	c.progress()
	conn, err := c.connect()
	if err == nil {
		err = conn.Exec(t.Context(), "OPTIMIZE TABLE events_stored FINAL")
	}
	if err != nil {
		t.Error(err)
	}
	if n := c.number("SELECT count() - uniqExact(tenant, log_id) FROM events"); n != 0 {
		c.add("duplicated", n)
		t.Errorf("%d events are there twice after the merges", n)
	}
	for _, s := range c.tenants {
		compare(t, c.environ, s.tenant)
	}
}

func (c *chaos) number(query string) int {
	c.t.Helper()
	n, err := strconv.Atoi(ask(c.t, c.environ, query)[0])
	if err != nil {
		c.t.Error(err)
	}
	return n
}

// healedUnasked counts what audits healed although nobody had deleted it: what
// they found before the pull itself came to it, or what was lost.
func (c *chaos) healedUnasked() {
	lines := ask(c.t, c.environ, "SELECT DISTINCT concat(tenant, '/', log_id) FROM events_stored WHERE source = 'repair'")
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range lines {
		if id != "" && !c.deleted[id] {
			c.count["repaired, not deleted"]++
			fmt.Fprintf(c.said, "repaired, not deleted: %s\n", id)
		}
	}
}

// finish runs a command to its end.
func (c *chaos) finish(args ...string) int {
	p := spawn(c.t, c.environ, args...)
	select {
	case <-p.ended:
	case <-time.After(chaosPatience):
		p.dump()
		c.t.Errorf("%v does not end", args)
	}
	c.say("%v: exit %d\n%s", args, p.cmd.ProcessState.ExitCode(), p.output())
	return p.cmd.ProcessState.ExitCode()
}

// coverage holds the audits' notes against the tenants.
func (c *chaos) coverage() {
	if bad := ask(c.t, c.environ, "SELECT tenant, hour, expected, stored, dead_letters, missing FROM coverage WHERE expected != stored + dead_letters + missing OR missing > 0"); strings.Join(bad, "") != "" {
		c.t.Errorf("the coverage is not right: %q", bad)
	}
	for _, s := range c.tenants {
		name := s.tenant.Config().Name
		if n, want := c.number("SELECT sum(expected) FROM coverage WHERE tenant = "+schema.Literal(name)), s.tenant.Total(); n != want {
			c.t.Errorf("the coverage of %s has %d events, the tenant %d", name, n, want)
		}
	}
	c.add("healed", c.number("SELECT sum(healed) FROM coverage"))
}

// progress moves the tenants' clocks on: new events come through, the
// checkpoints go on, and nobody lags behind.
func (c *chaos) progress() {
	t := c.t
	before := c.checkpoints()
	c.clock.stop()
	c.pulled()
	for _, s := range c.tenants {
		c.until("new events of "+s.tenant.Config().Name+" are kept", func() error {
			return c.complete(s.tenant)
		})
	}
	for _, s := range c.tenants {
		name := s.tenant.Config().Name
		c.until("the checkpoint of "+name+" moves", func() error {
			old, _ := before.Of(name, checkpoint.ChainTail)
			now, ok := c.checkpoints().Of(name, checkpoint.ChainTail)
			if !ok || now.LogID <= old.LogID {
				return fmt.Errorf("it was %q and is %q", old.LogID, now.LogID)
			}
			return nil
		})
	}
	topics := schema.NewTopics("chaos.")
	for group, topic := range map[string]string{groupWriter: topics.Events, groupScanner: topics.Events, groupNotifier: topics.Alerts} {
		if err := c.kafka.Drained(t.Context(), topic, "chaos."+group, chaosPatience); err != nil {
			c.add("stuck", 1)
			t.Errorf("group %s: %v", group, err)
		}
	}
	for _, chain := range c.checkpoints() {
		// The tail and the audits in the background have no end.
		if !chain.Done && !slices.Contains([]string{checkpoint.ChainTail, "audit/round", "audit/fresh"}, chain.Chain) {
			c.add("stuck", 1)
			t.Errorf("chain %s of %s has not come to its end: %+v", chain.Chain, chain.Tenant, chain)
		}
	}
}

func (c *chaos) checkpoints() checkpoint.Set {
	c.t.Helper()
	state, err := checkpoint.ReadAll(c.t.Context(), func(ctx context.Context, yield func(schema.Record) error) error {
		return c.kafka.ReadAll(ctx, schema.NewTopics("chaos.").Checkpoints, yield)
	}, func(err error) { c.t.Error(err) })
	if err != nil {
		c.t.Fatal(err)
	}
	return state
}

// tell prints the tally.
func (c *chaos) tell(length time.Duration) {
	for _, s := range c.tenants {
		c.add("events", s.tenant.Total())
	}
	for _, none := range []string{"duplicated", "stuck"} {
		c.add(none, 0)
	}
	tally, err := json.MarshalIndent(c.count, "", "  ")
	if err != nil {
		c.t.Error(err)
	}
	c.say("seed %d, %s of chaos, %s in all:\n%s", c.seed, length, time.Since(c.began).Round(time.Second), tally)
}
