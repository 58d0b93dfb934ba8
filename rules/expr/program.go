package expr

import (
	"slices"
	"strings"
	"sync"
)

// Program is a list of conditions, compiled to be evaluated together by a Matcher. It is immutable
// and safe for concurrent use.
type Program struct {
	list    []compiled
	root    *node // of the fields to read
	slots   int
	general func() *general // computed once, on first use
}

// compiled is a condition of a Program.
type compiled struct {
	match expression // nil if no condition has this index
	typed bool       // match tests the event's type
	extra []Field    // to be read in addition to those that match tests
}

// Program compiles conditions. A nil one never holds: it only takes an index. extra has, for each
// condition, the fields that a caller wants of the events for which it holds, beside those that
// it tests.
func (f *Fields) Program(conditions []*Tree, extra [][]Field) *Program {
	return newProgram(len(f.slots), conditions, extra)
}

// With returns a Program of other conditions, over the same Fields as those of p.
func (p *Program) With(conditions []*Tree, extra [][]Field) *Program {
	return newProgram(p.slots, conditions, extra)
}

func newProgram(slots int, conditions []*Tree, extra [][]Field) *Program {
	prog := &Program{root: &node{slot: -1}, slots: slots, list: make([]compiled, len(conditions))}
	prog.root.add(Field{Path: TypeField})

	for i, tree := range conditions {
		if tree == nil {
			continue
		}
		one := compiled{match: tree.compile(), extra: extra[i]}
		one.typed = readsType(one.match)
		prog.list[i] = one

		reads(one.match, prog.root.add)
		each(one.extra, prog.root.add)
	}

	prog.root.seal()
	prog.general = sync.OnceValue(func() *general { return newGeneral(prog) })
	return prog
}

// Matcher returns a new Matcher.
func (p *Program) Matcher() *Matcher {
	matcher := &Matcher{program: p, byType: map[typeKey]*reduced{}, slots: make([]slot, p.slots), general: p.general()}
	if matcher.general.index != nil {
		matcher.finder = newFinder(matcher.general.index)
	}
	matcher.results = make([]result, matcher.general.shared)
	return matcher
}

// Members returns the sorted names of the top-level members of an event that are read: the first
// steps of the fields' paths. all is true if a condition searches every member.
func (p *Program) Members() (names []string, all bool) {
	// The root's children are the first steps of all paths.
	for step := range p.root.children {
		names = append(names, step)
	}
	slices.Sort(names)
	return names, slices.ContainsFunc(p.list, func(c compiled) bool { return c.match != nil && searchesAll(c.match) })
}

// Reads reports whether a top-level member of an event is read for the condition with an index.
func (p *Program) Reads(index int, member string) bool {
	one := p.list[index]
	if one.match == nil {
		return false
	}
	if searchesAll(one.match) {
		return true
	}

	// Otherwise look for a field below the member.
	found := false
	add := func(f Field) {
		first, _, _ := strings.Cut(f.Path, ".")
		found = found || first == member
	}
	reads(one.match, add)
	each(one.extra, add)
	return found
}

func each(list []Field, f func(Field)) {
	for _, field := range list {
		f(field)
	}
}

// readsType reports whether an expression tests the event's type.
func readsType(x expression) bool {
	found := false
	reads(x, func(f Field) { found = found || f.slot == 0 })
	return found
}

// reads calls add for every field that an expression tests.
func reads(x expression, add func(Field)) {
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
	case Exists:
		add(x.Field)
	case *Test:
		if !x.isKeyword() {
			add(x.Field)
		}
		for _, check := range x.Checks {
			if ref, ok := check.(FieldRef); ok {
				add(ref.Other)
			}
		}
	}
}

// searchesAll reports whether an expression has a keyword, which searches every member.
func searchesAll(x expression) bool {
	switch x := x.(type) {
	case and:
		return slices.ContainsFunc(x, searchesAll)
	case or:
		return slices.ContainsFunc(x, searchesAll)
	case not:
		return searchesAll(x.x)
	case *Test:
		return x.isKeyword()
	}
	return false
}
