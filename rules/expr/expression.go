package expr

// expression is a condition, or a part of one, in the form that a Matcher evaluates.
type expression interface {
	eval(m *Matcher) bool
	// types returns the event types that can make the expression true; nil means any.
	types() types
}

type (
	and []expression
	or  []expression
	not struct{ x expression }
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
