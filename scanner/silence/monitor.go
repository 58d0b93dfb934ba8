package silence

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	interval = time.Minute

	// minSilence is the shortest time without events that counts as silence. A tenant
	// with few events at this hour of the day gets gapFactor times its usual gap.
	minSilence = 15 * time.Minute
	gapFactor  = 5

	// missedRuns is how many runs of the probe may be missing.
	missedRuns = 5

	// stuckAfter is three times the interval at which the tail of a quiet tenant saves
	// its checkpoint.
	stuckAfter = 30 * time.Minute

	// growingFrom is the number of dead letters in an hour that is more than a stray one.
	growingFrom = 10

	// clockOff is how far the clocks may differ.
	clockOff = 30 * time.Second

	// queryTimeout bounds the queries of a check, so that the next one is on time.
	queryTimeout = 30 * time.Second
)

// Tenant is a tenant to check.
type Tenant struct {
	Name       string
	ProbeEvery time.Duration // 0 without a probe
}

// Seen is what ClickHouse has of a tenant's last seven days.
type Seen struct {
	First    time.Time // date of Auth0's first event
	Newest   time.Time // date of Auth0's last event; zero without any
	SameHour uint64    // Auth0's events at this hour of the day
	Probe    time.Time // date of the probe's newest result; zero without any
}

// Tail is what the checkpoint of a tenant's tail says.
type Tail struct {
	Written time.Time     // when it was saved
	Ahead   time.Duration // how far the writer's clock was ahead of the tenant's
}

// Sources are the inputs of a Monitor.
type Sources struct {
	// Store returns what ClickHouse has, by tenant.
	Store func(ctx context.Context) (map[string]Seen, error)
	// Checkpoints returns the newest checkpoint of each tenant's tail.
	Checkpoints func(ctx context.Context) (map[string]Tail, error)
	// DeadLetters calls yield for each new dead letter until ctx ends.
	DeadLetters func(ctx context.Context, yield func(tenant string)) error
	// Roles returns why roles of this process fail; "" if none does.
	Roles func(ctx context.Context) string
}

// Producer makes records durable in the events topic. It retries until ctx ends.
type Producer interface {
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Monitor checks tenants and produces the events.
type Monitor struct {
	tenants []Tenant
	sources Sources
	events  Producer
	log     *slog.Logger
	age     *prometheus.GaugeVec
	start   time.Time

	mu   sync.Mutex                   // guards dead
	dead map[string]map[time.Time]int // dead letters by tenant and minute
}

// New returns a monitor of the given tenants, or of all in ClickHouse if there are
// none.
func New(
	tenants []Tenant, sources Sources, events Producer, log *slog.Logger, reg prometheus.Registerer,
) *Monitor {
	age := promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
		Name: "tenantwatch_newest_event_age_seconds",
		Help: "Age of a tenant's newest event in ClickHouse.",
	}, []string{"tenant"})
	return &Monitor{
		tenants: tenants,
		sources: sources,
		events:  events,
		log:     log,
		age:     age,
		dead:    map[string]map[time.Time]int{},
	}
}

// Run produces an event for each tenant every minute until ctx ends. One process is
// enough; a second one only adds events, which is harmless. A check that is in
// progress at the end is lost: the next one has the same result.
func (m *Monitor) Run(ctx context.Context) error {
	m.start = time.Now()
	// From then on another process reports the age.
	defer m.age.Reset()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.followDeadLetters(ctx) })
	g.Go(func() error { return m.checkPeriodically(ctx) })
	return g.Wait()
}

func (m *Monitor) followDeadLetters(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := m.sources.DeadLetters(ctx, m.countDeadLetter); err != nil && ctx.Err() == nil {
			m.log.Warn("reading dead letters failed; retrying", "err", err)
			pause(ctx, interval)
		}
	}
	return ctx.Err()
}

func (m *Monitor) checkPeriodically(ctx context.Context) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := m.check(ctx); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (m *Monitor) countDeadLetter(tenant string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead[tenant] == nil {
		m.dead[tenant] = map[time.Time]int{}
	}
	m.dead[tenant][time.Now().Truncate(time.Minute)]++
}

// lastHour returns the number of a tenant's dead letters in the last hour.
func (m *Monitor) lastHour(tenant string, now time.Time) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.dead[tenant], func(minute time.Time, _ int) bool { return now.Sub(minute) > time.Hour })

	total := 0
	for _, count := range m.dead[tenant] {
		total += count
	}
	return total
}

// freshness is the age of the newest of something.
type freshness struct {
	Newest *time.Time `json:"newest,omitempty"` // absent if there never was any
	Age    float64    `json:"age_seconds"`
	Limit  float64    `json:"limit_seconds"`
	Silent bool       `json:"silent"`
}

// freshness returns the age of the newest. Without any, the age is counted from the
// start of the monitor.
func (m *Monitor) freshness(newest, now time.Time, limit time.Duration) *freshness {
	result := &freshness{Limit: limit.Seconds()}

	from := m.start
	if !newest.IsZero() {
		at := newest.UTC()
		result.Newest = &at
		from = newest
	}

	// A date in the future is age 0.
	age := max(now.Sub(from), 0)
	result.Age, result.Silent = age.Round(time.Millisecond).Seconds(), age > limit
	return result
}

