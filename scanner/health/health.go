// Package health looks once a minute at how a tenant's events come in and makes an
// event of what it finds, so that silence, too, is something that rules can see:
//
//	{"type":"tenantwatch_health","details":{
//	  "events":       {"newest":"…","age_seconds":12.5,"limit_seconds":900,"silent":false},
//	  "probe":        {"newest":"…","age_seconds":31,"limit_seconds":300,"silent":false},
//	  "checkpoint":   {"newest":"…","age_seconds":95,"limit_seconds":1800,"silent":false},
//	  "clock":        {"ahead_seconds":-2,"off":false},
//	  "dead_letters": {"hour":0,"growing":false},
//	  "store":        {"ok":true},
//	  "roles":        {"ok":true}}}
//
// newest is the date of the newest event of Auth0's, of the newest result of the
// probe, and when the tail's checkpoint was last written; limit_seconds is the age
// from which on that is silence. probe and checkpoint are absent where there is none,
// such as of a tenant that is only received from a log stream. clock is how far the
// clock of the process that pulls is ahead of the tenant's, which tells the ages of
// Auth0's events; it is off beyond 30 s, and absent where checkpoint is. Where
// ClickHouse does not answer, store.ok is false, store.error says why, and events and
// probe are absent. roles.ok is false while roles of the process that makes the event do
// not do their work, for the reason in roles.error.
package health

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
	every = time.Minute

	// leastSilence is the shortest time without events that is worth a word. A tenant
	// that has few at this hour of the day gets longGap times its usual gap.
	leastSilence = 15 * time.Minute
	longGap      = 5

	// missedRuns is how many runs of the probe may be missing.
	missedRuns = 5

	// stuckAfter is three times as long as the tail of a quiet tenant leaves its
	// checkpoint alone.
	stuckAfter = 30 * time.Minute

	// growingFrom is how many dead letters of an hour are more than an odd one.
	growingFrom = 10

	// clockOff is how far the clocks may differ.
	clockOff = 30 * time.Second

	askTimeout = 30 * time.Second
)

// Tenant is one that is looked at.
type Tenant struct {
	Name       string
	ProbeEvery time.Duration // 0 without a probe
}

// Seen is what ClickHouse knows of a tenant of the last seven days.
type Seen struct {
	First    time.Time // Auth0's first event among them
	Newest   time.Time // and the last one; zero without any
	SameHour uint64    // Auth0's events at this hour of the day
	Probe    time.Time // the probe's newest result; zero without any
}

// Tail is what the checkpoint of a tenant's tail tells.
type Tail struct {
	Written time.Time     // when it was written
	Ahead   time.Duration // of the clock of who wrote it, beside the tenant's
}

// Sources are where Monitor looks.
type Sources struct {
	// Store is what ClickHouse knows, by tenant.
	Store func(ctx context.Context) (map[string]Seen, error)
	// Checkpoints is the newest checkpoint of each tenant's tail.
	Checkpoints func(ctx context.Context) (map[string]Tail, error)
	// DeadLetters calls yield for each dead letter that comes, until ctx ends.
	DeadLetters func(ctx context.Context, yield func(tenant string)) error
	// Roles is why roles of this process do not do their work; empty while they do.
	Roles func(ctx context.Context) string
}

// Producer makes records durable in the events topic. It retries until ctx ends.
type Producer interface {
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Monitor makes the events.
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

// New returns a monitor of some tenants; of all that ClickHouse has, where none are
// given.
func New(tenants []Tenant, sources Sources, events Producer, log *slog.Logger, reg prometheus.Registerer) *Monitor {
	return &Monitor{tenants: tenants, sources: sources, events: events, log: log, dead: map[string]map[time.Time]int{},
		age: promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_newest_event_age_seconds", Help: "How old a tenant's newest event in ClickHouse is."}, []string{"tenant"})}
}

// Run makes an event for each tenant every minute until ctx ends. Only one process
// at a time need do so; where two do, an event more does no harm. One that is under
// way when we die is lost: the next one tells the same.
func (m *Monitor) Run(ctx context.Context) error {
	m.start = time.Now()
	defer m.age.Reset() // another process's affair from then on
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for ctx.Err() == nil {
			if err := m.sources.DeadLetters(ctx, m.note); err != nil && ctx.Err() == nil {
				m.log.Warn("dead letters cannot be followed; trying again", "err", err)
				pause(ctx, every)
			}
		}
		return ctx.Err()
	})
	g.Go(func() error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
			if err := m.look(ctx); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// note counts a dead letter.
func (m *Monitor) note(tenant string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead[tenant] == nil {
		m.dead[tenant] = map[time.Time]int{}
	}
	m.dead[tenant][time.Now().Truncate(time.Minute)]++
}

// lastHour is how many dead letters of a tenant came in the last hour.
func (m *Monitor) lastHour(tenant string, now time.Time) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.dead[tenant], func(minute time.Time, _ int) bool { return now.Sub(minute) > time.Hour })
	n := 0
	for _, count := range m.dead[tenant] {
		n += count
	}
	return n
}

