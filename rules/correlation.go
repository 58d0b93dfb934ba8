package rules

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// correlation is a correlation document, checked but with its references still
// names.
type correlation struct {
	typ          string
	rules, among []string
	last         int
	groupBy      *yaml.Node
	values       *yaml.Node
	timespan     time.Duration
	threshold    uint64
	generate     bool
	warnings     []string
}

// notSupported is for documents that are right but that we cannot evaluate.
type notSupported string

func (e notSupported) Error() string { return string(e) + " is not supported yet" }

// references returns the rule names in a correlation without judging the rest,
// so that a refused correlation still keeps its base rules from alerting alone.
func (d *document) references() (names []string, generate bool) {
	for _, n := range []*yaml.Node{d.keys["correlation"], d.keys[keyCorrelation]} {
		entries, err := mapping(n)
		if err != nil {
			continue
		}
		for _, e := range entries {
			switch e.key {
			case "rules", "among":
				list, _ := texts(e.value)
				names = append(names, list...)
			case "generate":
				_ = e.value.Decode(&generate)
			}
		}
	}
	if n := d.keys["generate"]; n != nil {
		_ = n.Decode(&generate)
	}
	return names, generate
}

// correlation checks the document's correlation.
func (d *document) correlation() (*correlation, error) {
	n, own := d.keys["correlation"], false
	if n == nil {
		n, own = d.keys[keyCorrelation], true
	}
	entries, err := mapping(n)
	if err != nil {
		return nil, d.errorf(n, "correlation: %w", err)
	}
	c := &correlation{}
	var condition *yaml.Node
	for _, e := range entries {
		switch e.key {
		case "type":
			c.typ = e.value.Value
			err = checkType(c.typ, own)
		case "rules":
			c.rules, err = texts(e.value)
		case "group-by":
			c.groupBy = e.value
		case "timespan":
			c.timespan, err = parseTimespan(e.value.Value)
			if err == nil && c.timespan == 0 {
				err = errors.New("want more than 0")
			}
		case "condition":
			condition = e.value
		case "generate":
			err = e.value.Decode(&c.generate)
		case "aliases":
			err = notSupported("aliases")
		case "among", "last":
			if !own {
				err = fmt.Errorf("unknown key; %s has it", keyCorrelation)
			} else if e.key == "among" {
				c.among, err = texts(e.value)
			} else if err = e.value.Decode(&c.last); err == nil && (c.last < 1 || c.last > 1000) {
				err = errors.New("want 1 to 1000")
			}
		default:
			err = errors.New("unknown key")
		}
		if err != nil {
			return nil, d.errorf(e.value, "correlation.%s: %w", e.key, err)
		}
	}
	if n := d.keys["generate"]; n != nil {
		if err := n.Decode(&c.generate); err != nil {
			return nil, d.errorf(n, "generate: %w", err)
		}
	}
	switch {
	case c.typ == "":
		return nil, d.errorf(n, "correlation.type is missing")
	case len(c.rules) == 0:
		return nil, d.errorf(n, "correlation.rules is missing")
	case c.timespan == 0:
		return nil, d.errorf(n, "correlation.timespan is missing")
	case condition == nil:
		return nil, d.errorf(n, "correlation.condition is missing")
	case own && (len(c.among) == 0 || c.last == 0):
		return nil, d.errorf(n, "%s needs among and last", keyCorrelation)
	}
	if err := c.condition(condition); err != nil {
		return nil, d.errorf(condition, "correlation.condition: %w", err)
	}
	if own && c.threshold > uint64(c.last) {
		return nil, d.errorf(condition, "correlation.condition: %d of the last %d can never be", c.threshold, c.last)
	}
	return c, nil
}

func checkType(typ string, own bool) error {
	switch typ {
	case LastEvents:
		if !own {
			return fmt.Errorf("%s is ours alone: write %s, so that no other tool misreads it", typ, keyCorrelation)
		}
		return nil
	case EventCount, ValueCount:
		if own {
			return fmt.Errorf("%s is Sigma's own: write correlation", typ)
		}
		return nil
	case "temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile", "value_median":
		return notSupported(typ)
	}
	return fmt.Errorf("unknown type %q", typ)
}

// condition reads the threshold. Only lower bounds can be seen to come true
// while events arrive; what asks for few or no events is true before the first
// one and can only be judged when a window has closed.
func (c *correlation) condition(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return notSupported("a condition in words")
	}
	entries, err := mapping(n)
	if err != nil {
		return err
	}
	found := false
	for _, e := range entries {
		switch e.key {
		case "gt", "gte":
			if found {
				return notSupported("more than one bound")
			}
			v, err := strconv.ParseInt(e.value.Value, 10, 64)
			if err != nil || v < 0 || v == math.MaxInt64 {
				return fmt.Errorf("%s: want a whole number, not %q", e.key, e.value.Value)
			}
			found, c.threshold = true, uint64(v)
			if e.key == "gt" {
				c.threshold++
			}
		case "lt", "lte", "eq", "neq":
			return notSupported("the bound " + e.key + ", which is only known once a window has closed,")
		case "field":
			c.values = e.value
		default:
			return fmt.Errorf("unknown key %q", e.key)
		}
	}
	if !found {
		return errors.New("want gt or gte")
	}
	if c.threshold == 0 {
		c.threshold = 1
		c.warnings = append(c.warnings, "the condition is true without any event; taken as gte: 1")
	}
	switch {
	case c.typ == ValueCount && c.values == nil:
		return errors.New("value_count needs field")
	case c.typ != ValueCount && c.values != nil:
		c.values = nil
		c.warnings = append(c.warnings, c.typ+" has no use for condition.field")
	}
	if c.threshold == 1 {
		c.warnings = append(c.warnings, "the condition is true at the first event")
	}
	return nil
}

// parseTimespan reads Sigma's durations: a number and s, m, h, d or w.
func parseTimespan(s string) (time.Duration, error) {
	if s == "" {
		return 0, errors.New("want a number and s, m, h, d or w")
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	unit, ok := units[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if !ok || err != nil || time.Duration(n) > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q: want a number and s, m, h, d or w", s)
	}
	return time.Duration(n) * unit, nil
}

// list reads one or several field names.
func (f *fields) list(n *yaml.Node) ([]Field, error) {
	names, err := texts(n)
	if err != nil {
		return nil, err
	}
	var list []Field
	for _, name := range names {
		if name == "" {
			return nil, fmt.Errorf("line %d: a field has no name", n.Line)
		}
		list = append(list, f.field(name))
	}
	return list, nil
}
