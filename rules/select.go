package rules

import (
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// Select returns a Set with the alerting rules for which keep returns true and the rules that
// they count. Rules that are only counted no longer alert on their own. A Matcher of the
// new Set reads only the fields that its rules need.
func (s *Set) Select(keep func(*Rule) bool) *Set {
	needed, alerts := s.selected(keep)
	out := newSet(&node{slot: -1}, s.slots)
	out.root.add(Field{Path: typeField})

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

		index[i] = len(out.rules)
		out.rules = append(out.rules, &selected)
		selected.reads(out.root.add)
	}

	out.root.seal()
	return out
}

// selected returns, by index, whether a rule is needed and whether it alerts on its own.
func (s *Set) selected(keep func(*Rule) bool) (needed, alerts []bool) {
	needed, alerts = make([]bool, len(s.rules)), make([]bool, len(s.rules))
	var need func(i int)
	need = func(i int) {
		needed[i] = true
		if corr := s.rules[i].Correlation; corr != nil {
			for _, source := range corr.Sources {
				need(source.Rule)
			}
			for _, index := range corr.Among {
				need(index)
			}
		}
	}

	// An alerting rule that keep refuses may still be needed by another.
	for i, rule := range s.rules {
		if rule.Alert != nil && keep(rule) {
			alerts[i] = true
			need(i)
		}
	}

	return needed, alerts
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

// reads calls add for every field that a rule needs.
func (r *Rule) reads(add func(Field)) {
	if r.match != nil {
		reads(r.match, add)
	}
	if r.Alert != nil && r.Correlation == nil {
		each(r.Alert.GroupBy, add)
	}
	if r.Correlation != nil {
		for _, source := range r.Correlation.Sources {
			each(source.GroupBy, add)
			each(source.Values, add)
		}
	}
}

func each(list []Field, f func(Field)) {
	for _, field := range list {
		f(field)
	}
}

// reads calls add for every field that an expression tests.
func reads(x expr, add func(Field)) {
	switch x := x.(type) {
	case and:
		for _, part := range x {
			reads(part, add)
		}
	case or:
		for _, part := range x {
			reads(part, add)
		}
	case not:
		reads(x.x, add)
	case exists:
		add(x.field)
	case *test:
		if !x.isKeyword() {
			add(x.field)
		}
		for _, check := range x.checks {
			if ref, ok := check.(fieldRef); ok {
				add(ref.other)
			}
		}
	}
}

// searchesAll reports whether an expression has a keyword, which searches every member.
func searchesAll(x expr) bool {
	switch x := x.(type) {
	case and:
		return slices.ContainsFunc(x, searchesAll)
	case or:
		return slices.ContainsFunc(x, searchesAll)
	case not:
		return searchesAll(x.x)
	case *test:
		return x.isKeyword()
	}
	return false
}

// Members returns the sorted names of the top-level members of an event that the rules read: the
// first steps of their fields' paths. all is true if they search every member.
func (s *Set) Members() (names []string, all bool) {
	// The root's children are the first steps of all paths.
	for step := range s.root.children {
		names = append(names, step)
	}
	slices.Sort(names)
	return names, slices.ContainsFunc(s.rules, func(r *Rule) bool { return r.match != nil && searchesAll(r.match) })
}

// Types returns the sorted event types that the rules can match, * being a wildcard; nil for any.
func (s *Set) Types() []string {
	return s.typesOf(func(int, *Rule) bool { return true })
}

// TypesReading returns those of the Types for which the rules read a certain member.
func (s *Set) TypesReading(member string) []string {
	extra := s.extraFields()
	return s.typesOf(func(i int, r *Rule) bool {
		if searchesAll(r.match) {
			return true
		}

		// Otherwise look for a field below the member.
		found := false
		add := func(f Field) {
			first, _, _ := strings.Cut(f.Path, ".")
			found = found || first == member
		}
		reads(r.match, add)
		each(extra[i], add)
		return found
	})
}

// typesOf returns the types of the detections for which choose returns true; nil for any.
func (s *Set) typesOf(choose func(i int, r *Rule) bool) []string {
	list := []string{}
	for i, rule := range s.rules {
		if rule.Correlation == nil && choose(i, rule) {
			if rule.types == nil {
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
