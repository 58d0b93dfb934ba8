package history_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// odd makes rules with every check that there is, and events with whatever may stand
// at a field.
type odd struct{ *rand.Rand }

func (r odd) pick(list ...string) string { return list[r.IntN(len(list))] }

// field is one of a column, of details, behind arrays, and of the rest.
func (r odd) field() string {
	return r.pick("ip", "user_id", "client_name", "scope", "details.a", "details.list.b", "data.details.list{}.b", "other.c", "odd", "details.n", "details", "type", "log_id", "details.at")
}

// text is a value of a rule or an event: each has little to choose from, so that
// they meet.
func (r odd) text() string {
	return r.pick("v0", "V1", "v2", "É%_x", "a'b\\", "", "10.0.0.7", "::ffff:10.0.0.9", "2001:db8::1", "3", "003", "2.50", "true", "a", "two\nlines", "2026-03-04T10:30:05.123Z", "2026-03-04T23:59:59+02:30", "2026-02-30T10:00:00Z")
}

// member is a value as Auth0 might send it one day.
func (r odd) member(depth int) any {
	switch r.IntN(16) {
	case 0:
		return nil
	case 1:
		return r.IntN(4)
	case 7:
		return json.Number(r.pick("9007199254740992", "9007199254740993", "-9007199254740993", "-9007199254740992", "900719925474099301"))
	case 2:
		return 2.5
	case 3:
		return r.IntN(2) == 0
	case 4, 5:
		if depth > 2 {
			return []any{}
		}
		list := []any{}
		for range r.IntN(4) {
			list = append(list, r.member(depth+1))
		}
		return list
	case 6:
		if depth > 1 {
			return map[string]any{}
		}
		return map[string]any{"b": r.member(depth + 1), "c": r.member(depth + 1)}
	}
	return r.text()
}

func (r odd) event(t testing.TB, tenant string, at time.Time, n int) schema.Event {
	members, details := map[string]any{}, map[string]any{"n": r.IntN(5)}
	for _, name := range []string{"ip", "user_id", "client_name", "scope", "odd", "other", "isMobile"} {
		if r.IntN(5) > 0 {
			members[name] = r.member(0)
		}
	}
	members["type"] = r.pick("a", "A", "b", "limit_wc", "v0")
	switch r.IntN(8) {
	case 0:
		members["type"] = r.member(0)
	case 1:
		delete(members, "type")
	}
	for _, name := range []string{"a", "list", "at"} {
		if r.IntN(4) > 0 {
			details[name] = r.member(0)
		}
	}
	if r.IntN(3) == 0 {
		details["list"] = []any{map[string]any{"b": r.member(1)}, []any{map[string]any{"b": r.member(1)}}}
		members["other"] = map[string]any{"c": r.member(0)}
	}
	members["details"] = details
	if r.IntN(12) == 0 {
		members["details"] = r.member(0)
	}
	return event(t, tenant, at, n, members)
}

func quoted(text string) string { return strconv.Quote(text) }

