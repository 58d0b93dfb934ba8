package expr

import (
	"cmp"
	"slices"
)

// Bounds of the reduced programs that a Matcher keeps.
const (
	maxReduced  = 1024 // event types; Auth0 has about 250
	maxTypeText = 256  // bytes of a type's name
)

// reduced is a Program for the events of one type: the conditions that test the type and can hold
// for it, each without the parts that the type decides, and the fields to read. Nearly every
// condition tests the type, and a tenant's events are of a few types, so the list is short.
type reduced struct {
	root   *node
	list   []candidate
	finder *finder // of list; nil if that is short
}

// minIndexed is the number of conditions from which an index is faster than evaluating each.
const minIndexed = 64

// candidate is a condition, as its index in the Program. It has no match if the type alone decides
// it.
type candidate struct {
	index int
	match expression
}

// typeKey is the value of an event's type.
type typeKey struct {
	kind kind
	text string
}

// noType is the kind of a typeKey for events without a type.
const noType kind = 255

// reducedFor returns the program for events whose type has these values: one or none.
func (m *Matcher) reducedFor(typ []value) *reduced {
	first := value{kind: noType}
	if len(typ) > 0 {
		first = typ[0]
	}
	if prog := m.byType[typeKey{first.kind, string(first.text)}]; prog != nil {
		return prog
	}

	// A flood of invented types must not fill the memory.
	if len(m.byType) >= maxReduced || len(first.text) > maxTypeText {
		return m.unreduced()
	}
	prog := m.newReduced(typ)
	m.byType[typeKey{first.kind, string(first.text)}] = prog
	return prog
}

// newReduced builds the program for a type.
func (m *Matcher) newReduced(typ []value) *reduced {
	prog := &reduced{root: &node{slot: -1}}
	prog.root.add(Field{Path: TypeField})
	each(m.general.fields, prog.root.add)

	reduction := reducer{m: &Matcher{}, typ: slices.Clone(typ), uses: map[*Test]int{}, first: m.general.shared}

	// Reduce each condition that tests the type to what the type leaves open.
	for i, one := range m.program.list {
		if one.match == nil || !one.typed {
			continue
		}
		rest, holds := reduction.reduce(one.match)
		if rest == nil && !holds {
			continue // it cannot match this type
		}
		if rest != nil {
			reads(rest, prog.root.add)
		}

		each(one.extra, prog.root.add)
		prog.list = append(prog.list, candidate{i, rest})
	}

	// The index needs the expressions before they are arranged.
	if len(prog.list) >= minIndexed {
		prog.finder = newFinder(newIndex(prog.list, len(m.slots)))
	}

	reduction.arrangeAll(prog.list)

	// Make room for the results that the program's tests share.
	m.results = append(m.results, make([]result, max(0, reduction.first+len(reduction.shared)-len(m.results)))...)
	prog.root.seal()
	return prog
}

// unreduced returns the program for any type: its conditions still test the type.
func (m *Matcher) unreduced() *reduced {
	if m.anyType == nil {
		m.anyType = &reduced{root: m.program.root}
		for i, one := range m.program.list {
			if one.match != nil && one.typed {
				m.anyType.list = append(m.anyType.list, candidate{i, one.match})
			}
		}
	}
	return m.anyType
}

// reducer turns conditions into candidates.
type reducer struct {
	m      *Matcher // scratch space
	typ    []value
	uses   map[*Test]int // number of candidates that have a test
	shared map[*Test]int // index in Matcher.results of each test with several uses
	first  int           // the lowest such index
}

// reduce returns the part of an expression that the type does not decide; if it decides all,
// rest is nil and holds is the result.
func (r *reducer) reduce(x expression) (rest expression, holds bool) {
	switch x := x.(type) {
	case and:
		return r.join(x, true)
	case or:
		return r.join(x, false)
	case not:
		rest, holds := r.reduce(x.x)
		if rest == nil {
			return nil, !holds
		}
		return not{rest}, false
	case *Test:
		if x.Field.slot == 0 && !slices.ContainsFunc(x.Checks, undecided) {
			return nil, x.holds(r.m, r.typ) != x.Negate
		}
		r.uses[x]++
	case Exists:
		if x.Field.slot == 0 {
			return nil, (len(r.typ) > 0) == x.Want
		}
	}

	return x, false
}

// undecided reports whether the result of a check of the type can differ between events: it
// depends on another field or on a time limit.
func undecided(c Check) bool {
	switch c.(type) {
	case FieldRef, Backtracking:
		return true
	}
	return false
}

