package scanner

import (
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Bounds of the occurrences that a group keeps.
const (
	minLimit   = 1024     // for any rule
	spikeLimit = 1 << 20  // of a rule that compares a group with other days
	exactLimit = 16 << 10 // of a rule whose condition depends on each occurrence
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
	distinct bool              // value_count
	numeric  bool              // value_sum, value_avg, value_percentile
	rises    bool              // see rules.Correlation.Rises
	aliased  bool              // sources have the group or value fields in different places
	last     int               // last_events: see rules.Correlation.Last
	over     int64             // event_spike: µs
	ordered  []int             // temporal_ordered: the required sources, in order
	parents  []feed            // correlations that count this one
	captures []expr.Field      // fields of an event that parents need, directly or indirectly
	absent   group             // returned in place of a group that does not exist
	broken   string            // message of the panic that disabled the rule

	leads      uint64            // see leading
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
	fields *captured
}

func newRuleState(r *rules.Rule, lateness time.Duration) *ruleState {
	state := &ruleState{rule: r, groups: map[string]*group{}, limit: minLimit}
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

	state.horizon = state.span + state.over + lateness.Microseconds()

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
func (s *ruleState) setCorrelation(correlation *rules.Correlation) {
	s.span, s.over = correlation.Timespan.Microseconds(), correlation.Over.Microseconds()
	s.distinct, s.rises = correlation.Type == rules.ValueCount, correlation.Rises()
	switch correlation.Type {
	case rules.ValueSum, rules.ValueAvg, rules.ValuePercentile:
		s.numeric = true
	}

	first := correlation.Sources[0]
	s.aliased = slices.ContainsFunc(correlation.Sources, func(other rules.Source) bool {
		return !slices.Equal(other.GroupBy, first.GroupBy) || !slices.Equal(other.Values, first.Values)
	})

	s.limit = s.occurrenceLimit()
	if correlation.Type == rules.LastEvents {
		s.last = correlation.Last
		// Spare room, so that a late event can be sorted in.
		s.limit = correlation.Last + 64
	}

	if correlation.Type == rules.TemporalOrdered {
		for source := range correlation.Sources {
			if correlation.Need == nil || correlation.Need.Wanted()>>source&1 == 1 {
				s.ordered = append(s.ordered, source)
			}
		}
		s.leads = leading(correlation, s.ordered)
	}
}

// occurrenceLimit returns the number of occurrences that a group keeps: enough to
// decide a count, or as many as memory allows where each of them matters.
func (s *ruleState) occurrenceLimit() int {
	correlation := s.rule.Correlation
	switch correlation.Type {
	case rules.ValueSum, rules.ValueAvg, rules.ValuePercentile,
		rules.Temporal, rules.TemporalOrdered, rules.EventRatio:
		return exactLimit
	case rules.EventSpike:
		return spikeLimit
	}

	highest := 0.0
	for _, bound := range correlation.Bounds {
		highest = max(highest, bound.Than)
	}
	if s.rule.Alert != nil {
		highest = max(highest, s.topCount())
	}
	return max(minLimit, 4*int(min(highest, 1<<20)))
}

// leading returns the sources of an order, a bit for each, that must occur before a
// group is created: the first of the order, and those that must be absent. It returns
// 0 if the condition holds without any occurrence.
func leading(correlation *rules.Correlation, ordered []int) uint64 {
	switch {
	case correlation.Need != nil:
		all := uint64(1)<<len(correlation.Sources) - 1
		return uint64(1)<<ordered[0] | all&^correlation.Need.Wanted()
	case !correlation.Holds(0):
		return 1 << ordered[0]
	}
	return 0
}

// inherit takes over what the parents of the rule need of its occurrences.
func (s *ruleState) inherit() {
	for _, target := range s.parents {
		source := target.rule.rule.Correlation.Sources[target.source]
		s.captures = slices.Concat(s.captures, source.GroupBy, source.Values, target.rule.captures)
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