// item is one line of a search identifier.
func (r odd) item() string {
	f := r.field()
	switch r.IntN(22) {
	case 19:
		return "'" + r.pick("|all", "|contains|all", "|neq", "|cased", "") + "': [" + r.pick("v1", "LINES", "0.0", "É", "'3'") + ", " + r.pick("v", "1", "true", "b") + "]"
	case 20:
		return "'" + r.pick("|re': '^v[01]$'", "|re|i': '^É'", "|startswith': V", "|endswith': '_X'", "|cidr': 10.0.0.0/8", "|gt': 2", "|base64offset|contains': v0", "|re|neq': '^v'")
	case 21:
		return f + "|" + r.pick("lt", "lte", "gt", "gte") + r.pick("", "|neq") + ": " + r.pick("9007199254740992", "9007199254740993", "-9007199254740993", "900719925474099301")
	case 0, 1:
		return f + ": " + quoted(r.text())
	case 2:
		return fmt.Sprintf("%s%s: [%s, %s]", f, r.pick("", "|all", "|neq", "|cased", "|cased|neq"), quoted(r.text()), quoted(r.text()))
	case 3:
		return fmt.Sprintf("%s|%s%s: %s", f, r.pick("contains", "startswith", "endswith"), r.pick("", "|cased", "|neq"), quoted(r.pick("V", "v", "é", "%", "_x", "'B", "\\\\", "1", "L", "", "rue")))
	case 4:
		return fmt.Sprintf("%s%s: %s", f, r.pick("", "|cased", "|neq"), quoted(r.pick("v?", "*", "?", "v*", "*0", "?*x", "*%*", "É?_*", "t?o*s", "10.*.7", "a'b\\\\*", "l*_?c")))
	case 5:
		return f + r.pick("", "|neq") + ": null"
	case 6:
		return f + r.pick("", "|all", "|neq") + ": [null, " + quoted(r.text()) + "]"
	case 7:
		return f + "|exists: " + r.pick("true", "false")
	case 8:
		return f + r.pick("", "|neq") + ": " + r.pick("3", "2.5", "0", "2.50", "250e-2", "-1", "003")
	case 9:
		return f + "|" + r.pick("lt", "lte", "gt", "gte") + r.pick("", "|neq") + ": " + r.pick("2", "2.5", "0", "10")
	case 10:
		return f + r.pick("", "|neq", "|all") + ": " + r.pick("true", "[false, 1]", "[2.5, v0]")
	case 11:
		return f + "|fieldref" + r.pick("", "|startswith", "|endswith", "|contains", "|cased", "|neq") + ": " + r.field()
	case 12:
		return f + "|re" + r.pick("", "|i", "|s", "|m") + ": " + quoted(r.pick("^v[01]$", "o.l", "É", "^$", "\\d+", "L", "^lines", "(?:a|b)'?", "\\\\$"))
	case 13:
		return f + "|cidr: " + r.pick("10.0.0.0/8", "10.0.0.7/32", "2001:db8::/32", "'::/0'", "0.0.0.0/0", "[192.0.2.0/24, 10.0.0.8/29]", "'::ffff:10.0.0.0/104'")
	case 14:
		return r.pick("details.at", "ip", "odd", "date", "details.list.b") + "|" + r.pick("minute", "hour", "day", "week", "month", "year") + r.pick("", "|gte", "|lt") + ": " + r.pick("0", "3", "4", "10", "21", "30", "59", "2026")
	case 15:
		return f + "|" + r.pick("base64", "base64offset|contains", "wide|base64offset|contains", "windash|contains") + ": " + r.pick("v0", "a", "'-v'")
	case 16:
		return "type" + r.pick("", "|neq", "|all") + ": " + r.pick("a", "[a, LIMIT_WC]", "limit*", "'*'", "t*", "3", "[a, null]", "true", "'v?'")
	case 17:
		return "type|" + r.pick("startswith", "endswith", "contains") + ": " + r.pick("A", "limit_", "[t, b]", "_wc")
	}
	return f + ": [" + quoted(r.text()) + ", " + quoted(r.text()) + ", 3]"
}

// detection is a document without its header.
func (r odd) detection() string {
	search := func() string {
		if r.IntN(8) == 0 {
			return "[" + r.pick("v1", "LINES", "'10.?.0'", "'3'", "É") + ", " + r.pick("true", "2.5", "limit_wc") + "]"
		}
		seen := map[string]bool{}
		var list []string
		for range 1 + r.IntN(2) {
			item := r.item()
			if name, _, _ := strings.Cut(item, ":"); !seen[name] {
				seen[name] = true
				list = append(list, "\n    "+item)
			}
		}
		return strings.Join(list, "")
	}
	return "detection:\n  s: " + search() + "\n  t: " + search() + "\n  u: " + search() + "\n  condition: " +
		r.pick("s", "s", "s", "s and not t", "s or t", "not s", "s and (t or u)", "s or t and u", "1 of them", "not (s or t)") + "\n"
}

// rows asks a query for its rows as texts.
func rows(t testing.TB, conn driver.Conn, query string) (list []string) {
	t.Helper()
	found, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	defer found.Close()
	types := found.ColumnTypes()
	for found.Next() {
		values := make([]any, len(types))
		for i, typ := range types {
			values[i] = reflect.New(typ.ScanType()).Interface()
		}
		if err := found.Scan(values...); err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, v := range values {
			switch v := reflect.ValueOf(v).Elem(); {
			case v.CanUint():
				texts = append(texts, valueText(float64(v.Uint())))
			case v.CanFloat():
				texts = append(texts, valueText(v.Float()))
			case v.Type() == reflect.TypeFor[time.Time]():
				texts = append(texts, v.Interface().(time.Time).UTC().Format(time.RFC3339Nano))
			default:
				texts = append(texts, v.String())
			}
		}
		list = append(list, strings.Join(texts, "|"))
	}
	if err := found.Err(); err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	return list
}

