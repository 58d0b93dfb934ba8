package scannertest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// PlainEvent is an event as the plain reading of Sigma below sees it.
type PlainEvent struct {
	At     time.Duration
	Type   string
	fields map[string]string
	n      float64
}

// PlainCorrelation is a correlation in the words of its document, and how the
// plain reading evaluates it.
type PlainCorrelation struct {
	ID, Type            string
	Rules               []string
	GroupBy             []string
	timespan, condition string
	aliases             map[string]map[string]string
	percentile          float64
	field               string // of value_count and its like
	span                time.Duration
	Bounds              map[string]float64
	Words               func(seen map[string]bool) bool
	wanted              []string // words: what is not to be absent
}

func (c *PlainCorrelation) document() string {
	var b strings.Builder
	fmt.Fprintf(&b, "title: %s\nid: %s\nlevel: low\ncorrelation:\n  type: %s\n  rules: [%s]\n  timespan: %s\n", c.ID, c.ID, c.Type, strings.Join(c.Rules, ", "), c.timespan)
	if len(c.GroupBy) > 0 {
		fmt.Fprintf(&b, "  group-by: [%s]\n", strings.Join(c.GroupBy, ", "))
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
	case c.Words != nil:
		fmt.Fprintf(&b, "  condition: %s\n", c.condition)
	case len(c.Bounds) > 0:
		b.WriteString("  condition:\n")
		for op, than := range c.Bounds {
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

// PlainHit is an event at which a rule holds; of a correlation, with its group and
// the value that its condition is about.
type PlainHit struct {
	Event int
	Group string
	Value float64
}

// Evaluate evaluates a correlation at each event, by looking at all that came
// before it again.
func (c *PlainCorrelation) Evaluate(events []PlainEvent, hits map[string][]PlainHit) []PlainHit {
	type counted struct {
		event int
		seen  map[string]bool
		text  string
		n     float64
	}
	groups := map[string][]counted{}
	var out []PlainHit
	for i, e := range events {
		keyed := map[string]map[string]bool{} // the rules that the event is of, by group
		values := map[string]string{}
		for _, rule := range c.Rules {
			if !slices.ContainsFunc(hits[rule], func(h PlainHit) bool { return h.Event == i }) {
				continue
			}
			field := func(name string) string {
				if f := c.aliases[name][rule]; f != "" {
					name = f
				}
				return e.fields[name]
			}
			var key []string
			for _, name := range c.GroupBy {
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
				if events[x.event].At > e.At-c.span {
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
			switch c.Type {
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
				order := c.Rules
				if c.Words != nil {
					order = c.wanted
				}
				for _, x := range in {
					if int(value) < len(order) && x.seen[order[int(value)]] {
						value++
					}
				}
			}
			holds := true
			for op, than := range c.Bounds {
				holds = holds && map[string]bool{"gt": value > than, "gte": value >= than, "lt": value < than, "lte": value <= than, "eq": value == than, "neq": value != than}[op]
			}
			if c.Words != nil {
				holds = c.Words(all) && (c.Type == "temporal" || int(value) == len(c.wanted))
			} else if len(c.Bounds) == 0 {
				holds = int(value) == len(c.Rules)
			}
			if holds {
				out = append(out, PlainHit{i, group, value})
			}
		}
	}
	return out
}

// randomCorrelation counts detections a, b and c, and correlations before it.
func randomCorrelation(r *rand.Rand, id string, inner []string) *PlainCorrelation {
	names := append([]string{"ra", "rb", "rc"}, inner...)
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	span := time.Duration(1+r.IntN(20)) * time.Minute
	c := &PlainCorrelation{ID: id, Rules: names[:1+r.IntN(3)], span: span, timespan: fmt.Sprintf("%ds", int(span.Seconds())),
		Type: []string{"event_count", "value_count", "value_sum", "value_avg", "value_percentile", "temporal", "temporal_ordered"}[r.IntN(7)]}
	for _, f := range []string{"ip", "user_id"} {
		if r.IntN(2) == 0 {
			c.GroupBy = append(c.GroupBy, f)
		}
	}
	if r.IntN(4) == 0 {
		c.GroupBy = append(c.GroupBy, "actor")
		c.aliases = map[string]map[string]string{"actor": {}}
		for _, rule := range c.Rules {
			c.aliases["actor"][rule] = []string{"ip", "user_id", "client_id"}[r.IntN(3)]
		}
	}
	op := func() string { return []string{"gt", "gte", "gte", "gte", "lt", "lte", "eq", "neq"}[r.IntN(8)] }
	switch c.Type {
	case "event_count":
		c.Bounds = map[string]float64{op(): float64(1 + r.IntN(6))}
		if r.IntN(4) == 0 {
			c.Bounds = map[string]float64{"gt": 2, "lte": float64(4 + r.IntN(4))}
		}
	case "value_count":
		c.field, c.Bounds = "details.u", map[string]float64{op(): float64(1 + r.IntN(4))}
	case "value_sum", "value_avg", "value_percentile":
		c.field, c.Bounds = "details.n", map[string]float64{op(): float64(r.IntN(20)) / 2}
		if c.Type == "value_percentile" {
			c.percentile = float64(1 + r.IntN(100))
		}
	default:
		if len(c.Rules) > 1 && r.IntN(2) == 0 {
			var parts []string
			absent := r.IntN(len(c.Rules))
			for i, rule := range c.Rules {
				if i == absent {
					parts = append(parts, "not "+rule)
				} else {
					parts = append(parts, rule)
					c.wanted = append(c.wanted, rule)
				}
			}
			c.condition = strings.Join(parts, " and ")
			c.Words = func(seen map[string]bool) bool {
				return !seen[c.Rules[absent]] && !slices.ContainsFunc(c.wanted, func(rule string) bool { return !seen[rule] })
			}
		} else if r.IntN(3) == 0 {
			c.Bounds = map[string]float64{op(): float64(r.IntN(len(c.Rules)) + 1)}
		}
	}
	return c
}

// RandomScenario returns random correlations, some of others, and random events. It is
// false where the rules cannot be meant.
func RandomScenario(t *testing.T, r *rand.Rand) (text string, set *rules.Set, list []*PlainCorrelation, events []PlainEvent, raw []schema.Event, ok bool) {
	t.Helper()
	var docs strings.Builder
	for _, d := range []string{"a", "b", "c"} {
		fmt.Fprintf(&docs, "title: %[1]s\nid: r%[1]s\ndetection:\n  s: {type: [%[1]s, ab, abc]}\n  condition: s\n---\n", d)
	}
	docs.WriteString("title: silent\nid: silent\ndetection:\n  s: {type: never}\n  condition: s\n---\n")
	var inner []string
	for i := range 1 + r.IntN(3) {
		c := randomCorrelation(r, fmt.Sprintf("c%d", i), inner)
		list, inner = append(list, c), append(inner, c.ID)
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
		e := PlainEvent{At: at, Type: []string{"a", "b", "c", "ab", "abc", "z"}[r.IntN(6)], fields: map[string]string{}, n: float64(r.IntN(40)-5) / 2}
		members, details := map[string]any{"type": e.Type}, map[string]any{"n": e.n}
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
		raw = append(raw, Event(t, Start.Add(at), i, members))
	}
	return text, set, list, events, raw, true
}