// join reduces the parts of a conjunction, if all is set, or of a disjunction. A part that the
// type decides is dropped, or decides the whole.
func (r *reducer) join(parts []expression, all bool) (expression, bool) {
	var list []expression

	// Nested conjunctions and disjunctions are merged into one list.
	for _, part := range parts {
		rest, holds := r.reduce(part)
		switch inner := rest.(type) {
		case nil:
			if holds != all {
				return nil, !all
			}
		case and:
			if all {
				list = append(list, inner...)
				continue
			}
			list = append(list, rest)
		case or:
			if !all {
				list = append(list, inner...)
				continue
			}
			list = append(list, rest)
		default:
			list = append(list, rest)
		}
	}

	switch {
	case len(list) == 0:
		return nil, all
	case len(list) == 1:
		return list[0], false
	case all:
		return and(list), false
	}

	return or(list), false
}

// arrangeAll arranges the expressions of some candidates.
func (r *reducer) arrangeAll(list []candidate) {
	for i, candidate := range list {
		if candidate.match != nil {
			list[i].match, _ = r.arrange(candidate.match)
		}
	}
}

// arrange moves the cheapest parts to the front, since often the others are not evaluated then,
// and makes tests that several conditions share run once for each event. It also returns the cost.
func (r *reducer) arrange(x expression) (expression, int) {
	switch x := x.(type) {
	case and:
		list, cost := r.byCost(x)
		return and(list), cost
	case or:
		list, cost := r.byCost(x)
		return or(list), cost
	case not:
		inner, cost := r.arrange(x.x)

		// A negated test holds more often, so it decides less.
		return not{inner}, cost + 1
	case Exists:
		return x, 1
	case *Test:
		return r.arrangeTest(x)
	}
	return x, 0
}

func (r *reducer) arrangeTest(t *Test) (expression, int) {
	cost := 1
	for _, check := range t.Checks {
		cost += costOf(check)
	}

	if text, ok := t.only(); ok {
		// About as cheap as a kept result.
		return is{t.Field.slot, text}, cost
	}
	if r.uses[t] <= 1 {
		return t, cost
	}

	// The first use assigns the index of the result.
	index, ok := r.shared[t]
	if !ok {
		if r.shared == nil {
			r.shared = map[*Test]int{}
		}
		index = r.first + len(r.shared)
		r.shared[t] = index
	}

	return once{t, index}, cost
}

// byCost arranges parts by rising cost and returns the sum.
func (r *reducer) byCost(parts []expression) ([]expression, int) {
	type priced struct {
		x    expression
		cost int
	}
	list, sum := make([]priced, len(parts)), 0
	for i, part := range parts {
		list[i].x, list[i].cost = r.arrange(part)
		sum += list[i].cost
	}

	// Stable, so that parts of equal cost keep the order of the rule.
	slices.SortStableFunc(list, func(a, b priced) int { return cmp.Compare(a.cost, b.cost) })
	out := make([]expression, len(list))
	for i := range list {
		out[i] = list[i].x
	}
	return out, sum
}

// costOf returns the approximate time of a check, in units of 10 ns.
func costOf(c Check) int {
	switch c := c.(type) {
	case OneOf, Number, Ordering, FieldRef:
		return 2
	case Pattern:
		if c.Shape >= ShapeContains {
			return 4
		}
		return 2
	case Network, TimePart:
		return 10
	case Regex:
		return 50
	case Backtracking:
		return 500
	case AnyOf:
		return 4 * len(c)
	}
	return 4
}

// once is a test whose result is kept for the event.
type once struct {
	*Test
	index int // in Matcher.results
}

// result is the result of a test for an event.
type result struct {
	event uint64
	holds bool
}

func (o once) eval(m *Matcher) bool {
	known := &m.results[o.index]
	if known.event != m.event {
		known.event, known.holds = m.event, o.Test.eval(m)
	}
	return known.holds
}

// is is the most common test: for one text.
type is struct {
	slot int
	text string
}

// only returns the text if a test is for one text and nothing else.
func (t *Test) only() (string, bool) {
	if t.All || t.Absent || t.Negate || len(t.Checks) != 1 {
		return "", false
	}
	texts, ok := t.Checks[0].(OneOf)
	for text := range texts {
		return text, ok && len(texts) == 1
	}
	return "", false
}

func (x is) eval(m *Matcher) bool {
	values := m.slots[x.slot].values
	for i := range values {
		if value := &values[i]; value.kind > kindContainer && string(m.low(value)) == x.text {
			return true
		}
	}
	return false
}

func (is) types() types { return nil }
