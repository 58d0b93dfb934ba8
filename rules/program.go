package rules

import (
	"cmp"
	"slices"
)

// Bounds of the programs that a Matcher keeps.
const (
	maxPrograms = 1024 // event types; Auth0 has some 250
	maxTypeText = 256  // bytes of a type's name
)

// program is what a Matcher runs over the events of one type: of the detections that say
// something of it those that such an event can match, each without what the type decides
// already, and the fields that these and the others look at. The type is a field of nearly every detection, and a
// tenant's events are of a few types, so little is left.
type program struct {
	root   *node
	list   []candidate
	finder *finder // of list, where it is long
}

// leastIndexed is how many detections it takes for an index to be quicker than a look at
// each.
const leastIndexed = 64

// candidate is a detection, as an index into Set.rules. Without a match the type
// alone was enough.
type candidate struct {
	rule  int
	match expr
}

// typeKey is the value of an event's type.
type typeKey struct {
	kind kind
	text string
}

// noType is the kind of the type of an event that has none.
const noType kind = 255

// programFor returns the program for events with these values at the type, which are
// one or none.
func (m *Matcher) programFor(typ []value) *program {
	v := value{kind: noType}
	if len(typ) > 0 {
		v = typ[0]
	}
	if p := m.programs[typeKey{v.kind, string(v.text)}]; p != nil {
		return p
	}
	if len(m.programs) >= maxPrograms || len(v.text) > maxTypeText {
		return m.plain()
	}
	p := &program{root: &node{slot: -1}}
	p.root.add(Field{Path: typeField})
	each(m.general.fields, p.root.add)
	r := reducer{m: &Matcher{}, typ: slices.Clone(typ), uses: map[*test]int{}, first: m.general.shared}
	if m.wants == nil {
		m.wants = m.set.wants()
	}
	for i, rule := range m.set.rules {
		if rule.Correlation != nil || !rule.readsType {
			continue
		}
		x, holds := r.reduce(rule.match)
		if x == nil && !holds {
			continue
		}
		if x != nil {
			reads(x, p.root.add)
		}
		each(m.wants[i], p.root.add)
		p.list = append(p.list, candidate{i, x})
	}
	if len(p.list) >= leastIndexed {
		p.finder = newFinder(newIndex(p.list, len(m.slots)))
	}
	r.arrangeAll(p.list)
	m.results = append(m.results, make([]result, max(0, r.first+len(r.shared)-len(m.results)))...)
	p.root.seal()
	m.programs[typeKey{v.kind, string(v.text)}] = p
	return p
}

// plain is the program for every type, of which nothing is decided.
func (m *Matcher) plain() *program {
	if m.anyType == nil {
		m.anyType = &program{root: m.set.root}
		for i, rule := range m.set.rules {
			if rule.Correlation == nil && rule.readsType {
				m.anyType.list = append(m.anyType.list, candidate{i, rule.match})
			}
		}
	}
	return m.anyType
}

// wants are for each detection the fields that its alert and the correlations that
// count it want to know of an event.
func (s *Set) wants() [][]Field {
	list := make([][]Field, len(s.rules))
	for i, r := range slices.Backward(s.rules) { // what a correlation counts comes before it
		if r.Correlation == nil {
			if r.Alert != nil {
				list[i] = append(list[i], r.Alert.GroupBy...)
			}
			continue
		}
		all := list[i]
		for _, source := range r.Correlation.Sources {
			all = slices.Concat(all, source.GroupBy, source.Values)
		}
		for _, source := range r.Correlation.Sources {
			list[source.Rule] = append(list[source.Rule], all...)
		}
		for _, k := range r.Correlation.Among {
			list[k] = append(list[k], all...)
		}
	}
	return list
}

// reducer makes programs of detections.
type reducer struct {
	m      *Matcher // scratch space
	typ    []value
	uses   map[*test]int // by the detections of one program
	shared map[*test]int // their places in Matcher.results
	first  int           // of these places
}

