package rules

import (
	"fmt"
	"strings"
)

// maxConditionDepth bounds the parser's recursion. Real conditions nest three
// or four deep.
const maxConditionDepth = 100

// condition parses a Sigma condition over named identifiers into a tree of T:
//
//	selection and not 1 of filter_*
//
// Precedence is not, and, or. "them", and a pattern that does not begin with "_"
// itself, leave out identifiers that do.
type condition[T any] struct {
	tokens []string
	names  []string // the identifiers, in the order in which "of" takes them
	lookup func(name string) (T, error)
	allOf  func([]T) T
	anyOf  func([]T) T
	negate func(T) T
	depth  int
}

// parse reads a whole condition.
func (p *condition[T]) parse(text string) (T, error) {
	var none T
	if strings.Contains(text, "|") {
		return none, fmt.Errorf("condition %q: aggregations with | are not supported; write a correlation", text)
	}
	p.tokens = strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text))
	if len(p.tokens) == 0 {
		return none, fmt.Errorf("condition is empty")
	}
	x, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %q", p.tokens[0])
	}
	if err != nil {
		return none, fmt.Errorf("condition %q: %w", text, err)
	}
	return x, nil
}

func (p *condition[T]) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

// accept takes the next token if it is the keyword.
func (p *condition[T]) accept(keyword string) bool {
	if !strings.EqualFold(p.next(), keyword) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *condition[T]) or() (T, error) { return p.joined("or", p.and, p.anyOf) }

func (p *condition[T]) and() (T, error) { return p.joined("and", p.not, p.allOf) }

// joined reads one or several parts with a keyword between them.
func (p *condition[T]) joined(keyword string, part func() (T, error), join func([]T) T) (T, error) {
	x, err := part()
	if err != nil {
		return x, err
	}
	list := []T{x}
	for p.accept(keyword) {
		if x, err = part(); err != nil {
			return x, err
		}
		list = append(list, x)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return join(list), nil
}

func (p *condition[T]) not() (T, error) {
	var none T
	if p.depth++; p.depth > maxConditionDepth {
		return none, fmt.Errorf("nested more than %d deep", maxConditionDepth)
	}
	defer func() { p.depth-- }()
	if p.accept("not") {
		x, err := p.not()
		if err != nil {
			return none, err
		}
		return p.negate(x), nil
	}
	if p.accept("(") {
		x, err := p.or()
		if err != nil {
			return none, err
		}
		if !p.accept(")") {
			return none, fmt.Errorf("missing )")
		}
		return x, nil
	}
	return p.primary()
}

func (p *condition[T]) primary() (T, error) {
	var none T
	name := p.next()
	if name == "" {
		return none, fmt.Errorf("unexpected end")
	}
	p.tokens = p.tokens[1:]
	if p.accept("of") {
		return p.quantified(name)
	}
	switch strings.ToLower(name) {
	case "and", "or", "not", ")", "of", "them":
		return none, fmt.Errorf("unexpected %q", name)
	}
	return p.lookup(name)
}

// quantified reads what follows "1 of" or "all of".
func (p *condition[T]) quantified(quantity string) (T, error) {
	var none T
	glob := p.next()
	if glob == "" {
		return none, fmt.Errorf("unexpected end after of")
	}
	p.tokens = p.tokens[1:]
	var list []T
	for _, name := range p.names {
		if !selects(glob, name) {
			continue
		}
		x, err := p.lookup(name)
		if err != nil {
			return none, err
		}
		list = append(list, x)
	}
	if len(list) == 0 {
		return none, fmt.Errorf("%s of %s: no search identifier has such a name", quantity, glob)
	}
	switch strings.ToLower(quantity) {
	case "1", "any":
		return p.anyOf(list), nil
	case "all":
		return p.allOf(list), nil
	}
	return none, fmt.Errorf("%s of %s: only 1, any and all are defined", quantity, glob)
}

// selects reports whether a pattern after "of" takes a search identifier: * is any
// characters, ? any one.
func selects(glob, name string) bool {
	if strings.HasPrefix(name, "_") && !strings.HasPrefix(glob, "_") {
		return false
	}
	return strings.EqualFold(glob, "them") || newPattern(parsePattern(glob), true).match([]byte(name))
}
