package scanner

import (
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// maxEarly bounds the occurrences of a rule that are set aside.
const maxEarly = 1 << 16

// ruleState is a rule with its groups.
type ruleState struct {
	rule     *rules.Rule
	index    int               // in Engine.rules: below the correlations that count the rule
	groups   map[string]*group // by tenant and group key
	coldest  group             // head of the ring of groups without an open alert, least recently used first
	evicted  uint64            // groups evicted to make room
	reported int64             // µs, time of the last report about evicted
	span     int64             // µs
	keep     int64             // µs, see rules.Alert.KeepFiringFor
	horizon  int64             // µs during which an occurrence matters to the rule
	reach    int64             // µs during which it matters to the rule or its parents
	limit    int               // occurrences that a group keeps
	value    correlation.Value // what an occurrence keeps
	rises    bool              // see rules.Correlation.Rises
	aliased  bool              // sources have the group or value fields in different places
	last     int               // see correlation.Spec.Last
	ordered  []int             // see correlation.Spec.Order
	parents  []feed            // correlations that count this one
	captures captureList       // fields of an event that parents need, directly or indirectly
	absent   group             // returned in place of a group that does not exist
	broken   string            // message of the panic that disabled the rule

	leads      uint64            // see correlation.Spec.Leading
	early      []earlyOccurrence // set aside, by arrival
	earlyStart int               // index of the first in early that is not too old

	// The current event.
	hit  bool   // the rule is in Engine.touched
	seen uint64 // bit i: the event is of source i
}

// earlyOccurrence is an occurrence of an order whose group has no leading occurrence
// yet. It counts only if a leading one arrives late.
type earlyOccurrence struct {
	key    uint64 // hash of the group key
	at     int64
	seen   uint64
	id     string
	fields *correlation.Fields
}

func newRuleState(r *rules.Rule, lateness time.Duration) *ruleState {
	state := &ruleState{rule: r, groups: map[string]*group{}, limit: correlation.KeepLeast}
	state.coldest.prev, state.coldest.next = &state.coldest, &state.coldest

	if r.Alert != nil {
		state.keep = r.Alert.KeepFiringFor.Microseconds()
		if r.Alert.Class == rules.ClassEvent && state.keep == 0 {
			state.keep = eventClosing.Microseconds()
		}
	}
	if r.Correlation != nil {
		state.setCorrelation(r.Correlation)
	}

	state.horizon = state.span + lateness.Microseconds()
	if r.Correlation != nil {
		state.horizon += r.Correlation.Over.Microseconds()
	}

	// A resolve needs the window at the deadline, which is keep after its end.
	if r.Alert != nil && r.Alert.Class == rules.ClassCondition {
		state.horizon += state.keep
	}
	state.reach = state.horizon
	if state.span > 0 && !state.rises && state.last == 0 {
		// An alert ends relative to the newest event at which the condition held.
		// Whether it held there depends on a window that reaches further back.
		state.reach += state.span
	}
	return state
}

// setCorrelation sets what depends on the rule's correlation.
func (s *ruleState) setCorrelation(counted *rules.Correlation) {
	s.span, s.last = counted.Timespan.Microseconds(), counted.Last
	s.value, s.rises = counted.Type.Traits().Value, counted.Rises()
	s.ordered, s.leads = counted.Order(), counted.Leading()

	highest := 0.0
	if s.rule.Alert != nil {
		highest = s.topCount()
	}
	s.limit = counted.Type.Keep(&counted.Spec, highest)

	first := counted.Sources[0]
	s.aliased = slices.ContainsFunc(counted.Sources, func(other rules.Source) bool {
		return !slices.Equal(other.GroupBy, first.GroupBy) || !slices.Equal(other.Values, first.Values)
	})
}

// inherit takes over what the parents of the rule need of its occurrences.
func (s *ruleState) inherit() {
	for _, target := range s.parents {
		source := target.rule.rule.Correlation.Sources[target.source]
		s.captures.add(source.GroupBy, source.Values, target.rule.captures.fields)
		s.reach = max(s.reach, s.span+target.rule.reach)
	}
}

// topCount returns the count of the highest level.
func (s *ruleState) topCount() float64 { return s.rule.Alert.Levels[s.topLevel()].Count }

func (s *ruleState) topLevel() int { return len(s.rule.Alert.Levels) - 1 }

// own reports whether the rule is about events of our own.
func (s *ruleState) own() bool {
	types := s.rule.Types
	return len(types) > 0 && !slices.ContainsFunc(types, func(name string) bool {
		return !strings.HasPrefix(name, schema.OwnTypes)
	})
}

// groupBy returns the fields of the group key, as one source of the rule has them.
func (s *ruleState) groupBy(source int) []expr.Field {
	switch rule := s.rule; {
	case rule.Correlation == nil:
		return rule.Alert.GroupBy
	case source < len(rule.Correlation.Sources):
		return rule.Correlation.Sources[source].GroupBy
	default:
		// A rule in Correlation.Among.
		return rule.Correlation.Sources[0].GroupBy
	}
}

// setAside keeps an early occurrence and drops those older than since.
func (s *ruleState) setAside(o earlyOccurrence, since int64) {
	if o.at < since {
		return
	}

	s.early = append(s.early, o)
	for s.earlyStart < len(s.early) &&
		(s.early[s.earlyStart].at < since || len(s.early)-s.earlyStart > maxEarly) {
		s.earlyStart++
	}
	if s.earlyStart > len(s.early)/2 {
		s.early, s.earlyStart = slices.Delete(s.early, 0, s.earlyStart), 0
	}
}

// distinct reports whether the rule counts distinct values.
func (s *ruleState) distinct() bool { return s.value == correlation.ValueHash }

// evaluate returns the value of the window that ends with the occurrence at end; see
// correlation.Type.
func (s *ruleState) evaluate(all correlation.Window, end int) (value float64, holds, enough bool) {
	counted := s.rule.Correlation
	return counted.Type.Evaluate(&counted.Spec, all, all.Begin(end, s.span), end)
}

// valueAt returns the value in the window that ends at a time without an event. For a detection, which
// has no window, it is 0.
func (s *ruleState) valueAt(all correlation.Window, at int64) float64 {
	if s.rule.Correlation == nil {
		return 0
	}
	return s.rule.Correlation.ValueAt(all, at)
}
