package rules

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Correlation is how a correlation counts. What it counts is judged at each event,
// over the window (t - Timespan, t] in event time.
type Correlation struct {
	Type       string
	Sources    []Source      // what it counts, in the order written
	Among      []int         // LastEvents and EventRatio: the detections whose events are looked at, as indexes into Set.Rules
	Last       int           // LastEvents: how many of them
	Least      int           // EventRatio and EventSpike: how many events at least are in a window that can hold
	Over       time.Duration // EventSpike: how far back it looks for what is usual, in whole days
	Percentile float64       // ValuePercentile: more than 0 and at most 100
	Timespan   time.Duration
	Bounds     []Bound // all of which the value is to keep; none where there is a Need
	Need       *Need   // Temporal and TemporalOrdered: a condition in words
}

// Source is one of the rules that a correlation counts.
type Source struct {
	Rule    int     // index into Set.Rules, of a detection or a correlation
	GroupBy []Field // where its events have the fields of Alert.GroupBy; aliases may make them differ
	Values  []Field // where they have what ValueCount and its like look at
}

// The types of correlations, with the value that their bounds are about.
const (
	EventCount      = "event_count"      // events in the window
	ValueCount      = "value_count"      // distinct values of a field, or combinations of several, among them
	ValueSum        = "value_sum"        // the sum of a field's numbers
	ValueAvg        = "value_avg"        // their mean
	ValuePercentile = "value_percentile" // the smallest of them that so many percent are not above
	Temporal        = "temporal"         // rules that have matched
	TemporalOrdered = "temporal_ordered" // rules that have matched in the order written, each with an event of its own
	LastEvents      = "last_events"      // matches among the last events of another rule; see the package comment
	EventRatio      = "event_ratio"      // the part, from 0 to 1, of other rules' events that match; the same
	EventSpike      = "event_spike"      // how many times as many events as usual at this time of the day; the same
)

// maxSources is how many rules a correlation can tell apart.
const maxSources = 64

// Bound is one comparison of a correlation's condition.
type Bound struct {
	Op   string // gt, gte, lt, lte, eq, neq
	Than float64
}

func (b Bound) holds(v float64) bool {
	switch b.Op {
	case "gt":
		return v > b.Than
	case "gte":
		return v >= b.Than
	case "lt":
		return v < b.Than
	case "lte":
		return v <= b.Than
	case "eq":
		return v == b.Than
	}
	return v != b.Than
}

// Holds reports whether a value keeps all bounds.
func (c *Correlation) Holds(v float64) bool {
	return !slices.ContainsFunc(c.Bounds, func(b Bound) bool { return !b.holds(v) })
}

// Rises reports that the condition is one lower bound on a count: what holds
// goes on to hold as more is counted.
func (c *Correlation) Rises() bool {
	return (c.Type == EventCount || c.Type == ValueCount) && len(c.Bounds) == 1 && c.Bounds[0].Op == "gte"
}

// Need is a condition in words over a correlation's sources.
type Need struct {
	source int // -1 where op combines parts
	op     string
	parts  []*Need
}

// Met reports whether the sources that were seen, a bit for each, are what is
// asked for.
func (n *Need) Met(seen uint64) bool {
	switch n.op {
	case "and":
		return !slices.ContainsFunc(n.parts, func(p *Need) bool { return !p.Met(seen) })
	case "or":
		return slices.ContainsFunc(n.parts, func(p *Need) bool { return p.Met(seen) })
	case "not":
		return !n.parts[0].Met(seen)
	}
	return seen>>n.source&1 == 1
}

// Wanted are the sources that are to be seen, a bit for each, not those that are
// to be absent.
func (n *Need) Wanted() uint64 {
	switch n.op {
	case "not":
		return 0
	case "":
		return 1 << n.source
	}
	var all uint64
	for _, p := range n.parts {
		all |= p.Wanted()
	}
	return all
}

// has reports whether an operator is used anywhere.
func (n *Need) has(op string) bool {
	return n.op == op || slices.ContainsFunc(n.parts, func(p *Need) bool { return p.has(op) })
}

// needFor parses a condition in words over a correlation's rules. Like these, it calls
// them by id or name.
func needFor(text string, refs []string, find func(ref string) *document) (*Need, error) {
	names := slices.Clone(refs)
	for i, ref := range refs {
		if d := find(ref); d != nil {
			names[i] = cmp.Or(d.name, ref)
		}
	}
	indexOf := func(name string) int {
		d := find(name)
		return slices.IndexFunc(refs, func(ref string) bool { return ref == name || d != nil && find(ref) == d })
	}
	used := map[int]bool{}
	join := func(op string) func([]*Need) *Need {
		return func(parts []*Need) *Need { return &Need{source: -1, op: op, parts: parts} }
	}
	p := condition[*Need]{names: names, allOf: join("and"), anyOf: join("or"),
		negate: func(x *Need) *Need { return &Need{source: -1, op: "not", parts: []*Need{x}} },
		lookup: func(name string) (*Need, error) {
			i := indexOf(name)
			if i < 0 {
				return nil, fmt.Errorf("%q is not among the correlation's rules", name)
			}
			used[i] = true
			return &Need{source: i}, nil
		}}
	n, err := p.parse(text)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		if !used[i] {
			return nil, fmt.Errorf("condition %q: it says nothing of the rule %q", text, name)
		}
	}
	if n.Wanted() == 0 {
		return nil, fmt.Errorf("condition %q: nothing is to be seen, so no event can make it true", text)
	}
	return n, nil
}

