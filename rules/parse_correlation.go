package rules

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// correlationKeys is a correlation as a document has it. Its references are still names.
type correlationKeys struct {
	correlation.Spec
	rules, among []string
	own          []string                     // the keys that only types of our own have
	aliases      map[string]map[string]string // field by alias and rule
	groupBy      *yaml.Node
	values       *yaml.Node
	generate     bool // the rules that it counts also alert on their own
	warnings     []string
}

// notSupported is the error for documents that are valid but that we cannot evaluate.
type notSupported string

func (e notSupported) Error() string { return string(e) + " is not supported" }

// references returns the names of the rules that a correlation refers to, without checking the
// rest: even if the correlation is refused, those rules must not alert on their own.
func (d *document) references() (names []string, generate bool) {
	for _, node := range []*yaml.Node{d.keys["correlation"], d.keys[correlation.OwnKey]} {
		entries, err := mapping(node)
		if err != nil {
			continue
		}

		for _, entry := range entries {
			switch entry.key {
			case "rules", "among":
				list, _ := texts(entry.value)
				names = append(names, list...)
			case "condition":
				if entry.value.Kind == yaml.ScalarNode {
					names = append(names, namesIn(entry.value.Value)...)
				}
			case "generate":
				_ = entry.value.Decode(&generate)
			}
		}
	}

	// generate is also read at the top level.
	if node := d.keys["generate"]; node != nil {
		_ = node.Decode(&generate)
	}

	return names, generate
}

// correlation reads and checks the document's correlation.
func (d *document) correlation(find func(ref string) *document) (*correlationKeys, error) {
	node, own := d.keys["correlation"], false
	if node == nil {
		node, own = d.keys[correlation.OwnKey], true
	}

	entries, err := mapping(node)
	if err != nil {
		return nil, d.errorf(node, "correlation: %w", err)
	}

	keys := &correlationKeys{}
	var condition *yaml.Node
	for _, entry := range entries {
		if entry.key == "condition" {
			// Reading it needs the type and the rules.
			condition = entry.value
			continue
		}
		if err := keys.read(entry, own); err != nil {
			return nil, d.errorf(entry.value, "correlation.%s: %w", entry.key, err)
		}
	}

	if node := d.keys["generate"]; node != nil {
		if err := node.Decode(&keys.generate); err != nil {
			return nil, d.errorf(node, "generate: %w", err)
		}
	}

	// A condition in words may stand for the list of rules.
	inWords := condition != nil && condition.Kind == yaml.ScalarNode && condition.Tag != "!!null"
	if len(keys.rules) == 0 && inWords {
		keys.rules = namesIn(condition.Value)
	}
	if err := keys.check(); err != nil {
		return nil, d.errorf(node, "%w", err)
	}

	if condition == nil && !keys.Type.Traits().Rules {
		return nil, d.errorf(node, "correlation.condition is missing")
	}
	if err := keys.readCondition(condition, inWords, find); err != nil {
		return nil, d.errorf(condition, "correlation.condition: %w", err)
	}
	return keys, nil
}

// read reads one key except the condition. own says that the correlation is of a type of our own.
func (k *correlationKeys) read(e entry, own bool) (err error) {
	switch e.key {
	case "type":
		if e.value.Value == "value_median" {
			return notSupported("value_median, which Sigma does not define,")
		}
		k.Type, err = correlation.TypeOf(e.value.Value, own)
	case "rules":
		if k.rules, err = texts(e.value); err == nil {
			err = distinct(k.rules)
		}
	case "group-by":
		k.groupBy = e.value
	case "timespan":
		if k.Timespan, err = parseTimespan(e.value.Value); err == nil && k.Timespan == 0 {
			err = errors.New("want more than 0")
		}
	case "generate":
		err = e.value.Decode(&k.generate)
	case "aliases":
		k.aliases, err = aliases(e.value)
	case "among", "last", "min", "over":
		if !own {
			return fmt.Errorf("unknown key; %s has it", correlation.OwnKey)
		}
		err = k.readOwn(e)
	default:
		err = errors.New("unknown key")
	}

	return err
}

// readOwn reads one of the keys that only our own types have.
func (k *correlationKeys) readOwn(e entry) (err error) {
	number := func(n *int, most int) error {
		if err := e.value.Decode(n); err != nil || *n < 1 || *n > most {
			return fmt.Errorf("want 1 to %d, not %q", most, e.value.Value)
		}
		return nil
	}

	switch e.key {
	case "among":
		if k.among, err = texts(e.value); len(k.among) == 0 {
			return err
		}
	case "last":
		err = number(&k.Last, 1000)
	case "min":
		err = number(&k.Least, correlation.MaxLeast)
	case "over":
		const day = 24 * time.Hour
		k.Over, err = parseTimespan(e.value.Value)
		if err == nil && (k.Over < 2*day || k.Over > 31*day || k.Over%day != 0) {
			err = fmt.Errorf("want 2d to 31d, in whole days, not %q", e.value.Value)
		}
	}

	k.own = append(k.own, e.key)
	return err
}

