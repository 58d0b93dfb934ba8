package scanner

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// plainEvent is an event as the plain reading of Sigma below sees it.
type plainEvent struct {
	at     time.Duration
	typ    string
	fields map[string]string
	n      float64
}

// plainCorrelation is a correlation in the words of its document, and how the
// plain reading evaluates it.
type plainCorrelation struct {
	id, typ, timespan, condition string
	rules                        []string
	groupBy                      []string
	aliases                      map[string]map[string]string
	percentile                   float64
	field                        string // of value_count and its like
	span                         time.Duration
	bounds                       map[string]float64
	words                        func(seen map[string]bool) bool
	wanted                       []string // words: what is not to be absent
}

func (c *plainCorrelation) document() string {
	var b strings.Builder
	fmt.Fprintf(&b, "title: %s\nid: %s\nlevel: low\ncorrelation:\n  type: %s\n  rules: [%s]\n  timespan: %s\n", c.id, c.id, c.typ, strings.Join(c.rules, ", "), c.timespan)
	if len(c.groupBy) > 0 {
		fmt.Fprintf(&b, "  group-by: [%s]\n", strings.Join(c.groupBy, ", "))
	}
	if len(c.aliases) > 0 {
		b.WriteString("  aliases:\n")
		for alias, fields := range c.aliases {
			fmt.Fprintf(&b, "    %s: {", alias)
			for rule, field := range fields {
				fmt.Fprintf(&b, "%s: %s, ", rule, field)
			}
			b.WriteString("}\n")
		}
	}
	switch {
	case c.words != nil:
		fmt.Fprintf(&b, "  condition: %s\n", c.condition)
	case len(c.bounds) > 0:
		b.WriteString("  condition:\n")
		for op, than := range c.bounds {
			fmt.Fprintf(&b, "    %s: %v\n", op, than)
		}
		if c.field != "" {
			fmt.Fprintf(&b, "    field: %s\n", c.field)
		}
		if c.percentile > 0 {
			fmt.Fprintf(&b, "    percentile: %v\n", c.percentile)
		}
	}
	b.WriteString("---\n")
	return b.String()
}

// plainHit is an event at which a rule holds; of a correlation, with its group and
// the value that its condition is about.
type plainHit struct {
	event int
	group string
	value float64
}

// plainly evaluates a correlation at each event, by looking at all that came
// before it again.
func (c *plainCorrelation) plainly(events []plainEvent, hits map[string][]plainHit) []plainHit {
	type counted struct {
		event int
		seen  map[string]bool
		text  string
		n     float64
	}
	groups := map[string][]counted{}
	var out []plainHit
	for i, e := range events {
		keyed := map[string]map[string]bool{} // the rules that the event is of, by group
		values := map[string]string{}
		for _, rule := range c.rules {
			if !slices.ContainsFunc(hits[rule], func(h plainHit) bool { return h.event == i }) {
				continue
			}
			field := func(name string) string {
				if f := c.aliases[name][rule]; f != "" {
					name = f
				}
				return e.fields[name]
			}
			var key []string
			for _, name := range c.groupBy {
				key = append(key, field(name))
			}
			if slices.Contains(key, "") {
				continue
			}
			group := strings.Join(key, "/")
			if keyed[group] == nil {
				keyed[group] = map[string]bool{}
			}
			keyed[group][rule] = true
			values[group] = field(c.field)
		}
		for group, seen := range keyed {
			if c.field == "details.u" && values[group] == "" {
				continue
			}
			groups[group] = append(groups[group], counted{i, seen, values[group], e.n})
			var in []counted
			for _, x := range groups[group] {
				if events[x.event].at > e.at-c.span {
					in = append(in, x)
				}
			}
			all, texts := map[string]bool{}, map[string]bool{}
			var sum float64
			var numbers []float64
			for _, x := range in {
				for rule := range x.seen {
					all[rule] = true
				}
				texts[x.text] = true
				sum += x.n
				numbers = append(numbers, x.n)
			}
			slices.Sort(numbers)
			value := 0.0
			switch c.typ {
			case "event_count":
				value = float64(len(in))
			case "value_count":
				value = float64(len(texts))
			case "value_sum":
				value = sum
			case "value_avg":
				value = sum / float64(len(in))
			case "value_percentile":
				for _, n := range numbers {
					below := 0
					for _, m := range numbers {
						if m <= n {
							below++
						}
					}
					if value = n; 100*float64(below) >= c.percentile*float64(len(numbers)) {
						break
					}
				}
			case "temporal":
				value = float64(len(all))
			case "temporal_ordered":
				order := c.rules
				if c.words != nil {
					order = c.wanted
				}
				for _, x := range in {
					if int(value) < len(order) && x.seen[order[int(value)]] {
						value++
					}
				}
			}
			holds := true
			for op, than := range c.bounds {
				holds = holds && map[string]bool{"gt": value > than, "gte": value >= than, "lt": value < than, "lte": value <= than, "eq": value == than, "neq": value != than}[op]
			}
			if c.words != nil {
				holds = c.words(all) && (c.typ == "temporal" || int(value) == len(c.wanted))
			} else if len(c.bounds) == 0 {
				holds = int(value) == len(c.rules)
			}
			if holds {
				out = append(out, plainHit{i, group, value})
			}
		}
	}
	return out
}