// aged is how old the newest of something is.
type aged struct {
	Newest *time.Time `json:"newest,omitempty"` // absent where there never was any
	Age    float64    `json:"age_seconds"`
	Limit  float64    `json:"limit_seconds"`
	Silent bool       `json:"silent"`
}

// since tells how old the newest is; where there is none, how long one has waited.
func (m *Monitor) since(newest, now time.Time, limit time.Duration) *aged {
	a := &aged{Limit: limit.Seconds()}
	from := m.start
	if !newest.IsZero() {
		at := newest.UTC()
		a.Newest = &at
		from = newest
	}
	age := max(now.Sub(from), 0)
	a.Age, a.Silent = age.Round(time.Millisecond).Seconds(), age > limit
	return a
}

type clock struct {
	Ahead float64 `json:"ahead_seconds"`
	Off   bool    `json:"off"`
}

type deadLetters struct {
	Hour    int  `json:"hour"`
	Growing bool `json:"growing"`
}

type state struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

type details struct {
	Events      *aged       `json:"events,omitempty"`
	Probe       *aged       `json:"probe,omitempty"`
	Checkpoint  *aged       `json:"checkpoint,omitempty"`
	Clock       *clock      `json:"clock,omitempty"`
	DeadLetters deadLetters `json:"dead_letters"`
	Store       state       `json:"store"`
	Roles       state       `json:"roles"`
}

// look makes an event for each tenant.
func (m *Monitor) look(ctx context.Context) error {
	now := time.Now()
	asked, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	seen, storeErr := m.sources.Store(asked)
	tails, err := m.sources.Checkpoints(asked)
	if err != nil && ctx.Err() == nil {
		m.log.Warn("checkpoints cannot be read", "err", err)
	}
	roles := m.sources.Roles(asked)
	tenants := m.tenants
	if len(tenants) == 0 { // the settings of this process have none
		for _, name := range slices.Sorted(maps.Keys(seen)) {
			tenants = append(tenants, Tenant{Name: name})
		}
	}
	var records []schema.Record
	for _, t := range tenants {
		d := details{Store: state{OK: storeErr == nil}, Roles: state{OK: roles == "", Error: roles}}
		if storeErr != nil {
			d.Store.Error = storeErr.Error()
		} else {
			s := seen[t.Name]
			d.Events = m.since(s.Newest, now.Add(-tails[t.Name].Ahead), silence(&s, now))
			m.age.WithLabelValues(t.Name).Set(d.Events.Age)
			if t.ProbeEvery > 0 {
				d.Probe = m.since(s.Probe, now, missedRuns*t.ProbeEvery)
			}
		}
		if tail, ok := tails[t.Name]; ok {
			d.Checkpoint = m.since(tail.Written, now, stuckAfter)
			d.Clock = &clock{tail.Ahead.Seconds(), tail.Ahead.Abs() > clockOff}
		}
		n := m.lastHour(t.Name, now)
		d.DeadLetters = deadLetters{n, n >= growingFrom}
		e := schema.NewOwnEvent(t.Name, schema.TypeHealth, d.describe(), d)
		records = append(records, e.Record())
	}
	if err := m.events.Produce(ctx, records, nil); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	return nil
}

// silence is how long a tenant may be without events. At an hour at which it has
// none as a rule, that is long.
func silence(s *Seen, now time.Time) time.Duration {
	days := now.Sub(s.First).Hours() / 24
	if s.First.IsZero() || days < 1 {
		return leastSilence
	}
	hours := time.Duration(min(days, 7) * float64(time.Hour))
	return max(leastSilence, longGap*hours/time.Duration(s.SameHour+1))
}

// describe says in a line what is wrong.
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
