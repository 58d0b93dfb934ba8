package auth0sim

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// expr is a part of a search query, in the subset of Lucene's syntax that is documented
// for tenant log search.
type expr interface {
	match(fields map[string]string) bool
	// bounds returns positions between which all matches lie: above low, up to
	// high. lag is the maximum time from an event's date to its id, in µs.
	bounds(lag int64) (low, high pos)
}

func unbounded() (pos, pos) {
	return pos{us: math.MinInt64}, pos{us: math.MaxInt64, tail: math.MaxUint64}
}

type (
	both   struct{ a, b expr }
	either struct{ a, b expr }
	except struct{ e expr }
	// term compares one field, or the default ones if field is empty.
	term struct{ field, pattern string }
	// within is field:[low TO high]; "*" is an open end.
	within struct {
		field, low, high     string
		fromLow, includeHigh bool
	}
)

func (e both) match(f map[string]string) bool   { return e.a.match(f) && e.b.match(f) }
func (e either) match(f map[string]string) bool { return e.a.match(f) || e.b.match(f) }
func (e except) match(f map[string]string) bool { return !e.e.match(f) }

func (e both) bounds(lag int64) (pos, pos) {
	low, high := e.a.bounds(lag)

	// Both must match, so the closer bounds hold.
	lowest, highest := e.b.bounds(lag)
	if low.less(lowest) {
		low = lowest
	}
	if highest.less(high) {
		high = highest
	}
	return low, high
}

func (either) bounds(int64) (pos, pos) { return unbounded() }
func (except) bounds(int64) (pos, pos) { return unbounded() }
func (term) bounds(int64) (pos, pos)   { return unbounded() }

func (e term) match(f map[string]string) bool {
	if e.field != "" {
		value, ok := f[e.field]

		// A coarse date is a prefix of the finer one.
		prefix := e.field == "date" && strings.HasPrefix(value, e.pattern)
		return ok && (prefix || glob(e.pattern, value))
	}
	defaults := []string{"client_name", "connection", "description", "ip", "log_id", "type", "user_name"}
	for _, name := range defaults {
		if value, ok := f[name]; ok && glob(e.pattern, value) {
			return true
		}
	}
	return false
}

// glob matches a whole value. * stands for any text. It is case-sensitive.
func glob(pattern, v string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == v
	}

	v, ok := strings.CutPrefix(v, parts[0])
	if !ok {
		return false
	}

	// The leftmost match of each part leaves the most for the others.
	for _, part := range parts[1 : len(parts)-1] {
		_, after, ok := strings.Cut(v, part)
		if !ok {
			return false
		}
		v = after
	}
	return strings.HasSuffix(v, parts[len(parts)-1])
}

func (e within) match(f map[string]string) bool {
	value, ok := f[e.field]
	if !ok {
		return false
	}

	low, high := e.low, e.high
	if e.field == "date" {
		// A coarse date is a prefix of the finer one, so text order is time order.
		// An included upper end covers all dates that start with it.
		if high != "*" && e.includeHigh && strings.HasPrefix(value, strings.TrimSuffix(high, "Z")) {
			high = value
		}
		low = strings.TrimSuffix(low, "Z")
		if !e.fromLow && low != "*" && strings.HasPrefix(value, low) {
			return false
		}
	}

	// "*" is an open end.
	if low != "*" && (value < low || value == low && !e.fromLow) {
		return false
	}
	return high == "*" || value < high || value == high && e.includeHigh
}

func (e within) bounds(lag int64) (pos, pos) {
	low, high := unbounded()
	switch e.field {
	case "log_id":
		if position, ok := parseID(e.low); ok {
			low = position
			if position.tail > 0 {
				// low is exclusive here, and may match.
				low.tail--
			}
		}
		if position, ok := parseID(e.high); ok {
			high = position
		}
	case "date":
		if from, _, ok := dateRange(e.low); ok {
			low = pos{us: micros(from)}
		}
		if _, to, ok := dateRange(e.high); ok {
			high = pos{us: micros(to) + lag, tail: math.MaxUint64}
		}
	}
	return low, high
}

// dateRange returns the time span of a date in a query.
func dateRange(s string) (from, to time.Time, ok bool) {
	// From the coarsest to the finest.
	if at, err := time.Parse("2006-01", s); err == nil {
		return at, at.AddDate(0, 1, 0), true
	}
	if at, err := time.Parse(time.DateOnly, s); err == nil {
		return at, at.AddDate(0, 0, 1), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at, at.Add(time.Minute), true
		}
	}
	return from, to, false
}

