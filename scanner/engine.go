package scanner

import (
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	maxLookback  = 24 * time.Hour // upper bound of the time that is replayed after a start
	eventClosing = 24 * time.Hour // an event alert without keep_firing_for closes after this
	maxDateGap   = 24 * time.Hour // a date further than this from its log_id's time is ignored
)

// Engine runs a Set of rules over the events of one partition, in their order. It
// must be used by one goroutine only.
type Engine struct {
	cfg     Config
	set     *rules.Set
	matcher *expr.Matcher
	rules   []*ruleState // alerting rules and correlations that others count
	feeds   [][]feed     // by detection: the rules that count it
	read    captureList  // fields of events that the rules read
	clocks  map[clockKey]*clock
	horizon int64 // µs during which an event can matter to any rule
	seed    maphash.Seed

	// Results of the current event.
	touched    []touched    // rules to evaluate, by index
	evictedFor []*ruleState // rules that lost a group to make room
	out        []schema.Alert

	// Scratch space.
	inserted []insertion // see insertEvent
	key      []byte      // current group key, see setKey
	quoted   uint64      // bit i: part i of key is a string
	parts    []expr.Text // see findKeys
	ends     []int
	texts    []expr.Text // see valuesOf
	values   []uint64

	// Totals for Status.
	open   int
	groups int
	events uint64
	late   uint64
}

// NewEngine returns an engine without state.
func NewEngine(set *rules.Set, cfg Config) *Engine {
	cfg = cfg.withDefaults()
	engine := &Engine{
		cfg:     cfg,
		set:     set,
		matcher: set.Matcher(),
		feeds:   make([][]feed, len(set.Rules())),
		clocks:  map[clockKey]*clock{},
		seed:    maphash.MakeSeed(),
	}
	engine.connect()

	// Parents come after the rules they count, so walking backward sees each
	// parent's captures and reach before they are needed.
	for _, state := range slices.Backward(engine.rules) {
		state.inherit()
		engine.read.add(state.reads())
		engine.horizon = max(engine.horizon, state.reach)
	}
	return engine
}

// Reach returns how far back an event can matter to any of the rules.
func (e *Engine) Reach() time.Duration { return time.Duration(e.horizon) * time.Microsecond }

// Lookback returns how far back events must be replayed before the first new one.
func (e *Engine) Lookback() time.Duration { return min(e.Reach(), maxLookback) }

// TooOld reports, from the time in its log_id alone, whether an event is too old to
// fire an alert or to share a window with an event that can. Such an event need not
// be observed.
func (e *Engine) TooOld(ev *schema.Event) bool {
	stored, ok := schema.IDTime(ev.LogID)
	return ok && ev.FetchedAt.UnixMicro()-stored.UnixMicro() > e.horizon+e.cfg.MaxAge.Microseconds()
}

// observed is an event while rules are evaluated at it.
type observed struct {
	clock *clock
	at    int64 // µs, see eventTime
	id    string
	fires bool                // it may fire alerts
	kept  *correlation.Fields // its fields; nil while the matcher holds the event
	past  bool                // it precedes the event that was passed to Observe
}

// touched is a rule to evaluate at an event.
type touched struct {
	rule *ruleState
	seen uint64 // bit i: the event is of source i
}

// Observe runs the rules over an event and returns the transitions it causes: alerts
// that fire, escalate or resolve. The event must be identified, see schema.Event.
func (e *Engine) Observe(ev *schema.Event) []schema.Alert {
	e.out = nil
	at := e.eventTime(ev)
	counts, fires := e.admits(ev, at)

	// Advance the clock first, so that alerts which ended before the event are closed.
	clock := e.clockOf(ev)
	if at > clock.now {
		clock.now = at
		e.expire(clock)
	} else if clock.now-at > e.cfg.Lateness.Microseconds() && ev.Source != schema.SourceBackfill {
		e.late++
	}
	if !counts {
		return e.out
	}

	e.match(ev.Raw)
	if len(e.touched) > 0 {
		// Clone the id: it may be a slice of the whole fetched page.
		event := observed{clock: clock, at: at, id: strings.Clone(ev.LogID), fires: fires}
		e.evaluateTouched(&event)
		e.reportEvictions(&event)
	}
	return e.out
}

// match marks the rules that an event concerns.
func (e *Engine) match(raw []byte) {
	for _, i := range e.matcher.Match(raw) {
		e.touchAll(e.feeds[i])
	}
}

func (e *Engine) touchAll(feeds []feed) {
	for _, target := range feeds {
		e.touch(target)
	}
}

// touch marks a rule that the current event concerns. Marked rules stay sorted by
// index, so that a correlation is evaluated after all its sources.
func (e *Engine) touch(f feed) {
	if f.rule.broken != "" {
		return
	}

	pos := len(e.touched)
	for pos > 0 && e.touched[pos-1].rule.index > f.rule.index {
		pos--
	}
	if pos == 0 || e.touched[pos-1].rule != f.rule {
		// The first source of the event: add the rule, in order.
		e.touched = slices.Insert(e.touched, pos, touched{rule: f.rule})
		pos++
	}
	if f.source >= 0 {
		e.touched[pos-1].seen |= 1 << f.source
	}
}

// admits reports whether an event is counted and whether it may fire an alert. An
// event is not counted if it is too old to share a window with one that may fire.
func (e *Engine) admits(ev *schema.Event, at int64) (counts, fires bool) {
	age, maxAge := ev.FetchedAt.UnixMicro()-at, e.cfg.MaxAge.Microseconds()
	return age <= e.horizon+maxAge, ev.Source != schema.SourceBackfill && age <= maxAge
}

// Advance moves a tenant's event time forward and returns the alerts that end by it.
func (e *Engine) Advance(tenant string, to time.Time) []schema.Alert {
	e.out = nil
	if clock, at := e.clock(tenant, false), to.UnixMicro(); at > clock.now {
		clock.now = at
		e.expire(clock)
	}
	return e.out
}

// MaxAge returns Config.MaxAge, or its default.
func (e *Engine) MaxAge() time.Duration { return e.cfg.MaxAge }