// namesIn are the rules that a condition in words is about, in its order.
func namesIn(text string) []string {
	var names []string
	for _, token := range strings.Fields(strings.NewReplacer("(", " ", ")", " ").Replace(text)) {
		switch strings.ToLower(token) {
		case "and", "or", "not":
		default:
			if !slices.Contains(names, token) {
				names = append(names, token)
			}
		}
	}
	return names
}

// correlation is a correlation document, checked but with its references still
// names.
type correlation struct {
	typ          string
	rules, among []string
	last, least  int
	over         time.Duration
	aliases      map[string]map[string]string // alias, rule, field
	groupBy      *yaml.Node
	values       *yaml.Node
	percentile   float64
	timespan     time.Duration
	bounds       []Bound
	need         *Need
	generate     bool
	warnings     []string
}

// notSupported is for documents that are right but that we cannot evaluate.
type notSupported string

func (e notSupported) Error() string { return string(e) + " is not supported" }

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
			case "condition":
				if e.value.Kind == yaml.ScalarNode {
					names = append(names, namesIn(e.value.Value)...)
				}
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
func (d *document) correlation(find func(ref string) *document) (*correlation, error) {
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
			if c.rules, err = texts(e.value); err == nil {
				err = distinct(c.rules)
			}
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
			c.aliases, err = aliases(e.value)
		case "among", "last", "min", "over":
			if !own {
				err = fmt.Errorf("unknown key; %s has it", keyCorrelation)
			} else {
				err = c.own(e)
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
	inWords := condition != nil && condition.Kind == yaml.ScalarNode && condition.Tag != "!!null"
	if len(c.rules) == 0 && inWords {
		c.rules = namesIn(condition.Value)
	}
	switch {
	case c.typ == "":
		return nil, d.errorf(n, "correlation.type is missing")
	case len(c.rules) == 0:
		return nil, d.errorf(n, "correlation.rules is missing")
	case len(c.rules) > maxSources:
		return nil, d.errorf(n, "correlation.rules: more than %d", maxSources)
	case c.timespan == 0:
		return nil, d.errorf(n, "correlation.timespan is missing")
	case c.typ == LastEvents && (len(c.among) == 0 || c.last == 0 || c.least > 0 || c.over > 0):
		return nil, d.errorf(n, "%s needs among and last, and no other key of ours", c.typ)
	case c.typ == EventRatio && (len(c.among) == 0 || c.least == 0 || c.last > 0 || c.over > 0):
		return nil, d.errorf(n, "%s needs among and min, and no other key of ours", c.typ)
	case c.typ == EventSpike && (c.over == 0 || c.least == 0 || c.last > 0 || len(c.among) > 0):
		return nil, d.errorf(n, "%s needs over and min, and no other key of ours", c.typ)
	case c.typ == EventSpike && c.timespan > 24*time.Hour:
		return nil, d.errorf(n, "%s compares with the same time of other days, so its timespan is a day at most", c.typ)
	}
	temporal := c.typ == Temporal || c.typ == TemporalOrdered
	switch {
	case condition == nil && temporal:
		c.bounds = []Bound{{"gte", float64(len(c.rules))}}
	case condition == nil:
		return nil, d.errorf(n, "correlation.condition is missing")
	case inWords && temporal:
		if c.need, err = needFor(condition.Value, c.rules, find); err == nil && c.typ == TemporalOrdered && c.need.has("or") {
			err = errors.New("an order with or in it can be read in several ways; write a correlation for each")
		}
	case inWords:
		err = errors.New("a condition in words goes with temporal and temporal_ordered")
	default:
		err = c.condition(condition)
	}
	if err == nil && c.typ == LastEvents && !c.can(float64(c.last)) {
		err = fmt.Errorf("it can never hold of the last %d", c.last)
	}
	if err == nil && temporal && c.need == nil && !c.can(float64(len(c.rules))) {
		err = fmt.Errorf("it can never hold of %d rules", len(c.rules))
	}
	if err != nil {
		return nil, d.errorf(condition, "correlation.condition: %w", err)
	}
	return c, nil
}

// own reads one of the keys of our own types.
func (c *correlation) own(e entry) (err error) {
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
		if c.over, err = parseTimespan(e.value.Value); err == nil && (c.over < 2*day || c.over > 31*day || c.over%day != 0) {
			err = fmt.Errorf("want 2d to 31d, in whole days, not %q", e.value.Value)
		}
	}
	return err
}

// maxLeast bounds "min": a group keeps as many events.
const maxLeast = 10_000

func distinct(names []string) error {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("%q is there twice", name)
		}
	}
	return nil
}

