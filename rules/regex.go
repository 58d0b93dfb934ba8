package rules

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dlclark/regexp2"
	"go.yaml.in/yaml/v3"
)

// A regular expression means what RE2 makes of it, whatever engine runs it: $ is the end
// of the text, \d, \w, \s and \b know ASCII only. What RE2 does not have, such as a
// lookahead, is left to an engine that backtracks.
//
// What an expression may cost is bounded, since an end user writes what it is run over.

// Bounds of expressions in RE2. Its time grows with the size of the program and the
// length of the text: an instruction takes up to 10 ns for each byte.
const (
	mostInstructions = 5_000      // of one program; a repeat in a repeat multiplies
	mostSteps        = 20_000_000 // instructions times bytes, of all that an event is held against
)

// Bounds of expressions that backtrack, all those together that an event is held
// against. A match begins within the first part of the budget, and takes at most the
// second, give or take a tick of its clock.
const (
	regexBudget = 50 * time.Millisecond
	regexBegins = 20 * time.Millisecond
	regexEnds   = 20 * time.Millisecond
	regexTick   = 5 * time.Millisecond
)

// regex is a regular expression in RE2's syntax.
type regex struct {
	*regexp.Regexp
	size int // instructions
}

func (c regex) member(m *Matcher, v *value) bool {
	if m.steps += c.size * len(v.text); m.steps > mostSteps {
		m.timeouts++
		return false
	}
	return c.Match(v.text)
}

// backtracking is one that RE2 cannot take, such as one with a lookahead.
type backtracking struct {
	*regexp2.Regexp
	source string // as the rule has it
}

func (c backtracking) member(m *Matcher, v *value) bool {
	if m.backtracked > regexBegins {
		m.timeouts++
		return false
	}
	begun := time.Now()
	ok, err := c.MatchString(string(v.text))
	m.backtracked += time.Since(begun)
	if err != nil { // nothing else begins then
		m.backtracked = regexBudget
		m.timeouts++
	}
	return ok
}

// regex compiles one regular expression.
func (d *detection) regex(n *yaml.Node, mods modifiers) (check, error) {
	flags := ""
	for _, f := range []struct {
		on   bool
		name string
	}{{mods.ignoreCase, "i"}, {mods.multiline, "m"}, {mods.dotAll, "s"}} {
		if f.on {
			flags += f.name
		}
	}
	source := n.Value
	if flags != "" {
		source = "(?" + flags + ")" + source
	}

	parsed, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return d.backtracking(n, source, err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	if len(program.Inst) > mostInstructions {
		return nil, fmt.Errorf("line %d: the regular expression becomes a program of %d instructions, %d at most: "+
			"a repeat within a repeat multiplies", n.Line, len(program.Inst), mostInstructions)
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	return regex{re, len(program.Inst)}, nil
}

// quickClock has the backtracking engine look at its clock more often than ten times a
// second, which is all it does by itself.
var quickClock = sync.OnceFunc(func() { regexp2.SetTimeoutCheckPeriod(regexTick) })

// backtracking compiles an expression that RE2 has refused.
func (d *detection) backtracking(n *yaml.Node, source string, refused error) (check, error) {
	wrong := (*syntax.Error)(nil)
	if errors.As(refused, &wrong) &&
		slices.Contains([]syntax.ErrorCode{syntax.ErrInvalidRepeatSize, syntax.ErrLarge, syntax.ErrNestingDepth}, wrong.Code) {
		// What is too large for RE2 is too large to backtrack in.
		return nil, fmt.Errorf("line %d: %w; a repeat within a repeat multiplies", n.Line, refused)
	}
	quickClock()
	re, err := regexp2.Compile(asciiWords(source), regexp2.RE2)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, refused)
	}
	re.MatchTimeout = regexEnds
	d.warnings = append(d.warnings, fmt.Sprintf(
		"%s:%d: the regular expression is outside RE2, so it backtracks, for at most %v an event", d.doc.file, n.Line, regexBudget))
	return backtracking{re, source}, nil
}

// asciiWords writes \b and \B out, which the backtracking engine takes for boundaries of
// words in any script.
func asciiWords(source string) string {
	const (
		boundary = `(?:(?<=[0-9A-Za-z_])(?![0-9A-Za-z_])|(?<![0-9A-Za-z_])(?=[0-9A-Za-z_]))`
		inside   = `(?:(?<=[0-9A-Za-z_])(?=[0-9A-Za-z_])|(?<![0-9A-Za-z_])(?![0-9A-Za-z_]))`
	)
	var b strings.Builder
	class := false
	for i := 0; i < len(source); i++ {
		c := source[i]
		switch {
		case c == '\\' && i+1 < len(source):
			i++
			switch next := source[i]; {
			case next == 'b' && !class:
				b.WriteString(boundary)
			case next == 'B' && !class:
				b.WriteString(inside)
			default:
				b.WriteByte(c)
				b.WriteByte(next)
			}
			continue
		case c == '[':
			class = true
		case c == ']':
			class = false
		}
		b.WriteByte(c)
	}
	return b.String()
}
