package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

func TestMain(m *testing.M) {
	chlocal.Host()
	os.Exit(m.Run())
}

var start = time.Date(2026, 3, 4, 10, 0, 0, 250e6, time.UTC)

// firing is an alert of one address.
func firing(ip string) schema.Alert {
	group := []schema.GroupValue{{Field: "ip", Value: ip}}
	return schema.Alert{Fingerprint: schema.Fingerprint("acme", "users-by-ip", group), Tenant: "acme", RuleID: "users-by-ip", Title: "Many users tried from one address",
		Level: "medium", State: schema.StateFiring, StartsAt: start, UpdatedAt: start, Group: group, Count: 10, Threshold: 10, Window: schema.Seconds(90 * time.Second / 60 * 10),
		Summary: ip + " tried 10 users", LogIDs: []string{"9001", "9002"}, Query: "SELECT 1", Tags: []string{"attack.t1110", "tenantwatch.authentication"}, Prevention: "Block it."}
}

func raised(a schema.Alert) schema.Alert {
	a.Level, a.Count, a.Threshold, a.UpdatedAt = "high", 50, 50, a.UpdatedAt.Add(time.Minute)
	return a
}

func resolved(a schema.Alert) schema.Alert {
	a.State, a.Count, a.UpdatedAt = schema.StateResolved, 0, a.StartsAt.Add(time.Hour+1500*time.Millisecond)
	a.ResolvedAt = a.UpdatedAt
	return a
}

// topic is a partition of the alerts topic. Fetch ends ctx after the last record.
type topic struct {
	mu        sync.Mutex
	records   []schema.Record
	at        int
	committed int64
	commitErr error
	fetchErr  error
	stop      context.CancelFunc
	journal   *journal
}

// journal is what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func newTopic(t *testing.T, j *journal, values ...any) *topic {
	t.Helper()
	p := &topic{journal: j}
	for i, v := range values {
		data, ok := v.(string)
		if !ok {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			data = string(b)
		}
		p.records = append(p.records, schema.Record{Offset: int64(i), Value: []byte(data)})
	}
	return p
}

func (p *topic) Fetch(ctx context.Context) (schema.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at < len(p.records) {
		p.at++
		return p.records[p.at-1], nil
	}
	if p.fetchErr != nil {
		return schema.Record{}, p.fetchErr
	}
	p.stop()
	return schema.Record{}, ctx.Err()
}

func (p *topic) Commit(next int64) error {
	p.journal.add("commit %d", next)
	if p.commitErr == nil {
		p.committed = next
	}
	return p.commitErr
}

// sink notes what it is told, after some errors.
type sink struct {
	name    string
	journal *journal
	errs    []error
	after   func(*schema.Alert)
}

func (s *sink) Notify(_ context.Context, a *schema.Alert) error {
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		s.journal.add("%s: %v", s.name, err)
		return err
	}
	s.journal.add("%s: %s %s", s.name, a.State, a.Level)
	if s.after != nil {
		s.after(a)
	}
	return nil
}

// fakeConn takes inserts after some errors. What it has not is not called.
type fakeConn struct {
	driver.Conn
	journal *journal
	errs    []error
	block   bool
}

type fakeBatch struct {
	driver.Batch
	conn *fakeConn
	row  []any
}

