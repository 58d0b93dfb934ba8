package correlation

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Spec is a correlation without the rules and fields that it refers to. Its value is evaluated at
// each event, over the window (t - Timespan, t] in event time.
type Spec struct {
	Type       Type
	Rules      int           // the number of rules that it counts
	Last       int           // if above 0, a window has at most so many events, and an event resolves the alert
	Least      int           // the number of events in a window below which the condition does not hold
	Over       time.Duration // the period before, in whole days, that gives the usual number
	Percentile float64       // more than 0 and at most 100
	Timespan   time.Duration
	Bounds     []Bound // all of which the value must satisfy; none if there is a Need
	Need       *Need   // a condition in words, of a type with Traits.Rules
}

// MaxRules is the maximum number of rules of a correlation: a window keeps one bit for each.
const MaxRules = 64

// MaxLeast bounds Spec.Least: a group keeps as many events.
const MaxLeast = 10_000

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

// Words returns the bound in words, such as "at least 5".
func (b Bound) Words() string {
	words := map[string]string{
		"gte": "at least",
		"gt":  "more than",
		"lte": "at most",
		"lt":  "less than",
		"eq":  "exactly",
		"neq": "not",
	}
	return words[b.Op] + " " + Number(b.Than)
}

// Holds reports whether a value satisfies all bounds.
func (s *Spec) Holds(v float64) bool {
	for _, bound := range s.Bounds {
		if !bound.holds(v) {
			return false
		}
	}
	return true
}

// Rises reports whether the condition is a single lower bound on a count: once it holds, it
// continues to hold as more is counted.
func (s *Spec) Rises() bool {
	return s.Type.Traits().Count && len(s.Bounds) == 1 && s.Bounds[0].Op == "gte"
}

// HasLowerBound reports whether the condition is a single lower bound, on whatever value.
func (s *Spec) HasLowerBound() bool {
	return len(s.Bounds) == 1 && (s.Bounds[0].Op == "gte" || s.Bounds[0].Op == "gt")
}

// IsAmount reports whether the value is an amount that a higher bound would limit. The number of
// rules that have matched, and a number of the last events, are none.
func (s *Spec) IsAmount() bool { return !s.Type.Traits().Rules && s.Last == 0 }

// Threshold returns the number that an alert shows as its threshold.
func (s *Spec) Threshold() float64 {
	if s.Need != nil {
		return 1
	}
	return s.Bounds[0].Than
}

// LowestCount returns the lowest count, from 1 on, that satisfies all bounds of a type with
// Traits.Count.
func (s *Spec) LowestCount() float64 {
	count := 1.0
	for _, bound := range s.Bounds {
		if bound.Op == "gte" || bound.Op == "eq" {
			count = max(count, bound.Than)
		}
	}

	if !s.Holds(count) {
		// A neq excludes this very count.
		count++
	}
	return count
}

// LeastEvents returns the fewest events of a window in which the condition can hold.
func (s *Spec) LeastEvents() int {
	// The values of the other types do not depend on the number of events. Without an order,
	// one event may match all rules.
	traits := s.Type.Traits()
	if !traits.Count && (!traits.Ordered || s.Need != nil) {
		return 1
	}

	for n := 1; n < 1<<20; n++ {
		if s.Holds(float64(n)) {
			return n
		}
	}
	return math.MaxInt32
}

// Order returns the indexes of the rules that must match one after the other, in order. It is
// empty for types without an order.
func (s *Spec) Order() (order []int) {
	if !s.Type.Traits().Ordered {
		return nil
	}
	for required := s.required(); required != 0; required &= required - 1 {
		order = append(order, bits.TrailingZeros64(required))
	}
	return order
}

// required returns the rules that must match, one bit for each; the others must be absent.
func (s *Spec) required() uint64 {
	if s.Need != nil {
		return s.Need.Wanted()
	}
	return uint64(1)<<s.Rules - 1
}

// Leading returns the rules of an order, one bit for each, that must match before anything
// counts: the first of the order, and those that must be absent. It returns 0 if the condition
// can hold without any match, and for types without an order.
func (s *Spec) Leading() uint64 {
	order := s.Order()
	switch {
	case len(order) == 0:
		return 0
	case s.Need != nil:
		all := uint64(1)<<s.Rules - 1
		return uint64(1)<<order[0] | all&^s.required()
	case !s.Holds(0):
		return 1 << order[0]
	}
	return 0
}

