package history

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// maxHeld is the number of events up to which Threshold keeps all events in memory.
// Beyond it, each trial reads them again.
const maxHeld = 2_000_000

// raisable reports whether a rule has a single lower bound on an amount, which can be
// raised. The number of rules that occurred is not an amount.
func raisable(r *rules.Rule) bool {
	return r.Correlation != nil && r.Correlation.HasLowerBound() && r.Correlation.IsAmount()
}

// Threshold returns the lowest threshold with which the alerting rule of a set would
// have had at most so many alerts in the span of its result, and the number of alerts
// it would have had.
func (s *Store) Threshold(
	ctx context.Context, set *rules.Set, span Span, r *Result, most int,
) (than float64, alerts int, err error) {
	rule := set.Rules()[len(set.Rules())-1] // after those that it counts
	if !raisable(rule) {
		return 0, 0, errors.New("the condition is not a single threshold")
	}

	// Every group that reaches a threshold has at least one alert. So only groups that
	// reach the lowest candidate are read.
	steps := thresholds(rule.Correlation, r, most)
	trial := &trials{
		store: s, set: set, rule: rule,
		query: Query{
			Set: set.WithThreshold(rule, steps[0]), Tenant: span.Tenant,
			Since: span.Since, Until: span.Until, Groups: true,
		},
	}
	if err := trial.read(ctx); err != nil {
		return 0, 0, err
	}

	// The last candidate needs no trial: no group reaches it.
	low, high := 0, len(steps)-1
	for low < high {
		middle := (low + high) / 2
		count, err := trial.run(ctx, steps[middle])
		if err != nil {
			return 0, 0, err
		}
		if count <= most {
			high, alerts = middle, count
		} else {
			low = middle + 1
		}
	}
	return steps[high], alerts, nil
}

// thresholds returns the candidates, by rising value: all that can make a difference,
// from the lowest one that may give at most so many alerts to one that no group
// reaches.
func thresholds(c *rules.Correlation, r *Result, most int) (steps []float64) {
	highest := 0.0
	if len(r.Groups) > 0 {
		highest = r.Groups[0].Value
	}

	if c.Type.Traits().Fraction {
		// Any value that a group reached.
		for _, group := range r.Groups[:min(len(r.Groups), most+1)] {
			steps = append(steps, group.Value)
		}
		slices.Sort(steps)
		return append(slices.Compact(steps), math.Nextafter(highest, math.Inf(1)))
	}

	// Whole numbers.
	lowest := 1.0
	if len(r.Groups) > most {
		lowest = r.Groups[most].Value + 1
	}
	for step := lowest; step <= highest+1; step++ {
		steps = append(steps, step)
	}
	return steps
}

// trials runs a rule with different thresholds over the same events.
type trials struct {
	store *Store
	set   *rules.Set
	rule  *rules.Rule
	query Query
	held  []schema.Event // all events, or one more than maxHeld
}

// read reads the events into memory.
func (t *trials) read(ctx context.Context) error {
	return t.store.Read(ctx, &t.query, func(ev *schema.Event, _ bool) error {
		if len(t.held) <= maxHeld {
			t.held = append(t.held, *ev)
		}
		return nil
	})
}

// run returns the number of alerts with a threshold.
func (t *trials) run(ctx context.Context, than float64) (int, error) {
	with := t.set.WithThreshold(t.rule, than)
	test := newBacktest(with)

	if len(t.held) > maxHeld {
		t.query.Set = with
		err := t.store.Read(ctx, &t.query, func(ev *schema.Event, _ bool) error {
			test.observe(ev)
			return nil
		})
		return len(test.order[0].alerts), err
	}

	for i := range t.held {
		test.observe(&t.held[i])
	}
	return len(test.order[0].alerts), ctx.Err()
}
