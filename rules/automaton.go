package rules

import "slices"

// automaton finds in one pass which of many texts are anywhere in a text (Aho and
// Corasick). Its states are the texts' beginnings; each has the few bytes with which one
// of them goes on, and the state to fall back to. It does not change once it is built.
type automaton struct {
	root   [256]int32 // the state that a byte leads to from the start
	states []state
	steps  []byte  // with which bytes they go on, state by state
	next   []int32 // and where to
}

// state is a beginning of some of the texts.
type state struct {
	first, last int32 // its steps
	fallback    int32 // the longest end of it that is a beginning, too
	found       int32 // the text that it is, -1 for none
	also        int32 // the longest end of it that is a text, 0 for none
}

// newAutomaton builds an automaton for texts that are not empty. Text i is found as i; one
// that is there twice is found as the first.
func newAutomaton(texts []string) *automaton {
	type branch struct {
		found int32
		steps []byte
		next  []int32
	}
	branches := []branch{{found: -1}}
	for i, text := range texts {
		at := int32(0)
		for _, c := range []byte(text) {
			k := slices.Index(branches[at].steps, c)
			if k < 0 {
				branches = append(branches, branch{found: -1})
				k = len(branches[at].steps)
				branches[at].steps = append(branches[at].steps, c)
				branches[at].next = append(branches[at].next, int32(len(branches)-1))
			}
			at = branches[at].next[k]
		}
		if branches[at].found < 0 {
			branches[at].found = int32(i)
		}
	}

	a := &automaton{states: make([]state, len(branches))}
	for i, b := range branches {
		s := &a.states[i]
		s.first, s.found = int32(len(a.steps)), b.found
		a.steps, a.next = append(a.steps, b.steps...), append(a.next, b.next...)
		s.last = int32(len(a.steps))
	}
	for i, c := range branches[0].steps {
		a.root[c] = branches[0].next[i]
	}

	// By rising length, so that a state's fallback is complete before it is asked for.
	queue := slices.Clone(branches[0].next)
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for i, c := range branches[at].steps {
			to := branches[at].next[i]
			back := a.step(a.states[at].fallback, c)
			a.states[to].fallback = back
			if a.states[to].also = back; a.states[back].found < 0 {
				a.states[to].also = a.states[back].also
			}
			queue = append(queue, to)
		}
	}
	return a
}

// step is the state after another byte.
func (a *automaton) step(at int32, c byte) int32 {
	for at != 0 {
		s := &a.states[at]
		for i := s.first; i < s.last; i++ {
			if a.steps[i] == c {
				return a.next[i]
			}
		}
		at = s.fallback
	}
	return a.root[c]
}

// find calls yield for the texts that are in a text, each as often as it is, until that
// returns true, and reports whether it did.
func (a *automaton) find(text []byte, yield func(found int32) bool) bool {
	at := int32(0)
	for _, c := range text {
		at = a.step(at, c)
		for k := at; k != 0; k = a.states[k].also {
			if found := a.states[k].found; found >= 0 && yield(found) {
				return true
			}
		}
	}
	return false
}

// in reports whether any of the texts is in a text.
func (a *automaton) in(text []byte) bool {
	at := int32(0)
	for _, c := range text {
		at = a.step(at, c)
		if s := &a.states[at]; s.found >= 0 || s.also != 0 {
			return true
		}
	}
	return false
}

// inAny reports whether any of the texts is in a value, without regard to case.
func (a *automaton) inAny(m *Matcher, values []value) bool {
	for i := range values {
		if values[i].kind > kindContainer && a.in(m.low(&values[i])) {
			return true
		}
	}
	return false
}

// leastMany is how many texts it takes for an automaton to be quicker than a search for
// each.
const leastMany = 8

// gather makes one automaton of the checks that look for a text anywhere.
func (t *test) gather() {
	t.many, t.others = nil, nil
	if t.all {
		return
	}
	var texts []string
	var others []check
	for _, c := range t.checks {
		switch c := c.(type) {
		case pattern:
			if c.plainContains() {
				texts = append(texts, c.text)
				continue
			}
		case anyOf:
			if !slices.ContainsFunc(c, func(form check) bool { p, ok := form.(pattern); return !ok || !p.plainContains() }) {
				for _, form := range c {
					texts = append(texts, form.(pattern).text)
				}
				continue
			}
		}
		others = append(others, c)
	}
	if len(texts) >= leastMany {
		t.many, t.others = newAutomaton(texts), others
	}
}

// plainContains reports whether the pattern is a text anywhere, in any case.
func (p pattern) plainContains() bool { return p.shape == contains && !p.cased && p.text != "" }
