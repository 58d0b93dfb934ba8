package correlation

// valueSum is the sum of a field's numbers.
type valueSum struct{}

func (valueSum) Name() string { return "value_sum" }

func (valueSum) Traits() Traits { return Traits{Value: ValueNumber, Fraction: true} }

func (valueSum) Check(*Spec) error { return nil }

func (valueSum) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	value = all[begin : end+1].sum()
	return value, s.Holds(value), true
}

func (valueSum) Keep(*Spec, float64) int { return keepExact }

func (valueSum) Describe(_ *Spec, words Words) string {
	return "the sum of " + words.Field + " is " + words.Bounds
}

func (valueSum) SQL(_ *Spec, query *SQL) {
	query.Value = "sum(of) OVER w"
	query.Notes = append(query.Notes, noteSum)
}

// noteSum says how the sum of a query may differ.
const noteSum = "Sums of fractions may differ in their last digit."

// sum returns the sum of all numbers.
func (w Window) sum() (sum float64) {
	for i := range w {
		sum += w[i].Number()
	}
	return sum
}
