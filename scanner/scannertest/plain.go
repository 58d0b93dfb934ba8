package scannertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
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

// document returns the rule as YAML.
func (c *PlainCorrelation) document() string {
	var b strings.Builder
	fmt.Fprintf(&b, "title: %s\nid: %s\nlevel: low\ncorrelation:\n", c.ID, c.ID)
	fmt.Fprintf(&b, "  type: %s\n  rules: [%s]\n  timespan: %s\n", c.Type, strings.Join(c.Rules, ", "), c.timespan)
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

// plainCounted is an event that a group counts.
type plainCounted struct {
	event PlainEvent
	rules map[string]bool // that it matches
	text  string          // of the field whose values count
}

// Evaluate evaluates a correlation at each event, by looking at all events before it again. hits are
// those of the rules that it counts, by id.
func (c *PlainCorrelation) Evaluate(events []PlainEvent, hits map[string][]PlainHit) (out []PlainHit) {
	groups := map[string][]plainCounted{}
	for i, event := range events {
		for group, counted := range c.groupsOf(i, event, hits) {
			if c.field == "details.u" && counted.text == "" {
				continue
			}
			groups[group] = append(groups[group], counted)

			// The window is what the group has counted in the timespan up to the event.
			var window []plainCounted
			for _, known := range groups[group] {
				if known.event.At > event.At-c.span {
					window = append(window, known)
				}
			}
			if value := c.value(window); c.holds(window, value) {
				out = append(out, PlainHit{i, group, value})
			}
		}
	}
	return out
}

// groupsOf returns the groups that the i-th event belongs to.
func (c *PlainCorrelation) groupsOf(i int, event PlainEvent, hits map[string][]PlainHit) map[string]plainCounted {
	groups := map[string]plainCounted{}
	for _, rule := range c.Rules {
		if !slices.ContainsFunc(hits[rule], func(h PlainHit) bool { return h.Event == i }) {
			continue
		}

		// An alias stands for another field in each rule.
		field := func(name string) string {
			if alias := c.aliases[name][rule]; alias != "" {
				name = alias
			}
			return event.fields[name]
		}
		var key []string
		for _, name := range c.GroupBy {
			key = append(key, field(name))
		}
		if slices.Contains(key, "") {
			continue
		}

		group := strings.Join(key, "/")
		counted := groups[group]
		if counted.rules == nil {
			counted = plainCounted{event: event, rules: map[string]bool{}}
		}
		counted.rules[rule] = true
		counted.text = field(c.field)
		groups[group] = counted
	}
	return groups
}

// value returns the value of a window.
func (c *PlainCorrelation) value(window []plainCounted) (value float64) {
	texts := map[string]bool{}
	var sum float64
	var numbers []float64
	for _, counted := range window {
		texts[counted.text] = true
		sum += counted.event.n
		numbers = append(numbers, counted.event.n)
	}

	switch c.Type {
	case "event_count":
		return float64(len(window))
	case "value_count":
		return float64(len(texts))
	case "value_sum":
		return sum
	case "value_avg":
		return sum / float64(len(window))
	case "value_percentile":
		return percentile(numbers, c.percentile)
	case "temporal":
		return float64(len(rulesOf(window)))
	}

	// An order: each rule must occur after the one before it, with another event.
	order := c.Rules
	if c.Words != nil {
		order = c.wanted
	}
	for _, counted := range window {
		if int(value) < len(order) && counted.rules[order[int(value)]] {
			value++
		}
	}
	return value
}

// percentile returns the smallest number that at least that many percent of the numbers do not exceed.
func percentile(numbers []float64, percent float64) float64 {
	slices.Sort(numbers)
	for _, number := range numbers {
		notAbove := 0
		for _, other := range numbers {
			if other <= number {
				notAbove++
			}
		}
		if 100*float64(notAbove) >= percent*float64(len(numbers)) {
			return number
		}
	}
	return 0
}

// rulesOf returns the rules that a window has matched.
func rulesOf(window []plainCounted) map[string]bool {
	all := map[string]bool{}
	for _, counted := range window {
		maps.Copy(all, counted.rules)
	}
	return all
}

// holds reports whether the condition holds for a window and its value.
func (c *PlainCorrelation) holds(window []plainCounted, value float64) bool {
	switch {
	case c.Words != nil:
		return c.Words(rulesOf(window)) && (c.Type == "temporal" || int(value) == len(c.wanted))
	case len(c.Bounds) == 0:
		return int(value) == len(c.Rules)
	}

	for op, than := range c.Bounds {
		satisfied := map[string]bool{
			"gt": value > than, "gte": value >= than, "lt": value < than,
			"lte": value <= than, "eq": value == than, "neq": value != than,
		}
		if !satisfied[op] {
			return false
		}
	}
	return true
}
