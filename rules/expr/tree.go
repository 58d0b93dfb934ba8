package expr

// Tree is a condition as written in its rule: what is evaluated, and what an Explanation shows of
// it. And, or and not have Parts; the others are tests, which have a Leaf. A Tree must not be
// changed once a Program has it.
type Tree struct {
	Op        Op // OpAnd, OpOr, OpNot; empty for a test
	Parts     []*Tree
	Leaf      Leaf
	Search    string   // the search identifier of this part, such as selection
	Filter    string   // title of the filter that this part is from
	Modifiers []string // of a test, as written
	Want      []Value  // values of a test, as written, with their variables filled in
	File      string
	Line      int
}

// Leaf is a test of an event: a *Test or Exists.
type Leaf interface {
	expression
}

// And returns the condition that all of some conditions hold.
func And(parts []*Tree) *Tree { return &Tree{Op: OpAnd, Parts: parts} }

// Or returns the condition that one of some conditions holds.
func Or(parts []*Tree) *Tree { return &Tree{Op: OpOr, Parts: parts} }

// Not returns the condition that another one does not hold.
func Not(part *Tree) *Tree { return &Tree{Op: OpNot, Parts: []*Tree{part}} }

// Leaves calls yield for every test.
func (t *Tree) Leaves(yield func(*Tree)) {
	if t.Op == "" {
		yield(t)
	}
	for _, part := range t.Parts {
		part.Leaves(yield)
	}
}

// Types returns patterns of the event types for which the condition can hold; nil for any.
func (t *Tree) Types() []Pattern { return t.compile().types() }

// compile returns the form that is evaluated.
func (t *Tree) compile() expression {
	if t.Op == "" {
		return t.Leaf
	}

	parts := make([]expression, len(t.Parts))
	for i, part := range t.Parts {
		parts[i] = part.compile()
	}

	switch t.Op {
	case OpAnd:
		return and(parts)
	case OpOr:
		return or(parts)
	}
	return not{parts[0]}
}