type clock struct {
	Ahead float64 `json:"ahead_seconds"`
	Off   bool    `json:"off"`
}

type deadLetters struct {
	Hour    int  `json:"hour"`
	Growing bool `json:"growing"`
}

type status struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

type details struct {
	Events      *freshness  `json:"events,omitempty"`
	Probe       *freshness  `json:"probe,omitempty"`
	Checkpoint  *freshness  `json:"checkpoint,omitempty"`
	Clock       *clock      `json:"clock,omitempty"`
	DeadLetters deadLetters `json:"dead_letters"`
	Store       status      `json:"store"`
	Roles       status      `json:"roles"`
}

// observation is the result of the queries of one check.
type observation struct {
	now      time.Time
	seen     map[string]Seen
	storeErr error
	tails    map[string]Tail
	roles    string
}

// check queries the sources and produces an event for each tenant.
func (m *Monitor) check(ctx context.Context) error {
	o := m.observe(ctx)

	tenants := m.tenants
	if len(tenants) == 0 {
		// The settings of this process name none: check those that ClickHouse has.
		for _, name := range slices.Sorted(maps.Keys(o.seen)) {
			tenants = append(tenants, Tenant{Name: name})
		}
	}

	var records []schema.Record
	for _, tenant := range tenants {
		result := m.details(tenant, &o)
		event := schema.NewOwnEvent(tenant.Name, schema.TypeHealth, result.describe(), result)
		records = append(records, event.Record())
	}
	if err := m.events.Produce(ctx, records, nil); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	return nil
}

// observe queries the sources.
func (m *Monitor) observe(ctx context.Context) observation {
	o := observation{now: time.Now()}
	bounded, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()

	// An error of ClickHouse is a result. Without checkpoints, the event lacks them.
	o.seen, o.storeErr = m.sources.Store(bounded)
	var err error
	o.tails, err = m.sources.Checkpoints(bounded)
	if err != nil && ctx.Err() == nil {
		m.log.Warn("reading checkpoints failed", "err", err)
	}
	o.roles = m.sources.Roles(bounded)
	return o
}

// details returns the result for a tenant.
func (m *Monitor) details(tenant Tenant, o *observation) details {
	tail, hasTail := o.tails[tenant.Name]
	result := details{
		Store: status{OK: o.storeErr == nil},
		Roles: status{OK: o.roles == "", Error: o.roles},
	}

	if o.storeErr != nil {
		result.Store.Error = o.storeErr.Error()
	} else {
		// Auth0 dates its events by the tenant's clock.
		seen := o.seen[tenant.Name]
		result.Events = m.freshness(seen.Newest, o.now.Add(-tail.Ahead), maxSilence(&seen, o.now))
		m.age.WithLabelValues(tenant.Name).Set(result.Events.Age)
		if tenant.ProbeEvery > 0 {
			result.Probe = m.freshness(seen.Probe, o.now, missedRuns*tenant.ProbeEvery)
		}
	}

	// A tenant that is not pulled has neither.
	if hasTail {
		result.Checkpoint = m.freshness(tail.Written, o.now, stuckAfter)
		result.Clock = &clock{tail.Ahead.Seconds(), tail.Ahead.Abs() > clockOff}
	}
	dead := m.lastHour(tenant.Name, o.now)
	result.DeadLetters = deadLetters{dead, dead >= growingFrom}
	return result
}

// maxSilence returns how long a tenant may be without events. At an hour of the day at
// which it usually has none, that is long.
func maxSilence(s *Seen, now time.Time) time.Duration {
	// A day of events is needed to know what is usual.
	days := now.Sub(s.First).Hours() / 24
	if s.First.IsZero() || days < 1 {
		return minSilence
	}

	// The time observed at this hour of the day: one hour for each day.
	hours := time.Duration(min(days, 7) * float64(time.Hour))
	return max(minSilence, gapFactor*hours/time.Duration(s.SameHour+1))
}

// describe returns a line that names the most important fault. Saved queries compare
// it with the text of the last line.
func (d *details) describe() string {
	switch {
	case !d.Store.OK:
		return "ClickHouse does not answer"
	case !d.Roles.OK:
		return "Parts of tenantwatch do not do their work: " + d.Roles.Error
	case d.Events.Silent:
		return fmt.Sprintf("No event for %s", seconds(d.Events.Age))
	case d.Probe != nil && d.Probe.Silent:
		return fmt.Sprintf("No result of the probe for %s", seconds(d.Probe.Age))
	case d.Checkpoint != nil && d.Checkpoint.Silent:
		return fmt.Sprintf("The checkpoint has not moved for %s", seconds(d.Checkpoint.Age))
	case d.Clock != nil && d.Clock.Off:
		return fmt.Sprintf("The clock of this machine is %s ahead of the tenant's", seconds(d.Clock.Ahead))
	case d.DeadLetters.Growing:
		return fmt.Sprintf("%d dead letters in the last hour", d.DeadLetters.Hour)
	}
	return "Events come in"
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}