func (c *fakeConn) PrepareBatch(ctx context.Context, _ string, _ ...driver.PrepareBatchOption) (driver.Batch, error) {
	if c.block {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &fakeBatch{conn: c}, nil
}

func (b *fakeBatch) Append(row ...any) error { b.row = row; return nil }
func (b *fakeBatch) Close() error            { return nil }
func (b *fakeBatch) Send() error {
	if len(b.conn.errs) > 0 {
		err := b.conn.errs[0]
		b.conn.errs = b.conn.errs[1:]
		b.conn.journal.add("insert: %v", err)
		return err
	}
	b.conn.journal.add("insert: %s %s", b.row[3], b.row[4])
	return nil
}

// consume delivers the topic.
func consume(t *testing.T, conn driver.Conn, p *topic, log *bytes.Buffer, sinks ...Sink) *prometheus.Registry {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.stop = cancel
	reg := prometheus.NewPedanticRegistry()
	if log == nil {
		log = &bytes.Buffer{}
	}
	if err := New(conn, sinks, slog.New(slog.NewTextHandler(log, nil)), reg).Consume(ctx, p); err != nil {
		t.Errorf("Consume: %v", err)
	}
	return reg
}

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
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestOrder is sinks, then the table, then the commit, for each transition.
func TestOrder(t *testing.T) {
	j := &journal{}
	a := firing("192.0.2.1")
	p := newTopic(t, j, a, raised(a), resolved(raised(a)))
	reg := consume(t, &fakeConn{journal: j}, p, nil, &sink{name: "one", journal: j}, &sink{name: "two", journal: j})
	want := []string{"one: firing medium", "two: firing medium", "insert: firing medium", "commit 1", "one: firing high", "two: firing high", "insert: firing high", "commit 2",
		"one: resolved high", "two: resolved high", "insert: resolved high", "commit 3"}
	if diff := cmp.Diff(want, j.lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if metric(t, reg, "tenantwatch_alert_transitions_total") != 3 || metric(t, reg, "tenantwatch_alert_retries_total") != 0 {
		t.Error("wrong counts")
	}
}

// TestRetries repeats a step that fails, and no step before it.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log := &journal{}, &bytes.Buffer{}
		down, away := errors.New("down"), errors.New("away")
		p := newTopic(t, j, firing("192.0.2.1"))
		reg := consume(t, &fakeConn{journal: j, errs: []error{away, away}}, p, log,
			&sink{name: "one", journal: j}, &sink{name: "two", journal: j, errs: []error{down, down, away}})
		want := []string{"one: firing medium", "two: down", "two: down", "two: away", "two: firing medium", "insert: away", "insert: away", "insert: firing medium", "commit 1"}
		if diff := cmp.Diff(want, j.lines); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if metric(t, reg, "tenantwatch_alert_retries_total") != 5 || metric(t, reg, "tenantwatch_alert_transitions_total") != 1 {
			t.Error("wrong counts")
		}
		if n := strings.Count(log.String(), "retrying"); n != 3 {
			t.Errorf("said %d times:\n%s", n, log)
		}
	})
}

// TestStops ends while a step fails: nothing is committed.
func TestStops(t *testing.T) {
	for _, blocked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			j := &journal{}
			p := newTopic(t, j, firing("192.0.2.1"))
			forever := make([]error, 1000)
			for i := range forever {
				forever[i] = errors.New("down")
			}
			s := &sink{name: "one", journal: j, errs: forever}
			conn := &fakeConn{journal: j}
			if blocked {
				s.errs, conn.block = nil, true
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			reg := prometheus.NewPedanticRegistry()
			if err := New(conn, []Sink{s}, slog.New(slog.DiscardHandler), reg).Consume(ctx, p); err != nil {
				t.Errorf("Consume: %v", err)
			}
			if strings.Contains(strings.Join(j.lines, " "), "commit") || metric(t, reg, "tenantwatch_alert_transitions_total") != 0 {
				t.Errorf("got %v", j.lines)
			}
			if n := metric(t, reg, "tenantwatch_alert_retries_total"); n < 4 || n > 60 {
				t.Errorf("%v retries in 5 minutes", n)
			}
		})
	}
}

