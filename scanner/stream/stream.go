package stream

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

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Partition is a partition of the events topic while it is assigned to us.
type Partition interface {
	ID() int
	// Rewind positions Fetch at the first record produced at or after a time, which
	// since derives from the last committed record. It returns the offset of the
	// first uncommitted record.
	Rewind(ctx context.Context, since func(last *schema.Record) time.Time) (committed int64, err error)
	// Fetch waits for the next record until ctx ends.
	Fetch(ctx context.Context) (schema.Record, error)
	// Commit commits all records below next. After an error they may be fetched
	// again.
	Commit(next int64) error
	Lag() int64
}

// Producer makes records durable in the alerts topic. It retries until ctx ends.
type Producer interface {
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Alerts reads every record of the alerts topic. The last record of each key is the
// current state of an alert.
type Alerts func(ctx context.Context, yield func(schema.Record) error) error

// commitEvery is how often offsets are committed. Events since the last commit are
// read again after a crash, and give the same alerts.
const commitEvery = 500 * time.Millisecond

// Stream runs rules over partitions of the events topic as they grow.
type Stream struct {
	cfg     scanner.Config
	past    Alerts
	alerts  Producer
	log     *slog.Logger
	metrics *streamMetrics

	mu      sync.Mutex // guards the fields below
	set     *rules.Set
	changed chan struct{} // closed when set is replaced
}

// New returns a stream executor. Every partition gets an Engine with cfg. past
// reads the topic that alerts produces to.
func New(
	set *rules.Set, cfg scanner.Config, past Alerts, alerts Producer, log *slog.Logger, reg prometheus.Registerer,
) *Stream {
	return &Stream{
		set:     set,
		changed: make(chan struct{}),
		cfg:     cfg,
		past:    past,
		alerts:  alerts,
		log:     log,
		metrics: newStreamMetrics(reg),
	}
}

// Reload replaces the set of rules. Each partition then continues as after a restart:
// the new rules rebuild their windows, and firing alerts continue.
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

// Consume scans one partition with the current rules until ctx ends.
func (s *Stream) Consume(ctx context.Context, partition Partition) error {
	for {
		// A reload ends the run; the next one starts over with the new rules.
		set, changed := s.current()
		err := s.consumeUntil(ctx, changed, partition, set)

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

// consumeUntil scans a partition with one set of rules until ctx ends or changed is
// closed.
func (s *Stream) consumeUntil(
	ctx context.Context, changed <-chan struct{}, partition Partition, set *rules.Set,
) error {
	unchanged, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-changed:
			cancel()
		case <-unchanged.Done():
		}
	}()

	err := s.consume(unchanged, partition, set)
	cancel()
	<-ended
	return err
}

// consume scans one partition with one set of rules until ctx ends. It first replays
// the events that the windows reach back to, so that a restart loses nothing.
func (s *Stream) consume(ctx context.Context, partition Partition, set *rules.Set) error {
	past, err := s.pastAlerts(ctx)
	if err != nil {
		return ignoreEnd(ctx, fmt.Errorf("read the alerts: %w", err))
	}

	for _, rule := range set.Rules() {
		if rule.Alert != nil || rule.Correlation != nil {
			// Starts the counter at zero.
			s.metrics.evicted.WithLabelValues(rule.ID)
		}
	}
	// From then on another process reports the lag.
	defer s.metrics.lag.DeleteLabelValues(strconv.Itoa(partition.ID()))

	run := &partitionRun{
		Stream:     s,
		partition:  partition,
		engine:     scanner.NewEngine(set, s.cfg),
		unrestored: past,
		started:    map[string]bool{},
	}
	committed, err := partition.Rewind(ctx, run.replayFrom)
	if err != nil {
		return ignoreEnd(ctx, fmt.Errorf("rewind: %w", err))
	}
	return run.scanAll(ctx, committed)
}

// pastAlerts returns the last state of each alert, by tenant, so that firing alerts
// continue and can end.
func (s *Stream) pastAlerts(ctx context.Context) (map[string][]schema.Alert, error) {
	last := map[string][]byte{}
	err := s.past(ctx, func(r schema.Record) error {
		last[string(r.Key)] = r.Value
		return nil
	})

	past := map[string][]schema.Alert{}
	for _, value := range last {
		// The notifier reports unreadable records.
		if alert, err := schema.ReadAlert(value); err == nil {
			past[alert.Tenant] = append(past[alert.Tenant], alert)
		}
	}
	return past, err
}

// ignoreEnd returns nil for an error that the end of ctx caused.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// partitionRun is the scan of one partition with one set of rules.
type partitionRun struct {
	*Stream
	partition  Partition
	engine     *scanner.Engine
	unrestored map[string][]schema.Alert // alerts of tenants without a new event
	started    map[string]bool           // tenants that had a new event
	reported   scanner.Status            // already in the metrics
}

// replayFrom returns the production time from which events are replayed, given the
// last committed record.
func (p *partitionRun) replayFrom(last *schema.Record) time.Time {
	// The next event is about as old as the last one, whenever that was pulled.
	// Windows reach back from there.
	at := last.Time
	if event := schema.EventOf(last); !p.engine.TooOld(&event) {
		if stored, ok := schema.IDTime(event.LogID); ok && stored.Before(at) {
			at = stored
		}
	}
	return at.Add(-p.engine.Lookback())
}

// scanAll replays the records below committed, then scans and commits the others until
// ctx ends.
func (p *partitionRun) scanAll(ctx context.Context, committed int64) error {
	next, saved := committed, committed

	// A batch starts with its first record. Its context ends when it must be committed.
	batch, endBatch := ctx, context.CancelFunc(func() {})
	defer func() {
		endBatch()
		if next > saved {
			// Without it, the events are scanned again.
			_ = p.partition.Commit(next)
		}
	}()

	for {
		record, err := p.partition.Fetch(batch)
		switch {
		case err == nil && record.Offset < committed:
			p.replay(&record)
			continue
		case err == nil:
			// Kafka acknowledges the alerts before the offset is committed. If we
			// stop in between, the event is scanned again and gives the same alerts.
			if err := p.scan(ctx, &record); err != nil {
				return ignoreEnd(ctx, err)
			}

			// The first record of a batch starts its timer.
			if next == saved {
				started, cancel := context.WithTimeout(ctx, commitEvery)
				batch, endBatch = started, cancel
			}
			next = record.Offset + 1
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return ignoreEnd(ctx, err)
		}

		if next > saved && batch.Err() != nil {
			if err := p.partition.Commit(next); err != nil && ctx.Err() == nil {
				p.log.Warn("offset commit failed; events will be scanned again", "err", err)
			}
			endBatch()

			// After a failed commit, the next batch commits these records, too.
			saved, batch, endBatch = next, ctx, func() {}
			p.report()
		}
	}
}

// replay counts an event that was scanned before the start. Its transitions were published
// then, so they are dropped.
func (p *partitionRun) replay(r *schema.Record) {
	event := schema.EventOf(r)
	if !p.engine.TooOld(&event) && identified(&event) {
		p.engine.Observe(&event)
		p.metrics.replayed.Inc()
	}
}

// identified reports whether the event has an id and a date. Usually the record has
// them; otherwise they are read from the event.
func identified(e *schema.Event) bool { return !e.Date.IsZero() || e.Identify() == nil }

// scan runs the rules over a record and makes its alerts durable.
func (p *partitionRun) scan(ctx context.Context, r *schema.Record) error {
	event := schema.EventOf(r)
	p.metrics.events.Inc()
	if p.engine.TooOld(&event) {
		return nil
	}
	if !identified(&event) {
		p.metrics.unreadable.Inc()
		return nil
	}

	p.start(event.Tenant)
	alerts := p.engine.Observe(&event)
	if len(alerts) == 0 {
		return nil
	}
	if err := p.produce(ctx, alerts); err != nil {
		return err
	}

	for i := range alerts {
		p.metrics.alerts.WithLabelValues(string(alerts[i].State)).Inc()
	}
	p.metrics.delay.Observe(time.Since(event.FetchedAt).Seconds())
	return nil
}

// start restores a tenant's alerts before its first new event. Only that event shows
// that the tenant is in this partition.
func (p *partitionRun) start(tenant string) {
	if p.started[tenant] {
		return
	}

	p.started[tenant] = true
	for i := range p.unrestored[tenant] {
		p.engine.Restore(&p.unrestored[tenant][i])
	}
	p.engine.CloseUnpublished(tenant)
	delete(p.unrestored, tenant)
}

// produce produces alerts to Kafka until they are acknowledged or ctx ends.
func (p *partitionRun) produce(ctx context.Context, alerts []schema.Alert) error {
	records := make([]schema.Record, len(alerts))
	for i := range alerts {
		value, err := json.Marshal(&alerts[i])
		if err != nil {
			return fmt.Errorf("alert %s: %w", alerts[i].Fingerprint, err)
		}
		records[i] = schema.Record{Key: []byte(alerts[i].Fingerprint), Value: value}
	}

	logged := false
	return p.alerts.Produce(ctx, records, func(err error) {
		if !logged {
			logged = true
			p.log.Warn("producing alerts failed; retrying", "err", err)
		}
	})
}

// report updates the metrics and logs rules that were disabled since the last call.
func (p *partitionRun) report() {
	status, before := p.engine.Status(), p.reported
	id := strconv.Itoa(p.partition.ID())
	p.reported = status

	p.metrics.lag.WithLabelValues(id).Set(float64(p.partition.Lag()))
	p.metrics.groups.WithLabelValues(id).Set(float64(status.Groups))
	p.metrics.open.WithLabelValues(id).Set(float64(status.Open))
	p.metrics.late.Add(float64(status.Late - before.Late))
	p.metrics.timeouts.Add(float64(status.Timeouts - before.Timeouts))
	for rule, count := range status.Evicted {
		p.metrics.evicted.WithLabelValues(rule).Add(float64(count - before.Evicted[rule]))
	}

	for rule, failure := range status.Broken {
		if before.Broken[rule] == "" {
			p.metrics.broken.Inc()
			p.log.Error("rule disabled after a panic; please report this bug",
				"rule", rule, "partition", id, "failure", failure)
		}
	}
}
