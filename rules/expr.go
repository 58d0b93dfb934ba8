package rules

import (
	"slices"
	"strings"
)

// expr is a compiled condition or a part of one.
type expr interface {
	eval(m *Matcher) bool
	// types derives which event types can make the expression true; nil is any.
	types() types
}

type (
	and []expr
	or  []expr
	not struct{ x expr }
)

func (e and) eval(m *Matcher) bool {
	for _, x := range e {
		if !x.eval(m) {
			return false
		}
	}
	return true
}

func (e or) eval(m *Matcher) bool {
	for _, x := range e {
		if x.eval(m) {
			return true
		}
	}
	return false
}

func (e not) eval(m *Matcher) bool { return !e.x.eval(m) }

// types of a conjunction is the narrowest demand of its parts.
func (e and) types() types {
	var narrowest types
	for _, x := range e {
		if t := x.types(); t != nil && (narrowest == nil || len(t) < len(narrowest)) {
			narrowest = t
		}
	}
	return narrowest
}

func (e or) types() types {
	union := types{}
	for _, x := range e {
		t := x.types()
		if t == nil {
			return nil
		}
		union = append(union, t...)
	}
	return union
}

func (e not) types() types { return nil }

// test holds one field against a detection item's values. A keyword is a test of every
// scalar of the event.
type test struct {
	field  Field
	checks []check
	all    bool // every check must find a member, not just one of them
	absent bool // one of the values is null: absent and null will do
	negate bool // neq

	many   *automaton // of the checks that look for a text anywhere, where there are many
	others []check    // those that are not in many
}

// isKeyword reports whether the test is of no field in particular.
func (t *test) isKeyword() bool { return t.field.slot == everywhere }

// check is one value of a detection item, compiled.
type check interface {
	member(m *Matcher, v *value) bool
}

func (t *test) eval(m *Matcher) bool {
	values := m.valuesAt(t.field)
	if len(values) == 0 && !t.absent { // most fields of most events
		return t.negate
	}
	return t.holds(m, values) != t.negate
}

func (t *test) holds(m *Matcher, values []value) bool {
	if t.absent {
		null := len(values) == 0 || slices.ContainsFunc(values, func(v value) bool { return v.kind == kindNull })
		if null != t.all || len(t.checks) == 0 {
			return null
		}
	}
	if t.many != nil {
		return t.many.inAny(m, values) || slices.ContainsFunc(t.others, func(c check) bool { return anyMember(m, c, values) })
	}
	for _, c := range t.checks {
		if anyMember(m, c, values) != t.all {
			return !t.all
		}
	}
	return t.all && len(t.checks) > 0 // an empty list, from an empty variable, has nothing to match
}

func anyMember(m *Matcher, c check, values []value) bool {
	for i := range values {
		if values[i].kind > kindContainer && c.member(m, &values[i]) {
			return true
		}
	}
	return false
}

func (t *test) types() types {
	if t.field.slot != 0 || t.negate || t.absent {
		return nil
	}
	union := types{}
	for _, c := range t.checks {
		switch c := c.(type) {
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

// exists tests whether a field is there, with whatever value: null and "" are values.
type exists struct {
	field Field
	want  bool
}

func (e exists) eval(m *Matcher) bool {
	return (len(m.slots[e.field.slot].values) > 0) == e.want
}

func (e exists) types() types { return nil }
