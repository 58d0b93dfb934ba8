package rules

import (
	"slices"
	"strings"
	"time"
)

// Select returns the set of those of its alerting rules that keep chooses, with
// what they count. What only they count no longer alerts by itself. A Matcher of
// the new set reads only what its rules are about.
func (s *Set) Select(keep func(*Rule) bool) *Set {
	needed, alerts := make([]bool, len(s.rules)), make([]bool, len(s.rules))
	var need func(i int)
	need = func(i int) {
		needed[i] = true
		if c := s.rules[i].Correlation; c != nil {
			for _, source := range c.Sources {
				need(source.Rule)
			}
			for _, k := range c.Among {
				need(k)
			}
		}
	}
	for i, r := range s.rules {
		if r.Alert != nil && keep(r) {
			alerts[i] = true
			need(i)
		}
	}
	out := newSet(&node{slot: -1}, s.slots)
	out.root.add(Field{Path: typeField})
	index := make([]int, len(s.rules))
	for i, r := range s.rules {
		if !needed[i] {
			continue
		}
		own := *r
		if !alerts[i] {
			own.Alert = nil
		}
		if r.Correlation != nil {
			c := *r.Correlation
			c.Sources, c.Among = slices.Clone(c.Sources), slices.Clone(c.Among)
			for k := range c.Sources {
				c.Sources[k].Rule = index[c.Sources[k].Rule]
			}
			for k := range c.Among {
				c.Among[k] = index[c.Among[k]]
			}
			own.Correlation = &c
		}
		index[i] = len(out.rules)
		out.rules = append(out.rules, &own)
		own.reads(out.root.add)
	}
	out.root.seal()
	return out
}

// WithThreshold returns the set with another threshold for one of its rules, whose
// condition is a single lower bound. The alert's higher levels are left out.
func (s *Set) WithThreshold(r *Rule, than float64) *Set {
	out := *s
	out.rules = slices.Clone(s.rules)
	own, c, a := *r, *r.Correlation, *r.Alert
	c.Bounds = []Bound{{c.Bounds[0].Op, than}}
	a.Levels = []Level{{a.Levels[0].Name, than}}
	if c.Rises() {
		a.ResolveBelow = halfOf(than)
	}
	own.Correlation, own.Alert = &c, &a
	out.rules[slices.Index(s.rules, r)] = &own
	return &out
}

// reads calls add for every field that a rule looks at.
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
		for _, c := range x.checks {
			if ref, ok := c.(fieldRef); ok {
				add(ref.other)
			}
		}
	}
}

// searchesAll reports whether an expression has a keyword, which looks at every
// member.
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

// Members are the names of the event's members that the rules look at, the first
// steps of their fields' paths, sorted. all is true where they look at whatever
// there is.
func (s *Set) Members() (names []string, all bool) {
	for step := range s.root.children {
		names = append(names, step)
	}
	slices.Sort(names)
	return names, slices.ContainsFunc(s.rules, func(r *Rule) bool { return r.match != nil && searchesAll(r.match) })
}

// Types are the event types that the rules can match, * being a wildcard, sorted;
// nil for any.
func (s *Set) Types() []string {
	return s.typesOf(func(int, *Rule) bool { return true })
}

// TypesReading are those of the Types of whose events the rules look at a member.
func (s *Set) TypesReading(member string) []string {
	wants := s.wants()
	return s.typesOf(func(i int, r *Rule) bool {
		if searchesAll(r.match) {
			return true
		}
		found := false
		add := func(f Field) {
			first, _, _ := strings.Cut(f.Path, ".")
			found = found || first == member
		}
		reads(r.match, add)
		each(wants[i], add)
		return found
	})
}

// typesOf are the types of the detections that are chosen.
func (s *Set) typesOf(choose func(i int, r *Rule) bool) []string {
	list := []string{}
	for i, r := range s.rules {
		if r.Correlation == nil && choose(i, r) {
			if r.types == nil {
				return nil
			}
			list = append(list, r.Types...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Span is how far back from an event others can matter to a rule: its timespan, and
// that of the correlations that it counts.
func (s *Set) Span(r *Rule) time.Duration {
	c := r.Correlation
	if c == nil {
		return 0
	}
	longest := time.Duration(0)
	for _, source := range c.Sources {
		longest = max(longest, s.Span(s.rules[source.Rule]))
	}
	return c.Timespan + c.Over + longest
}
