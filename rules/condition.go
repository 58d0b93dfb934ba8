package rules

import (
	"fmt"
	"path"
	"strings"
)

// maxConditionDepth bounds the parser's recursion. Real conditions nest three
// or four deep.
const maxConditionDepth = 100

// condition parses a Sigma condition over named search identifiers:
//
//	selection and not 1 of filter_*
//
// Precedence is not, and, or. "them" leaves out identifiers that start with "_".
type condition struct {
	tokens []string
	names  []string // the identifiers, sorted
	lookup func(name string) (expr, error)
	depth  int
}

func parseCondition(text string, names []string, lookup func(string) (expr, error)) (expr, error) {
	if strings.Contains(text, "|") {
		return nil, fmt.Errorf("condition %q: aggregations with | are not supported; write a correlation", text)
	}
	spaced := strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text)
	p := &condition{tokens: strings.Fields(spaced), names: names, lookup: lookup}
	if len(p.tokens) == 0 {
		return nil, fmt.Errorf("condition is empty")
	}
	x, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %q", p.tokens[0])
	}
	if err != nil {
		return nil, fmt.Errorf("condition %q: %w", text, err)
	}
	return x, nil
}

func (p *condition) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

// accept takes the next token if it is the keyword.
func (p *condition) accept(keyword string) bool {
	if !strings.EqualFold(p.next(), keyword) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *condition) or() (expr, error) {
	x, err := p.and()
	if err != nil {
		return nil, err
	}
	list := or{x}
	for p.accept("or") {
		if x, err = p.and(); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return list, nil
}

func (p *condition) and() (expr, error) {
	x, err := p.not()
	if err != nil {
		return nil, err
	}
	list := and{x}
	for p.accept("and") {
		if x, err = p.not(); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return list, nil
}

func (p *condition) not() (expr, error) {
	if p.depth++; p.depth > maxConditionDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxConditionDepth)
	}
	defer func() { p.depth-- }()
	if p.accept("not") {
		x, err := p.not()
		if err != nil {
			return nil, err
		}
		return not{x}, nil
	}
	if p.accept("(") {
		x, err := p.or()
		if err != nil {
			return nil, err
		}
		if !p.accept(")") {
			return nil, fmt.Errorf("missing )")
		}
		return x, nil
	}
	return p.primary()
}

func (p *condition) primary() (expr, error) {
	name := p.next()
	if name == "" {
		return nil, fmt.Errorf("unexpected end")
	}
	p.tokens = p.tokens[1:]
	if p.accept("of") {
		return p.quantified(name)
	}
	switch strings.ToLower(name) {
	case "and", "or", "not", ")", "of", "them":
		return nil, fmt.Errorf("unexpected %q", name)
	}
	return p.lookup(name)
}

// quantified reads what follows "1 of" or "all of".
func (p *condition) quantified(quantity string) (expr, error) {
	glob := p.next()
	if glob == "" {
		return nil, fmt.Errorf("unexpected end after of")
	}
	p.tokens = p.tokens[1:]
	var list []expr
	for _, name := range p.names {
		hit := strings.EqualFold(glob, "them") && !strings.HasPrefix(name, "_")
		if !hit {
			var err error
			if hit, err = path.Match(glob, name); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", quantity, glob, err)
			}
		}
		if !hit {
			continue
		}
		x, err := p.lookup(name)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s of %s: no search identifier has such a name", quantity, glob)
	}
	switch strings.ToLower(quantity) {
	case "1", "any":
		return or(list), nil
	case "all":
		return and(list), nil
	}
	return nil, fmt.Errorf("%s of %s: only 1, any and all are defined", quantity, glob)
}
