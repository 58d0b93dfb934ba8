package rules

import (
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// Set is a compiled set of rules. It is immutable and safe for concurrent use.
type Set struct {
	rules   []*Rule
	program *expr.Program // of the rules' conditions; correlations have none
}

// newSet returns the set of some rules, whose conditions are compiled by compile.
func newSet(rules []*Rule, compile func(conditions []*expr.Tree, extra [][]expr.Field) *expr.Program) *Set {
	conditions := make([]*expr.Tree, len(rules))
	for i, rule := range rules {
		conditions[i] = rule.Match
	}
	return &Set{rules: rules, program: compile(conditions, extraFields(rules))}
}

// Rules returns the rules that can be evaluated. Other parts of a Set refer to a rule by its index here.
func (s *Set) Rules() []*Rule { return s.rules }

// Matcher returns a new Matcher of the detections. Its indexes are those of Rules; a correlation
// matches no event by itself.
func (s *Set) Matcher() *expr.Matcher { return s.program.Matcher() }

// Select returns a Set with the alerting rules for which keep returns true and the rules that
// they count. Rules that are only counted no longer alert on their own. A Matcher of the
// new Set reads only the fields that its rules need.
func (s *Set) Select(keep func(*Rule) bool) *Set {
	needed := make([]bool, len(s.rules))
	alerts := slices.Clone(needed)

	// An alerting rule that keep refuses may still be needed by another.
	for i, rule := range s.rules {
		if rule.Alert != nil && keep(rule) {
			alerts[i] = true
			s.need(i, needed)
		}
	}
	return s.subset(needed, alerts)
}

// Only returns a Set with one rule and the rules that it counts, directly or indirectly. The rule
// is the last one, and may be one that does not alert. Detections that are counted do not alert.
func (s *Set) Only(rule *Rule) *Set {
	needed := make([]bool, len(s.rules))
	s.need(slices.Index(s.rules, rule), needed)

	alerts := slices.Clone(needed)
	for i, other := range s.rules {
		if other != rule && other.Correlation == nil {
			alerts[i] = false
		}
	}
	return s.subset(needed, alerts)
}

// need marks a rule, and those that it counts, as needed.
func (s *Set) need(i int, needed []bool) {
	needed[i] = true
	corr := s.rules[i].Correlation
	if corr == nil {
		return
	}
	for _, source := range corr.Sources {
		s.need(source.Rule, needed)
	}
	for _, index := range corr.Among {
		s.need(index, needed)
	}
}

// subset returns a Set with the needed rules. Those that are not in alerts do not alert.
func (s *Set) subset(needed, alerts []bool) *Set {
	var rules []*Rule

	// The new index of each rule, by its old one.
	index := make([]int, len(s.rules))
	for i, rule := range s.rules {
		if !needed[i] {
			continue
		}
		selected := *rule
		if !alerts[i] {
			selected.Alert = nil
		}

		// The rules that a correlation counts come before it, so their new indexes are known.
		if rule.Correlation != nil {
			corr := *rule.Correlation
			corr.Sources, corr.Among = slices.Clone(corr.Sources), slices.Clone(corr.Among)
			for source := range corr.Sources {
				corr.Sources[source].Rule = index[corr.Sources[source].Rule]
			}

			for source := range corr.Among {
				corr.Among[source] = index[corr.Among[source]]
			}

			selected.Correlation = &corr
		}

		index[i] = len(rules)
		rules = append(rules, &selected)
	}

	return newSet(rules, s.program.With)
}

// WithThreshold returns the Set with another threshold for one of its rules, whose
// condition must be a single lower bound. The alert loses its higher levels.
func (s *Set) WithThreshold(rule *Rule, than float64) *Set {
	out := *s
	out.rules = slices.Clone(s.rules)

	// Copy everything that changes: a Set and its rules are immutable.
	changed, corr, alert := *rule, *rule.Correlation, *rule.Alert
	corr.Bounds = []correlation.Bound{{Op: corr.Bounds[0].Op, Than: than}}
	alert.Levels = []Level{{alert.Levels[0].Name, than}}
	if corr.Rises() {
		alert.ResolveBelow = halfOf(than)
	}

	changed.Correlation, changed.Alert = &corr, &alert
	out.rules[slices.Index(s.rules, rule)] = &changed
	return &out
}

// Members returns the sorted names of the top-level members of an event that the rules read: the
// first steps of their fields' paths. all is true if they search every member.
func (s *Set) Members() (names []string, all bool) { return s.program.Members() }

// Needles returns pieces of JSON of which at least one, in whatever case, is in a member of every
// event that the rules match, unless the member has letters beyond ASCII or escape sequences. It
// returns nil if none are known.
func (s *Set) Needles(member string) []string { return s.program.Needles(member) }

// Types returns the sorted event types that the rules can match, * being a wildcard; nil for any.
func (s *Set) Types() []string {
	return s.typesOf(func(int) bool { return true })
}

// TypesReading returns those of the Types for which the rules read a certain member.
func (s *Set) TypesReading(member string) []string {
	return s.typesOf(func(i int) bool { return s.program.Reads(i, member) })
}

// typesOf returns the types of the detections for which choose returns true; nil for any.
func (s *Set) typesOf(choose func(index int) bool) []string {
	list := []string{}
	for i, rule := range s.rules {
		if rule.Correlation == nil && choose(i) {
			if rule.Types == nil {
				return nil
			}
			list = append(list, rule.Types...)
		}
	}

	slices.Sort(list)
	return slices.Compact(list)
}

// Span returns how far back from an event other events can matter to a rule: its timespan plus
// that of the correlations that it counts.
func (s *Set) Span(rule *Rule) time.Duration {
	corr := rule.Correlation
	if corr == nil {
		return 0
	}

	// An event of a counted correlation depends on events before it.
	longest := time.Duration(0)
	for _, source := range corr.Sources {
		longest = max(longest, s.Span(s.rules[source.Rule]))
	}
	return corr.Timespan + corr.Over + longest
}

// extraFields returns, for each detection, the fields that are read in addition to those it
// tests: for its alert's group and for the correlations that count it.
func extraFields(rules []*Rule) [][]expr.Field {
	list := make([][]expr.Field, len(rules))

	// Backward, since a correlation comes after the rules that it counts.
	for i, rule := range slices.Backward(rules) {
		if rule.Correlation == nil {
			if rule.Alert != nil {
				list[i] = append(list[i], rule.Alert.GroupBy...)
			}
			continue
		}

		all := list[i]
		for _, source := range rule.Correlation.Sources {
			all = slices.Concat(all, source.GroupBy, source.Values)
		}

		for _, source := range rule.Correlation.Sources {
			list[source.Rule] = append(list[source.Rule], all...)
		}

		for _, index := range rule.Correlation.Among {
			list[index] = append(list[index], all...)
		}
	}

	return list
}