func valueText(f float64) string { return strconv.FormatFloat(math.Round(f*1e9)/1e9, 'g', -1, 64) }

// TestSQLOfDetections holds the rows of a detection's SQL against what matches, for
// random rules and events.
func TestSQLOfDetections(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	conn, _ := chlocaltest.Open(t)
	tried, matched, refused := 0, 0, 0
	for seed := range uint64(12) {
		r := odd{rand.New(rand.NewPCG(seed, 17))}
		tenant := fmt.Sprintf("t%d", seed)
		var events []schema.Event
		for i := range 150 {
			events = append(events, r.event(t, tenant, start.Add(time.Duration(i)*7*time.Minute+time.Duration(i)*time.Millisecond), i))
		}
		insert(t, conn, events, start)
		for n := range 12 {
			text := "title: d\nid: d\nlevel: low\n" + r.detection()
			set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text)}})
			if report.Count(rules.StatusRefused) > 0 {
				refused++
				continue
			}
			query, err := tosql.Query(set, set.Rules()[0], tosql.Range{Tenant: tenant, Since: tosql.Time{At: start.Add(-time.Second)}, Until: tosql.Time{At: start.Add(24 * time.Hour)}})
			if err != nil {
				t.Fatalf("seed %d.%d: %v\n%s", seed, n, err, text)
			}
			var want, got []string
			m := set.Matcher()
			for i := range events {
				if len(m.Match(events[i].Raw)) > 0 {
					want = append(want, events[i].LogID)
				}
			}
			got = rows(t, conn, "SELECT log_id FROM ("+query+")")
			if diff := cmp.Diff(want, got); diff != "" {
				first := ""
				for i := range events {
					if id := events[i].LogID; slices.Contains(want, id) != slices.Contains(got, id) {
						first = string(events[i].Raw)
						break
					}
				}
				t.Fatalf("seed %d.%d (-matched +SQL):\n%s\n%s\n%s\n%s", seed, n, diff, first, text, query)
			}
			tried++
			matched += len(want)
		}
	}
	if tried < 100 || matched < 2000 {
		t.Errorf("%d rules, of which %d were refused, with %d matches: that shows nothing", tried, refused, matched)
	}
}

