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

// randomCorrelation counts detections a, b and c, and correlations before it.
func randomCorrelation(r *rand.Rand, id string, inner []string) *PlainCorrelation {
	names := append([]string{"ra", "rb", "rc"}, inner...)
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	span := time.Duration(1+r.IntN(20)) * time.Minute
	types := []string{"event_count", "value_count", "value_sum", "value_avg", "value_percentile",
		"temporal", "temporal_ordered"}
	c := &PlainCorrelation{ID: id, Rules: names[:1+r.IntN(3)], span: span,
		timespan: fmt.Sprintf("%ds", int(span.Seconds())), Type: types[r.IntN(7)]}

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
		c.randomRules(r, op)
	}
	return c
}

// randomRules sets the condition of a correlation that is about which rules have matched.
func (c *PlainCorrelation) randomRules(r *rand.Rand, op func() string) {
	if len(c.Rules) == 1 || r.IntN(2) != 0 {
		if r.IntN(3) == 0 {
			c.Bounds = map[string]float64{op(): float64(r.IntN(len(c.Rules)) + 1)}
		}
		return
	}

	// In words, with one rule that must be absent.
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
		missing := func(rule string) bool { return !seen[rule] }
		return !seen[c.Rules[absent]] && !slices.ContainsFunc(c.wanted, missing)
	}
}

// Scenario is a set of random correlations, some of others, with random events.
type Scenario struct {
	Text         string // of the rules
	Set          *rules.Set
	Correlations []*PlainCorrelation
	Plain        []PlainEvent
	Events       []schema.Event // the same events
}

// NewScenario returns a random scenario. It returns false if the random rules are refused, since they can
// never hold.
func NewScenario(t *testing.T, r *rand.Rand) (s Scenario, ok bool) {
	t.Helper()
	var docs strings.Builder
	for _, d := range []string{"a", "b", "c"} {
		fmt.Fprintf(&docs, "title: %[1]s\nid: r%[1]s\n"+
			"detection:\n  s: {type: [%[1]s, ab, abc]}\n  condition: s\n---\n", d)
	}
	docs.WriteString("title: silent\nid: silent\ndetection:\n  s: {type: never}\n  condition: s\n---\n")

	var inner []string
	for i := range 1 + r.IntN(3) {
		c := randomCorrelation(r, fmt.Sprintf("c%d", i), inner)
		s.Correlations, inner = append(s.Correlations, c), append(inner, c.ID)
		docs.WriteString(c.document() + "generate: true\n---\n")
	}

	s.Text = strings.ReplaceAll(docs.String(), "---\ngenerate: true\n---\n", "generate: true\n---\n")
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(s.Text)}})
	for _, document := range report.Documents {
		switch {
		case document.Status != rules.StatusRefused:
		case strings.Contains(document.Reason, "can never hold"), strings.Contains(document.Reason, "no value"):
			return s, false
		default:
			t.Fatalf("%s\n%s", document.Reason, s.Text)
		}
	}

	s.Set = set
	s.addEvents(t, r)
	return s, true
}

// addEvents adds random events, often several at the same time.
func (s *Scenario) addEvents(t *testing.T, r *rand.Rand) {
	t.Helper()
	at := time.Duration(0)
	types := []string{"a", "b", "c", "ab", "abc", "z"}
	for i := range 60 {
		at += time.Duration(r.IntN(4)*r.IntN(120)) * time.Second
		event := PlainEvent{At: at, Type: types[r.IntN(6)], fields: map[string]string{}, n: float64(r.IntN(40)-5) / 2}

		members, details := map[string]any{"type": event.Type}, map[string]any{"n": event.n}
		for _, f := range []string{"ip", "user_id", "client_id"} {
			if r.IntN(8) > 0 {
				event.fields[f] = fmt.Sprintf("v%d", r.IntN(2))
				members[f] = event.fields[f]
			}
		}
		if r.IntN(8) > 0 {
			event.fields["details.u"] = fmt.Sprintf("u%d", r.IntN(4))
			details["u"] = event.fields["details.u"]
		}

		members["details"] = details
		s.Plain = append(s.Plain, event)
		s.Events = append(s.Events, Event(t, Start.Add(at), i, members))
	}
}