// randomCorrelation counts detections a, b and c, and correlations before it.
func randomCorrelation(r *rand.Rand, id string, inner []string) *plainCorrelation {
	names := append([]string{"ra", "rb", "rc"}, inner...)
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	span := time.Duration(1+r.IntN(20)) * time.Minute
	c := &plainCorrelation{id: id, rules: names[:1+r.IntN(3)], span: span, timespan: fmt.Sprintf("%ds", int(span.Seconds())),
		typ: []string{"event_count", "value_count", "value_sum", "value_avg", "value_percentile", "temporal", "temporal_ordered"}[r.IntN(7)]}
	for _, f := range []string{"ip", "user_id"} {
		if r.IntN(2) == 0 {
			c.groupBy = append(c.groupBy, f)
		}
	}
	if r.IntN(4) == 0 {
		c.groupBy = append(c.groupBy, "actor")
		c.aliases = map[string]map[string]string{"actor": {}}
		for _, rule := range c.rules {
			c.aliases["actor"][rule] = []string{"ip", "user_id", "client_id"}[r.IntN(3)]
		}
	}
	op := func() string { return []string{"gt", "gte", "gte", "gte", "lt", "lte", "eq", "neq"}[r.IntN(8)] }
	switch c.typ {
	case "event_count":
		c.bounds = map[string]float64{op(): float64(1 + r.IntN(6))}
		if r.IntN(4) == 0 {
			c.bounds = map[string]float64{"gt": 2, "lte": float64(4 + r.IntN(4))}
		}
	case "value_count":
		c.field, c.bounds = "details.u", map[string]float64{op(): float64(1 + r.IntN(4))}
	case "value_sum", "value_avg", "value_percentile":
		c.field, c.bounds = "details.n", map[string]float64{op(): float64(r.IntN(20)) / 2}
		if c.typ == "value_percentile" {
			c.percentile = float64(1 + r.IntN(100))
		}
	default:
		if len(c.rules) > 1 && r.IntN(2) == 0 {
			var parts []string
			absent := r.IntN(len(c.rules))
			for i, rule := range c.rules {
				if i == absent {
					parts = append(parts, "not "+rule)
				} else {
					parts = append(parts, rule)
					c.wanted = append(c.wanted, rule)
				}
			}
			c.condition = strings.Join(parts, " and ")
			c.words = func(seen map[string]bool) bool {
				return !seen[c.rules[absent]] && !slices.ContainsFunc(c.wanted, func(rule string) bool { return !seen[rule] })
			}
		} else if r.IntN(3) == 0 {
			c.bounds = map[string]float64{op(): float64(r.IntN(len(c.rules)) + 1)}
		}
	}
	return c
}