// correlations makes correlations of every type.
func (r odd) correlations() string {
	var b strings.Builder
	names := []string{"a", "b", "c"}
	for _, d := range names {
		fmt.Fprintf(&b, "title: %[1]s\nid: %[1]s\ndetection:\n  s: {type: [%[1]s, ab, abc]}\n  condition: s\n---\n", d)
	}
	for i := range 4 {
		id := fmt.Sprintf("k%d", i)
		fmt.Fprintf(&b, "title: %s\nid: %s\nlevel: low\ngenerate: true\n", id, id)
		typ := r.pick("event_count", "event_count", "value_count", "value_sum", "value_avg", "value_percentile", "temporal", "temporal", "temporal_ordered", "temporal_ordered", "event_ratio", "last_events", "event_spike")
		of := slices.Clone(names)
		own := ""
		if strings.HasPrefix(typ, "event_r") || strings.HasPrefix(typ, "last") || strings.HasPrefix(typ, "event_s") {
			of, own = of[:3], "x-tenantwatch-"
		}
		r.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
		of = of[:1+r.IntN(min(len(of), 3))]
		span := fmt.Sprintf("%dm", 1+r.IntN(20))
		if r.IntN(4) == 0 {
			span = fmt.Sprintf("%dh", 1+r.IntN(24))
		}
		fmt.Fprintf(&b, "%scorrelation:\n  type: %s\n  rules: [%s]\n  timespan: %s\n", own, typ, strings.Join(of, ", "), span)
		var by []string
		for _, f := range []string{"ip", "details.who"} {
			if r.IntN(2) == 0 {
				by = append(by, f)
			}
		}
		if own == "" && r.IntN(4) == 0 {
			by = append(by, "actor")
			fmt.Fprintf(&b, "  aliases: {actor: {%s: ip", of[0])
			for _, name := range of[1:] {
				fmt.Fprintf(&b, ", %s: %s", name, r.pick("ip", "details.who", "user_id"))
			}
			b.WriteString("}}\n")
		}
		if len(by) > 0 {
			fmt.Fprintf(&b, "  group-by: [%s]\n", strings.Join(by, ", "))
		}
		bound := func(most int) string {
			if r.IntN(5) == 0 {
				return fmt.Sprintf("gte: 2, lt: %d", 3+most)
			}
			return fmt.Sprintf("%s: %d", r.pick("gt", "gte", "gte", "lt", "lte", "eq", "neq"), 1+r.IntN(most))
		}
		condition := ""
		switch typ {
		case "event_count":
			condition = "{" + bound(5) + "}"
		case "value_count":
			condition = "{field: " + r.pick("details.u", "[details.u, user_id]") + ", " + bound(3) + "}"
		case "value_sum", "value_avg":
			condition = "{field: details.n, " + r.pick("gte", "gt", "lt") + ": " + r.pick("4", "2.5", "0", "-0.5") + "}"
		case "value_percentile":
			condition = fmt.Sprintf("{field: details.n, percentile: %d, %s: 2}", 1+r.IntN(100), r.pick("gte", "lte"))
		case "event_ratio":
			fmt.Fprintf(&b, "  among: [a, %s]\n  min: %d\n", r.pick("b", "c"), 1+r.IntN(4))
			condition = "{" + r.pick("gte", "lt", "eq") + ": 0.5}"
		case "last_events":
			fmt.Fprintf(&b, "  among: [%s]\n  last: %d\n", r.pick("b", "c", "a, b"), 3+r.IntN(3))
			condition = "{gte: " + r.pick("2", "3") + "}"
		case "event_spike":
			fmt.Fprintf(&b, "  over: %dd\n  min: %d\n", 2+r.IntN(2), 1+r.IntN(2))
			condition = "{" + r.pick("gte: 2", "gt: 0.5", "lte: 1") + "}"
		case "temporal", "temporal_ordered":
			if len(of) > 1 && r.IntN(2) == 0 {
				condition = of[0] + " and not " + of[1]
				for _, name := range of[2:] {
					condition += " and " + name
				}
			} else if typ == "temporal" && len(of) > 1 && r.IntN(2) == 0 {
				condition = strings.Join(of, " or ")
			} else if r.IntN(3) == 0 {
				condition = fmt.Sprintf("{gte: %d}", 1+r.IntN(len(of)))
			}
		}
		if condition != "" {
			fmt.Fprintf(&b, "  condition: %s\n", condition)
		}
		b.WriteString("---\n")
		if own == "" || typ != "last_events" {
			names = append(names, id)
		}
	}
	return b.String()
}

// countedEvent is an event as a correlation counts it.
type countedEvent struct {
	at      int64 // ms
	seen    uint64
	texts   []string
	numbers []float64
}

// combined are all combinations of the texts that an event has at some fields, or of
// those that are not there twice.
func combined(m *expr.Matcher, fields []expr.Field, unique bool) []string {
	list := []string{""}
	for i, f := range fields {
		var longer []string
		for _, text := range m.AppendTexts(nil, f) {
			for _, before := range list {
				if i > 0 {
					before += "|"
				}
				longer = append(longer, before+string(text.Text))
			}
		}
		list = longer
	}
	if unique {
		slices.Sort(list)
		list = slices.Compact(list)
	}
	return list
}