// parseQuery parses a query. Terms without an operator between them are joined by OR,
// as in Lucene.
func parseQuery(s string) (expr, error) {
	tokens, err := lex(s)
	if err != nil {
		return nil, err
	}

	p := &parser{tokens: tokens}
	expression, err := p.disjunction()
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("unexpected %q", p.peek())
	}
	return expression, err
}

// lex splits a query into words, quoted texts, ranges and brackets. A word includes the
// field in front of it, as in type:"fp".
func lex(s string) ([]string, error) {
	var out []string
	for {
		s = strings.TrimLeft(s, " \t\n")
		if s == "" {
			return out, nil
		}

		if s[0] == '(' || s[0] == ')' {
			out, s = append(out, s[:1]), s[1:]
			continue
		}

		count := 0
		for count < len(s) && !strings.ContainsRune(" \t\n()", rune(s[count])) {
			closer := ""
			switch {
			case s[count] == '"':
				closer = `"`
			case (s[count] == '[' || s[count] == '{') && count > 0 && s[count-1] == ':':
				closer = "]}"
			}
			if closer == "" {
				count++
				continue
			}

			// A quoted text or a range may contain spaces.
			end := strings.IndexAny(s[count+1:], closer)
			if end < 0 {
				return nil, fmt.Errorf("%q is never closed", s[count:count+1])
			}
			count += end + 2
		}
		out, s = append(out, s[:count]), s[count:]
	}
}

// parser is a recursive descent over the tokens that are left.
type parser struct{ tokens []string }

func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *parser) accept(token string) bool {
	if p.peek() != token {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

// disjunction parses terms joined by OR.
func (p *parser) disjunction() (expr, error) {
	expression, err := p.conjunction()

	// OR is optional.
	for err == nil && p.peek() != "" && p.peek() != ")" {
		p.accept("OR")
		var right expr
		right, err = p.conjunction()
		expression = either{expression, right}
	}
	return expression, err
}

// conjunction parses terms joined by AND.
func (p *parser) conjunction() (expr, error) {
	expression, err := p.operand()

	// AND is optional before NOT.
	for err == nil && (p.peek() == "AND" || p.peek() == "NOT") {
		p.accept("AND")
		var right expr
		right, err = p.operand()
		expression = both{expression, right}
	}
	return expression, err
}

// operand parses a term, a negation or a group in brackets.
func (p *parser) operand() (expr, error) {
	if p.accept("NOT") {
		expression, err := p.operand()
		return except{expression}, err
	}
	if p.accept("(") {
		expression, err := p.disjunction()
		if err == nil && !p.accept(")") {
			err = errors.New("a ( is never closed")
		}
		return expression, err
	}

	word := p.peek()
	switch word {
	case "", ")", "AND", "OR":
		return nil, errors.New("a term is missing")
	}
	p.tokens = p.tokens[1:]
	return parseTerm(word)
}

// parseTerm parses a word with its field.
func parseTerm(word string) (expr, error) {
	// A quoted text may contain a colon.
	field, value, ok := strings.Cut(word, ":")
	if !ok || word[0] == '"' {
		field, value = "", word
	}

	switch field {
	case "", "client_id", "client_name", "connection", "connection_id", "description", "date", "hostname", "ip",
		"log_id", "organization_id", "user_id", "user_name", "user_agent", "strategy", "strategy_type", "type":
	default:
		return nil, fmt.Errorf("unknown field %q", field)
	}

	if value == "" {
		return nil, fmt.Errorf("no value for %q", field)
	}

	if field != "" && (value[0] == '[' || value[0] == '{') {
		low, high, ok := strings.Cut(value[1:len(value)-1], " TO ")
		if !ok {
			return nil, fmt.Errorf("no range in %q", value)
		}
		fromLow, includeHigh := value[0] == '[', value[len(value)-1] == ']'
		return within{field, unquoted(low), unquoted(high), fromLow, includeHigh}, nil
	}

	// Rejected, since it would silently match nothing.
	if strings.ContainsRune(value, '?') && value[0] != '"' {
		return nil, errors.New("? is not supported")
	}
	return term{field, unquoted(value)}, nil
}

func unquoted(s string) string { return strings.Trim(strings.TrimSpace(s), `"`) }
