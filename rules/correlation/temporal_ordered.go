package correlation

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// temporalOrdered is the number of rules that have matched in the order written, each with a
// different event.
type temporalOrdered struct{}

func (temporalOrdered) Name() string { return "temporal_ordered" }

func (temporalOrdered) Traits() Traits {
	return Traits{Rules: true, Ordered: true, BySource: true}
}

func (temporalOrdered) Check(s *Spec) error {
	if s.Need != nil && s.Need.has("or") {
		return errors.New("an order with or in it can be read in several ways; write one correlation for each")
	}
	return s.checkRules()
}

func (temporalOrdered) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	window := all[begin : end+1]
	required := s.required()
	found := window.inOrder(required)
	value = float64(found)

	// The order has the required rules; Need also checks the absent ones.
	if s.Need != nil {
		return value, found == bits.OnesCount64(required) && s.Need.Met(window.seen()), true
	}
	return value, s.Holds(value), true
}

func (temporalOrdered) Keep(*Spec, float64) int { return keepExact }

func (temporalOrdered) Describe(s *Spec, words Words) string {
	return s.describeRules(words) + ", in this order"
}

// SQL has a subquery for each rule of the order, with the start of the latest run of matches that
// leads up to it: if that is within the window, the run has been seen.
func (temporalOrdered) SQL(s *Spec, query *SQL) {
	if s.Need != nil {
		query.Holds = append(query.Holds, s.Need.sql(query.lastSeen(s)))
	}

	var runs []string
	began := sqlTime("at")
	for _, source := range s.Order() {
		n := len(runs) + 1
		run := fmt.Sprintf("maxIf(%s, %s) OVER", began, SourceColumn(source))
		query.From = fmt.Sprintf("(\n      SELECT *, %s up_to AS began%d, %s before AS began%d_before FROM %s\n"+
			"      WINDOW up_to AS (%s %s), before AS (%s %s))",
			run, n, run, n, query.From, query.GroupBy, frameUpTo, query.GroupBy, frameBefore)
		began = fmt.Sprintf("began%d_before", n)
		runs = append(runs, fmt.Sprintf("(began%d > %s - %d)", n, sqlTime("at"), s.Timespan.Milliseconds()))
	}

	// An order needs all of these rules; the condition in words checks that the others are absent.
	if s.Need != nil {
		query.Holds = append(query.Holds, "value = "+strconv.Itoa(len(runs)))
	}
	query.Value = strings.Join(runs, " + ")
}

// inOrder returns how many of the rules, one bit for each and starting with the lowest, occurred one
// after the other, each with a separate occurrence.
func (w Window) inOrder(rules uint64) (found int) {
	for i := 0; i < len(w) && rules != 0; i++ {
		if w[i].Seen&rules&-rules != 0 {
			rules &= rules - 1
			found++
		}
	}
	return found
}
