package scanner

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Config bounds an Engine. Zero values select the defaults.
type Config struct {
	// Lateness is how long after newer events an event may arrive and still be
	// counted in its complete window. Default 5 min. A later event is counted with
	// the part of its window that is still kept.
	Lateness time.Duration
	// MaxAge is the age, when it is pulled, up to which an event may fire an alert.
	// Default 2 h. Backfilled events never fire one, whatever their age.
	MaxAge time.Duration
	// MaxGroups is the number of group keys that an Engine keeps for all rules
	// together. Default 200,000, about 100 MB with a few events each. Above it, the
	// least recently used groups without an open alert are evicted. Status counts
	// evictions, and an event of schema.TypeForgotten reports them to the rules.
	MaxGroups int
	// Samples is the number of log_ids in an alert. Default 5.
	Samples int
	// Evaluated, if set, is called with the value of each window that is compared
	// with the condition of an alerting rule.
	Evaluated func(r *rules.Rule, g Evaluated, value float64)
}

// Evaluated is a group of a rule whose window was evaluated.
type Evaluated struct{ g *group }

// Key returns a key that is unique for each tenant and group of a rule.
func (v Evaluated) Key() string { return v.g.key }

// Tenant returns the tenant of the group's events.
func (v Evaluated) Tenant() string { return v.g.clock.tenant }

// Values returns the fields of the group key.
func (v Evaluated) Values() []schema.GroupValue { return v.g.values() }

// MaxAge is the default of Config.MaxAge.
const MaxAge = 2 * time.Hour

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
	clocks  map[clockKey]*clock
	horizon int64 // µs during which an event can matter to any rule
	seed    maphash.Seed

	// The current event.
	touched    []*ruleState        // rules to evaluate, by index
	evictedFor []*ruleState        // rules that lost a group to make room
	captured   *correlation.Fields // source of field values; nil for the matcher's event
	older      bool                // captured belongs to another event than the current one
	out        []schema.Alert

	// Scratch space.
	aliased []*group    // groups of one rule, see evaluateRule
	key     []byte      // current group key, see setKey
	quoted  uint64      // bit i: part i of key is a string
	parts   []expr.Text // see findKeys
	ends    []int
	texts   []expr.Text // see valuesOf
	values  []uint64

	// Totals for Status.
	open   int
	groups int
	events uint64
	late   uint64
}

// feed says that a detection or a correlation is counted by a rule. source is its
// index in Correlation.Sources, or -1 for a rule in Correlation.Among.
type feed struct {
	rule   *ruleState
	source int
}

// clockKey names a clock. Events of our own have a separate clock: they also arrive
// while the tenant's do not, and only the tenant's events may end what those started.
type clockKey struct {
	tenant string
	own    bool
}

// clock is a tenant's event time, with the deadlines that depend on it.
type clock struct {
	tenant    string
	now       int64 // µs, time of the newest event
	deadlines deadlines
}

// group is one group key of a rule.
type group struct {
	rule   *ruleState
	clock  *clock
	key    string // as in ruleState.groups
	quoted uint64 // bit i: part i of key is a string, not a number or a boolean
	window correlation.Window
	first  [1]correlation.Occurrence // storage of a window of one occurrence, as most groups have

	touched    uint64 // Engine.events at the last use
	prev, next *group // in ruleState.coldest; nil while an alert is open

	open      bool
	published bool  // Restore has seen an alert of the group
	level     int   // index into Alert.Levels
	starts    int64 // µs
	updated   int64 // µs, newest time at which the condition held
	below     int64 // µs, time at which an event last showed that it does not; unused by rising rules
	scheduled int64 // µs, the deadline in clock.deadlines; 0 for none
}

// Status describes the state of an Engine and its losses.
type Status struct {
	Groups   int
	Open     int
	Evicted  map[string]uint64 // groups evicted at MaxGroups, by rule id
	Late     uint64            // events later than Config.Lateness
	Timeouts uint64            // regular expressions that exceeded their time limit
	Broken   map[string]string // rules disabled by a panic: its message, by rule id
}

// NewEngine returns an engine without state.
func NewEngine(set *rules.Set, cfg Config) *Engine {
	if cfg.Lateness <= 0 {
		cfg.Lateness = 5 * time.Minute
	}
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = MaxAge
	}
	if cfg.MaxGroups <= 0 {
		cfg.MaxGroups = 200_000
	}
	if cfg.Samples <= 0 {
		cfg.Samples = 5
	}

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
		engine.horizon = max(engine.horizon, state.reach)
	}
	return engine
}