// aliases reads what rules call a field that they share.
func aliases(n *yaml.Node) (map[string]map[string]string, error) {
	entries, err := mapping(n)
	if err != nil {
		return nil, err
	}
	all := map[string]map[string]string{}
	for _, e := range entries {
		fields, err := mapping(e.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.key, err)
		}
		all[e.key] = map[string]string{}
		for _, f := range fields {
			if f.value.Kind != yaml.ScalarNode || f.value.Value == "" || f.value.Tag == "!!null" {
				return nil, fmt.Errorf("%s.%s: want the name of a field", e.key, f.key)
			}
			all[e.key][f.key] = f.value.Value
		}
	}
	return all, nil
}

func checkType(typ string, own bool) error {
	switch typ {
	case LastEvents, EventRatio, EventSpike:
		if !own {
			return fmt.Errorf("%s is ours alone: write %s, so that no other tool misreads it", typ, keyCorrelation)
		}
		return nil
	case EventCount, ValueCount, ValueSum, ValueAvg, ValuePercentile, Temporal, TemporalOrdered:
		if own {
			return fmt.Errorf("%s is Sigma's own: write correlation", typ)
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

// condition reads the bounds and what they are about.
func (c *correlation) condition(n *yaml.Node) error {
	entries, err := mapping(n)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.key {
		case "gt", "gte", "lt", "lte", "eq", "neq":
			b := Bound{Op: e.key}
			if b.Than, err = c.number(e.value.Value); err != nil {
				return fmt.Errorf("%s: %w", e.key, err)
			}
			if b.Op == "gt" && c.counts() {
				b = Bound{"gte", b.Than + 1}
			}
			c.bounds = append(c.bounds, b)
		case "field":
			c.values = e.value
		case "percentile":
			if c.percentile, err = strconv.ParseFloat(e.value.Value, 64); err != nil || !(c.percentile > 0 && c.percentile <= 100) {
				return fmt.Errorf("percentile: want more than 0 and at most 100, not %q", e.value.Value)
			}
		default:
			return fmt.Errorf("unknown key %q", e.key)
		}
	}
	valued := c.typ == ValueSum || c.typ == ValueAvg || c.typ == ValuePercentile || c.typ == ValueCount
	switch {
	case len(c.bounds) == 0:
		return errors.New("want gt, gte, lt, lte, eq or neq")
	case valued && c.values == nil:
		return fmt.Errorf("%s needs field", c.typ)
	case c.typ == ValuePercentile && c.percentile == 0:
		return errors.New("value_percentile needs percentile, such as 95: Sigma does not say which one is meant without")
	case c.typ != ValuePercentile && c.percentile > 0:
		return fmt.Errorf("%s has no use for percentile", c.typ)
	case !c.possible():
		return errors.New("no value keeps all of its bounds")
	}
	// In the order of Bound.Op, so that equal conditions are equal.
	slices.SortFunc(c.bounds, func(a, b Bound) int { return cmp.Compare(a.Op, b.Op) })
	if c.typ == EventRatio && slices.ContainsFunc(c.bounds, func(b Bound) bool { return b.Than < 0 || b.Than > 1 }) {
		return errors.New("a ratio is from 0 to 1")
	}
	if !valued && c.values != nil {
		c.values = nil
		c.warnings = append(c.warnings, c.typ+" has no use for condition.field")
	}
	if c.counts() && len(c.bounds) == 1 && c.bounds[0] == (Bound{"gte", 0}) {
		c.bounds[0].Than = 1
		c.warnings = append(c.warnings, "the condition is true without any event; taken as gte: 1")
	}
	if c.counts() && c.typ != Temporal && c.typ != TemporalOrdered && (&Correlation{Bounds: c.bounds}).Holds(1) {
		c.warnings = append(c.warnings, "the condition is true at the first event")
	}
	return nil
}

// number reads a bound: counts are whole.
func (c *correlation) number(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("want a number, not %q", text)
	}
	if c.counts() && (f != math.Trunc(f) || f < 0 || f > 1<<53) {
		return 0, fmt.Errorf("want a whole number, not %q", text)
	}
	return f, nil
}

// possible reports whether any value at all keeps the bounds.
func (c *correlation) possible() bool {
	holds := (&Correlation{Bounds: c.bounds}).Holds
	for _, b := range c.bounds {
		// Where a bound begins or ends to hold, on either side.
		step := 1.0
		if !c.counts() {
			step = max(math.Abs(b.Than)/1e9, 1e-9)
		}
		if holds(b.Than) || holds(b.Than+step) || b.Than-step >= 0 && holds(b.Than-step) || !c.counts() && holds(b.Than-step) {
			return true
		}
	}
	return false
}

// can reports whether some count up to the greatest keeps the bounds.
func (c *correlation) can(greatest float64) bool {
	for n := 0.0; n <= greatest; n++ {
		if (&Correlation{Bounds: c.bounds}).Holds(n) {
			return true
		}
	}
	return false
}

// threshold is what an alert tells that the value is held against.
func (c *correlation) threshold() float64 {
	if c.need != nil {
		return 1
	}
	return c.bounds[0].Than
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