// reduce returns what is left of an expression for events of the type; nil where
// nothing is, and then whether it holds.
func (r *reducer) reduce(x expr) (rest expr, holds bool) {
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
	case *test:
		if x.field.slot == 0 && !slices.ContainsFunc(x.checks, undecided) {
			return nil, x.holds(r.m, r.typ) != x.negate
		}
		r.uses[x]++
	case exists:
		if x.field.slot == 0 {
			return nil, (len(r.typ) > 0) == x.want
		}
	}
	return x, false
}

// undecided reports whether a check of the type may say something else the next time.
func undecided(c check) bool {
	switch c.(type) {
	case fieldRef, backtracking:
		return true
	}
	return false
}

// join reduces the parts of a conjunction, or of a disjunction: a part that holds,
// or does not, says nothing, and one that does the opposite says all.
func (r *reducer) join(parts []expr, all bool) (expr, bool) {
	var list []expr
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

// arrangeAll arranges some detections.
func (r *reducer) arrangeAll(list []candidate) {
	for i, c := range list {
		if c.match != nil {
			list[i].match, _ = r.arrange(c.match)
		}
	}
}

// arrange puts first what costs least, since often the rest is not asked any more,
// and has a test that several detections make done once an event. It returns the
// cost, too.
func (r *reducer) arrange(x expr) (expr, int) {
	switch x := x.(type) {
	case and:
		list, cost := r.byCost(x)
		return and(list), cost
	case or:
		list, cost := r.byCost(x)
		return or(list), cost
	case not:
		inner, cost := r.arrange(x.x)
		return not{inner}, cost + 1 // what is there is rarer than what is not
	case exists:
		return x, 1
	case *test:
		cost := 1
		for _, c := range x.checks {
			cost += costOf(c)
		}
		if text, ok := x.only(); ok {
			return is{x.field.slot, text}, cost
		}
		if r.uses[x] > 1 {
			n, ok := r.shared[x]
			if !ok {
				if r.shared == nil {
					r.shared = map[*test]int{}
				}
				n = r.first + len(r.shared)
				r.shared[x] = n
			}
			return once{x, n}, cost
		}
		return x, cost
	}
	return x, 0
}

func (r *reducer) byCost(parts []expr) ([]expr, int) {
	type priced struct {
		x    expr
		cost int
	}
	list, sum := make([]priced, len(parts)), 0
	for i, part := range parts {
		list[i].x, list[i].cost = r.arrange(part)
		sum += list[i].cost
	}
	slices.SortStableFunc(list, func(a, b priced) int { return cmp.Compare(a.cost, b.cost) })
	out := make([]expr, len(list))
	for i := range list {
		out[i] = list[i].x
	}
	return out, sum
}

// costOf is about how many nanoseconds, by tens, a check takes.
func costOf(c check) int {
	switch c := c.(type) {
	case oneOf, number, ordering, fieldRef:
		return 2
	case pattern:
		if c.shape >= contains {
			return 4
		}
		return 2
	case network, timePart:
		return 10
	case regex:
		return 50
	case backtracking:
		return 500
	case anyOf:
		return 4 * len(c)
	}
	return 4
}

// once is a test whose result is kept for the event.
type once struct {
	*test
	place int // in Matcher.results
}

// result is what a test said of an event.
type result struct {
	event uint64
	holds bool
}

func (o once) eval(m *Matcher) bool {
	known := &m.results[o.place]
	if known.event != m.event {
		known.event, known.holds = m.event, o.test.eval(m)
	}
	return known.holds
}

// is is the commonest test, for one text.
type is struct {
	slot int
	text string
}

// only returns the text if a test is for one, and for nothing else.
func (t *test) only() (string, bool) {
	if t.all || t.absent || t.negate || len(t.checks) != 1 {
		return "", false
	}
	texts, ok := t.checks[0].(oneOf)
	for text := range texts {
		return text, ok && len(texts) == 1
	}
	return "", false
}

func (x is) eval(m *Matcher) bool {
	values := m.slots[x.slot].values
	for i := range values {
		if v := &values[i]; v.kind > kindContainer && string(m.low(v)) == x.text {
			return true
		}
	}
	return false
}

func (is) types() types { return nil }