// check reports keys that are missing or do not go with the type.
func (k *correlationKeys) check() error {
	k.Rules = len(k.rules)
	switch {
	case k.Type == nil:
		return errors.New("correlation.type is missing")
	case len(k.rules) == 0:
		return errors.New("correlation.rules is missing")
	case len(k.rules) > correlation.MaxRules:
		return fmt.Errorf("correlation.rules: more than %d", correlation.MaxRules)
	case k.Timespan == 0:
		return errors.New("correlation.timespan is missing")
	}
	return k.CheckKeys(k.own)
}

// distinct reports a name that is given twice.
func distinct(names []string) error {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("%q is given twice", name)
		}
	}
	return nil
}

// aliases reads the names that rules have for a shared field: by alias and rule, the rule's field.
func aliases(node *yaml.Node) (map[string]map[string]string, error) {
	entries, err := mapping(node)
	if err != nil {
		return nil, err
	}

	all := map[string]map[string]string{}

	// An alias names, for each rule, the field that it stands for.
	for _, entry := range entries {
		fields, err := mapping(entry.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.key, err)
		}
		all[entry.key] = map[string]string{}
		for _, field := range fields {
			if field.value.Kind != yaml.ScalarNode || field.value.Value == "" || field.value.Tag == "!!null" {
				return nil, fmt.Errorf("%s.%s: want the name of a field", entry.key, field.key)
			}
			all[entry.key][field.key] = field.value.Value
		}
	}

	return all, nil
}

// readCondition reads the condition, in words or as bounds. node is nil if all rules must match.
func (k *correlationKeys) readCondition(node *yaml.Node, inWords bool, find func(ref string) *document) (err error) {
	switch {
	case inWords && k.Type.Traits().Rules:
		if k.Need, err = parseNeed(node.Value, k.rules, find); err != nil {
			return err
		}
		return k.Type.Check(&k.Spec)
	case inWords:
		return errors.New("a condition in words is only for temporal and temporal_ordered")
	case node == nil:
		k.Bounds = []correlation.Bound{{Op: "gte", Than: float64(len(k.rules))}}
		return nil
	}
	return k.readBounds(node)
}

// readBounds reads a condition that is a map: the bounds, and the field whose values they apply to.
func (k *correlationKeys) readBounds(node *yaml.Node) error {
	entries, err := mapping(node)
	if err != nil {
		return err
	}

	// Several bounds form a range.
	for _, entry := range entries {
		switch entry.key {
		case "gt", "gte", "lt", "lte", "eq", "neq":
			bound := correlation.Bound{Op: entry.key}
			if bound.Than, err = k.number(entry.value.Value); err != nil {
				return fmt.Errorf("%s: %w", entry.key, err)
			}
			k.Bounds = append(k.Bounds, bound)
		case "field":
			k.values = entry.value
		case "percentile":
			k.Percentile, err = strconv.ParseFloat(entry.value.Value, 64)
			if err != nil || !(k.Percentile > 0 && k.Percentile <= 100) {
				return fmt.Errorf("percentile: want more than 0 and at most 100, not %q", entry.value.Value)
			}
		default:
			return fmt.Errorf("unknown key %q", entry.key)
		}
	}

	k.Normalize()
	if err := k.CheckBounds(k.values != nil); err != nil {
		return err
	}
	if k.values != nil && !k.Type.Traits().Value.OfField() {
		k.values = nil
		k.warnings = append(k.warnings, k.Type.Name()+" has no use for condition.field")
	}
	k.warnings = append(k.warnings, k.Correct()...)
	return nil
}

// number reads the number of a bound: for counts, a whole one.
func (k *correlationKeys) number(text string) (float64, error) {
	num, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(num) || math.IsInf(num, 0) {
		return 0, fmt.Errorf("want a number, not %q", text)
	}

	// Beyond 2^53, a float64 does not hold every whole number.
	if !k.Type.Traits().Fraction && (num != math.Trunc(num) || num < 0 || num > 1<<53) {
		return 0, fmt.Errorf("want a whole number, not %q", text)
	}
	return num, nil
}

// parseTimespan reads Sigma's durations: a number and s, m, h, d or w.
func parseTimespan(text string) (time.Duration, error) {
	if text == "" {
		return 0, errors.New("want a number and s, m, h, d or w")
	}

	// The unit is the last byte.
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour,
		'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	unit, ok := units[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if !ok || err != nil || time.Duration(n) > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q: want a number and s, m, h, d or w", text)
	}
	return time.Duration(n) * unit, nil
}
