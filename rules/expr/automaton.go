package expr

import "slices"

// automaton finds in one pass which of many texts a text contains (Aho-Corasick). Its states are
// the prefixes of the texts. Each state has the few bytes that continue one of the texts, and the
// state to fall back to for all others. An automaton is immutable.
type automaton struct {
	root   [256]int32 // the state after a byte at the start
	states []state
	steps  []byte  // the bytes that continue a text, state by state
	next   []int32 // the state that each of steps leads to
}

// state is a prefix of some of the texts.
type state struct {
	first, last int32 // its part of steps
	fallback    int32 // the state of its longest proper suffix that is also a prefix
	found       int32 // the text that it equals, -1 for none
	also        int32 // the state of its longest proper suffix that is a text, 0 for none
}

// branch is a state while the automaton is being built.
type branch struct {
	found int32
	steps []byte
	next  []int32
}

// newAutomaton builds an automaton for texts that are not empty. Text i is reported as i; a
// repeated text is reported as the first.
func newAutomaton(texts []string) *automaton {
	branches := branchesOf(texts)

	built := &automaton{states: make([]state, len(branches))}

	// Flatten the branches, so that the steps of a state are next to each other in memory.
	for i, branch := range branches {
		state := &built.states[i]
		state.first, state.found = int32(len(built.steps)), branch.found
		built.steps, built.next = append(built.steps, branch.steps...), append(built.next, branch.next...)
		state.last = int32(len(built.steps))
	}

	// Where no text matches, each byte is looked up at the root, so the root has a full table.
	for i, char := range branches[0].steps {
		built.root[char] = branches[0].next[i]
	}

	// By rising length, so that the fallback of a state, which is shorter, is complete.
	queue := slices.Clone(branches[0].next)
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for i, char := range branches[at].steps {
			to := branches[at].next[i]
			fallback := built.step(built.states[at].fallback, char)
			built.states[to].fallback = fallback

			// If the fallback is not a text itself, the next text is one of its own suffixes.
			if built.states[to].also = fallback; built.states[fallback].found < 0 {
				built.states[to].also = built.states[fallback].also
			}
			queue = append(queue, to)
		}
	}

	return built
}

// branchesOf builds the trie of the texts. The root is the first branch.
func branchesOf(texts []string) []branch {
	branches := []branch{{found: -1}}
	for i, text := range texts {
		at := int32(0)
		for _, char := range []byte(text) {
			step := slices.Index(branches[at].steps, char)
			if step < 0 {
				branches = append(branches, branch{found: -1})
				step = len(branches[at].steps)
				branches[at].steps = append(branches[at].steps, char)
				branches[at].next = append(branches[at].next, int32(len(branches)-1))
			}
			at = branches[at].next[step]
		}

		// Of equal texts, the first one counts.
		if branches[at].found < 0 {
			branches[at].found = int32(i)
		}
	}
	return branches
}

// step returns the state after another byte.
func (a *automaton) step(at int32, c byte) int32 {
	// Fall back to ever shorter suffixes until one of them continues with this byte.
	for at != 0 {
		state := &a.states[at]
		for i := state.first; i < state.last; i++ {
			if a.steps[i] == c {
				return a.next[i]
			}
		}
		at = state.fallback
	}
	return a.root[c]
}

// find calls yield for each occurrence of one of the texts, until yield returns true. It reports
// whether that happened.
func (a *automaton) find(text []byte, yield func(found int32) bool) bool {
	at := int32(0)
	for _, char := range text {
		at = a.step(at, char)

		// Besides the state itself, shorter texts may end here.
		for suffix := at; suffix != 0; suffix = a.states[suffix].also {
			if found := a.states[suffix].found; found >= 0 && yield(found) {
				return true
			}
		}
	}
	return false
}

// in reports whether a text contains any of the texts.
func (a *automaton) in(text []byte) bool {
	at := int32(0)
	for _, char := range text {
		at = a.step(at, char)
		if state := &a.states[at]; state.found >= 0 || state.also != 0 {
			return true
		}
	}
	return false
}

// inAny reports whether any of the values contains any of the texts, in whatever case.
func (a *automaton) inAny(m *Matcher, values []value) bool {
	for i := range values {
		if values[i].kind > kindContainer && a.in(m.low(&values[i])) {
			return true
		}
	}
	return false
}
