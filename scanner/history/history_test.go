package history_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// start is when the events of a test begin.
var start = time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)

// event makes an event; n tells it from others.
func event(t testing.TB, tenant string, at time.Time, n int, members map[string]any) schema.Event {
	t.Helper()
	id := fmt.Sprintf("900%s%03d%036d", at.UTC().Format("20060102150405"), at.UnixMilli()%1000, n)
	whole := map[string]any{"log_id": id, "date": at.UTC().Format("2006-01-02T15:04:05.000Z")}
	for name, value := range members {
		whole[name] = value
	}
	raw, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return schema.Event{Tenant: tenant, Source: schema.SourceTail, FetchedAt: at, LogID: id, Date: at.UTC(), Raw: raw}
}

// insert stores events as the writer does.
func insert(t testing.TB, conn driver.Conn, events []schema.Event, insertedAt time.Time) {
	t.Helper()
	columns := append([]string{"tenant", "date", "type", "log_id", "members"}, schema.TextColumns()...)
	columns = append(columns, "details", "rest", "source", "fetched_at", "inserted_at")
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO events_stored ("+strings.Join(columns, ", ")+")")
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range events {
		row, err := schema.ParseRow(ev.Raw)
		if err != nil {
			t.Fatal(err)
		}
		values := []any{ev.Tenant, row.Date, row.Type, row.LogID, row.Members}
		for _, text := range row.Texts[schema.FirstText:] {
			values = append(values, text)
		}
		if err := batch.Append(append(values, row.Details, row.Rest, string(ev.Source), ev.FetchedAt, insertedAt)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
}

// random makes rules and events that are much like each other.
type random struct {
	*rand.Rand
	tidy bool // values are text
}

func (r random) pick(list ...string) string { return list[r.IntN(len(list))] }

// field is one of a column, of details, behind an array, and of the rest.
func (r random) field() string {
	return r.pick("ip", "user_id", "details.a", "details.list.b", "other.c", "scope", "details.tags", "odd")
}

func (r random) value() string { return fmt.Sprintf("v%d", r.IntN(3)) }

// detection is a document without its header.
func (r random) detection() string {
	var items []string
	if r.IntN(5) > 0 {
		items = append(items, "type: "+r.pick("a", "A", "[a, b]", "a*", "'?'", "5", "[a, null]", "x"))
	}
	for range r.IntN(3) {
		items = append(items, r.pick(
			r.field()+": "+r.value(), r.field()+"|contains: V", r.field()+"|neq: "+r.value(), r.field()+": null",
			r.field()+"|exists: "+r.pick("true", "false"), r.field()+"|fieldref: "+r.field(), r.field()+": ["+r.value()+", "+r.value()+"]", "details.n|gte: 2"))
	}
	var list []string
	seen := map[string]bool{}
	for _, item := range items {
		name, _, _ := strings.Cut(item, ":")
		if !seen[name] {
			seen[name] = true
			list = append(list, "    "+item)
		}
	}
	if len(list) == 0 {
		return "detection:\n  s: [v1, A]\n  condition: s\n" // keywords
	}
	return "detection:\n  s:\n" + strings.Join(list, "\n") + "\n  t: {user_id: v2}\n  condition: " + r.pick("s", "s", "s and not t", "s or t", "not s") + "\n"
}

func (r random) correlation(of []string) string {
	typ := r.pick("event_count", "event_count", "event_count", "value_count", "value_sum", "value_avg", "value_percentile", "temporal", "temporal_ordered")
	r.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
	of = of[:1+r.IntN(min(len(of), 2))]
	var b strings.Builder
	fmt.Fprintf(&b, "correlation:\n  type: %s\n  rules: [%s]\n  timespan: %dm\n", typ, strings.Join(of, ", "), 1+r.IntN(20))
	var by []string
	for range r.IntN(3) {
		if f := r.field(); !slices.Contains(by, f) {
			by = append(by, f)
		}
	}
	if len(by) > 0 && r.IntN(6) == 0 {
		fmt.Fprintf(&b, "  aliases: {who: {%s: %s}}\n", of[0], r.field())
		by[0] = "who"
	}
	if len(by) > 0 {
		fmt.Fprintf(&b, "  group-by: [%s]\n", strings.Join(by, ", "))
	}
	switch typ {
	case "event_count":
		fmt.Fprintf(&b, "  condition: %s\n", r.pick("{gte: 3}", "{gte: 5}", "{gt: 3}", "{lt: 3}", "{eq: 4}", "{gte: 3, lt: 6}"))
	case "value_count":
		fmt.Fprintf(&b, "  condition: {field: %s, %s}\n", r.field(), r.pick("gte: 2", "gte: 3", "eq: 2"))
	case "value_sum", "value_avg":
		fmt.Fprintf(&b, "  condition: {field: details.n, %s}\n", r.pick("gte: 4", "gt: 2.5", "lt: 1"))
	case "value_percentile":
		fmt.Fprintf(&b, "  condition: {field: details.n, percentile: 80, gte: 3}\n")
	}
	return b.String()
}

func (r random) rules() string {
	var b strings.Builder
	var names []string
	for i := range 3 {
		name := fmt.Sprintf("d%d", i)
		fmt.Fprintf(&b, "title: %[1]s\nid: %[1]s\n%[2]sgenerate: true\n---\n", name, strings.Replace(r.detection(), "detection:", "level: low\ndetection:", 1))
		names = append(names, name)
	}
	for i := range 3 {
		name := fmt.Sprintf("c%d", i)
		fmt.Fprintf(&b, "title: %[1]s\nid: %[1]s\nlevel: low\ngenerate: true\n%[2]s---\n", name, r.correlation(slices.Clone(names)))
		names = append(names, name)
	}
	return b.String()
}

// member is a value as Auth0 might send it one day: text as a rule, but also what
// has no column.
func (r random) member() any {
	if r.IntN(10) == 0 {
		return ""
	}
	if r.tidy {
		return r.value()
	}
	switch r.IntN(12) {
	case 0:
		return nil
	case 1:
		return []any{r.value(), r.value()}
	case 2:
		return r.IntN(3)
	case 3:
		return strings.ToUpper(r.value())
	case 4:
		return []any{map[string]any{"b": r.value()}}
	}
	return r.value()
}

func (r random) event(t testing.TB, tenant string, at time.Time, n int) schema.Event {
	members, details := map[string]any{}, map[string]any{"n": r.IntN(6)}
	switch r.IntN(10) {
	case 0:
		members["type"] = 5
	case 1:
	default:
		members["type"] = r.pick("a", "A", "b", "ab", "z")
	}
	for _, name := range []string{"ip", "user_id", "scope", "odd"} {
		if r.IntN(5) > 0 {
			members[name] = r.member()
		}
	}
	for _, name := range []string{"a", "tags"} {
		if r.IntN(4) > 0 {
			details[name] = r.member()
		}
	}
	details["list"] = []any{map[string]any{"b": r.member()}, map[string]any{"b": r.value()}}
	members["other"] = map[string]any{"c": r.member()}
	members["details"] = details
	if !r.tidy && r.IntN(8) == 0 {
		delete(members, "details")
		members["details.a"] = r.value() // a name with a dot
	}
	ev := event(t, tenant, at, n, members)
	if !r.tidy && r.IntN(6) == 0 {
		ev.Raw = bytes.ReplaceAll(ev.Raw, []byte(`"v1"`), []byte(`"\u0076\u0031"`)) // the same
	}
	return ev
}

// told is an alert's transition.
type told struct {
	Rule, Group, State, Level string
	At                        time.Time
	Count                     float64
}

func tell(a *schema.Alert) told {
	group := ""
	for _, g := range a.Group {
		group += g.Field + "=" + g.Value + " "
	}
	return told{a.RuleID, group, string(a.State), a.Level, a.UpdatedAt, a.Count}
}

// streamed is what an engine makes of events as they are.
func streamed(set *rules.Set, events []schema.Event) []told {
	e := scanner.NewEngine(set, scanner.Config{})
	var list []told
	for i := range events {
		for _, a := range e.Observe(&events[i]) {
			list = append(list, tell(&a))
		}
	}
	return list
}

// TestSameAlerts holds what comes of random events in the stream against what comes
// of the same events from ClickHouse, for random rules.
func TestSameAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	conn, _ := chlocaltest.Open(t)
	store := history.NewStore(conn)
	fired, pruned := 0, 0
	for seed := range uint64(60) {
		r := random{rand.New(rand.NewPCG(seed, 5)), seed%2 == 0}
		text := r.rules()
		set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text)}})
		for _, d := range report.Documents {
			if d.Status == rules.StatusRefused {
				t.Fatalf("seed %d: %s\n%s", seed, d.Reason, text)
			}
		}
		tenant := fmt.Sprintf("t%d", seed)
		at := start
		var events []schema.Event
		for i := range 80 {
			at = at.Add(time.Duration(r.IntN(3)*r.IntN(90)) * time.Second)
			events = append(events, r.event(t, tenant, at, i))
		}
		insert(t, conn, events, start)
		insert(t, conn, events[:40], start.Add(time.Hour)) // stored twice

		for _, rule := range set.Rules() {
			own := set.Select(func(x *rules.Rule) bool { return x.ID == rule.ID })
			want := streamed(own, events)
			for _, groups := range []bool{false, true} {
				q := &history.Query{Set: own, Tenant: tenant, Since: start.Add(-time.Second), Until: at, Groups: groups}
				got, read := readAll(t, store, q, at)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d, rule %s, groups %v (-stream +history):\n%s\n%s\n%s", seed, rule.ID, groups, diff, text, q.SQL())
				}
				if groups && read < len(events)/2 {
					pruned++
				}
			}
			fired += len(want)
		}
	}
	if fired < 500 || pruned < 20 {
		t.Errorf("%d transitions, %d queries that left much out: that shows nothing", fired, pruned)
	}
}

