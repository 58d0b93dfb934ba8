package correlation

import (
	"fmt"
	"math"
	"slices"
)

// valuePercentile is the smallest of a field's numbers that at least that many percent of them do
// not exceed.
type valuePercentile struct{}

func (valuePercentile) Name() string { return "value_percentile" }

func (valuePercentile) Traits() Traits {
	return Traits{Value: ValueNumber, Fraction: true, Percentile: true}
}

func (valuePercentile) Check(*Spec) error { return nil }

func (valuePercentile) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	value = all[begin : end+1].percentile(s.Percentile)
	return value, s.Holds(value), true
}

func (valuePercentile) Keep(*Spec, float64) int { return keepExact }

func (valuePercentile) Describe(s *Spec, words Words) string {
	return fmt.Sprintf("percentile %s of %s is %s", Number(s.Percentile), words.Field, words.Bounds)
}

// SQL selects from two neighbors. ClickHouse rounds a percentile's index among the sorted numbers
// down. If the index is a whole number, the number before it may be the right one.
func (valuePercentile) SQL(s *Spec, query *SQL) {
	const little = 1e-9
	if s.Percentile == 100 {
		query.Value = "max(of) OVER w"
		return
	}

	low := SQLFloat(max(s.Percentile/100-little, 0))
	high := SQLFloat(min(s.Percentile/100+little, 1))
	query.Columns = []string{
		"count() OVER w AS events",
		"quantilesExact(" + low + ", " + high + ")(of) OVER w AS near",
	}
	query.Value = fmt.Sprintf("if(ceil(%s * events / 100) - 1 <= floor(%s * events), near[1], near[2])",
		SQLFloat(s.Percentile), low)
}

// percentile returns the smallest number that at least percent of all numbers do not exceed.
func (w Window) percentile(percent float64) float64 {
	numbers := make([]float64, len(w))
	for i := range w {
		numbers[i] = w[i].Number()
	}

	slices.Sort(numbers)
	rank := math.Ceil(percent * float64(len(numbers)) / 100)
	return numbers[max(int(rank), 1)-1]
}