// plainly finds, by looking at all that came before each event again, at which of
// them the condition of a set's rule holds, in which groups and with what value.
func plainly(set *rules.Set, rule int, events []schema.Event) (found []string, at map[int]bool) {
	r := set.Rules()[rule]
	c := r.Correlation
	at = map[int]bool{}
	m := set.Matcher()
	var is []map[int]bool // by source
	hits := func(i int) map[int]bool {
		if set.Rules()[i].Correlation != nil {
			_, at := plainly(set, i, events)
			return at
		}
		list := map[int]bool{}
		for n := range events {
			list[n] = slices.Contains(m.Match(events[n].Raw), i)
		}
		return list
	}
	for _, s := range c.Sources {
		is = append(is, hits(s.Rule))
	}
	among := map[int]bool{}
	for _, i := range c.Among {
		for n, hit := range hits(i) {
			among[n] = among[n] || hit
		}
	}
	valued := c.Type.Name() == "value_sum" || c.Type.Name() == "value_avg" || c.Type.Name() == "value_percentile"
	groups := map[string][]countedEvent{}
	for n := range events {
		m.Match(events[n].Raw)
		mine := map[string]*countedEvent{}
		place := func(k int, seen uint64) {
			e := countedEvent{at: events[n].Date.UnixMilli(), seen: seen}
			if len(c.Sources[k].Values) > 0 {
				e.texts = combined(m, c.Sources[k].Values, !valued)
			}
			for _, text := range e.texts {
				if number, err := strconv.ParseFloat(text, 64); valued && err == nil {
					e.numbers = append(e.numbers, number)
				}
			}
			if valued && len(e.numbers) == 0 || !valued && len(c.Sources[k].Values) > 0 && len(e.texts) == 0 {
				return
			}
			for _, group := range combined(m, c.Sources[k].GroupBy, true) {
				if mine[group] == nil {
					own := e
					mine[group] = &own
				}
				mine[group].seen |= seen
			}
		}
		for k := range c.Sources {
			if is[k][n] {
				place(k, 1<<k)
			}
		}
		if among[n] {
			place(0, 0)
		}
		for group, e := range mine {
			groups[group] = append(groups[group], *e)
			value, holds := judgedPlainly(r, groups[group])
			if holds {
				at[n] = true
				parts := []string{events[n].Date.UTC().Format(time.RFC3339Nano), events[n].LogID, events[n].Tenant}
				if len(c.Sources[0].GroupBy) > 0 {
					parts = append(parts, group)
				}
				found = append(found, strings.Join(append(parts, valueText(value)), "|"))
			}
		}
	}
	slices.Sort(found)
	return found, at
}

// judgedPlainly is the value in the window up to the last of a group's events.
func judgedPlainly(r *rules.Rule, all []countedEvent) (value float64, holds bool) {
	c := r.Correlation
	now, span := all[len(all)-1].at, c.Timespan.Milliseconds()
	var in []countedEvent
	for i, e := range all {
		if e.at > now-span && (c.Type.Name() != "last_events" || i >= len(all)-c.Last) {
			in = append(in, e)
		}
	}
	var seen uint64
	sum, matches, texts, numbers := 0.0, 0, map[string]bool{}, []float64{}
	for _, e := range in {
		seen |= e.seen
		for _, number := range e.numbers {
			sum += number
		}
		for _, text := range e.texts {
			texts[text] = true
		}
		numbers = append(numbers, e.numbers...)
		if e.seen != 0 {
			matches++
		}
	}
	slices.Sort(numbers)
	switch c.Type.Name() {
	case "event_count":
		value = float64(len(in))
	case "value_count":
		value = float64(len(texts))
	case "value_sum":
		value = sum
	case "value_avg":
		value = sum / float64(len(numbers))
	case "value_percentile":
		value = numbers[max(int(math.Ceil(c.Percentile*float64(len(numbers))/100)), 1)-1]
	case "temporal":
		for k := range c.Sources {
			value += float64(seen >> k & 1)
		}
	case "temporal_ordered":
		var order []int
		for k := range c.Sources {
			if c.Need == nil || c.Need.Wanted()>>k&1 == 1 {
				order = append(order, k)
			}
		}
		for _, e := range in {
			if int(value) < len(order) && e.seen>>order[int(value)]&1 == 1 {
				value++
			}
		}
		if c.Need != nil && int(value) < len(order) {
			return value, false
		}
	case "event_ratio":
		value = float64(matches) / float64(len(in))
		return value, len(in) >= c.Least && c.Holds(value)
	case "last_events":
		value = float64(matches)
	case "event_spike":
		const day = 24 * 3600 * 1000
		newest := now // when what no longer matters was last forgotten
		if len(all) > 1 {
			newest = all[len(all)-2].at
		}
		forgotten := newest - span - c.Over.Milliseconds() - (5 * time.Minute).Milliseconds() - r.Alert.KeepFiringFor.Milliseconds()
		first := slices.IndexFunc(all, func(e countedEvent) bool { return e.at >= forgotten })
		var counts []int
		for back := int64(day); back <= c.Over.Milliseconds() && now-back-span >= all[first].at; back += day {
			n := 0
			for _, e := range all {
				if e.at > now-back-span && e.at <= now-back {
					n++
				}
			}
			counts = append(counts, n)
		}
		slices.Sort(counts)
		n := len(counts)
		if n == 0 || int64(2*n) < c.Over.Milliseconds()/day {
			return 0, false
		}
		value = float64(len(in)) / max(float64(counts[(n-1)/2]+counts[n/2])/2, 1)
		return value, len(in) >= c.Least && c.Holds(value)
	}
	if c.Need != nil {
		return value, c.Need.Met(seen)
	}
	return value, c.Holds(value)
}

