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

// feed says that a detection or a correlation is counted by a rule. source is its
// index in Correlation.Sources, or -1 for a rule in Correlation.Among.
type feed struct {
	rule   *ruleState
	source int
}

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
}

func newRuleState(r *rules.Rule, cfg Config) *ruleState {
	state := &ruleState{rule: r, groups: map[string]*group{}, limit: correlation.KeepLeast}
	state.coldest.prev, state.coldest.next = &state.coldest, &state.coldest

	if r.Alert != nil {
		state.keep = KeepFiring(r.Alert).Microseconds()
	}
	if r.Correlation != nil {
		state.setCorrelation(r.Correlation)
	}

	state.horizon = state.span + cfg.Lateness.Microseconds()
	if r.Correlation != nil {
		state.horizon += r.Correlation.Over.Microseconds()
	}

	// A resolve needs the window at the deadline, which is keep after its end.
	if r.Alert != nil && r.Alert.Class == rules.ClassCondition {
		state.horizon += state.keep
	}
	state.reach = state.horizon
	if state.span > 0 && !state.rises && state.last == 0 && !cfg.Explains {
		// An alert ends relative to the newest event at which the condition held.
		// Whether it held there depends on a window that reaches further back.
		state.reach += state.span
	}

	// Windows hold only hashes.
	if cfg.Explains && state.distinct() {
		for _, source := range r.Correlation.Sources {
			state.captures.add(source.Values)
		}
	}
	return state
}

// KeepFiring returns how long an alert stays open after its condition has ended. An event alert
// without keep_firing_for closes after a day.
func KeepFiring(a *rules.Alert) time.Duration {
	if a.Class == rules.ClassEvent && a.KeepFiringFor == 0 {
		return eventClosing
	}
	return a.KeepFiringFor
}

// reads returns the fields that the rule or its parents read.
func (s *ruleState) reads() []expr.Field {
	fields := slices.Clone(s.captures.fields)
	if s.rule.Correlation == nil {
		return append(fields, s.rule.Alert.GroupBy...)
	}
	for _, source := range s.rule.Correlation.Sources {
		fields = slices.Concat(fields, source.GroupBy, source.Values)
	}
	return fields
}

// setCorrelation sets what depends on the rule's correlation.
func (s *ruleState) setCorrelation(counted *rules.Correlation) {
	s.span, s.last = counted.Timespan.Microseconds(), counted.Last
	s.value, s.rises = counted.Type.Traits().Value, s.rule.Alert != nil && counted.Rises()
	s.ordered, s.leads = counted.Order(), counted.Leading()

	highest := 0.0
	if s.rule.Alert != nil {
		highest = s.topCount()
	}
	s.limit = counted.Type.Keep(&counted.Spec, highest)

	s.aliased = counted.HasAliases()
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

// connect creates the state of every rule and the feeds between them.
func (e *Engine) connect() {
	all := e.set.Rules()
	byIndex := make([]*ruleState, len(all))

	// In a Set, a correlation follows the rules it counts.
	for i, rule := range all {
		correlation := rule.Correlation
		if correlation == nil && (rule.Alert == nil || e.cfg.CorrelationsOnly) {
			continue
		}

		state := newRuleState(rule, e.cfg)
		byIndex[i], state.index = state, len(e.rules)
		e.rules = append(e.rules, state)
		if correlation == nil {
			e.feeds[i] = append(e.feeds[i], feed{state, 0})
			continue
		}

		// A detection feeds the correlation directly; a correlation does once it holds.
		for index, source := range correlation.Sources {
			if all[source.Rule].Correlation != nil {
				inner := byIndex[source.Rule]
				inner.parents = append(inner.parents, feed{state, index})
			} else {
				e.feeds[source.Rule] = append(e.feeds[source.Rule], feed{state, index})
			}
		}
		for _, source := range correlation.Among {
			e.feeds[source] = append(e.feeds[source], feed{state, -1})
		}
	}
}

// captureList are the fields of an event that are kept after the event itself.
type captureList struct {
	fields []expr.Field
	paths  []string // of the fields
}

// add adds fields.
func (l *captureList) add(lists ...[]expr.Field) {
	for _, field := range slices.Concat(lists...) {
		if !slices.Contains(l.paths, field.Path) {
			l.fields, l.paths = append(l.fields, field), append(l.paths, field.Path)
		}
	}
}
