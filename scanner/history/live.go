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
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	// StreamSpan is the longest time that a rule of the stream looks back; rules that
	// look further back are for Live.
	StreamSpan = 2 * time.Hour

	// A rule runs so many times in the time that it looks back, and no more often and
	// no more seldom than this.
	runsPerSpan = 288
	mostOften   = time.Minute
	mostSeldom  = time.Hour
	// restFactor is how many times as long as a run took the next one waits at least.
	restFactor = 10

	// overlap is for events that were inserted before a run but only became visible
	// after it.
	overlap = 5 * time.Minute
	// ahead is how far an event's date may be ahead of the clock.
	ahead = 5 * time.Minute
)

// Long reports whether a rule of a set looks back so far that it is not for the
// stream.
func Long(set *rules.Set, r *rules.Rule) bool { return set.Span(r) > StreamSpan }

// Live runs the rules with long windows again and again over what ClickHouse keeps.
// Its alerts are those that the stream would give, some minutes later.
//
// Alerts are acked by Kafka before it is noted how far a rule has been run. If we
// die in between, its next run finds the same transitions again, and leaves out
// those that the alerts topic has.
type Live struct {
	store  *Store
	past   scanner.Alerts
	alerts scanner.Producer
	log    *slog.Logger
	m      liveMetrics

	mu  sync.Mutex // guards set
	set *rules.Set

	known map[string]map[string]schema.Alert // by rule id and fingerprint: an alert's last transition
	due   map[string]time.Time               // by rule id
}

type liveMetrics struct {
	runs   *prometheus.CounterVec
	took   prometheus.Histogram
	events prometheus.Counter
	alerts *prometheus.CounterVec
}