// TestSQLOfCorrelations holds the rows of a correlation's SQL against a plain
// reading of the rule, and that against what an engine judges, for random rules and
// events.
func TestSQLOfCorrelations(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	conn, _ := chlocaltest.Open(t)
	tried, held, chained := map[string]int{}, map[string]int{}, 0
	for seed := range uint64(40) {
		r := odd{rand.New(rand.NewPCG(seed, 23))}
		text := r.correlations()
		set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text)}})
		for _, d := range report.Documents {
			if d.Status == rules.StatusRefused && !strings.Contains(d.Reason, "can never hold") && !strings.Contains(d.Reason, "no value satisfies") && !strings.Contains(d.Reason, "refers to") && !strings.Contains(d.Reason, "requires no rule to match") {
				t.Fatalf("seed %d: %s\n%s", seed, d.Reason, text)
			}
		}
		tenant := fmt.Sprintf("t%d", seed)
		at, step := start, time.Second
		if seed%3 == 0 {
			step = time.Minute
		}
		var events []schema.Event
		for i := range 120 {
			at = at.Add(time.Duration(r.IntN(3)*30*r.IntN(4)) * step) // often at the same time
			members, details := map[string]any{"type": r.pick("a", "b", "c", "ab", "abc", "z")}, map[string]any{}
			for _, name := range []string{"ip", "user_id"} {
				if r.IntN(8) > 0 {
					members[name] = []any{"v0", "v1", "v0", "v1", "", nil, []any{"v0", "v1"}, []any{"v1", "v1", nil, ""}}[r.IntN(8)]
				}
			}
			if r.IntN(8) > 0 {
				details["n"] = []any{1, 2.5, -1, "3", "x", 4, []any{1, 1, 2, "x"}, []any{}}[r.IntN(8)]
			}
			if r.IntN(8) > 0 {
				details["u"] = []any{"u0", "u1", "u2", []any{"u1", "u3"}, ""}[r.IntN(5)]
			}
			if r.IntN(8) > 0 {
				details["who"] = []any{"v0", "v1", []any{map[string]any{}, []any{nil, "v0"}}}[r.IntN(3)]
			}
			members["details"] = details
			events = append(events, event(t, tenant, at, i, members))
		}
		insert(t, conn, events, start)

		judged := map[string]bool{} // by rule, group, event and value
		var current *schema.Event
		e := scanner.NewEngine(set, scanner.Config{Evaluated: func(r *rules.Rule, g scanner.Evaluated, value float64) {
			parts := []string{r.ID, current.Date.UTC().Format(time.RFC3339Nano), current.LogID, current.Tenant}
			for _, v := range g.Values() {
				parts = append(parts, v.Value)
			}
			judged[strings.Join(append(parts, valueText(value)), "|")] = true
		}})
		for i := range events {
			current = &events[i]
			e.Observe(current)
		}
		since := start.Add(-time.Second)
		if seed%2 == 0 && !strings.Contains(text, "event_spike") {
			since = events[40].Date // what is before it counts, but is not told
		}
		for i, rule := range set.Rules() {
			c := rule.Correlation
			if c == nil {
				continue
			}
			all, _ := plainly(set, i, events)
			var want []string
			for _, row := range all {
				if !judged[rule.ID+"|"+row] {
					t.Fatalf("seed %d, %s: the engine does not judge %s\n%s", seed, rule.ID, row, text)
				}
				if date, _, _ := strings.Cut(row, "|"); date > since.UTC().Format(time.RFC3339Nano) {
					want = append(want, row)
				}
			}
			query, err := tosql.Query(set, rule, tosql.Range{Tenant: tenant, Since: tosql.Time{At: since}, Until: tosql.Time{At: at}})
			if err != nil {
				t.Fatalf("seed %d, %s: %v\n%s", seed, rule.ID, err, text)
			}
			got := rows(t, conn, query)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, %s (-plainly +SQL):\n%s\n%s\n%s", seed, rule.ID, diff, text, query)
			}
			tried[c.Type.Name()]++
			held[c.Type.Name()] += min(len(want), 10)
			if slices.ContainsFunc(c.Sources, func(s rules.Source) bool { return set.Rules()[s.Rule].Correlation != nil }) && len(want) > 0 {
				chained++
			}
		}
	}
	for _, typ := range correlation.Types() {
		if tried[typ.Name()] < 5 || held[typ.Name()] < 20 {
			t.Errorf("%s was tried %d times and held %d times: that shows nothing", typ.Name(), tried[typ.Name()], held[typ.Name()])
		}
	}
	if chained < 15 {
		t.Errorf("%d chains held", chained)
	}
}

