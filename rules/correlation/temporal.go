package correlation

import (
	"fmt"
	"math/bits"
	"strings"
)

// temporal is the number of rules that have matched.
type temporal struct{}

func (temporal) Name() string { return "temporal" }

func (temporal) Traits() Traits { return Traits{Rules: true, BySource: true} }

func (temporal) Check(s *Spec) error { return s.checkRules() }

func (temporal) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	seen := all[begin : end+1].seen()
	value = float64(bits.OnesCount64(seen))
	if s.Need != nil {
		return value, s.Need.Met(seen), true
	}
	return value, s.Holds(value), true
}

func (temporal) Keep(*Spec, float64) int { return keepExact }

func (temporal) Describe(s *Spec, words Words) string { return s.describeRules(words) }

// SQL needs no window, only the time at which each rule last matched.
func (temporal) SQL(s *Spec, query *SQL) {
	seen := query.lastSeen(s)
	query.Value = strings.Join(seen, " + ")
	if s.Need != nil {
		query.Holds = append(query.Holds, s.Need.sql(seen))
	}
}

// checkRules reports a number of rules that can never match.
func (s *Spec) checkRules() error {
	if !s.canHold(s.Rules) {
		return fmt.Errorf("it can never hold for %d rules", s.Rules)
	}
	return nil
}

// describeRules returns a condition on the rules in words.
func (s *Spec) describeRules(words Words) string {
	if s.Need != nil {
		return s.Need.Words(words.Rules)
	}
	return words.Bounds + " of " + strings.Join(words.Rules, ", ")
}

// lastSeen adds, for each rule, a column that says whether it has matched in the window. It returns
// the columns.
func (q *SQL) lastSeen(s *Spec) []string {
	seen := make([]string, s.Rules)
	for i := range seen {
		seen[i] = fmt.Sprintf("seen%d", i+1)
		q.Columns = append(q.Columns, fmt.Sprintf("maxIf(%s, %s) OVER up_to > %s - %d AS %s",
			sqlTime("at"), SourceColumn(i), sqlTime("at"), s.Timespan.Milliseconds(), seen[i]))
	}
	q.Windows = []SQLWindow{{"up_to", frameUpTo}}
	return seen
}

// seen returns the rules of all occurrences, one bit for each.
func (w Window) seen() (all uint64) {
	for i := range w {
		all |= w[i].Seen
	}
	return all
}