// randomScenario is random correlations, some of others, and random events. It is
// false where the rules cannot be meant.
func randomScenario(t *testing.T, r *rand.Rand) (text string, set *rules.Set, list []*plainCorrelation, events []plainEvent, raw []schema.Event, ok bool) {
	t.Helper()
	var docs strings.Builder
	for _, d := range []string{"a", "b", "c"} {
		fmt.Fprintf(&docs, "title: %[1]s\nid: r%[1]s\ndetection:\n  s: {type: [%[1]s, ab, abc]}\n  condition: s\n---\n", d)
	}
	docs.WriteString("title: silent\nid: silent\ndetection:\n  s: {type: never}\n  condition: s\n---\n")
	var inner []string
	for i := range 1 + r.IntN(3) {
		c := randomCorrelation(r, fmt.Sprintf("c%d", i), inner)
		list, inner = append(list, c), append(inner, c.id)
		docs.WriteString(c.document() + "generate: true\n---\n")
	}
	text = strings.ReplaceAll(docs.String(), "---\ngenerate: true\n---\n", "generate: true\n---\n")
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text)}})
	if n := report.Count(rules.StatusRefused); n > 0 {
		i := slices.IndexFunc(report.Documents, func(d rules.Document) bool { return d.Status == rules.StatusRefused })
		if strings.Contains(report.Documents[i].Reason, "can never hold") || strings.Contains(report.Documents[i].Reason, "no value keeps") {
			return
		}
		t.Fatalf("%s\n%s", report.Documents[i].Reason, text)
	}
	at := time.Duration(0)
	for i := range 60 {
		at += time.Duration(r.IntN(4)*r.IntN(120)) * time.Second // often at the same time
		e := plainEvent{at: at, typ: []string{"a", "b", "c", "ab", "abc", "z"}[r.IntN(6)], fields: map[string]string{}, n: float64(r.IntN(40)-5) / 2}
		members, details := map[string]any{"type": e.typ}, map[string]any{"n": e.n}
		for _, f := range []string{"ip", "user_id", "client_id"} {
			if r.IntN(8) > 0 {
				e.fields[f] = fmt.Sprintf("v%d", r.IntN(2))
				members[f] = e.fields[f]
			}
		}
		if r.IntN(8) > 0 {
			e.fields["details.u"] = fmt.Sprintf("u%d", r.IntN(4))
			details["u"] = e.fields["details.u"]
		}
		members["details"] = details
		events = append(events, e)
		raw = append(raw, eventAt(t, timelineStart.Add(at), i, members))
	}
	return text, set, list, events, raw, true
}

// TestCorrelationsAgree runs random correlations, some of others, over random
// events, and holds when each group first alerts against the plain reading.
func TestCorrelationsAgree(t *testing.T) {
	tried, fired, chained := map[string]int{}, map[string]int{}, 0
	for seed := range uint64(400) {
		text, set, list, events, raw, ok := randomScenario(t, rand.New(rand.NewPCG(seed, 11)))
		if !ok {
			continue
		}
		hits := map[string][]plainHit{}
		for i, e := range events {
			for _, d := range []string{"a", "b", "c"} {
				if e.typ == d || e.typ == "ab" || e.typ == "abc" {
					hits["r"+d] = append(hits["r"+d], plainHit{event: i})
				}
			}
		}
		type first struct {
			At    time.Duration
			Value float64
		}
		want, got := map[string]first{}, map[string]first{}
		for _, c := range list {
			tried[c.typ]++
			hits[c.id] = c.plainly(events, hits)
			for _, h := range hits[c.id] {
				if _, known := want[c.id+" "+h.group]; !known {
					want[c.id+" "+h.group] = first{events[h.event].at, math.Round(h.value*1e6) / 1e6}
					fired[c.typ]++
				}
			}
			if slices.ContainsFunc(c.rules, func(rule string) bool { return rule[0] == 'c' && len(hits[rule]) > 0 }) && len(hits[c.id]) > 0 {
				chained++
			}
		}
		byID := map[string]*plainCorrelation{}
		for _, c := range list {
			byID[c.id] = c
		}
		for _, a := range scanAll(NewEngine(set, Config{}), raw) {
			c := byID[a.RuleID]
			if c == nil || a.State != schema.Firing {
				continue
			}
			var key []string
			for _, name := range c.groupBy {
				i := slices.IndexFunc(a.Group, func(g schema.GroupValue) bool { return g.Field == name })
				key = append(key, a.Group[i].Value)
			}
			group := a.RuleID + " " + strings.Join(key, "/")
			if _, known := got[group]; !known {
				got[group] = first{a.StartsAt.Sub(timelineStart), math.Round(a.Count*1e6) / 1e6}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d (-plainly +engine):\n%s\n%s", seed, diff, text)
		}
	}
	for typ, n := range tried {
		if n < 50 || fired[typ] < 20 {
			t.Errorf("%s was tried %d times and fired %d times: that shows nothing", typ, n, fired[typ])
		}
	}
	if len(tried) != 7 || chained < 30 {
		t.Errorf("%d types, %d chains that fired", len(tried), chained)
	}
}