// catalogVars sets what Auth0's catalog asks its reader for.
var catalogVars = rules.Vars{"global_client_id": {"dashboard"}, "api_explorer_client_id": {"explorer"}, "your-tenant-url": {"t.auth0.com"},
	"your-tenant-domain": {"t.eu.auth0.com"}, "trusted-client_id-1": {"trusted1"}, "trusted-client_id-2": {"trusted2"}}

// TestSQLOfEveryRule asks the SQL of all rules that come along, of those in the manner of
// Auth0's catalog, and of that itself where it lies beside the repository, of an empty
// table.
func TestSQLOfEveryRule(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see here")
	}
	conn, _ := chlocaltest.Open(t)
	refused := map[string]string{}
	ask := func(set *rules.Set) {
		for _, r := range set.Rules() {
			query, err := tosql.Query(set, r, tosql.Range{Since: tosql.Time{Ago: 24 * time.Hour}})
			if err != nil {
				refused[r.File] = err.Error()
				continue
			}
			if got := rows(t, conn, query); len(got) > 0 {
				t.Errorf("%s: rows of nothing: %s", r.File, got)
			}
		}
	}
	set, _ := rules.Load(nil, builtin.FS())
	ask(set)
	if diff := cmp.Diff(map[string]string{}, refused); diff != "" {
		t.Errorf("refused of those that come along (-want +got):\n%s", diff)
	}
	manner, report := rules.Load(catalogVars, os.DirFS(filepath.Join("..", "..", "rules", "testdata", "catalog")))
	if len(manner.Rules()) != len(report.Documents) || len(manner.Rules()) < 30 {
		t.Errorf("%d of %d rules in the catalog's manner run", len(manner.Rules()), len(report.Documents))
	}
	ask(manner)
	if len(refused) != 1 || !strings.Contains(refused["template.yml"], "RE2 does not support") {
		t.Errorf("refused of those in the catalog's manner: %v", refused)
	}

	clear(refused)
	dir := filepath.Join("..", "..", "..", "shared", "data", "auth0-detections")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("not proven: that Auth0's catalog itself has SQL; rules in its manner are asked: %v", err)
	}
	set, report = rules.Load(catalogVars, os.DirFS(dir))
	if len(set.Rules()) != len(report.Documents) {
		t.Errorf("%d of %d rules of the catalog run", len(set.Rules()), len(report.Documents))
	}
	ask(set)
	want := map[string]string{"liquidjs_xss_vulnerability.yml": "liquidjs_xss_vulnerability.yml:1: Loaded LiquidJS error page template contains XSS vulnerabilities: the regular expression"}
	for file, reason := range refused {
		if !strings.HasPrefix(reason, want[file]) || want[file] == "" || !strings.HasSuffix(reason, "RE2 does not support it, and ClickHouse has no other engine") {
			t.Errorf("%s is refused: %s", file, reason)
		}
		delete(want, file)
	}
	for file := range want {
		t.Errorf("%s is not refused", file)
	}
}
