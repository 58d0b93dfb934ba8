package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/stream"
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	// streamSpan is the longest span that a rule of the stream looks back. Rules with
	// a longer one are for Live.
	streamSpan = 2 * time.Hour

	// A rule runs this many times in its span, within the bounds of the two intervals.
	runsPerSpan = 288
	minInterval = time.Minute
	maxInterval = time.Hour
	// restFactor is the minimum interval as a multiple of the duration of a run.
	restFactor = 10

	// overlap covers events that were inserted before a run but became visible only
	// after it.
	overlap = 5 * time.Minute
	// ahead is how far an event's date may be ahead of the server's clock.
	ahead = 5 * time.Minute
)

// Long reports whether a rule of a set looks back too far for the stream.
func Long(set *rules.Set, r *rules.Rule) bool { return set.Span(r) > streamSpan }

// Live runs the rules with long windows periodically over the stored events. Its
// alerts are those that the stream would give, some minutes later.
type Live struct {
	store   *Store
	past    stream.Alerts
	alerts  stream.Producer
	log     *slog.Logger
	metrics liveMetrics

	mu  sync.Mutex // guards set
	set *rules.Set

	known map[string]map[string]schema.Alert // last transition of an alert, by rule id and fingerprint
	due   map[string]time.Time               // time of the next run, by rule id
}

type liveMetrics struct {
	runs   *prometheus.CounterVec
	took   prometheus.Histogram
	events prometheus.Counter
	alerts *prometheus.CounterVec
}

// NewLive returns an executor of the rules in a set that are Long. past reads the
// topic that alerts produces to.
func NewLive(
	store *Store, set *rules.Set, past stream.Alerts, alerts stream.Producer,
	log *slog.Logger, reg prometheus.Registerer,
) *Live {
	return &Live{
		store:   store,
		set:     set,
		past:    past,
		alerts:  alerts,
		log:     log,
		due:     map[string]time.Time{},
		metrics: newLiveMetrics(reg),
	}
}

func newLiveMetrics(reg prometheus.Registerer) liveMetrics {
	factory := promauto.With(reg)
	metrics := liveMetrics{
		runs: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_history_runs_total",
			Help: "Runs of rules with long windows over the stored events. A failed run is repeated.",
		}, []string{"result"}),
		took: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "tenantwatch_history_run_seconds",
			Help:    "Duration of a run of a rule with a long window.",
			Buckets: prometheus.ExponentialBuckets(0.01, 3, 10),
		}),
		events: factory.NewCounter(prometheus.CounterOpts{
			Name: "tenantwatch_history_events_total",
			Help: "Events read from ClickHouse for runs of rules with long windows.",
		}),
		alerts: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_history_alerts_total",
			Help: "State transitions of alerts of rules with long windows.",
		}, []string{"state"}),
	}

	// Create the results up front, so that they start at zero.
	for _, result := range []string{"done", "failed"} {
		metrics.runs.WithLabelValues(result)
	}
	return metrics
}

// Reload replaces the set of rules.
func (l *Live) Reload(set *rules.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set = set
}

func (l *Live) current() *rules.Set {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set
}