// TestPassedOver is what is no alert: it is said, and committed.
func TestPassedOver(t *testing.T) {
	j, log := &journal{}, &bytes.Buffer{}
	p := newTopic(t, j, "", "no alert", "{", `{"count":-1}`, firing("192.0.2.1"))
	consume(t, &fakeConn{journal: j}, p, log, &sink{name: "one", journal: j})
	want := []string{"commit 1", "commit 2", "commit 3", "commit 4", "one: firing medium", "insert: firing medium", "commit 5"}
	if diff := cmp.Diff(want, j.lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n := strings.Count(log.String(), "is not an alert"); n != 3 {
		t.Errorf("said %d times:\n%s", n, log)
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	j := &journal{}
	p := newTopic(t, j, firing("192.0.2.1"), firing("192.0.2.2"))
	p.commitErr, p.fetchErr = errors.New("rebalance"), broken
	err := New(&fakeConn{journal: j}, nil, slog.New(slog.DiscardHandler), prometheus.NewPedanticRegistry()).Consume(t.Context(), p)
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"insert: firing medium", "commit 1", "insert: firing medium", "commit 2"}, j.lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// row is a line of the views.
type row struct {
	Tenant, Fingerprint, State, Level, RuleID, Title string
	StartsAt, UpdatedAt                              time.Time
	ResolvedAt                                       *time.Time
	Group                                            map[string]string
	Count, Threshold                                 float64
	Window                                           float64
	Summary                                          string
	LogIDs                                           []string
	Query                                            string
	Tags                                             []string
	Prevention                                       string
}

func rows(t *testing.T, conn driver.Conn, view string) []row {
	t.Helper()
	result, err := conn.Query(t.Context(), `SELECT tenant, fingerprint, state, level, rule_id, title, starts_at, updated_at, resolved_at, group, count, threshold,
		window_seconds, summary, log_ids, query, tags, prevention FROM `+view+` ORDER BY group['ip'], updated_at`)
	if err != nil {
		t.Fatal(err)
	}
	defer result.Close()
	var list []row
	for result.Next() {
		var r row
		if err := result.Scan(&r.Tenant, &r.Fingerprint, &r.State, &r.Level, &r.RuleID, &r.Title, &r.StartsAt, &r.UpdatedAt, &r.ResolvedAt, &r.Group, &r.Count, &r.Threshold,
			&r.Window, &r.Summary, &r.LogIDs, &r.Query, &r.Tags, &r.Prevention); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	if err := result.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// rowOf is what the table is to have of an alert.
func rowOf(a schema.Alert) row {
	r := row{Tenant: a.Tenant, Fingerprint: a.Fingerprint, State: string(a.State), Level: a.Level, RuleID: a.RuleID, Title: a.Title, StartsAt: a.StartsAt, UpdatedAt: a.UpdatedAt,
		Group: map[string]string{}, Count: a.Count, Threshold: a.Threshold, Window: time.Duration(a.Window).Seconds(), Summary: a.Summary,
		LogIDs: orEmpty(a.LogIDs), Query: a.Query, Tags: orEmpty(a.Tags), Prevention: a.Prevention}
	if !a.ResolvedAt.IsZero() {
		r.ResolvedAt = &a.ResolvedAt
	}
	for _, g := range a.Group {
		r.Group[g.Field] = g.Value
	}
	return r
}

// TestKeep takes alerts to a real ClickHouse, some of them more than once.
func TestKeep(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	one, two, bare := firing("192.0.2.1"), firing("192.0.2.2"), firing("192.0.2.3")
	two.Summary, two.Title = "quote ' back \\ new\nline \x00 \xff ☃", `'; DROP TABLE alerts_stored; --`
	two.Summary = strings.ToValidUTF8(two.Summary, "?") // as JSON carries it
	bare.Group, bare.LogIDs, bare.Tags, bare.Fingerprint = nil, nil, nil, schema.Fingerprint("acme", "users-by-ip", nil)
	again := firing("192.0.2.1") // the same thing a day later is another alert
	again.StartsAt, again.UpdatedAt = start.Add(24*time.Hour), start.Add(24*time.Hour)

	j := &journal{}
	transitions := []any{one, raised(one), two, bare, resolved(raised(one)), again}
	consume(t, conn, newTopic(t, j, transitions...), nil)
	for range 3 { // as after a crash before the commit
		consume(t, conn, newTopic(t, j, append(transitions, resolved(raised(one)), one)...), nil)
	}
	want := []row{rowOf(bare), rowOf(one), rowOf(raised(one)), rowOf(resolved(raised(one))), rowOf(again), rowOf(two)}
	if diff := cmp.Diff(want, rows(t, conn, "alert_transitions")); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	want = []row{rowOf(bare), rowOf(resolved(raised(one))), rowOf(again), rowOf(two)}
	if diff := cmp.Diff(want, rows(t, conn, "alerts")); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
}

// TestKeepLater has the sink fail first: people are told, then the row is there.
func TestKeepLater(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	j := &journal{}
	s := &sink{name: "one", journal: j, errs: []error{errors.New("down")}}
	s.after = func(*schema.Alert) { j.add("%d rows", len(rows(t, conn, "alerts"))) }
	p := newTopic(t, j, firing("192.0.2.1"))
	consume(t, conn, p, nil, s)
	if diff := cmp.Diff([]string{"one: down", "one: firing medium", "0 rows", "commit 1"}, j.lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n := len(rows(t, conn, "alerts")); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestLine(t *testing.T) {
	a := firing("192.0.2.1")
	plain := a
	plain.Tags, plain.Summary, plain.LogIDs = []string{"attack.t1110"}, "", nil
	limits := a
	limits.Tags = []string{"tenantwatch.rate_limit", "tenantwatch.other"}
	for _, tt := range []struct {
		alert schema.Alert
		want  string
	}{
		{a, "2026-03-04 10:00:00Z ALERT    medium   [authentication] Many users tried from one address: 192.0.2.1 tried 10 users (tenant acme, see log_id 9002)"},
		{resolved(a), "2026-03-04 11:00:01Z RESOLVED medium   [authentication] Many users tried from one address: 192.0.2.1 tried 10 users (tenant acme, after 1h0m2s)"},
		{plain, "2026-03-04 10:00:00Z ALERT    medium   Many users tried from one address (tenant acme)"},
		{limits, "2026-03-04 10:00:00Z ALERT    medium   [rate limit] Many users tried from one address: 192.0.2.1 tried 10 users (tenant acme, see log_id 9002)"},
	} {
		if diff := cmp.Diff(tt.want, Line(&tt.alert)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}

// steers reports whether a character can break a line or steer a terminal.
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// FuzzLine puts anything where users can put something.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"", "plain", "two\nlines", "\r2026 ALERT", "\x1b[2J\x1b]0;title\x07", "\u009b31m", "a\u202egnp.exe\u2066", "\u2028\u2029\u0085\v\f", "\x00\x7f", "\xff\xfe\x9b", "é☃😀", "%s%n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a := firing(s)
		a.Title, a.Tenant, a.LogIDs, a.Level, a.Tags = s, s, []string{s}, s, []string{"tenantwatch." + s}
		for _, a := range []schema.Alert{a, resolved(a)} {
			line := Line(&a)
			if i := strings.IndexFunc(line, steers); i >= 0 {
				t.Errorf("%q has %q", line, line[i:])
			}
			var b bytes.Buffer
			if err := NewTerminal(&b, false).Notify(t.Context(), &a); err != nil || b.String() != line+"\n" {
				t.Errorf("prints %q, %v", b.String(), err)
			}
		}
	})
}

func TestTerminalColours(t *testing.T) {
	text.EnableColors() // whatever NO_COLOR and TERM say where the test runs
	for _, tt := range []struct{ level, want string }{{"critical", "\x1b[31;1m"}, {"high", "\x1b[31m"}, {"medium", "\x1b[33m"}, {"low", "\x1b[36m"}, {"informational", "\x1b[36m"}, {"", "\x1b[36m"}} {
		var b bytes.Buffer
		a := firing("192.0.2.1")
		a.Level = tt.level
		_ = NewTerminal(&b, true).Notify(t.Context(), &a)
		if got := b.String(); got != tt.want+Line(&a)+"\x1b[0m\n" {
			t.Errorf("%s: %q", tt.level, got)
		}
		b.Reset()
		a = resolved(a)
		_ = NewTerminal(&b, true).Notify(t.Context(), &a)
		if got := b.String(); got != "\x1b[32m"+Line(&a)+"\x1b[0m\n" {
			t.Errorf("%s, resolved: %q", tt.level, got)
		}
	}
}

type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestTerminalGone is no reason to stop.
func TestTerminalGone(t *testing.T) {
	a := firing("192.0.2.1")
	if err := NewTerminal(gone{}, true).Notify(t.Context(), &a); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestTerminalTogether prints from many goroutines: lines stay whole.
func TestTerminalTogether(t *testing.T) {
	var b bytes.Buffer
	terminal := NewTerminal(&b, false)
	a := firing("192.0.2.1")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				_ = terminal.Notify(t.Context(), &a)
			}
		})
	}
	wg.Wait()
	if b.String() != strings.Repeat(Line(&a)+"\n", 400) {
		t.Error("lines are torn")
	}
}
