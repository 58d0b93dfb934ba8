package scanner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Partition is one partition of the events topic while it is ours.
type Partition interface {
	ID() int
	// Rewind makes Fetch go on at the first record that was produced at or after
	// a time, which since tells from the last committed record. It returns the
	// offset of the first uncommitted record.
	Rewind(ctx context.Context, since func(last *schema.Record) time.Time) (committed int64, err error)
	// Fetch waits for the next record, until ctx ends.
	Fetch(ctx context.Context) (schema.Record, error)
	// Commit notes that all records below next are done with. After an error
	// they may come again.
	Commit(next int64) error
	Lag() int64
}

// Producer makes records durable in the alerts topic. It retries until ctx ends.
type Producer interface {
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Alerts reads every record of the alerts topic: the last one of each key says
// how an alert stands.
type Alerts func(ctx context.Context, yield func(schema.Record) error) error

// commitEvery is how often offsets are committed. What was read since is read
// again after a crash, and gives the same alerts.
const commitEvery = 500 * time.Millisecond

// Stream runs rules over partitions of the events topic as they grow.
type Stream struct {
	cfg     Config
	past    Alerts
	alerts  Producer
	log     *slog.Logger
	metrics *streamMetrics

	mu      sync.Mutex // guards what follows
	set     *rules.Set
	changed chan struct{} // closed when set is another
}

type streamMetrics struct {
	events     prometheus.Counter
	unreadable prometheus.Counter
	replayed   prometheus.Counter
	alerts     *prometheus.CounterVec
	delay      prometheus.Histogram
	lag        *prometheus.GaugeVec
	groups     *prometheus.GaugeVec
	open       *prometheus.GaugeVec
	late       prometheus.Counter
	evicted    *prometheus.CounterVec
	timeouts   prometheus.Counter
	broken     prometheus.Counter
}

// NewStream returns a stream executor. Every partition gets an Engine of cfg.
// past is the topic that alerts is a producer for.
func NewStream(set *rules.Set, cfg Config, past Alerts, alerts Producer, log *slog.Logger, reg prometheus.Registerer) *Stream {
	f := promauto.With(reg)
	m := &streamMetrics{
		events:     f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_scan_events_total", Help: "Events that the rules ran over."}),
		unreadable: f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_scan_unreadable_total", Help: "Records that are no events; the writer keeps them as dead letters."}),
		replayed:   f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_scan_replayed_total", Help: "Events that were read again to rebuild the rules' windows."}),
		alerts:     f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_scan_alerts_total", Help: "Transitions of alerts."}, []string{"state"}),
		delay:      f.NewHistogram(prometheus.HistogramOpts{Name: "tenantwatch_scan_alert_delay_seconds", Help: "From the pull of the event that changed an alert until Kafka had the alert.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 14)}),
		lag:        f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_scan_lag_records", Help: "Records in a partition that are not scanned yet."}, []string{"partition"}),
		groups:     f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_scan_groups", Help: "Group keys that the rules keep."}, []string{"partition"}),
		open:       f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_scan_open_alerts", Help: "Alerts that have not ended."}, []string{"partition"}),
		late:       f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_scan_late_total", Help: "Events that came so late that their window may no longer have been whole."}),
		evicted:    f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_scan_evicted_total", Help: "Group keys of a rule that were forgotten because there were too many."}, []string{"rule"}),
		broken:     f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_scan_rules_broken_total", Help: "Rules that failed in a partition and no longer run there, which is a fault of tenantwatch; the log names them."}),
		timeouts:   f.NewCounter(prometheus.CounterOpts{Name: "tenantwatch_scan_regex_timeouts_total", Help: "Regular expressions that took too long and counted as no match."}),
	}
	m.alerts.WithLabelValues(string(schema.Firing))
	m.alerts.WithLabelValues(string(schema.Resolved))
	return &Stream{set: set, changed: make(chan struct{}), cfg: cfg, past: past, alerts: alerts, log: log, metrics: m}
}

// Reload puts another set of rules in force. Each partition goes on as after a
// start: windows are read again by the new rules, alerts that fire go on.
func (s *Stream) Reload(set *rules.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = set
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Stream) current() (set *rules.Set, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set, s.changed
}

// Consume scans one partition until ctx ends, with the rules that are in force.
func (s *Stream) Consume(ctx context.Context, p Partition) error {
	for {
		set, changed := s.current()
		inForce, end := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			select {
			case <-changed:
				end()
			case <-inForce.Done():
			}
		}()
		err := s.consume(inForce, p, set)
		end()
		<-ended
		select {
		case <-changed:
			if err == nil && ctx.Err() == nil {
				continue
			}
		default:
		}
		return err
	}
}

// consume scans one partition with one set of rules until ctx ends. It first reads
// again what the rules' windows reach back to, so that a start forgets nothing.
// Alerts are acked by Kafka before the offset of their event is committed: if we
// die in between, the event is scanned again and gives the same alert.
func (s *Stream) consume(ctx context.Context, p Partition, set *rules.Set) error {
	engine := NewEngine(set, s.cfg)
	past, err := s.pastAlerts(ctx)
	if err != nil {
		return ignoreEnd(ctx, fmt.Errorf("read the alerts: %w", err))
	}
	for _, r := range set.Rules() {
		if r.Alert != nil || r.Correlation != nil {
			s.metrics.evicted.WithLabelValues(r.ID) // so that there is a zero to begin with
		}
	}
	var before Status
	defer s.metrics.lag.DeleteLabelValues(strconv.Itoa(p.ID())) // another process's affair from then on
	report := func() {
		now, id := engine.Status(), strconv.Itoa(p.ID())
		s.metrics.lag.WithLabelValues(id).Set(float64(p.Lag()))
		s.metrics.groups.WithLabelValues(id).Set(float64(now.Groups))
		s.metrics.open.WithLabelValues(id).Set(float64(now.Open))
		s.metrics.late.Add(float64(now.Late - before.Late))
		for rule, n := range now.Evicted {
			s.metrics.evicted.WithLabelValues(rule).Add(float64(n - before.Evicted[rule]))
		}
		s.metrics.timeouts.Add(float64(now.Timeouts - before.Timeouts))
		for rule, why := range now.Broken {
			if before.Broken[rule] == "" {
				s.metrics.broken.Inc()
				s.log.Error("a rule failed and no longer runs; this is a fault of tenantwatch, please report it", "rule", rule, "partition", id, "failure", why)
			}
		}
		before = now
	}
	committed, err := p.Rewind(ctx, func(last *schema.Record) time.Time {
		// What comes next is about as old as the last one was, whenever that was
		// pulled; windows reach back from there.
		at := last.Time
		if e := schema.EventOf(last); !engine.TooOld(&e) {
			if stored, ok := schema.IDTime(e.LogID); ok && stored.Before(at) {
				at = stored
			}
		}
		return at.Add(-engine.Lookback())
	})
	if err != nil {
		return ignoreEnd(ctx, fmt.Errorf("rewind: %w", err))
	}
	begun := map[string]bool{} // tenants that had a new event
	next, noted := committed, committed
	// turn ends when what was scanned in it is to be committed.
	turn, end := ctx, context.CancelFunc(func() {})
	defer func() {
		end()
		if next > noted { // an orderly end: nothing need be scanned again
			_ = p.Commit(next)
		}
	}()
	for {
		r, err := p.Fetch(turn)
		switch {
		case err == nil && r.Offset < committed:
			s.replay(engine, &r)
			continue
		case err == nil:
			if err := s.scan(ctx, engine, &r, past, begun); err != nil {
				return ignoreEnd(ctx, err)
			}
			if next == noted {
				begun, cancel := context.WithTimeout(ctx, commitEvery)
				turn, end = begun, cancel
			}
			next = r.Offset + 1
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return ignoreEnd(ctx, err)
		}
		if next > noted && turn.Err() != nil {
			if err := p.Commit(next); err != nil && ctx.Err() == nil {
				s.log.Warn("commit failed; the events will be scanned once more, which does no harm", "err", err)
			}
			end()
			noted, turn, end = next, ctx, func() {}
			report()
		}
	}
}

// pastAlerts is how an earlier run left each alert, by tenant, so that what is
// firing goes on as what it is and can end.
func (s *Stream) pastAlerts(ctx context.Context) (map[string][]schema.Alert, error) {
	last := map[string][]byte{}
	err := s.past(ctx, func(r schema.Record) error {
		last[string(r.Key)] = r.Value
		return nil
	})
	past := map[string][]schema.Alert{}
	for _, value := range last {
		if a, err := schema.ReadAlert(value); err == nil { // what is no alert is said by the notifier
			past[a.Tenant] = append(past[a.Tenant], a)
		}
	}
	return past, err
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Stream) replay(engine *Engine, r *schema.Record) {
	e := schema.EventOf(r)
	if !engine.TooOld(&e) && identified(&e) {
		engine.Replay(&e)
		s.metrics.replayed.Inc()
	}
}

// identified reports whether the event has an id and a date, which the record
// tells as a rule.
func identified(e *schema.Event) bool { return !e.Date.IsZero() || e.Identify() == nil }

// scan runs the rules over a record and makes its alerts durable. A tenant's past
// is taken up with its first event: only then it is known to be in this partition.
func (s *Stream) scan(ctx context.Context, engine *Engine, r *schema.Record, past map[string][]schema.Alert, begun map[string]bool) error {
	e := schema.EventOf(r)
	s.metrics.events.Inc()
	if engine.TooOld(&e) {
		return nil
	}
	if !identified(&e) {
		s.metrics.unreadable.Inc()
		return nil
	}
	if !begun[e.Tenant] {
		begun[e.Tenant] = true
		for i := range past[e.Tenant] {
			engine.Restore(&past[e.Tenant][i])
		}
		engine.Begin(e.Tenant)
		delete(past, e.Tenant)
	}
	alerts := engine.Observe(&e)
	if len(alerts) == 0 {
		return nil
	}
	records := make([]schema.Record, len(alerts))
	for i := range alerts {
		value, err := json.Marshal(&alerts[i])
		if err != nil {
			return fmt.Errorf("alert %s: %w", alerts[i].Fingerprint, err)
		}
		records[i] = schema.Record{Key: []byte(alerts[i].Fingerprint), Value: value}
	}
	said := false
	err := s.alerts.Produce(ctx, records, func(err error) {
		if !said {
			said = true
			s.log.Warn("alerts cannot be handed to Kafka; trying again", "err", err)
		}
	})
	if err != nil {
		return err
	}
	for i := range alerts {
		s.metrics.alerts.WithLabelValues(string(alerts[i].State)).Inc()
	}
	s.metrics.delay.Observe(time.Since(e.FetchedAt).Seconds())
	return nil
}
