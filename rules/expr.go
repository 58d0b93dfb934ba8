package rules

import (
	"slices"
	"strings"
)

// expr is a compiled condition or a part of one.
type expr interface {
	eval(m *Matcher) bool
	// types returns the event types that can make the expression true; nil means any.
	types() types
}

type (
	and []expr
	or  []expr
	not struct{ x expr }
)

func (e and) eval(m *Matcher) bool {
	for _, part := range e {
		if !part.eval(m) {
			return false
		}
	}
	return true
}

func (e or) eval(m *Matcher) bool {
	for _, part := range e {
		if part.eval(m) {
			return true
		}
	}
	return false
}

func (e not) eval(m *Matcher) bool { return !e.x.eval(m) }

// types of a conjunction are the shortest list among its parts.
func (e and) types() types {
	var narrowest types
	for _, part := range e {
		if sub := part.types(); sub != nil && (narrowest == nil || len(sub) < len(narrowest)) {
			narrowest = sub
		}
	}
	return narrowest
}

func (e or) types() types {
	union := types{}
	for _, part := range e {
		sub := part.types()
		if sub == nil {
			return nil
		}
		union = append(union, sub...)
	}
	return union
}

func (e not) types() types { return nil }

// test compares one field with a detection item's values. A keyword is a test of every
// scalar of the event.
type test struct {
	field  Field
	checks []check
	all    bool // every check must hold for a value of the field, not just one of them
	absent bool // one of the rule's values is null: it holds for an absent field and for null
	negate bool // modifier neq

	many   *automaton // for the checks that search for a text, if there are many
	others []check    // the remaining checks
}

// isKeyword reports whether the test applies to the whole event instead of a field.
func (t *test) isKeyword() bool { return t.field.slot == everywhere }

// check is one value of a detection item, compiled.
type check interface {
	// member reports whether the check holds for one value of the event.
	member(m *Matcher, v *value) bool
}

func (t *test) eval(m *Matcher) bool {
	values := m.valuesAt(t.field)

	// This is the case for most fields of most events.
	if len(values) == 0 && !t.absent {
		return t.negate
	}
	return t.holds(m, values) != t.negate
}

// holds evaluates the test without neq.
func (t *test) holds(m *Matcher, values []value) bool {
	// Null is one more value: it holds for an absent field and for null.
	if t.absent {
		null := len(values) == 0 || slices.ContainsFunc(values, func(v value) bool { return v.kind == kindNull })
		if null != t.all || len(t.checks) == 0 {
			return null // which decides, with all as without
		}
	}

	if t.many != nil {
		holds := func(c check) bool { return anyMember(m, c, values) }
		return t.many.inAny(m, values) || slices.ContainsFunc(t.others, holds)
	}

	// The first check that decides ends the test: with all, one that fails, otherwise one that holds.
	for _, check := range t.checks {
		if anyMember(m, check, values) != t.all {
			return !t.all
		}
	}

	// An empty list, from an empty variable, matches nothing.
	return t.all && len(t.checks) > 0
}

// anyMember reports whether a check holds for any of the values.
func anyMember(m *Matcher, c check, values []value) bool {
	for i := range values {
		if values[i].kind > kindContainer && c.member(m, &values[i]) {
			return true
		}
	}
	return false
}

// types is known for a test of the type field that compares with texts only.
func (t *test) types() types {
	if t.field.slot != 0 || t.negate || t.absent {
		return nil
	}

	union := types{}
	for _, check := range t.checks {
		switch c := check.(type) {
		case oneOf:
			for text := range c {
				union = append(union, pattern{text: text})
			}
		case pattern:
			if c.cased {
				return nil
			}
			union = append(union, c)
		default:
			return nil
		}
	}

	slices.SortFunc(union, func(a, b pattern) int { return strings.Compare(a.text, b.text) })
	return union
}

// exists tests whether a field is present, with any value: null and "" count as values.
type exists struct {
	field Field
	want  bool
}

func (e exists) eval(m *Matcher) bool {
	return (len(m.slots[e.field.slot].values) > 0) == e.want
}

func (e exists) types() types { return nil }
