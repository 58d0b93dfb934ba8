package history

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Span is the time that a backtest is about, in event time.
type Span struct {
	Tenant string    // empty for all
	Since  time.Time // excluded
	Until  time.Time // included
}

// Result is what a rule would have done in a Span.
type Result struct {
	Rule   *rules.Rule
	Alerts []*Alert     // by their beginning
	Groups []GroupValue // all of which a window was judged, the highest value first
}

// Alert is one alert, from its beginning to its end.
type Alert struct {
	Tenant string
	Group  []schema.GroupValue
	Level  string // the highest
	Starts time.Time
	Ends   time.Time // the last transition's time; it goes on, or was of the class event, when it is not Over
	Over   bool
	Count  float64 // the highest that a transition told
}

// GroupValue is the highest value that a group came to.
type GroupValue struct {
	Tenant string
	Group  []schema.GroupValue
	Value  float64
}

// mostGroups bounds the group keys of a backtest.
const mostGroups = 1 << 22

// Backtest runs the rules of a set over a span. It tells how many events it has read
// and what part of the span is done, from 0 to 1.
// Windows begin with the span: what was before it does not count.
func (s *Store) Backtest(ctx context.Context, set *rules.Set, span Span, progress func(events int, part float64)) ([]*Result, error) {
	tenants, err := s.Newest(ctx, span.Since, span.Until)
	if err != nil {
		return nil, err
	}
	if span.Tenant != "" {
		maps.DeleteFunc(tenants, func(tenant string, _ time.Time) bool { return tenant != span.Tenant })
	}
	names := slices.Sorted(maps.Keys(tenants))
	b := newBacktest(set)
	err = s.Read(ctx, &Query{Set: set, Tenant: span.Tenant, Since: span.Since, Until: span.Until}, func(ev *schema.Event, _ bool) error {
		if b.events&0xffff == 0 { // they come tenant by tenant
			i, _ := slices.BinarySearch(names, ev.Tenant)
			part := float64(ev.Date.Sub(span.Since)) / float64(span.Until.Sub(span.Since))
			progress(b.events, (float64(i)+part)/float64(len(names)))
		}
		b.observe(ev)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for tenant, newest := range tenants {
		if !newest.IsZero() {
			b.note(b.engine.Advance(tenant, newest))
		}
	}
	return b.results(), nil
}

// backtest is a run of an engine.
type backtest struct {
	engine *scanner.Engine
	rules  map[string]*ruleRun // by id
	order  []*ruleRun
	last   map[string]*Alert // by fingerprint
	events int
}

// ruleRun is what a rule has done so far.
type ruleRun struct {
	rule   *rules.Rule
	alerts []*Alert
	peaks  map[string]*GroupValue
}

func newBacktest(set *rules.Set) *backtest {
	b := &backtest{rules: map[string]*ruleRun{}, last: map[string]*Alert{}}
	for _, r := range set.Rules() {
		if r.Alert != nil {
			run := &ruleRun{rule: r, peaks: map[string]*GroupValue{}}
			b.rules[r.ID] = run
			b.order = append(b.order, run)
		}
	}
	b.engine = scanner.NewEngine(set, scanner.Config{MaxGroups: mostGroups, Samples: 1, Evaluated: func(r *rules.Rule, g scanner.Evaluated, value float64) {
		run := b.rules[r.ID]
		peak := run.peaks[g.Key()]
		if peak == nil {
			peak = &GroupValue{Tenant: g.Tenant(), Group: g.Values(), Value: math.Inf(-1)}
			run.peaks[g.Key()] = peak
		}
		peak.Value = max(peak.Value, value)
	}})
	return b
}

// observe takes the events by their date.
func (b *backtest) observe(ev *schema.Event) {
	b.events++
	b.note(b.engine.Observe(ev))
}

func (b *backtest) note(list []schema.Alert) {
	for _, a := range list {
		known := b.last[a.Fingerprint]
		if known == nil || !known.Starts.Equal(a.StartsAt) {
			known = &Alert{Tenant: a.Tenant, Group: a.Group, Starts: a.StartsAt}
			b.last[a.Fingerprint] = known
			b.rules[a.RuleID].alerts = append(b.rules[a.RuleID].alerts, known)
		}
		known.Level, known.Ends, known.Over = a.Level, a.UpdatedAt, a.State == schema.Resolved
		if !known.Over {
			known.Count = max(known.Count, a.Count)
		}
	}
}

func (b *backtest) results() []*Result {
	var list []*Result
	for _, run := range b.order {
		slices.SortStableFunc(run.alerts, func(x, y *Alert) int { return x.Starts.Compare(y.Starts) })
		r := &Result{Rule: run.rule, Alerts: run.alerts}
		for _, peak := range run.peaks {
			r.Groups = append(r.Groups, *peak)
		}
		slices.SortFunc(r.Groups, func(x, y GroupValue) int {
			return cmp.Or(-cmp.Compare(x.Value, y.Value), cmp.Compare(x.Tenant, y.Tenant), slices.CompareFunc(x.Group, y.Group, func(p, q schema.GroupValue) int { return cmp.Compare(p.Value, q.Value) }))
		})
		list = append(list, r)
	}
	return list
}

// Quantile is the value that so large a part of the groups do not exceed; 0 without
// groups.
func (r *Result) Quantile(q float64) float64 {
	if len(r.Groups) == 0 {
		return 0
	}
	return r.Groups[len(r.Groups)-max(int(math.Ceil(q*float64(len(r.Groups)))), 1)].Value
}

// Raisable reports whether a rule has one threshold, above which it fires, that is
// about an amount: how many of its rules have occurred is none.
func Raisable(r *rules.Rule) bool {
	c := r.Correlation
	if c == nil || len(c.Bounds) != 1 || c.Bounds[0].Op != "gte" && c.Bounds[0].Op != "gt" {
		return false
	}
	return c.Type != rules.LastEvents && c.Type != rules.Temporal && c.Type != rules.TemporalOrdered
}

// mostHeld is how many events Threshold keeps in memory; it reads more again and
// again.
const mostHeld = 2_000_000

// Threshold finds the lowest threshold with which a rule, the one that alerts in its
// set, would have had at most so many alerts in the span of its result, and how many
// it would have had. Each group that reaches a threshold has an alert at least: only
// the groups are read that reach the lowest one that can do.
func (s *Store) Threshold(ctx context.Context, set *rules.Set, span Span, r *Result, most int) (than float64, alerts int, err error) {
	rule := set.Rules()[len(set.Rules())-1]
	if !Raisable(rule) {
		return 0, 0, errors.New("its condition is no single threshold")
	}
	// All that can make a difference, from the lowest that can do to one that nothing
	// reaches.
	var steps []float64
	whole := rule.Correlation.Type != rules.ValueSum && rule.Correlation.Type != rules.ValueAvg && rule.Correlation.Type != rules.ValuePercentile
	highest := 0.0
	if len(r.Groups) > 0 {
		highest = r.Groups[0].Value
	}
	if whole {
		lowest := 1.0
		if len(r.Groups) > most {
			lowest = r.Groups[most].Value + 1
		}
		for n := lowest; n <= highest+1; n++ {
			steps = append(steps, n)
		}
	} else {
		for i, g := range r.Groups {
			if i <= most {
				steps = append(steps, g.Value)
			}
		}
		slices.Sort(steps)
		steps = append(slices.Compact(steps), math.Nextafter(highest, math.Inf(1)))
	}
	read := &Query{Set: set.WithThreshold(rule, steps[0]), Tenant: span.Tenant, Since: span.Since, Until: span.Until, Groups: true}
	var held []schema.Event
	err = s.Read(ctx, read, func(ev *schema.Event, _ bool) error {
		if len(held) <= mostHeld {
			held = append(held, *ev)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	try := func(than float64) (int, error) {
		with := set.WithThreshold(rule, than)
		b := newBacktest(with)
		if len(held) > mostHeld {
			read.Set = with
			err := s.Read(ctx, read, func(ev *schema.Event, _ bool) error { b.observe(ev); return nil })
			return len(b.order[0].alerts), err
		}
		for i := range held {
			b.observe(&held[i])
		}
		return len(b.order[0].alerts), ctx.Err()
	}
	low, high := 0, len(steps)-1 // high will do: nothing reaches it
	alerts = 0
	for low < high {
		middle := (low + high) / 2
		n, err := try(steps[middle])
		if err != nil {
			return 0, 0, err
		}
		if n <= most {
			high, alerts = middle, n
		} else {
			low = middle + 1
		}
	}
	return steps[high], alerts, nil
}
