package history

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Span is the range of event time that a backtest covers.
type Span struct {
	Tenant string    // empty for all
	Since  time.Time // excluded
	Until  time.Time // included
}

// Result is what a rule would have done in a Span.
type Result struct {
	Rule   *rules.Rule
	Alerts []*Alert     // by their start
	Groups []GroupValue // groups with an evaluated window, the highest value first
}

// Alert is one alert, from its start to its end.
type Alert struct {
	Tenant string
	Group  []schema.GroupValue
	Level  string // the highest
	Starts time.Time
	Ends   time.Time // time of the last transition; the end if Over is set
	Over   bool      // resolved; never set in the event class
	Count  float64   // highest count of its transitions
}

// GroupValue is the highest value that a group reached.
type GroupValue struct {
	Tenant string
	Group  []schema.GroupValue
	Value  float64
}

// maxGroups bounds the group keys of a backtest.
const maxGroups = 1 << 22

// Backtest runs the rules of a set over a span. It calls progress with the number of
// events read and the part of the span that is done, from 0 to 1. Windows start with
// the span: earlier events are not counted.
func (s *Store) Backtest(
	ctx context.Context, set *rules.Set, span Span, progress func(events int, part float64),
) ([]*Result, error) {
	tenants, err := s.Newest(ctx, span.Since, span.Until)
	if err != nil {
		return nil, err
	}
	if span.Tenant != "" {
		maps.DeleteFunc(tenants, func(tenant string, _ time.Time) bool { return tenant != span.Tenant })
	}
	names := slices.Sorted(maps.Keys(tenants))

	test := newBacktest(set)
	query := &Query{Set: set, Tenant: span.Tenant, Since: span.Since, Until: span.Until}
	err = s.Read(ctx, query, func(ev *schema.Event, _ bool) error {
		// Events come tenant by tenant, and by date.
		if test.events&0xffff == 0 {
			i, _ := slices.BinarySearch(names, ev.Tenant)
			part := float64(ev.Date.Sub(span.Since)) / float64(span.Until.Sub(span.Since))
			progress(test.events, (float64(i)+part)/float64(len(names)))
		}
		test.observe(ev)
		return nil
	})
	if err != nil {
		return nil, err
	}

	// Events of other types are not read, but they move the tenant's clock.
	for tenant, newest := range tenants {
		if !newest.IsZero() {
			test.add(test.engine.Advance(tenant, newest))
		}
	}
	return test.results(), nil
}

// backtest is one run of an engine.
type backtest struct {
	engine *scanner.Engine
	rules  map[string]*ruleRun // by id
	order  []*ruleRun
	last   map[string]*Alert // by fingerprint
	events int
}

// ruleRun collects the results of a rule.
type ruleRun struct {
	rule   *rules.Rule
	alerts []*Alert
	peaks  map[string]*GroupValue
}

func newBacktest(set *rules.Set) *backtest {
	test := &backtest{rules: map[string]*ruleRun{}, last: map[string]*Alert{}}
	for _, rule := range set.Rules() {
		if rule.Alert != nil {
			run := &ruleRun{rule: rule, peaks: map[string]*GroupValue{}}
			test.rules[rule.ID] = run
			test.order = append(test.order, run)
		}
	}
	test.engine = scanner.NewEngine(set, scanner.Config{MaxGroups: maxGroups, Samples: 1, Evaluated: test.evaluated})
	return test
}

// evaluated records the value of a window.
func (b *backtest) evaluated(r *rules.Rule, g scanner.Evaluated, value float64) {
	run := b.rules[r.ID]
	peak := run.peaks[g.Key()]
	if peak == nil {
		peak = &GroupValue{Tenant: g.Tenant(), Group: g.Values(), Value: math.Inf(-1)}
		run.peaks[g.Key()] = peak
	}
	peak.Value = max(peak.Value, value)
}

// observe observes an event. Events must come by date.
func (b *backtest) observe(ev *schema.Event) {
	b.events++
	b.add(b.engine.Observe(ev))
}

// add adds transitions to their alerts.
func (b *backtest) add(transitions []schema.Alert) {
	for _, next := range transitions {
		known := b.last[next.Fingerprint]
		if known == nil || !known.Starts.Equal(next.StartsAt) {
			known = &Alert{Tenant: next.Tenant, Group: next.Group, Starts: next.StartsAt}
			b.last[next.Fingerprint] = known
			run := b.rules[next.RuleID]
			run.alerts = append(run.alerts, known)
		}

		// Transitions come in order, so the last one wins.
		known.Level, known.Ends, known.Over = next.Level, next.UpdatedAt, next.State == schema.StateResolved
		if !known.Over {
			known.Count = max(known.Count, next.Count)
		}
	}
}

func (b *backtest) results() []*Result {
	var list []*Result
	for _, run := range b.order {
		slices.SortStableFunc(run.alerts, func(x, y *Alert) int { return x.Starts.Compare(y.Starts) })
		result := &Result{Rule: run.rule, Alerts: run.alerts}
		for _, peak := range run.peaks {
			result.Groups = append(result.Groups, *peak)
		}
		slices.SortFunc(result.Groups, compareGroups)
		list = append(list, result)
	}
	return list
}

// compareGroups orders groups by falling value, then by tenant and key.
func compareGroups(x, y GroupValue) int {
	byValue := func(p, q schema.GroupValue) int { return cmp.Compare(p.Value, q.Value) }
	return cmp.Or(
		-cmp.Compare(x.Value, y.Value),
		cmp.Compare(x.Tenant, y.Tenant),
		slices.CompareFunc(x.Group, y.Group, byValue),
	)
}

// Quantile returns the value that a fraction q of the groups do not exceed; 0 without
// groups.
func (r *Result) Quantile(q float64) float64 {
	if len(r.Groups) == 0 {
		return 0
	}
	rank := max(int(math.Ceil(q*float64(len(r.Groups)))), 1)
	return r.Groups[len(r.Groups)-rank].Value
}
