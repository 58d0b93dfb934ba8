package expr

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
)

// A regular expression has RE2's meaning, whichever engine runs it: $ is the end of the
// text; \d, \w, \s and \b are ASCII only. Expressions that RE2 does not support, such as
// a lookahead, are run by a backtracking engine.
//
// The cost of an expression is bounded, since end users write the texts that it searches.

// Bounds for RE2. Its time grows with the size of the program and the length of the text: an
// instruction takes up to 10 ns for each byte.
const (
	maxInstructions = 5_000      // of one program; a repeat in a repeat multiplies
	maxSteps        = 20_000_000 // instructions times bytes, for all expressions run on an event
)

// RegexBudget bounds the time of all expressions run on an event by the backtracking engine. A match
// starts within the first part of the budget and takes at most the second part, plus or minus a
// tick of the engine's clock.
const (
	RegexBudget = 50 * time.Millisecond
	regexStart  = 20 * time.Millisecond
	regexMatch  = 20 * time.Millisecond
	regexTick   = 5 * time.Millisecond
)

// Regex is a regular expression in RE2's syntax.
type Regex struct {
	*regexp.Regexp
	size int // instructions
}

func (c Regex) member(m *Matcher, v *value) bool {
	if m.steps += c.size * len(v.text); m.steps > maxSteps {
		m.timeouts++
		return false
	}
	return c.Match(v.text)
}

// Backtracking is a regular expression that RE2 does not support, such as one with a lookahead.
type Backtracking struct {
	*regexp2.Regexp
	Source string // as in the rule
}

func (c Backtracking) member(m *Matcher, v *value) bool {
	if m.backtracked > regexStart {
		m.timeouts++
		return false
	}

	// Measure the time: all expressions of the event share one budget.
	start := time.Now()
	ok, err := c.MatchString(string(v.text))
	m.backtracked += time.Since(start)

	// It timed out: no other expression may start on this event.
	if err != nil {
		m.backtracked = RegexBudget
		m.timeouts++
	}
	return ok
}

// NewRegex compiles a regular expression in RE2's syntax: a Regex or, if RE2 does not support it, a
// Backtracking. It refuses what would be too large.
func NewRegex(source string) (Check, error) {
	// RE2 is preferred: its time is linear in the length of the text.
	parsed, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return newBacktracking(source, err)
	}

	// Check the size before regexp.Compile, which would compile it again.
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxInstructions {
		return nil, fmt.Errorf("the regular expression compiles to %d instructions, more than %d: "+
			"a repeat within a repeat multiplies", len(program.Inst), maxInstructions)
	}

	re, err := regexp.Compile(source)
	if err != nil {
		return nil, err
	}
	return Regex{re, len(program.Inst)}, nil
}

// quickClock makes the backtracking engine read its clock more often than its default of ten
// times a second.
var quickClock = sync.OnceFunc(func() { regexp2.SetTimeoutCheckPeriod(regexTick) })

// newBacktracking compiles an expression that RE2 has rejected.
func newBacktracking(source string, refused error) (Check, error) {
	// An expression that is too large for RE2 is too large for backtracking.
	tooLarge := []syntax.ErrorCode{syntax.ErrInvalidRepeatSize, syntax.ErrLarge, syntax.ErrNestingDepth}
	syntaxErr := (*syntax.Error)(nil)
	if errors.As(refused, &syntaxErr) && slices.Contains(tooLarge, syntaxErr.Code) {
		return nil, fmt.Errorf("%w; a repeat within a repeat multiplies", refused)
	}

	quickClock()
	re, err := regexp2.Compile(asciiWords(source), regexp2.RE2)
	if err != nil {
		return nil, refused
	}
	re.MatchTimeout = regexMatch
	return Backtracking{re, source}, nil
}

// asciiWords replaces \b and \B by lookarounds that are ASCII only: in the backtracking engine
// they are boundaries of words in any script.
func asciiWords(source string) string {
	const (
		boundary = `(?:(?<=[0-9A-Za-z_])(?![0-9A-Za-z_])|(?<![0-9A-Za-z_])(?=[0-9A-Za-z_]))`
		inside   = `(?:(?<=[0-9A-Za-z_])(?=[0-9A-Za-z_])|(?<![0-9A-Za-z_])(?![0-9A-Za-z_]))`
	)

	var out strings.Builder

	// Inside of brackets, \b is a backspace.
	class := false
	for i := 0; i < len(source); i++ {
		char := source[i]
		switch {
		case char == '\\' && i+1 < len(source):
			i++
			// A class has no boundaries: keep what it contains.
			switch next := source[i]; {
			case next == 'b' && !class:
				out.WriteString(boundary)
			case next == 'B' && !class:
				out.WriteString(inside)
			default:
				out.WriteByte(char)
				out.WriteByte(next)
			}
			continue
		case char == '[':
			class = true
		case char == ']':
			class = false
		}

		out.WriteByte(char)
	}

	return out.String()
}