// Run runs the rules until ctx ends. Only one process may run it at a time.
func (l *Live) Run(ctx context.Context) error {
	l.known, l.due = nil, map[string]time.Time{}
	tick := time.NewTicker(minInterval / 6)
	defer tick.Stop()

	for {
		if err := l.runDue(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("running rules with long windows failed; retrying", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// runDue runs the rules that are due.
func (l *Live) runDue(ctx context.Context) error {
	set := l.current()
	var long []*rules.Rule
	for _, rule := range set.Rules() {
		if rule.Alert != nil && Long(set, rule) && !time.Now().Before(l.due[rule.ID]) {
			long = append(long, rule)
		}
	}
	if len(long) == 0 {
		return nil
	}

	now, err := l.store.now(ctx)
	if err != nil {
		return err
	}

	// A rule that fails does not hold up the others.
	var failed []error
	for _, rule := range long {
		began := time.Now()
		if err := l.Scan(ctx, set, rule, now); err != nil {
			l.metrics.runs.WithLabelValues("failed").Inc()
			l.due[rule.ID] = began.Add(minInterval)
			failed = append(failed, fmt.Errorf("rule %s: %w", rule.ID, err))
			continue
		}

		took := time.Since(began)
		l.metrics.runs.WithLabelValues("done").Inc()
		l.metrics.took.Observe(took.Seconds())
		interval := min(max(set.Span(rule)/runsPerSpan, minInterval), maxInterval)
		l.due[rule.ID] = began.Add(max(interval, restFactor*took))
	}
	return errors.Join(failed...)
}

// Scan runs one rule over the events inserted since its last run, with those that its
// windows reach back to, and makes its alerts durable. A rule that has never run
// starts with events inserted after now.
func (l *Live) Scan(ctx context.Context, set *rules.Set, r *rules.Rule, now time.Time) error {
	if err := l.readKnown(ctx, set, r); err != nil {
		return err
	}
	mark, err := l.store.scannedTo(ctx, r.ID)
	if err != nil {
		return err
	}

	if !mark.IsZero() {
		alone := set.Select(func(other *rules.Rule) bool { return other.ID == r.ID })
		if err := l.scan(ctx, alone, r, mark, now); err != nil {
			return err
		}
	}

	// Kafka has acknowledged the alerts. If we stop here, the next run finds the same
	// transitions again and leaves out those that the alerts topic has.
	return l.store.saveScanned(ctx, r.ID, now)
}

// scan runs the rule of a set over the events inserted after mark.
func (l *Live) scan(ctx context.Context, set *rules.Set, r *rules.Rule, mark, now time.Time) error {
	engine := scanner.NewEngine(set, scanner.Config{MaxGroups: maxGroups})
	query, err := l.query(ctx, set, r, engine.Reach()+scanner.MaxAge, mark, now)
	if err != nil {
		return err
	}
	newest, err := l.store.Newest(ctx, query.Since, query.Until)
	if err != nil {
		return err
	}

	// By tenant.
	past := map[string][]schema.Alert{}
	for _, alert := range l.known[r.ID] {
		past[alert.Tenant] = append(past[alert.Tenant], alert)
	}
	started := map[string]bool{}
	start := func(tenant string) {
		if started[tenant] {
			return
		}
		started[tenant] = true
		for i := range past[tenant] {
			engine.Restore(&past[tenant][i])
		}
		engine.CloseUnpublished(tenant)
	}

	// Old events come first. They only fill the windows.
	var transitions []schema.Alert
	err = l.store.Read(ctx, query, func(ev *schema.Event, isNew bool) error {
		l.metrics.events.Inc()
		if !isNew {
			engine.Observe(ev)
			return nil
		}
		start(ev.Tenant)
		transitions = append(transitions, engine.Observe(ev)...)
		return nil
	})
	if err != nil {
		return err
	}

	// Events of other types are not read, but they move the tenant's clock.
	for tenant, at := range newest {
		if at.IsZero() {
			continue
		}
		start(tenant)
		transitions = append(transitions, engine.Advance(tenant, at)...)
	}

	for _, failure := range engine.Status().Broken {
		return fmt.Errorf("evaluation panicked, please report this bug: %s", failure)
	}
	return l.produce(ctx, transitions)
}

// query returns the query for the events of a run: those inserted after mark, and
// those that a window of such an event reaches back to.
func (l *Live) query(
	ctx context.Context, set *rules.Set, r *rules.Rule, reach time.Duration, mark, now time.Time,
) (*Query, error) {
	// New events may be as old as those that may still fire an alert.
	fresh := mark.Add(-overlap)
	query := &Query{Set: set, Since: fresh.Add(-reach), Until: now.Add(ahead), Groups: true, NewSince: fresh}

	asked := map[string]bool{} // tenants
	for _, alert := range l.known[r.ID] {
		if alert.State != schema.StateFiring {
			continue
		}
		query.Open = append(query.Open, openGroup(r, &alert))
		if asked[alert.Tenant] {
			continue
		}
		asked[alert.Tenant] = true

		// The tenant may have had no events since. The alert was open at the last one.
		at, err := l.store.newest(ctx, alert.Tenant, "inserted_at <= "+timeLiteral(fresh))
		if err != nil {
			return nil, err
		}
		if since := at.Add(-reach); !at.IsZero() && since.Before(query.Since) {
			query.Since = since
		}
	}
	return query, nil
}

// openGroup returns an alert's group as an element of Query.Open.
func openGroup(r *rules.Rule, a *schema.Alert) []string {
	values := []string{a.Tenant}
	for _, field := range r.Alert.GroupBy {
		// A group without the field has the empty value.
		value := ""
		i := slices.IndexFunc(a.Group, func(g schema.GroupValue) bool { return g.Field == field.Path })
		if i >= 0 {
			value = a.Group[i].Value
		}
		values = append(values, value)
	}
	return values
}

// readKnown reads the last transition of the alerts of a rule, and of the set's other
// rules that are Long. The alerts of all rules would take too much memory.
func (l *Live) readKnown(ctx context.Context, set *rules.Set, r *rules.Rule) error {
	if l.known[r.ID] != nil {
		return nil
	}

	known := map[string]map[string]schema.Alert{r.ID: {}}
	for _, other := range set.Rules() {
		if other.Alert != nil && Long(set, other) {
			known[other.ID] = map[string]schema.Alert{}
		}
	}
	err := l.past(ctx, func(r schema.Record) error {
		if alert, err := schema.ReadAlert(r.Value); err == nil && known[alert.RuleID] != nil {
			known[alert.RuleID][alert.Fingerprint] = alert
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the alerts: %w", err)
	}
	l.known = known
	return nil
}

// produce makes those transitions durable that the alerts topic does not have.
func (l *Live) produce(ctx context.Context, list []schema.Alert) error {
	// The overlap finds transitions that an earlier run has produced.
	var records []schema.Record
	var states []schema.AlertState
	for _, alert := range list {
		if known, ok := l.known[alert.RuleID][alert.Fingerprint]; ok && !follows(&alert, &known) {
			continue
		}
		value, err := json.Marshal(&alert)
		if err != nil {
			return fmt.Errorf("alert %s: %w", alert.Fingerprint, err)
		}
		records = append(records, schema.Record{Key: []byte(alert.Fingerprint), Value: value})
		states = append(states, alert.State)
		l.known[alert.RuleID][alert.Fingerprint] = alert
	}
	if len(records) == 0 {
		return nil
	}

	logged := false
	err := l.alerts.Produce(ctx, records, func(err error) {
		if !logged {
			logged = true
			l.log.Warn("producing alerts failed; retrying", "err", err)
		}
	})
	if err != nil {
		// Some records may be in the topic: read it again.
		l.known = nil
		return err
	}

	for _, state := range states {
		l.metrics.alerts.WithLabelValues(string(state)).Inc()
	}
	return nil
}

// follows reports whether a transition comes after another one of its fingerprint.
func follows(a, before *schema.Alert) bool {
	switch {
	case !a.StartsAt.Equal(before.StartsAt):
		return a.StartsAt.After(before.StartsAt)
	case before.State == schema.StateResolved:
		return false
	}
	return a.State == schema.StateResolved || rules.CompareLevels(a.Level, before.Level) > 0
}
