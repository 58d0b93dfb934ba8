package rules

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// correlation is a checked correlation document whose references are still names.
type correlation struct {
	typ          string
	rules, among []string
	last, least  int
	over         time.Duration
	aliases      map[string]map[string]string // field by alias and rule
	groupBy      *yaml.Node
	values       *yaml.Node
	percentile   float64
	timespan     time.Duration
	bounds       []Bound
	need         *Need
	generate     bool // the rules that it counts also alert on their own
	warnings     []string
}

// compiled returns the exported form, still without Sources and Among.
func (c *correlation) compiled() *Correlation {
	return &Correlation{Type: c.typ, Last: c.last, Least: c.least, Over: c.over, Percentile: c.percentile,
		Timespan: c.timespan, Bounds: c.bounds, Need: c.need}
}

// notSupported is the error for documents that are valid but that we cannot evaluate.
type notSupported string

func (e notSupported) Error() string { return string(e) + " is not supported" }

// references returns the names of the rules that a correlation refers to, without checking the
// rest: even if the correlation is refused, those rules must not alert on their own.
func (d *document) references() (names []string, generate bool) {
	for _, node := range []*yaml.Node{d.keys["correlation"], d.keys[keyCorrelation]} {
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
func (d *document) correlation(find func(ref string) *document) (*correlation, error) {
	node, own := d.keys["correlation"], false
	if node == nil {
		node, own = d.keys[keyCorrelation], true
	}

	entries, err := mapping(node)
	if err != nil {
		return nil, d.errorf(node, "correlation: %w", err)
	}

	corr := &correlation{}
	var condition *yaml.Node
	for _, entry := range entries {
		if entry.key == "condition" {
			// Reading it needs the type and the rules.
			condition = entry.value
			continue
		}
		if err := corr.read(entry, own); err != nil {
			return nil, d.errorf(entry.value, "correlation.%s: %w", entry.key, err)
		}
	}

	if node := d.keys["generate"]; node != nil {
		if err := node.Decode(&corr.generate); err != nil {
			return nil, d.errorf(node, "generate: %w", err)
		}
	}

	// A condition in words may stand for the list of rules.
	inWords := condition != nil && condition.Kind == yaml.ScalarNode && condition.Tag != "!!null"
	if len(corr.rules) == 0 && inWords {
		corr.rules = namesIn(condition.Value)
	}
	if err := corr.checkKeys(); err != nil {
		return nil, d.errorf(node, "%w", err)
	}

	if condition == nil {
		if !corr.temporal() {
			return nil, d.errorf(node, "correlation.condition is missing")
		}

		// Without a condition, all rules must match.
		corr.bounds = []Bound{{"gte", float64(len(corr.rules))}}
	}
	if err := corr.readCondition(condition, inWords, find); err != nil {
		return nil, d.errorf(condition, "correlation.condition: %w", err)
	}
	return corr, nil
}

// temporal reports whether the correlation is about which rules have matched.
func (c *correlation) temporal() bool { return c.typ == Temporal || c.typ == TemporalOrdered }

// read reads one key except the condition. own says that the correlation is of a type of our own.
func (c *correlation) read(e entry, own bool) (err error) {
	switch e.key {
	case "type":
		c.typ = e.value.Value
		return checkType(c.typ, own)
	case "rules":
		if c.rules, err = texts(e.value); err == nil {
			err = distinct(c.rules)
		}
	case "group-by":
		c.groupBy = e.value
	case "timespan":
		if c.timespan, err = parseTimespan(e.value.Value); err == nil && c.timespan == 0 {
			err = errors.New("want more than 0")
		}
	case "generate":
		err = e.value.Decode(&c.generate)
	case "aliases":
		c.aliases, err = aliases(e.value)
	case "among", "last", "min", "over":
		if !own {
			return fmt.Errorf("unknown key; %s has it", keyCorrelation)
		}
		err = c.readOwn(e)
	default:
		err = errors.New("unknown key")
	}

	return err
}

// maxLeast bounds "min": a group keeps as many events.
const maxLeast = 10_000

// readOwn reads one of the keys that only our own types have.
func (c *correlation) readOwn(e entry) (err error) {
	number := func(n *int, most int) error {
		if err := e.value.Decode(n); err != nil || *n < 1 || *n > most {
			return fmt.Errorf("want 1 to %d, not %q", most, e.value.Value)
		}
		return nil
	}

	switch e.key {
	case "among":
		c.among, err = texts(e.value)
	case "last":
		err = number(&c.last, 1000)
	case "min":
		err = number(&c.least, maxLeast)
	case "over":
		const day = 24 * time.Hour
		c.over, err = parseTimespan(e.value.Value)
		if err == nil && (c.over < 2*day || c.over > 31*day || c.over%day != 0) {
			err = fmt.Errorf("want 2d to 31d, in whole days, not %q", e.value.Value)
		}
	}

	return err
}

// checkKeys reports keys that are missing or do not go with the type.
func (c *correlation) checkKeys() error {
	switch {
	case c.typ == "":
		return errors.New("correlation.type is missing")
	case len(c.rules) == 0:
		return errors.New("correlation.rules is missing")
	case len(c.rules) > maxSources:
		return fmt.Errorf("correlation.rules: more than %d", maxSources)
	case c.timespan == 0:
		return errors.New("correlation.timespan is missing")
	}

	// Each of our own types needs two keys and has no use for the others.
	switch c.typ {
	case LastEvents:
		if len(c.among) == 0 || c.last == 0 || c.least > 0 || c.over > 0 {
			return fmt.Errorf("%s needs among and last, and no other key of ours", c.typ)
		}
	case EventRatio:
		if len(c.among) == 0 || c.least == 0 || c.last > 0 || c.over > 0 {
			return fmt.Errorf("%s needs among and min, and no other key of ours", c.typ)
		}
	case EventSpike:
		if c.over == 0 || c.least == 0 || c.last > 0 || len(c.among) > 0 {
			return fmt.Errorf("%s needs over and min, and no other key of ours", c.typ)
		}
		if c.timespan > 24*time.Hour {
			return fmt.Errorf("%s compares with the same time of other days, so its timespan is at most a day", c.typ)
		}
	}

	return nil
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

// checkType refuses unknown types, and types under the wrong one of the two keys.
func checkType(typ string, own bool) error {
	switch typ {
	case LastEvents, EventRatio, EventSpike:
		if !own {
			return fmt.Errorf("%s is our own type: write %s, so that no other tool misreads it", typ, keyCorrelation)
		}
		return nil
	case EventCount, ValueCount, ValueSum, ValueAvg, ValuePercentile, Temporal, TemporalOrdered:
		if own {
			return fmt.Errorf("%s is a type of Sigma: write correlation", typ)
		}
		return nil
	case "value_median":
		return notSupported("value_median, which Sigma does not define,")
	}
	return fmt.Errorf("unknown type %q", typ)
}

// counts reports whether the value is a whole number of something.
func (c *correlation) counts() bool {
	switch c.typ {
	case ValueSum, ValueAvg, ValuePercentile, EventRatio, EventSpike:
		return false
	}
	return true
}

// readCondition reads the condition, in words or as bounds. node is nil if all rules must match.
func (c *correlation) readCondition(node *yaml.Node, inWords bool, find func(ref string) *document) (err error) {
	switch {
	case inWords && c.temporal():
		if c.need, err = parseNeed(node.Value, c.rules, find); err != nil {
			return err
		}
		if c.typ == TemporalOrdered && c.need.has("or") {
			return errors.New("an order with or in it can be read in several ways; write one correlation for each")
		}
	case inWords:
		return errors.New("a condition in words is only for temporal and temporal_ordered")
	case node != nil:
		if err := c.readBounds(node); err != nil {
			return err
		}
	}

	// A count cannot exceed the number of events or rules that there are.
	if c.typ == LastEvents && !c.canHold(float64(c.last)) {
		return fmt.Errorf("it can never hold for the last %d events", c.last)
	}
	if c.temporal() && c.need == nil && !c.canHold(float64(len(c.rules))) {
		return fmt.Errorf("it can never hold for %d rules", len(c.rules))
	}
	return nil
}

// readBounds reads a condition that is a map: the bounds, and the field whose values they apply to.
func (c *correlation) readBounds(node *yaml.Node) error {
	entries, err := mapping(node)
	if err != nil {
		return err
	}

	// Several bounds form a range.
	for _, entry := range entries {
		switch entry.key {
		case "gt", "gte", "lt", "lte", "eq", "neq":
			bound := Bound{Op: entry.key}
			if bound.Than, err = c.number(entry.value.Value); err != nil {
				return fmt.Errorf("%s: %w", entry.key, err)
			}
			if bound.Op == "gt" && c.counts() {
				// For counts, gt is the same as gte of one more, which Rises knows.
				bound = Bound{"gte", bound.Than + 1}
			}
			c.bounds = append(c.bounds, bound)
		case "field":
			c.values = entry.value
		case "percentile":
			c.percentile, err = strconv.ParseFloat(entry.value.Value, 64)
			if err != nil || !(c.percentile > 0 && c.percentile <= 100) {
				return fmt.Errorf("percentile: want more than 0 and at most 100, not %q", entry.value.Value)
			}
		default:
			return fmt.Errorf("unknown key %q", entry.key)
		}
	}

	// Sort by operator, so that equal conditions compare equal.
	slices.SortFunc(c.bounds, func(a, b Bound) int { return cmp.Compare(a.Op, b.Op) })
	if err := c.checkBounds(); err != nil {
		return err
	}
	c.checkUsefulness()
	return nil
}

// needsField reports whether the value is computed from the values of a field.
func (c *correlation) needsField() bool {
	return c.typ == ValueSum || c.typ == ValueAvg || c.typ == ValuePercentile || c.typ == ValueCount
}

// checkBounds refuses a condition that is incomplete or that no value satisfies.
func (c *correlation) checkBounds() error {
	outsideRatio := func(b Bound) bool { return b.Than < 0 || b.Than > 1 }
	switch {
	case len(c.bounds) == 0:
		return errors.New("want gt, gte, lt, lte, eq or neq")
	case c.needsField() && c.values == nil:
		return fmt.Errorf("%s needs field", c.typ)
	case c.typ == ValuePercentile && c.percentile == 0:
		return errors.New("value_percentile needs percentile, such as 95: Sigma defines no default")
	case c.typ != ValuePercentile && c.percentile > 0:
		return fmt.Errorf("%s has no use for percentile", c.typ)
	case !c.satisfiable():
		return errors.New("no value satisfies all bounds")
	case c.typ == EventRatio && slices.ContainsFunc(c.bounds, outsideRatio):
		return errors.New("a ratio is from 0 to 1")
	}
	return nil
}

// checkUsefulness adds warnings about a condition that works but is hardly what was meant.
func (c *correlation) checkUsefulness() {
	if !c.needsField() && c.values != nil {
		c.values = nil
		c.warnings = append(c.warnings, c.typ+" has no use for condition.field")
	}
	if c.counts() && len(c.bounds) == 1 && c.bounds[0] == (Bound{"gte", 0}) {
		c.bounds[0].Than = 1
		c.warnings = append(c.warnings, "the condition is true without any event; read as gte: 1")
	}

	// Such a rule alerts at every event: a detection would do the same.
	if c.counts() && !c.temporal() && holdsAll(c.bounds, 1) {
		c.warnings = append(c.warnings, "the condition is true at the first event")
	}
}

// number reads the number of a bound: for counts, a whole one.
func (c *correlation) number(text string) (float64, error) {
	num, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(num) || math.IsInf(num, 0) {
		return 0, fmt.Errorf("want a number, not %q", text)
	}

	// Beyond 2^53, a float64 does not hold every whole number.
	if c.counts() && (num != math.Trunc(num) || num < 0 || num > 1<<53) {
		return 0, fmt.Errorf("want a whole number, not %q", text)
	}
	return num, nil
}

// satisfiable reports whether any value satisfies all bounds.
func (c *correlation) satisfiable() bool {
	for _, bound := range c.bounds {
		// The result can only change at a bound, so try each one and the values on both sides.
		step := 1.0
		if !c.counts() {
			step = max(math.Abs(bound.Than)/1e9, 1e-9)
		}

		below := bound.Than - step
		if holdsAll(c.bounds, bound.Than) || holdsAll(c.bounds, bound.Than+step) {
			return true
		}
		if (below >= 0 || !c.counts()) && holdsAll(c.bounds, below) {
			return true
		}
	}
	return false
}

// canHold reports whether some count from 0 to greatest satisfies all bounds.
func (c *correlation) canHold(greatest float64) bool {
	for n := 0.0; n <= greatest; n++ {
		if holdsAll(c.bounds, n) {
			return true
		}
	}
	return false
}

// threshold returns the number that an alert shows as its threshold.
func (c *correlation) threshold() float64 {
	if c.need != nil {
		return 1
	}
	return c.bounds[0].Than
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
