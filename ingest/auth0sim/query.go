package auth0sim

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// An expr is a part of a search query: the subset of Lucene's syntax that
// tenant log search documents.
type expr interface {
	match(fields map[string]string) bool
	// bounds are positions between which all matches lie: above low, up to
	// high. lag is how long an id may lie after its event's date, in µs.
	bounds(lag int64) (low, high pos)
}

func unbounded() (pos, pos) {
	return pos{us: math.MinInt64}, pos{us: math.MaxInt64, tail: math.MaxUint64}
}

type (
	both   struct{ a, b expr }
	either struct{ a, b expr }
	except struct{ e expr }
	// term compares one field, or the usual ones if field is empty.
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
	l, h := e.b.bounds(lag)
	if low.less(l) {
		low = l
	}
	if h.less(high) {
		high = h
	}
	return low, high
}

func (either) bounds(int64) (pos, pos) { return unbounded() }
func (except) bounds(int64) (pos, pos) { return unbounded() }
func (term) bounds(int64) (pos, pos)   { return unbounded() }

func (e term) match(f map[string]string) bool {
	if e.field != "" {
		v, ok := f[e.field]
		return ok && (e.field == "date" && strings.HasPrefix(v, e.pattern) || glob(e.pattern, v))
	}
	for _, name := range []string{"client_name", "connection", "description", "ip", "log_id", "type", "user_name"} {
		if v, ok := f[name]; ok && glob(e.pattern, v) {
			return true
		}
	}
	return false
}

// glob matches the whole value; * stands for any text. Case counts.
func glob(pattern, v string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == v
	}
	v, ok := strings.CutPrefix(v, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		_, after, ok := strings.Cut(v, p)
		if !ok {
			return false
		}
		v = after
	}
	return strings.HasSuffix(v, parts[len(parts)-1])
}

func (e within) match(f map[string]string) bool {
	v, ok := f[e.field]
	if !ok {
		return false
	}
	low, high := e.low, e.high
	if e.field == "date" {
		// A coarse date is a prefix of the fine one, so text order is time
		// order; an upper end includes all that starts with it.
		if high != "*" && e.includeHigh && strings.HasPrefix(v, strings.TrimSuffix(high, "Z")) {
			high = v
		}
		low = strings.TrimSuffix(low, "Z")
		if !e.fromLow && low != "*" && strings.HasPrefix(v, low) {
			return false
		}
	}
	if low != "*" && (v < low || v == low && !e.fromLow) {
		return false
	}
	return high == "*" || v < high || v == high && e.includeHigh
}

func (e within) bounds(lag int64) (pos, pos) {
	low, high := unbounded()
	switch e.field {
	case "log_id":
		if p, ok := parseID(e.low); ok {
			low = p
			if p.tail > 0 {
				low.tail-- // low is exclusive here and may match
			}
		}
		if p, ok := parseID(e.high); ok {
			high = p
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

// dateRange is the time that a date of a query spans.
func dateRange(s string) (from, to time.Time, ok bool) {
	if t, err := time.Parse("2006-01", s); err == nil {
		return t, t.AddDate(0, 1, 0), true
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, t.AddDate(0, 0, 1), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, t.Add(time.Minute), true
		}
	}
	return from, to, false
}

// parseQuery reads a query. Terms without an operator between them are joined by
// OR, as in Lucene.
func parseQuery(s string) (expr, error) {
	tokens, err := lex(s)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	e, err := p.any()
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("unexpected %q", p.peek())
	}
	return e, err
}

// lex cuts the query into words, quoted texts, ranges and brackets. A word keeps
// the field in front of it, as in type:"fp".
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
		n := 0
		for n < len(s) && !strings.ContainsRune(" \t\n()", rune(s[n])) {
			closer := ""
			switch {
			case s[n] == '"':
				closer = `"`
			case (s[n] == '[' || s[n] == '{') && n > 0 && s[n-1] == ':':
				closer = "]}"
			}
			if closer == "" {
				n++
				continue
			}
			end := strings.IndexAny(s[n+1:], closer)
			if end < 0 {
				return nil, fmt.Errorf("%q is never closed", s[n:n+1])
			}
			n += end + 2
		}
		out, s = append(out, s[:n]), s[n:]
	}
}

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

func (p *parser) any() (expr, error) {
	e, err := p.every()
	for err == nil && p.peek() != "" && p.peek() != ")" {
		p.accept("OR")
		var right expr
		right, err = p.every()
		e = either{e, right}
	}
	return e, err
}

func (p *parser) every() (expr, error) {
	e, err := p.one()
	for err == nil && (p.peek() == "AND" || p.peek() == "NOT") {
		p.accept("AND")
		var right expr
		right, err = p.one()
		e = both{e, right}
	}
	return e, err
}

func (p *parser) one() (expr, error) {
	if p.accept("NOT") {
		e, err := p.one()
		return except{e}, err
	}
	if p.accept("(") {
		e, err := p.any()
		if err == nil && !p.accept(")") {
			err = errors.New("a ( is never closed")
		}
		return e, err
	}
	word := p.peek()
	switch word {
	case "", ")", "AND", "OR":
		return nil, errors.New("a term is missing")
	}
	p.tokens = p.tokens[1:]
	return parseTerm(word)
}

func parseTerm(word string) (expr, error) {
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
		return within{field, unquoted(low), unquoted(high), value[0] == '[', value[len(value)-1] == ']'}, nil
	}
	if strings.ContainsRune(value, '?') && value[0] != '"' {
		return nil, errors.New("? is not supported")
	}
	return term{field, unquoted(value)}, nil
}

func unquoted(s string) string { return strings.Trim(strings.TrimSpace(s), `"`) }
