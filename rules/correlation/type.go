package correlation

import (
	"fmt"
	"slices"
)

// Type is a type of correlation. A Type has no state: it may be compared and used concurrently.
type Type interface {
	// Name is the type's name in a rule, such as "event_count".
	Name() string
	Traits() Traits
	// Check reports parameters that do not suit the type. Spec.Check does so for what all types
	// have in common, and calls it.
	Check(s *Spec) error
	// Evaluate returns the value of the window of the occurrences from begin to end, both
	// included, and whether the condition holds. enough reports whether the window has enough
	// occurrences to decide; if not, there is no value and the condition does not hold. all is
	// what the group keeps: some types look at occurrences before the window.
	Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool)
	// Keep returns the number of occurrences that a group keeps. highest is the highest count
	// that makes a difference.
	Keep(s *Spec, highest float64) int
	// Describe returns the condition in words.
	Describe(s *Spec, words Words) string
	// SQL sets how ClickHouse computes the value; see SQL.
	SQL(s *Spec, query *SQL)
}

// Traits are the properties of a type that its users depend on.
type Traits struct {
	// Keys are the keys of x-tenantwatch-correlation that the type needs. It allows no others.
	// They are empty for the types that Sigma defines.
	Keys  []string
	Value Value // what an occurrence keeps besides its event
	// Count reports that the value is the number of occurrences in the window, or of their
	// distinct values. An additional event never lowers it.
	Count    bool
	Fraction bool // the value may be other than a whole number
	// Rules reports that the value is the number of rules that have matched. The condition may
	// be in words, and without a condition all rules must match.
	Rules      bool
	Ordered    bool // the rules must match in the order in which they are listed
	BySource   bool // the value depends on which of the rules an event matches
	Percentile bool // the type needs Spec.Percentile
}

// Own reports whether the type is not one of Sigma's.
func (t Traits) Own() bool { return len(t.Keys) > 0 }

// Value says what Occurrence.Value holds.
type Value int

// What an occurrence keeps besides its event.
const (
	ValueNone    Value = iota
	ValueHash          // the hash of a field's value, or of the combination of several
	ValueNumber        // the bits of a field's number
	ValueMatches       // the number of occurrences up to it that match, not only those in Among
)

// OfField reports whether the value comes from a field.
func (v Value) OfField() bool { return v == ValueHash || v == ValueNumber }

// Words are the parts of a condition in words.
type Words struct {
	Bounds string   // such as "at least 5"
	Field  string   // the fields whose values count; "" for none
	Rules  []string // the names of the rules that are counted
}

// Types returns all types. A new type is one more line.
func Types() []Type {
	return []Type{
		eventCount{},
		valueCount{},
		valueSum{},
		valueAvg{},
		valuePercentile{},
		temporal{},
		temporalOrdered{},

		lastEvents{},
		eventRatio{},
		eventSpike{},
	}
}

// TypeOf returns the type with a name. own says that the rule has it under
// x-tenantwatch-correlation; an error reports a type that belongs under the other key.
func TypeOf(name string, own bool) (Type, error) {
	all := Types()
	i := slices.IndexFunc(all, func(t Type) bool { return t.Name() == name })
	if i < 0 {
		return nil, fmt.Errorf("unknown type %q", name)
	}

	switch isOwn := all[i].Traits().Own(); {
	case isOwn && !own:
		return nil, fmt.Errorf("%s is our own type: write %s, so that no other tool misreads it", name, OwnKey)
	case own && !isOwn:
		return nil, fmt.Errorf("%s is a type of Sigma: write correlation", name)
	}
	return all[i], nil
}

// OwnKey is the key of a rule that has a correlation of a type that Sigma does not define.
const OwnKey = "x-tenantwatch-correlation"