// readAll runs an engine over what a query yields.
func readAll(t testing.TB, store *history.Store, q *history.Query, until time.Time) (list []told, read int) {
	t.Helper()
	e := scanner.NewEngine(q.Set, scanner.Config{})
	err := store.Read(context.Background(), q, func(ev *schema.Event, _ bool) error {
		read++
		for _, a := range e.Observe(ev) {
			list = append(list, tell(&a))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, q.SQL())
	}
	for _, a := range e.Advance(q.Tenant, until) {
		list = append(list, tell(&a))
	}
	return list, read
}

// numbered is so many texts made of a format for a number, one after the other.
func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// TestOddSpellings reads back, for a rule that wants a text in the details, whatever
// has it there in some spelling, and not what has not.
func TestOddSpellings(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	store := history.NewStore(conn)
	for name, tt := range map[string]struct {
		detection string
		match     []string // as JSON members of an event
		other     []string
	}{
		"a text": {"{details.a: kin*, details.b: 'a/b'}",
			[]string{
				`"details":{"a":"king","b":"a/b"}`, `"details":{"a":"KING","b":"A/B"}`, `"details":{"a":"k\u0069ng","b":"a\/b"}`,
				`"details":{"a":"\u212Aing","b":"a/b"}`, `"details":{"a":"` + "\u212a" + `ing","b":"a/b"}`, // the Kelvin sign is a k, too
				`"details":{"a":["x","kin"],"b":["a/b",7]}`, `"details.a":"kin","details.b":"a/b"`, `"d\u0065tails":{"a":"kin","b":"a/b"}`,
				`"details\u002ea":"kin","details.b":"a/b"`, `"details":{"x":1},"details.a":"kin","details.b":"a/b"`,
				`"d\u0065tails.a":"kin","d\u0065tails.b":"a/b"`,
			},
			[]string{`"details":{"a":"akin","b":"b"}`, `"details":{"b":"king"}`, `"other":"a/b"`}},
		"a number": {"{details.a: [17, 'true']}",
			[]string{`"details":{"a":17}`, `"details":{"a":"17"}`, `"details":{"a":17.0}`, `"details":{"a":true}`, `"details":{"a":[1,"TRUE"]}`},
			[]string{`"details":{"a":18}`}},
		"one of two": {"{details.a|contains: ['x y', '?z*']}",
			[]string{`"details":{"a":"-X Y-"}`, `"details":{"a":"az"}`}, []string{`"details":{"a":"z"}`}},
		"one of many": {"{details.a: [" + numbered("x%d, ", 400) + "y]}", []string{`"details":{"a":"Y"}`}, []string{`"details":{"a":"z"}`}},
		"one of long": {"{details.a: [" + strings.Repeat("x", 300_000) + ", y]}", []string{`"details":{"a":"Y"}`}, []string{`"details":{"a":"z"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte("title: t\nid: t\nlevel: low\ndetection: {s: " + tt.detection + ", condition: s}\n")}})
			if len(set.Rules()) != 1 {
				t.Fatal(report.Documents[0].Reason)
			}
			var events []schema.Event
			for i, members := range append(slices.Clone(tt.match), tt.other...) {
				ev := event(t, name, start.Add(time.Duration(i)*time.Hour), i, nil)
				ev.Raw = append(bytes.TrimSuffix(ev.Raw, []byte("}")), ","+members+"}"...)
				events = append(events, ev)
			}
			insert(t, conn, events, start)
			until := start.Add(time.Duration(len(events)) * time.Hour)
			matcher := set.Matcher()
			got := map[string]bool{}
			err := store.Read(t.Context(), &history.Query{Set: set, Tenant: name, Since: start.Add(-time.Hour), Until: until}, func(ev *schema.Event, _ bool) error {
				got[ev.LogID] = len(matcher.Match(ev.Raw)) > 0
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range events {
				if matched := got[events[i].LogID]; matched != (i < len(tt.match)) || matched != (len(matcher.Match(events[i].Raw)) > 0) {
					t.Errorf("%s: matched %v", events[i].Raw, matched)
				}
			}
		})
	}
}

// TestManyOpen reads the groups with open alerts, of which there may be many.
func TestManyOpen(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(failing)}})
	insert(t, conn, []schema.Event{event(t, "acme", start, 1, map[string]any{"type": "fp", "ip": "group 7"}), event(t, "acme", start, 2, map[string]any{"type": "fp", "ip": "another"})}, start)
	q := &history.Query{Set: set, Since: start.Add(-time.Hour), Until: start, Groups: true, NewSince: start.Add(-time.Minute)}
	for i := range 20_000 {
		q.Open = append(q.Open, []string{"acme", fmt.Sprintf("group %d", i)})
	}
	var got []string
	err := history.NewStore(conn).Read(t.Context(), q, func(ev *schema.Event, _ bool) error {
		got = append(got, string(ev.Raw))
		return nil
	})
	if want := []string{`{"type":"fp","ip":"group 7"}`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%.300v: %q, want %q", err, got, want)
	}
}
