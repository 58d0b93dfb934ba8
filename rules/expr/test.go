package expr

import (
	"slices"
	"strings"
)

// Test compares one field with the values of a rule. A keyword is a test of every scalar of the
// event.
type Test struct {
	Field  Field
	Checks []Check
	All    bool // every check must hold for a value of the field, not just one of them
	Absent bool // one of the rule's values is null: it holds for an absent field and for null
	Negate bool // modifier neq

	many   *automaton // for the checks that search for a text, if there are many
	others []Check    // the remaining checks
}

// isKeyword reports whether the test applies to the whole event instead of a field.
func (t *Test) isKeyword() bool { return t.Field.slot == everywhere }

// Check is one value that a Test compares with: OneOf, AnyOf, Pattern, Number, Ordering, TimePart,
// Network, Regex, Backtracking or FieldRef.
type Check interface {
	// member reports whether the check holds for one value of the event.
	member(m *Matcher, v *value) bool
}

func (t *Test) eval(m *Matcher) bool {
	values := m.valuesAt(t.Field)

	// This is the case for most fields of most events.
	if len(values) == 0 && !t.Absent {
		return t.Negate
	}
	return t.holds(m, values) != t.Negate
}

// holds evaluates the test without neq.
func (t *Test) holds(m *Matcher, values []value) bool {
	// Null is one more value: it holds for an absent field and for null.
	if t.Absent {
		null := len(values) == 0 || slices.ContainsFunc(values, func(v value) bool { return v.kind == kindNull })
		if null != t.All || len(t.Checks) == 0 {
			return null // which decides, with all as without
		}
	}

	if t.many != nil {
		holds := func(c Check) bool { return anyMember(m, c, values) }
		return t.many.inAny(m, values) || slices.ContainsFunc(t.others, holds)
	}

	// The first check that decides ends the test: with all, one that fails, otherwise one that holds.
	for _, check := range t.Checks {
		if anyMember(m, check, values) != t.All {
			return !t.All
		}
	}

	// An empty list, from an empty variable, matches nothing.
	return t.All && len(t.Checks) > 0
}

// anyMember reports whether a check holds for any of the values.
func anyMember(m *Matcher, c Check, values []value) bool {
	for i := range values {
		if values[i].kind > kindContainer && c.member(m, &values[i]) {
			return true
		}
	}
	return false
}

// types is known for a test of the type field that compares with texts only.
func (t *Test) types() types {
	if t.Field.slot != 0 || t.Negate || t.Absent {
		return nil
	}

	union := types{}
	for _, check := range t.Checks {
		switch c := check.(type) {
		case OneOf:
			for text := range c {
				union = append(union, Pattern{Text: text})
			}
		case Pattern:
			if c.Cased {
				return nil
			}
			union = append(union, c)
		default:
			return nil
		}
	}

	slices.SortFunc(union, func(a, b Pattern) int { return strings.Compare(a.Text, b.Text) })
	return union
}

// minMany is the number of texts from which an automaton is faster than a search for each.
const minMany = 8

// arrange replaces checks by faster ones. With All, every check must hold by itself.
func (t *Test) arrange() {
	if !t.All {
		t.fold()
		t.gather()
	}
}

// fold replaces the plain texts by one map, so that a long list costs one lookup.
func (t *Test) fold() {
	texts := OneOf{}
	var others []Check
	for _, check := range t.Checks {
		if pat, ok := check.(Pattern); ok && pat.Shape == ShapeExact && !pat.Cased {
			texts[pat.Text] = struct{}{}
		} else {
			others = append(others, check)
		}
	}

	// The map comes first: it is the cheapest check.
	if len(texts) > 0 {
		t.Checks = append([]Check{texts}, others...)
	}
}

// gather replaces the checks that search for a text by one automaton, if there are many.
func (t *Test) gather() {
	var texts []string
	var others []Check
	for _, check := range t.Checks {
		switch c := check.(type) {
		case Pattern:
			if c.plainContains() {
				texts = append(texts, c.Text)
				continue
			}
		case AnyOf:
			if c.plainContains() {
				for _, form := range c {
					texts = append(texts, form.(Pattern).Text)
				}
				continue
			}
		}

		others = append(others, check)
	}

	if len(texts) >= minMany {
		t.many, t.others = newAutomaton(texts), others
	}
}

// plainContains reports whether the pattern searches for a text, in any case.
func (p Pattern) plainContains() bool { return p.Shape == ShapeContains && !p.Cased && p.Text != "" }

// plainContains reports whether all forms are such patterns.
func (c AnyOf) plainContains() bool {
	for _, form := range c {
		if pat, ok := form.(Pattern); !ok || !pat.plainContains() {
			return false
		}
	}
	return true
}

// Exists tests whether a field is present, with any value: null and "" count as values.
type Exists struct {
	Field Field
	Want  bool
}

func (e Exists) eval(m *Matcher) bool {
	return (len(m.slots[e.Field.slot].values) > 0) == e.Want
}

func (e Exists) types() types { return nil }