// connect creates the state of every rule and the feeds between them.
func (e *Engine) connect() {
	all := e.set.Rules()
	byIndex := make([]*ruleState, len(all))

	// In a Set, a correlation follows the rules it counts.
	for i, rule := range all {
		correlation := rule.Correlation
		if rule.Alert == nil && correlation == nil {
			continue
		}

		state := newRuleState(rule, e.cfg.Lateness)
		byIndex[i], state.index = state, len(e.rules)
		e.rules = append(e.rules, state)
		if correlation == nil {
			e.feeds[i] = append(e.feeds[i], feed{state, 0})
			continue
		}

		// A detection feeds the correlation directly; a correlation does once it holds.
		for index, source := range correlation.Sources {
			if all[source.Rule].Correlation != nil {
				inner := byIndex[source.Rule]
				inner.parents = append(inner.parents, feed{state, index})
			} else {
				e.feeds[source.Rule] = append(e.feeds[source.Rule], feed{state, index})
			}
		}
		for _, source := range correlation.Among {
			e.feeds[source] = append(e.feeds[source], feed{state, -1})
		}
	}
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

// Observe runs the rules over an event and returns the transitions it causes: alerts
// that fire, escalate or resolve. The event must be identified, see schema.Event.
func (e *Engine) Observe(ev *schema.Event) []schema.Alert {
	e.out = nil
	at := eventTime(ev, e.cfg.Lateness)
	counts, fires := e.admits(ev, at)

	// Advance the clock first, so that alerts which ended before the event are closed.
	clock := e.clockOf(ev)
	if at > clock.now {
		clock.now = at
		e.expire(clock)
	} else if clock.now-at > e.cfg.Lateness.Microseconds() && ev.Source != schema.Backfill {
		e.late++
	}
	if !counts {
		return e.out
	}

	if e.match(ev.Raw) {
		// Clone the id: it may be a slice of the whole fetched page.
		e.evaluateTouched(clock, at, strings.Clone(ev.LogID), fires)
		e.reportEvictions(clock, fires)
	}
	return e.out
}

// match marks the rules that an event concerns and reports whether there are any.
func (e *Engine) match(raw []byte) bool {
	for _, i := range e.matcher.Match(raw) {
		for _, target := range e.feeds[i] {
			e.touch(target)
		}
	}
	return len(e.touched) > 0
}

// admits reports whether an event is counted and whether it may fire an alert. An
// event is not counted if it is too old to share a window with one that may fire.
func (e *Engine) admits(ev *schema.Event, at int64) (counts, fires bool) {
	age, maxAge := ev.FetchedAt.UnixMicro()-at, e.cfg.MaxAge.Microseconds()
	return age <= e.horizon+maxAge, ev.Source != schema.Backfill && age <= maxAge
}

// evaluateTouched evaluates the rules that the current event concerns.
func (e *Engine) evaluateTouched(c *clock, at int64, id string, fires bool) {
	e.events++
	// A correlation appends its parents.
	for i := 0; i < len(e.touched); i++ {
		e.touched[i].hit = false
		e.evaluateRule(e.touched[i], c, at, id, fires)
	}
	e.touched = e.touched[:0]
}

func (e *Engine) evaluateRule(state *ruleState, c *clock, at int64, id string, fires bool) {
	defer e.disableOnPanic(state, e.captured, e.older)
	if !state.aliased || state.seen == 0 {
		e.count(state, c, correlation.Occurrence{At: at, Seen: state.seen, ID: id}, fires)
		return
	}

	// With aliases, the sources can place one event in several groups. Insert it for
	// every source before evaluating any group.
	groups := e.aliased[:0]
	for seen := state.seen; seen != 0; seen &= seen - 1 {
		groups = e.insertAll(groups, state, c, correlation.Occurrence{At: at, Seen: seen & -seen, ID: id})
	}
	for _, group := range groups {
		e.evaluateGroup(group, group.window.Find(at, id), fires)
	}
	e.aliased = groups
}

// disableOnPanic is deferred where a rule is evaluated. A panic is a bug in the
// engine that must not affect other rules: the rule is disabled from then on, and its
// published alerts keep their state.
func (e *Engine) disableOnPanic(state *ruleState, fields *correlation.Fields, older bool) {
	failure := recover()
	if failure == nil {
		return
	}

	e.captured, e.older = fields, older
	state.broken = fmt.Sprint(failure)
	for _, group := range state.groups {
		if group.open {
			group.open = false
			e.open--
		}
		e.remove(group)
	}
}

// touch marks a rule that the current event concerns. Marked rules stay sorted by
// index, so that a correlation is evaluated after all its sources.
func (e *Engine) touch(f feed) {
	state := f.rule
	if state.broken != "" {
		return
	}

	if !state.hit {
		// The first source of the event: add the rule, in order.
		state.hit, state.seen = true, 0
		pos := len(e.touched)
		for pos > 0 && e.touched[pos-1].index > state.index {
			pos--
		}
		e.touched = slices.Insert(e.touched, pos, state)
	}
	if f.source >= 0 {
		state.seen |= 1 << f.source
	}
}

// eventTime returns the event's date. If that is far from the time at which Auth0
// stored the event, it returns the latter: a wrong date must not move a tenant's
// clock.
func eventTime(ev *schema.Event, lateness time.Duration) int64 {
	at := ev.Date
	if stored, ok := schema.IDTime(ev.LogID); ok && at.Sub(stored).Abs() > maxDateGap {
		at = stored
	}
	if at.After(ev.FetchedAt.Add(lateness)) {
		at = ev.FetchedAt
	}
	return at.UnixMicro()
}

// clockOf returns the clock of an event.
func (e *Engine) clockOf(ev *schema.Event) *clock {
	return e.clock(ev.Tenant, ev.Source == schema.Self || ev.Source == schema.Probe)
}

func (e *Engine) clock(tenant string, own bool) *clock {
	tenantClock := e.clocks[clockKey{tenant, own}]
	if tenantClock == nil {
		tenantClock = &clock{tenant: strings.Clone(tenant)}
		e.clocks[clockKey{tenantClock.tenant, own}] = tenantClock
	}
	return tenantClock
}

// count inserts an occurrence into its groups and evaluates them. All its sources
// must have the group fields in the same places.
func (e *Engine) count(state *ruleState, c *clock, o correlation.Occurrence, fires bool) {
	if state.broken != "" {
		return
	}

	// All sources of o have the same fields, so the lowest stands for all of them.
	source := bits.TrailingZeros64(o.Seen)
	if e.setOnlyKey(state, c, source) { // the common case
		if group, pos, ok := e.insert(state, c, o, source); ok {
			e.evaluateGroup(group, pos, fires)
		}
		return
	}

	for _, group := range e.insertAll(nil, state, c, o) {
		e.evaluateGroup(group, group.window.Find(o.At, o.ID), fires)
	}
}

// insertAll inserts an occurrence into each of its groups and appends to groups those
// that are not in it.
func (e *Engine) insertAll(groups []*group, state *ruleState, c *clock, o correlation.Occurrence) []*group {
	source := bits.TrailingZeros64(o.Seen)
	for n := range e.findKeys(state, source) {
		e.setKey(c, n)
		if group, _, ok := e.insert(state, c, o, source); ok && !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	return groups
}

// insert inserts an occurrence into the group of the current key. It returns false if
// the occurrence has no value to count, is set aside, or is a duplicate.
func (e *Engine) insert(state *ruleState, c *clock, o correlation.Occurrence, source int) (g *group, pos int, ok bool) {
	leads := state.leads == 0 || o.Seen&state.leads != 0

	var values []uint64
	if state.value.OfField() {
		if values = e.valuesOf(state, source); len(values) == 0 {
			return nil, 0, false
		}
	}

	// Only a leading occurrence creates a group.
	g = e.groupOf(state, c, leads)

	// Parents may count the occurrence later, when the matcher holds another event.
	if len(state.captures.fields) > 0 {
		o.Fields = e.capture(&state.captures)
	}
	if g == &state.absent {
		aside := earlyOccurrence{maphash.Bytes(e.seed, e.key), o.At, o.Seen, o.ID, o.Fields}
		state.setAside(aside, c.now-e.cfg.Lateness.Microseconds())
		return nil, 0, false
	}

	pos, ok = g.window.Insert(o, values, state.value)

	// A leading occurrence that arrives late makes those set aside after it count.
	if ok && leads && state.earlyStart < len(state.early) && !g.window[:pos].Contains(state.leads) {
		e.insertEarly(g, o.At)
		pos = g.window.Find(o.At, o.ID)
	}
	return g, pos, ok
}

// insertEarly inserts the occurrences of the current key that were set aside, from a
// time on.
func (e *Engine) insertEarly(g *group, since int64) {
	key := maphash.Bytes(e.seed, e.key)
	for _, early := range g.rule.early[g.rule.earlyStart:] {
		if early.key == key && early.at >= since {
			o := correlation.Occurrence{At: early.at, Seen: early.seen, ID: early.id, Fields: early.fields}
			g.window.Insert(o, nil, g.rule.value)
		}
	}
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

// Status returns the engine's current state.
func (e *Engine) Status() Status {
	status := Status{
		Groups:   e.groups,
		Open:     e.open,
		Evicted:  map[string]uint64{},
		Late:     e.late,
		Timeouts: e.matcher.Timeouts(),
	}
	for _, state := range e.rules {
		if state.evicted > 0 {
			status.Evicted[state.rule.ID] += state.evicted
		}
		if state.broken != "" {
			status.addBroken(state.rule.ID, state.broken)
		}
	}

	// The matcher disables detections by itself.
	for i, failure := range e.matcher.Broken() {
		status.addBroken(e.set.Rules()[i].ID, failure)
	}
	return status
}

func (s *Status) addBroken(id, failure string) {
	if s.Broken == nil {
		s.Broken = map[string]string{}
	}
	s.Broken[id] = failure
}