// NewLive returns the executor of those of a set's rules that are Long. past is the
// topic that alerts is a producer for.
func NewLive(store *Store, set *rules.Set, past scanner.Alerts, alerts scanner.Producer, log *slog.Logger, reg prometheus.Registerer) *Live {
	f := promauto.With(reg)
	l := &Live{store: store, set: set, past: past, alerts: alerts, log: log, due: map[string]time.Time{}, m: liveMetrics{
		runs:   f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_history_runs_total", Help: "Runs of rules with long windows over what ClickHouse keeps; a failed one is repeated."}, []string{"result"}),
		took:   f.NewHistogram(prometheus.HistogramOpts{Name: "tenantwatch_history_run_seconds", Help: "How long such a run takes.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 10)}),
		events: f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_history_events_total", Help: "Events that were read back for such runs."}),
		alerts: f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_history_alerts_total", Help: "Transitions of alerts that came of them."}, []string{"state"}),
	}}
	for _, result := range []string{"done", "failed"} {
		l.m.runs.WithLabelValues(result)
	}
	return l
}

// Reload puts another set of rules in force.
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

// Run runs the rules until ctx ends. Only one process at a time is to do so.
func (l *Live) Run(ctx context.Context) error {
	l.known, l.due = nil, map[string]time.Time{}
	tick := time.NewTicker(mostOften / 6)
	defer tick.Stop()
	for {
		if err := l.round(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("rules with long windows could not be run; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round runs the rules whose time has come.
func (l *Live) round(ctx context.Context) error {
	set := l.current()
	var long []*rules.Rule
	for _, r := range set.Rules() {
		if r.Alert != nil && Long(set, r) && !time.Now().Before(l.due[r.ID]) {
			long = append(long, r)
		}
	}
	if len(long) == 0 {
		return nil
	}
	now, err := l.store.now(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, r := range long {
		began := time.Now()
		if err := l.Scan(ctx, set, r, now); err != nil {
			l.m.runs.WithLabelValues("failed").Inc()
			l.due[r.ID] = began.Add(mostOften)
			failed = append(failed, fmt.Errorf("rule %s: %w", r.ID, err))
			continue
		}
		took := time.Since(began)
		l.m.runs.WithLabelValues("done").Inc()
		l.m.took.Observe(took.Seconds())
		l.due[r.ID] = began.Add(max(min(max(set.Span(r)/runsPerSpan, mostOften), mostSeldom), restFactor*took))
	}
	return errors.Join(failed...)
}

// Scan runs one rule over what has been inserted since it was last run, and what
// its windows reach back to, and makes its alerts durable. A rule that has never run
// begins with what comes after now.
func (l *Live) Scan(ctx context.Context, set *rules.Set, r *rules.Rule, now time.Time) error {
	if err := l.readKnown(ctx, set, r); err != nil {
		return err
	}
	mark, err := l.store.scannedTo(ctx, r.ID)
	if err != nil {
		return err
	}
	if !mark.IsZero() {
		if err := l.scan(ctx, set.Select(func(x *rules.Rule) bool { return x.ID == r.ID }), r, mark, now); err != nil {
			return err
		}
	}
	return l.store.noteScanned(ctx, r.ID, now)
}

// scan runs the rule of a set over what was inserted after mark.
func (l *Live) scan(ctx context.Context, set *rules.Set, r *rules.Rule, mark, now time.Time) error {
	engine := scanner.NewEngine(set, scanner.Config{MaxGroups: mostGroups})
	past := map[string][]schema.Alert{} // by tenant
	// New events may be as old as those that may begin an alert; what they share a
	// window with is older.
	fresh := mark.Add(-overlap)
	q := &Query{Set: set, Since: fresh.Add(-engine.Reach() - scanner.MaxAge), Until: now.Add(ahead), Groups: true, NewSince: fresh}
	asked := map[string]bool{} // tenants
	for _, a := range l.known[r.ID] {
		past[a.Tenant] = append(past[a.Tenant], a)
		if a.State != schema.Firing {
			continue
		}
		q.Open = append(q.Open, openGroup(r, &a))
		if asked[a.Tenant] {
			continue
		}
		asked[a.Tenant] = true
		// The tenant may have been silent since: the alert was open at its newest event.
		at, err := l.store.newest(ctx, a.Tenant, "inserted_at <= "+timeLiteral(fresh))
		if err != nil {
			return err
		}
		if since := at.Add(-engine.Reach() - scanner.MaxAge); !at.IsZero() && since.Before(q.Since) {
			q.Since = since
		}
	}
	newest, err := l.store.Newest(ctx, q.Since, q.Until)
	if err != nil {
		return err
	}
	begun := map[string]bool{}
	begin := func(tenant string) {
		if !begun[tenant] {
			begun[tenant] = true
			for i := range past[tenant] {
				engine.Restore(&past[tenant][i])
			}
			engine.CloseUnpublished(tenant)
		}
	}
	var out []schema.Alert
	err = l.store.Read(ctx, q, func(ev *schema.Event, isNew bool) error {
		l.m.events.Inc()
		if !isNew {
			engine.Replay(ev)
			return nil
		}
		begin(ev.Tenant)
		out = append(out, engine.Observe(ev)...)
		return nil
	})
	if err != nil {
		return err
	}
	for tenant, at := range newest {
		if at.IsZero() {
			continue
		}
		begin(tenant)
		out = append(out, engine.Advance(tenant, at)...)
	}
	for _, why := range engine.Status().Broken {
		return fmt.Errorf("it failed, which is a fault of tenantwatch, please report it: %s", why)
	}
	return l.produce(ctx, out)
}

// openGroup are the values of an alert's group as Query.Open has them.
func openGroup(r *rules.Rule, a *schema.Alert) []string {
	values := []string{a.Tenant}
	for _, f := range r.Alert.GroupBy {
		value := ""
		if i := slices.IndexFunc(a.Group, func(g schema.GroupValue) bool { return g.Field == f.Path }); i >= 0 {
			value = a.Group[i].Value
		}
		values = append(values, value)
	}
	return values
}

// readKnown reads how each alert of a rule stands, and those of the set's other rules
// that are Long: all alerts that ever were would be too many to hold.
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
		if a, err := schema.ReadAlert(r.Value); err == nil && known[a.RuleID] != nil {
			known[a.RuleID][a.Fingerprint] = a
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the alerts: %w", err)
	}
	l.known = known
	return nil
}

// produce makes the transitions durable that are not in the alerts topic.
func (l *Live) produce(ctx context.Context, list []schema.Alert) error {
	var records []schema.Record
	for _, a := range list {
		if known, ok := l.known[a.RuleID][a.Fingerprint]; ok && !follows(&a, &known) {
			continue
		}
		value, err := json.Marshal(&a)
		if err != nil {
			return fmt.Errorf("alert %s: %w", a.Fingerprint, err)
		}
		records = append(records, schema.Record{Key: []byte(a.Fingerprint), Value: value})
		l.known[a.RuleID][a.Fingerprint] = a
	}
	if len(records) == 0 {
		return nil
	}
	said := false
	err := l.alerts.Produce(ctx, records, func(err error) {
		if !said {
			said = true
			l.log.Warn("alerts cannot be handed to Kafka; trying again", "err", err)
		}
	})
	if err != nil {
		l.known = nil // which of them are there is not known
		return err
	}
	for _, r := range records {
		a, _ := schema.ReadAlert(r.Value)
		l.m.alerts.WithLabelValues(string(a.State)).Inc()
	}
	return nil
}

// follows reports whether a transition comes after another one of its fingerprint.
func follows(a, before *schema.Alert) bool {
	switch {
	case !a.StartsAt.Equal(before.StartsAt):
		return a.StartsAt.After(before.StartsAt)
	case before.State == schema.Resolved:
		return false
	}
	return a.State == schema.Resolved || rules.CompareLevels(a.Level, before.Level) > 0
}
