package correlation

// valueAvg is the mean of a field's numbers.
type valueAvg struct{}

func (valueAvg) Name() string { return "value_avg" }

func (valueAvg) Traits() Traits { return Traits{Value: ValueNumber, Fraction: true} }

func (valueAvg) Check(*Spec) error { return nil }

func (valueAvg) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	value = all[begin:end+1].sum() / float64(end+1-begin)
	return value, s.Holds(value), true
}

func (valueAvg) Keep(*Spec, float64) int { return keepExact }

func (valueAvg) Describe(_ *Spec, words Words) string {
	return "the mean of " + words.Field + " is " + words.Bounds
}

func (valueAvg) SQL(_ *Spec, query *SQL) {
	query.Value = "avg(of) OVER w"
	query.Notes = append(query.Notes, noteSum)
}
