package rules

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// maxConditionDepth bounds the parser's recursion. Real conditions nest three
// or four deep.
const maxConditionDepth = 100

// condition parses a Sigma condition over named identifiers into a tree of T:
//
//	selection and not 1 of filter_*
//
// Precedence is not, and, or. "them", and a pattern that does not start with "_",
// exclude identifiers that start with "_".
type condition[T any] struct {
	tokens []string // still to be read
	names  []string // the identifiers, in the order in which "of" combines them
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

	// Parentheses are tokens of their own even without spaces around them.
	p.tokens = strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text))
	if len(p.tokens) == 0 {
		return none, errors.New("condition is empty")
	}

	// Tokens that are left over are an error, not ignored.
	part, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %q", p.tokens[0])
	}
	if err != nil {
		return none, fmt.Errorf("condition %q: %w", text, err)
	}
	return part, nil
}

// next returns the next token without consuming it, or "" at the end.
func (p *condition[T]) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

// accept consumes the next token if it is the keyword.
func (p *condition[T]) accept(keyword string) bool {
	if !strings.EqualFold(p.next(), keyword) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *condition[T]) or() (T, error) { return p.joined("or", p.and, p.anyOf) }

func (p *condition[T]) and() (T, error) { return p.joined("and", p.not, p.allOf) }

// joined reads one or more parts with a keyword between them.
func (p *condition[T]) joined(keyword string, part func() (T, error), join func([]T) T) (T, error) {
	operand, err := part()
	if err != nil {
		return operand, err
	}
	list := []T{operand}
	for p.accept(keyword) {
		if operand, err = part(); err != nil {
			return operand, err
		}
		list = append(list, operand)
	}

	if len(list) == 1 {
		return list[0], nil
	}
	return join(list), nil
}

// not reads an optional not, then parentheses or a primary.
func (p *condition[T]) not() (T, error) {
	var none T

	// Conditions come from users' files: bound the recursion.
	if p.depth++; p.depth > maxConditionDepth {
		return none, fmt.Errorf("nested more than %d deep", maxConditionDepth)
	}
	defer func() { p.depth-- }()

	if p.accept("not") {
		part, err := p.not()
		if err != nil {
			return none, err
		}
		return p.negate(part), nil
	}

	if p.accept("(") {
		part, err := p.or()
		if err != nil {
			return none, err
		}
		if !p.accept(")") {
			return none, errors.New("missing )")
		}
		return part, nil
	}
	return p.primary()
}

// primary reads an identifier, or "1 of PATTERN".
func (p *condition[T]) primary() (T, error) {
	var none T
	name := p.next()
	if name == "" {
		return none, errors.New("unexpected end")
	}
	p.tokens = p.tokens[1:]
	if p.accept("of") {
		return p.quantified(name)
	}

	// A keyword here means that an operand is missing.
	switch strings.ToLower(name) {
	case "and", "or", "not", ")", "of", "them":
		return none, fmt.Errorf("unexpected %q", name)
	}
	return p.lookup(name)
}

// quantified reads the part after "1 of" or "all of".
func (p *condition[T]) quantified(quantity string) (T, error) {
	var none T
	glob := p.next()
	if glob == "" {
		return none, errors.New("unexpected end after of")
	}
	p.tokens = p.tokens[1:]

	// Look up every identifier that the pattern selects.
	var list []T
	for _, name := range p.names {
		if !selects(glob, name) {
			continue
		}
		part, err := p.lookup(name)
		if err != nil {
			return none, err
		}
		list = append(list, part)
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

// selects reports whether a pattern after "of" selects a search identifier: * stands for any
// characters, ? for any one.
func selects(glob, name string) bool {
	// Names that start with _ are only selected explicitly.
	if strings.HasPrefix(name, "_") && !strings.HasPrefix(glob, "_") {
		return false
	}
	return strings.EqualFold(glob, "them") || expr.NewPattern(glob, expr.ShapeExact, true).Match([]byte(name))
}