// ValueAt returns the value in the window that ends at a time without an event; 0 for an empty
// window.
func (s *Spec) ValueAt(all Window, at int64) float64 {
	begin, end := all.After(at-s.span()), all.After(at)
	if begin == end {
		return 0
	}
	value, _, _ := s.Type.Evaluate(s, all, begin, end-1)
	return value
}

// CheckKeys reports keys that are missing or that the type does not have. own are the keys of
// x-tenantwatch-correlation that the rule has.
func (s *Spec) CheckKeys(own []string) error {
	needed := s.Type.Traits().Keys
	sorted := func(list []string) []string { return slices.Sorted(slices.Values(list)) }
	if !slices.Equal(sorted(needed), sorted(own)) {
		return fmt.Errorf("%s needs %s, and no other key of ours", s.Type.Name(), strings.Join(needed, " and "))
	}
	if s.Over > 0 && s.Timespan > day {
		return fmt.Errorf("%s compares with the same time of other days, so its timespan is at most a day",
			s.Type.Name())
	}
	return nil
}

// CheckBounds reports a condition that is incomplete, that does not suit the type, or that no
// value satisfies. hasField says that the condition names a field.
func (s *Spec) CheckBounds(hasField bool) error {
	traits := s.Type.Traits()
	switch {
	case len(s.Bounds) == 0:
		return errors.New("want gt, gte, lt, lte, eq or neq")
	case traits.Value.OfField() && !hasField:
		return fmt.Errorf("%s needs field", s.Type.Name())
	case traits.Percentile && s.Percentile == 0:
		return fmt.Errorf("%s needs percentile, such as 95: Sigma defines no default", s.Type.Name())
	case !traits.Percentile && s.Percentile > 0:
		return fmt.Errorf("%s has no use for percentile", s.Type.Name())
	case !s.satisfiable():
		return errors.New("no value satisfies all bounds")
	}
	return s.Type.Check(s)
}

// Normalize sorts the bounds, so that equal conditions compare equal, and gives counts a gte
// instead of a gt, which Rises knows.
func (s *Spec) Normalize() {
	for i, bound := range s.Bounds {
		if bound.Op == "gt" && !s.Type.Traits().Fraction {
			s.Bounds[i] = Bound{"gte", bound.Than + 1}
		}
	}
	slices.SortFunc(s.Bounds, func(a, b Bound) int { return cmp.Compare(a.Op, b.Op) })
}

// Correct corrects a condition that is true without any event, and returns warnings about one
// that works but is hardly what was meant.
func (s *Spec) Correct() (warnings []string) {
	traits := s.Type.Traits()
	if traits.Fraction {
		return nil
	}
	if len(s.Bounds) == 1 && s.Bounds[0] == (Bound{"gte", 0}) {
		s.Bounds[0].Than = 1
		warnings = append(warnings, "the condition is true without any event; read as gte: 1")
	}

	// Such a rule alerts at every event: a detection would do the same.
	if !traits.Rules && s.Holds(1) {
		warnings = append(warnings, "the condition is true at the first event")
	}
	return warnings
}

// satisfiable reports whether any value satisfies all bounds.
func (s *Spec) satisfiable() bool {
	counts := !s.Type.Traits().Fraction
	for _, bound := range s.Bounds {
		// The result can only change at a bound, so try each one and the values on both sides.
		step := 1.0
		if !counts {
			step = max(math.Abs(bound.Than)/1e9, 1e-9)
		}

		below := bound.Than - step
		if s.Holds(bound.Than) || s.Holds(bound.Than+step) {
			return true
		}
		if (below >= 0 || !counts) && s.Holds(below) {
			return true
		}
	}
	return false
}

// canHold reports whether some count from 0 to highest satisfies all bounds.
func (s *Spec) canHold(highest int) bool {
	for n := range highest + 1 {
		if s.Holds(float64(n)) {
			return true
		}
	}
	return false
}

// span returns the timespan in µs.
func (s *Spec) span() int64 { return s.Timespan.Microseconds() }
