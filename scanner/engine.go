package scanner

import (
	"cmp"
	"container/heap"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Config bounds what an Engine does. Zero values mean the defaults.
type Config struct {
	// Lateness is how long after others of its time an event may come and
	// still find its window whole. Default 5 min. A later one is counted with
	// what is left of the window.
	Lateness time.Duration
	// MaxAge is how old an event may be when it is pulled and still begin an
	// alert. Default 2 h. Backfilled events never do, however young.
	MaxAge time.Duration
	// MaxGroups is how many group keys an Engine keeps, all rules together. Default
	// 200,000, which take some 100 MB where each has a few events. Beyond it, those
	// are forgotten that have not been touched for the longest time, but for those
	// with an open alert. Status counts them, and an event of schema.TypeForgotten
	// tells the rules.
	MaxGroups int
	// Samples is how many log_ids an alert has. Default 5.
	Samples int
	// Judged, if set, is told of the value of each window that is held against the
	// condition of a rule that alerts.
	Judged func(r *rules.Rule, g Judged, value float64)
}

// Judged is a group key of a rule of which a window was judged.
type Judged struct{ g *group }

// Key is another one for each tenant and group of a rule.
func (j Judged) Key() string { return j.g.key }

// Tenant is whose events they are.
func (j Judged) Tenant() string { return j.g.tenant.name }

// Values are the group's fields.
func (j Judged) Values() []schema.GroupValue { return j.g.values() }

// MaxAge is the default of Config.MaxAge.
const MaxAge = 2 * time.Hour

const (
	maxLookback  = 24 * time.Hour // longest time that is read again after a start
	eventClosing = 24 * time.Hour // an event alert without keep_firing_for closes after this
	maxDateGap   = 24 * time.Hour // a date that is further from its log_id's time is not believed
	minLimit     = 1024           // occurrences that a group keeps at least
	mostOfDays   = 1 << 20        // occurrences that a group keeps where it is compared with other days
	mostWindow   = 16 << 10       // occurrences that a group keeps where its condition is about each of them
)

// Engine runs a Set of rules over one partition's events, in their order. It
// belongs to one goroutine.
type Engine struct {
	cfg     Config
	set     *rules.Set
	matcher *rules.Matcher
	rules   []*tracked // those that alert and the correlations that they count
	feeds   [][]feed   // by detection: the rules that it feeds
	clocks  map[clockKey]*clock
	horizon int64 // µs an event can matter to any rule
	seed    maphash.Seed

	touched []*tracked
	apart   []*group     // of one rule, scratch space
	from    *captured    // whose fields are read; nil for those that the matcher has
	past    bool         // from is of another event than the one at hand
	key     []byte       // of the group at hand, see keyAt
	quoted  uint64       // its values that are strings, a bit for each
	parts   []rules.Text // see keys
	ends    []int
	texts   []rules.Text // see valuesOf
	values  []uint64
	out     []schema.Alert
	open    int
	groups  int        // of all rules
	events  uint64     // that were judged
	forgot  []*tracked // rules that have forgotten a group for the event at hand
	late    uint64
}

// tracked is a rule with its state.
type tracked struct {
	rule     *rules.Rule
	index    int               // in Engine.rules: below that of the correlations that count it
	groups   map[string]*group // by tenant and group key
	coldest  group             // a ring of those without an open alert: next is the one that was touched first
	evicted  uint64            // groups that were forgotten
	told     int64             // µs, when that was last told
	span     int64             // µs
	keep     int64             // µs, see rules.Alert
	horizon  int64             // µs that an occurrence matters
	reach    int64             // the same, for those that count it as well
	limit    int               // occurrences that a group keeps
	distinct bool              // value_count
	valued   bool              // value_sum and its like
	rises    bool              // see rules.Correlation.Rises
	aliased  bool              // its sources have their fields in different places
	last     int               // last_events
	over     int64             // event_spike: µs
	ordered  []int             // temporal_ordered: the sources to be seen, in order
	parents  []feed            // correlations that count this one
	wanted   []rules.Field     // what those, and theirs, want to know of an event
	leads    uint64            // see leading
	early    []early           // by arrival; those before waiting are too old
	waiting  int
	none     group // stands for a group that is not made

	broken string // why it does not run any more

	hit  bool   // by the current event
	seen uint64 // the sources that it is of, a bit for each
}

// feed says that the matches of a detection or a correlation concern a rule;
// source is their place among what a correlation counts, -1 where they are only
// looked at.
type feed struct {
	rule   *tracked
	source int
}

// early is an occurrence of an order in whose group none of those that lead has
// occurred: it counts only if one comes late.
type early struct {
	key    uint64 // a hash of the group's
	at     int64
	seen   uint64
	id     string
	fields *captured
}

// mostEarly bounds them.
const mostEarly = 1 << 16

// clockKey names a clock. Our own events go by one of their own: they come also when
// the tenant's do not, and what its events have begun only they may end.
type clockKey struct {
	tenant string
	own    bool
}

// clock is a tenant's event time, and what it is to end.
type clock struct {
	name      string
	now       int64 // µs; the newest event
	deadlines deadlines
}

// group is one group key of a rule.
type group struct {
	rule   *tracked
	tenant *clock
	key    string // as in rule.groups
	quoted uint64 // a bit for each value of the key that is a string, not a number or a boolean
	window window
	first  [1]occurrence // where the window has it while it has no other: most groups come to no more

	touched    uint64 // Engine.events when it was last
	prev, next *group // in rule.coldest; nil while an alert is open

	open    bool
	told    bool  // Restore has an alert of it
	level   int   // index into the rule's levels
	starts  int64 // µs
	updated int64 // µs, the newest time at which the condition held
	below   int64 // µs, when an event last showed that it does not; only where it does not rise
	noted   int64 // µs, the deadline that is scheduled; 0 for none
}

// Status is what an Engine holds and had to give up.
type Status struct {
	Groups   int
	Open     int
	Evicted  map[string]uint64 // group keys forgotten because there were too many, by rule
	Late     uint64            // events later than Config.Lateness
	Timeouts uint64            // regular expressions that took too long
	Broken   map[string]string // rules that no longer run since they panicked, by id, and with what
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
	e := &Engine{cfg: cfg, set: set, matcher: set.Matcher(), feeds: make([][]feed, len(set.Rules())), clocks: map[clockKey]*clock{}, seed: maphash.MakeSeed()}
	byIndex := make([]*tracked, len(set.Rules()))
	for i, r := range set.Rules() { // what a correlation counts comes before it
		c := r.Correlation
		if r.Alert == nil && c == nil {
			continue
		}
		t := newTracked(r, cfg.Lateness)
		byIndex[i], t.index = t, len(e.rules)
		e.rules = append(e.rules, t)
		if c == nil {
			e.feeds[i] = append(e.feeds[i], feed{t, 0})
			continue
		}
		for k, source := range c.Sources {
			if set.Rules()[source.Rule].Correlation != nil {
				inner := byIndex[source.Rule]
				inner.parents = append(inner.parents, feed{t, k})
			} else {
				e.feeds[source.Rule] = append(e.feeds[source.Rule], feed{t, k})
			}
		}
		for _, k := range c.Among {
			e.feeds[k] = append(e.feeds[k], feed{t, -1})
		}
	}
	for _, t := range slices.Backward(e.rules) {
		for _, f := range t.parents {
			source := f.rule.rule.Correlation.Sources[f.source]
			t.wanted = slices.Concat(t.wanted, source.GroupBy, source.Values, f.rule.wanted)
			t.reach = max(t.reach, t.span+f.rule.reach)
		}
		e.horizon = max(e.horizon, t.reach)
	}
	return e
}

func newTracked(r *rules.Rule, lateness time.Duration) *tracked {
	t := &tracked{rule: r, groups: map[string]*group{}, limit: minLimit}
	t.coldest.prev, t.coldest.next = &t.coldest, &t.coldest
	if r.Alert != nil {
		t.keep = r.Alert.KeepFiringFor.Microseconds()
		if r.Alert.Class == rules.ClassEvent && t.keep == 0 {
			t.keep = eventClosing.Microseconds()
		}
	}
	if c := r.Correlation; c != nil {
		t.span = c.Timespan.Microseconds()
		t.distinct, t.rises = c.Type == rules.ValueCount, c.Rises()
		t.valued = c.Type == rules.ValueSum || c.Type == rules.ValueAvg || c.Type == rules.ValuePercentile
		t.aliased = slices.ContainsFunc(c.Sources, func(s rules.Source) bool {
			return !slices.Equal(s.GroupBy, c.Sources[0].GroupBy) || !slices.Equal(s.Values, c.Sources[0].Values)
		})
		t.limit = t.mostKept()
		if c.Type == rules.LastEvents {
			t.last = c.Last
			t.limit = c.Last + 64 // some to spare, so that a late one finds its place
		}
		t.over = c.Over.Microseconds()
		if c.Type == rules.TemporalOrdered {
			for k := range c.Sources {
				if c.Need == nil || c.Need.Wanted()>>k&1 == 1 {
					t.ordered = append(t.ordered, k)
				}
			}
			t.leads = leading(c, t.ordered)
		}
	}
	t.horizon = t.span + t.over + lateness.Microseconds()
	if r.Alert != nil && r.Alert.Class == rules.ClassCondition {
		t.horizon += t.keep
	}
	t.reach = t.horizon
	if t.span > 0 && !t.rises && t.last == 0 {
		// An alert lasts from the newest event at which the condition held, and whether it
		// did there tells a window that reaches further back.
		t.reach += t.span
	}
	return t
}

// mostKept is how many occurrences a group keeps: enough to know of a count
// whether it holds, and as many as memory allows where each of them matters.
func (t *tracked) mostKept() int {
	c := t.rule.Correlation
	switch {
	case t.valued, c.Type == rules.Temporal, c.Type == rules.TemporalOrdered, c.Type == rules.EventRatio:
		return mostWindow
	case c.Type == rules.EventSpike:
		return mostOfDays
	}
	highest := 0.0
	for _, b := range c.Bounds {
		highest = max(highest, b.Than)
	}
	if t.rule.Alert != nil {
		highest = max(highest, t.top())
	}
	return max(minLimit, 4*int(min(highest, 1<<20)))
}

// leading are the sources of an order before which nothing matters, but for as long
// as they may come late: no group is made for it. They are the first of the order and
// what is to be absent, whenever that was seen; none where the condition holds without
// an order.
func leading(c *rules.Correlation, ordered []int) uint64 {
	switch {
	case c.Need != nil:
		return uint64(1)<<ordered[0] | (uint64(1)<<len(c.Sources)-1)&^c.Need.Wanted()
	case !c.Holds(0):
		return 1 << ordered[0]
	}
	return 0
}

// top is the count of the highest level.
func (t *tracked) top() float64 { return t.rule.Alert.Levels[len(t.rule.Alert.Levels)-1].Count }

// Reach is how far back an event can matter to any of the rules.
func (e *Engine) Reach() time.Duration { return time.Duration(e.horizon) * time.Microsecond }

// Lookback is how far back events are to be replayed before the first new one.
func (e *Engine) Lookback() time.Duration { return min(e.Reach(), maxLookback) }

// Restore takes up an alert as its last transition has it. It comes after the
// replay, which may not reach back to where the alert began, and before the first
// new event. One that was firing when an earlier run ended goes on. One that had
// ended is taken up only where the replay stands before its end, which will be
// seen again and is to be the end of the same alert. Alerts of rules that are no
// more, or no longer alert by themselves, are left alone.
func (e *Engine) Restore(a *schema.Alert) {
	t := e.ruleOf(a)
	if t == nil {
		return
	}
	e.key = append(e.key[:0], a.Tenant...)
	for _, f := range t.rule.Alert.GroupBy {
		k := slices.IndexFunc(a.Group, func(g schema.GroupValue) bool { return g.Field == f.Path })
		if k < 0 {
			return
		}
		e.appendKey([]byte(a.Group[k].Value))
	}
	g := t.groups[string(e.key)]
	if a.State == schema.Resolved && (g == nil || !g.open || g.starts > a.ResolvedAt.UnixMicro() || g.tenant.now >= a.ResolvedAt.UnixMicro()) {
		return
	}
	if g == nil {
		g = e.add(&group{rule: t, tenant: e.clock(a.Tenant, t.own()), key: string(e.key), quoted: math.MaxUint64})
	}
	g.told = true
	starts, level := a.StartsAt.UnixMicro(), 0
	for i, l := range t.rule.Alert.Levels {
		if rules.CompareLevels(l.Name, a.Level) <= 0 {
			level = i
		}
	}
	switch {
	case !g.open:
		e.opens(g)
		g.starts, g.level, g.updated = starts, level, a.UpdatedAt.UnixMicro()
	case g.starts >= starts || g.tenant.now >= starts: // what the replay has not seen whole may have told it otherwise
		g.starts, g.level = starts, max(g.level, level)
	default: // the earlier run was further on: it will be seen again how that came
		return
	}
	e.schedule(g)
}

// Begin ends what the replay has opened and nobody was told: it is of a rule that
// was not in force then, which fires when it holds from now on. It comes after
// Restore and before a tenant's first new event.
func (e *Engine) Begin(tenant string) {
	for _, t := range e.rules {
		var untold []*group
		for _, g := range t.groups {
			if g.open && !g.told && g.tenant.name == tenant {
				untold = append(untold, g)
			}
		}
		slices.SortFunc(untold, func(a, b *group) int { return strings.Compare(a.key, b.key) })
		for _, g := range untold {
			e.closes(g)
		}
	}
}

// own reports whether a rule is about our own events.
func (t *tracked) own() bool {
	types := t.rule.Types
	return len(types) > 0 && !slices.ContainsFunc(types, func(name string) bool { return !strings.HasPrefix(name, schema.OwnTypes) })
}

func (e *Engine) ruleOf(a *schema.Alert) *tracked {
	for _, t := range e.rules {
		if t.rule.ID == a.RuleID && t.rule.Alert != nil && len(a.Group) == len(t.rule.Alert.GroupBy) {
			return t
		}
	}
	return nil
}

// Replay counts an event that an earlier run has scanned already. What would
// come of it is known, so nothing does.
func (e *Engine) Replay(ev *schema.Event) { e.Observe(ev) }

// TooOld reports, by the time in its log_id alone, that an event is so old that
// it can neither begin an alert nor share a window with one that can. It need
// not be observed.
func (e *Engine) TooOld(ev *schema.Event) bool {
	stored, ok := schema.IDTime(ev.LogID)
	return ok && ev.FetchedAt.UnixMicro()-stored.UnixMicro() > e.horizon+e.cfg.MaxAge.Microseconds()
}

// Observe runs the rules over an event and returns what it changed: alerts that
// fire, rise a level, or resolve. The event is identified, see schema.Event.
func (e *Engine) Observe(ev *schema.Event) []schema.Alert {
	e.out = nil
	at := eventTime(ev, e.cfg.Lateness)
	counts, pages := e.admits(ev, at)
	c := e.clockOf(ev)
	if at > c.now {
		c.now = at
		e.expire(c)
	} else if c.now-at > e.cfg.Lateness.Microseconds() && ev.Source != schema.Backfill {
		e.late++
	}
	if !counts {
		return e.out
	}
	if e.match(ev.Raw) {
		// A copy: the id may be a piece of all that was fetched with the event.
		e.judgeTouched(c, at, strings.Clone(ev.LogID), pages)
		e.tellForgotten(c, pages)
	}
	return e.out
}

// match finds the rules that an event concerns, and reports whether there are any.
func (e *Engine) match(raw []byte) bool {
	for _, i := range e.matcher.Match(raw) {
		for _, f := range e.feeds[i] {
			e.touch(f)
		}
	}
	return len(e.touched) > 0
}

// admits reports whether an event is counted, and whether it may begin an alert. One
// that is so old that no event which may still fire can share a window with it is
// not counted.
func (e *Engine) admits(ev *schema.Event, at int64) (counts, pages bool) {
	age := ev.FetchedAt.UnixMicro() - at
	return age <= e.horizon+e.cfg.MaxAge.Microseconds(), ev.Source != schema.Backfill && age <= e.cfg.MaxAge.Microseconds()
}

// judgeTouched judges the rules that the event at hand concerns.
func (e *Engine) judgeTouched(c *clock, at int64, id string, pages bool) {
	e.events++
	for i := 0; i < len(e.touched); i++ { // a correlation adds those that count it
		e.touched[i].hit = false
		e.judgeRule(e.touched[i], c, at, id, pages)
	}
	e.touched = e.touched[:0]
}

func (e *Engine) judgeRule(t *tracked, c *clock, at int64, id string, pages bool) {
	defer e.guard(t, e.from, e.past)
	if !t.aliased || t.seen == 0 { // or it is only looked at
		e.track(t, c, occurrence{at: at, seen: t.seen, id: id}, pages)
		return
	}
	// Its sources may have it in several groups: each is judged when all is in.
	groups := e.apart[:0]
	for seen := t.seen; seen != 0; seen &= seen - 1 {
		groups = e.placeAll(groups, t, c, occurrence{at: at, seen: seen & -seen, id: id})
	}
	for _, g := range groups {
		e.weigh(g, g.window.find(at, id), pages)
	}
	e.apart = groups
}

// guard is deferred where a rule is judged: one that panics is a fault of ours, which
// is to cost that rule and no other. It is left out from then on, and its alerts stay
// as they are.
func (e *Engine) guard(t *tracked, from *captured, past bool) {
	why := recover()
	if why == nil {
		return
	}
	e.from, e.past = from, past
	t.broken = fmt.Sprint(why)
	for _, g := range t.groups {
		if g.open {
			g.open = false
			e.open--
		}
		e.forget(g)
	}
}

// touch notes that the event at hand concerns a rule. Rules are judged in their
// order, so that a correlation has all of an event's sources when it is.
func (e *Engine) touch(f feed) {
	t := f.rule
	if t.broken != "" {
		return
	}
	if !t.hit {
		t.hit, t.seen = true, 0
		at := len(e.touched)
		for at > 0 && e.touched[at-1].index > t.index {
			at--
		}
		e.touched = slices.Insert(e.touched, at, t)
	}
	if f.source >= 0 {
		t.seen |= 1 << f.source
	}
}

// eventTime is the event's date, unless that is nowhere near the time at which
// Auth0 stored it: a broken date must not move a tenant's clock.
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

// clockOf is the clock by which an event goes.
func (e *Engine) clockOf(ev *schema.Event) *clock {
	return e.clock(ev.Tenant, ev.Source == schema.Self || ev.Source == schema.Probe)
}

func (e *Engine) clock(tenant string, own bool) *clock {
	c := e.clocks[clockKey{tenant, own}]
	if c == nil {
		c = &clock{name: strings.Clone(tenant)}
		e.clocks[clockKey{c.name, own}] = c
	}
	return c
}

// track counts an occurrence in its group and judges what that makes of it. All
// the sources that it is of have their fields in the same places.
func (e *Engine) track(t *tracked, c *clock, o occurrence, pages bool) {
	if t.broken != "" {
		return
	}
	source := bits.TrailingZeros64(o.seen)
	if e.onlyKey(t, c, source) { // as it nearly always is
		if g, pos, ok := e.place(t, c, o, source); ok {
			e.weigh(g, pos, pages)
		}
		return
	}
	for _, g := range e.placeAll(nil, t, c, o) {
		e.weigh(g, g.window.find(o.at, o.id), pages)
	}
}

// placeAll counts an occurrence in each of its groups, and appends those that are not in
// the list yet.
func (e *Engine) placeAll(groups []*group, t *tracked, c *clock, o occurrence) []*group {
	source := bits.TrailingZeros64(o.seen)
	for n := range e.keys(t, source) {
		e.keyAt(c, n)
		if g, _, ok := e.place(t, c, o, source); ok && !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return groups
}

// place counts an occurrence in the group whose key is at hand. It is false for one that
// has no value to count, that is kept aside, or that was there before.
func (e *Engine) place(t *tracked, c *clock, o occurrence, source int) (g *group, pos int, ok bool) {
	leads := t.leads == 0 || o.seen&t.leads != 0
	var values []uint64
	if t.distinct || t.valued {
		if values = e.valuesOf(t, source); len(values) == 0 {
			return nil, 0, false
		}
	}
	g = e.groupAt(t, c, leads)
	if len(t.wanted) > 0 {
		o.fields = e.capture(t.wanted)
	}
	if g == &t.none { // kept aside
		t.wait(early{maphash.Bytes(e.seed, e.key), o.at, o.seen, o.id, o.fields}, c.now-e.cfg.Lateness.Microseconds())
		return nil, 0, false
	}

	pos, ok = g.window.insert(o, values, t.distinct)
	if ok && t.rule.Correlation != nil && t.rule.Correlation.Type == rules.EventRatio {
		g.window.countMatches(pos)
	}
	if ok && leads && t.waiting < len(t.early) && !slices.ContainsFunc(g.window[:pos], func(x occurrence) bool { return x.seen&t.leads != 0 }) {
		key := maphash.Bytes(e.seed, e.key)
		for _, x := range t.early[t.waiting:] {
			if x.key == key && x.at >= o.at {
				g.window.insert(occurrence{at: x.at, seen: x.seen, id: x.id, fields: x.fields}, nil, false)
			}
		}
		pos = g.window.find(o.at, o.id)
	}
	return g, pos, ok
}

// wait keeps an occurrence aside, and forgets those that are older than since.
func (t *tracked) wait(x early, since int64) {
	if x.at < since {
		return
	}
	t.early = append(t.early, x)
	for t.waiting < len(t.early) && (t.early[t.waiting].at < since || len(t.early)-t.waiting > mostEarly) {
		t.waiting++
	}
	if t.waiting > len(t.early)/2 {
		t.early, t.waiting = slices.Delete(t.early, 0, t.waiting), 0
	}
}

// weigh judges what the occurrence at pos makes of its group, and forgets what no
// longer matters.
func (e *Engine) weigh(g *group, pos int, pages bool) {
	t := g.rule
	switch {
	case t.last > 0:
		e.judgeLast(g, pages)
	case t.rule.Correlation == nil:
		e.judged(g, 1)
		e.judge(g, 1, pos, pages)
	case !t.rises || len(t.parents) > 0:
		e.judgeWindows(g, pos, pages)
	case g.open && g.level == len(t.rule.Alert.Levels)-1 && e.cfg.Judged == nil:
		// Nothing can rise any more, and expire looks at the window.
	default:
		count, end := g.window.peak(pos, t.span, t.distinct)
		e.judged(g, float64(count))
		if float64(count) >= t.rule.Alert.Levels[0].Count {
			e.judge(g, float64(count), end, pages)
		}
	}
	newest := g.window[len(g.window)-1].at
	g.window.trim(newest-t.horizon, math.MaxInt)
	if t.leads != 0 {
		g.window.trimTo(t.leads, newest-e.cfg.Lateness.Microseconds())
	}
	if t.distinct && len(g.window) > t.limit {
		g.window.condense(newest - e.cfg.Lateness.Microseconds())
	}
	g.window.trim(math.MinInt64, t.limit)
}

// judgeWindows judges every window that the occurrence at pos is in, by what it
// has counted when it ends, the earliest first.
func (e *Engine) judgeWindows(g *group, pos int, pages bool) {
	t := g.rule
	pos = g.window.lastOfEvent(pos)
	until := g.window[pos].at + t.span
	for end := pos; end < len(g.window) && g.window[end].at < until; end = g.window.lastOfEvent(end + 1) {
		o := &g.window[end]
		value, holds, enough := t.judged(g.window, g.window.begin(end, t.span), end)
		if enough {
			e.judged(g, value)
		}
		if !holds {
			// Also without an alert: one may be restored yet.
			if end == len(g.window)-1 && g.below <= g.updated {
				if g.below = o.at; g.open {
					e.schedule(g)
				}
			}
			continue
		}
		if t.rule.Alert != nil {
			e.judge(g, value, end, pages)
		}
		for _, f := range t.parents {
			if end == pos && !e.past { // the event at hand
				e.touch(f)
				continue
			}
			from, past := e.from, e.past
			e.from, e.past = o.fields, true
			e.track(f.rule, g.tenant, occurrence{at: o.at, seen: 1 << f.source, id: o.id}, pages)
			e.from, e.past = from, past
		}
	}
}

// judged tells of a value that is held against a condition.
func (e *Engine) judged(g *group, value float64) {
	if e.cfg.Judged != nil && g.rule.rule.Alert != nil {
		e.cfg.Judged(g.rule.rule, Judged{g}, value)
	}
}

// judge fires or raises an alert whose condition holds.
func (e *Engine) judge(g *group, value float64, end int, pages bool) {
	if !pages {
		return
	}
	levels, level := g.rule.rule.Alert.Levels, 0
	for level+1 < len(levels) && levels[level+1].Count <= value {
		level++
	}
	at := g.window[end].at
	switch {
	case !g.open:
		e.opens(g)
		g.level, g.starts, g.updated = level, at, at
		e.emit(g, schema.Firing, value, end)
		e.schedule(g)
	case level > g.level:
		g.level, g.updated = level, max(g.updated, at)
		e.emit(g, schema.Firing, value, end)
	default:
		g.updated = max(g.updated, at)
	}
}

// judgeLast fires and resolves a last_events rule.
func (e *Engine) judgeLast(g *group, pages bool) {
	end := len(g.window) - 1
	count := float64(g.window.lastMatches(g.rule.last, g.rule.span))
	e.judged(g, count)
	switch {
	case g.rule.rule.Correlation.Holds(count):
		e.judge(g, count, end, pages)
		return
	case !g.open:
		return
	}
	e.closes(g)
	g.updated = g.window[end].at
	e.emit(g, schema.Resolved, count, end)
}

// deadline is when the alert ends if nothing more happens; false for never.
func (g *group) deadline() (at int64, ok bool) {
	t := g.rule
	switch {
	case t.last > 0:
		return 0, false
	case t.rule.Alert.Class == rules.ClassEvent:
		return g.starts + t.keep, true
	}
	if !t.rises { // until an event shows the opposite, it holds as long as its window lasts
		below := g.updated + t.span
		if g.below > g.updated {
			below = min(below, g.below)
		}
		return below + t.keep, true
	}
	below := g.updated
	if until, ok := g.window.lastWith(int(max(t.rule.Alert.ResolveBelow, 1)), t.span, t.distinct); ok {
		below = max(below, until)
	}
	return below + t.keep, true
}

// schedule notes an open alert's deadline. Where later events put it off, the
// noted one is too early, which does no harm.
func (e *Engine) schedule(g *group) {
	if at, ok := g.deadline(); ok && (g.noted == 0 || at < g.noted) {
		g.noted = at
		heap.Push(&g.tenant.deadlines, deadline{at, g})
	}
}

// expire ends the alerts whose time has come, the earliest first.
func (e *Engine) expire(c *clock) {
	defer func() {
		slices.SortFunc(e.out, func(a, b schema.Alert) int {
			return cmp.Or(a.UpdatedAt.Compare(b.UpdatedAt), strings.Compare(a.Fingerprint, b.Fingerprint))
		})
	}()
	for len(c.deadlines) > 0 && c.deadlines[0].at <= c.now {
		next := heap.Pop(&c.deadlines).(deadline)
		g := next.group
		if g.noted != next.at {
			continue // an earlier one was noted after it
		}
		g.noted = 0
		if g.open {
			e.due(c, g)
		}
	}
}

// due ends an open alert whose time has come.
func (e *Engine) due(c *clock, g *group) {
	defer e.guard(g.rule, e.from, e.past)
	at, ok := g.deadline()
	switch {
	case !ok:
	case at > c.now:
		e.schedule(g)
	case g.rule.rule.Alert.Class == rules.ClassEvent:
		e.closes(g) // what has happened stays so: nothing to tell
	default:
		e.closes(g)
		g.updated = at
		e.emit(g, schema.Resolved, g.rule.left(g.window, at), len(g.window)-1)
	}
}

// Advance moves a tenant's event time on and returns the alerts that end by it.
func (e *Engine) Advance(tenant string, to time.Time) []schema.Alert {
	e.out = nil
	if c, at := e.clock(tenant, false), to.UnixMicro(); at > c.now {
		c.now = at
		e.expire(c)
	}
	return e.out
}

// Status returns what the engine holds now.
func (e *Engine) Status() Status {
	s := Status{Groups: e.groups, Open: e.open, Evicted: map[string]uint64{}, Late: e.late, Timeouts: e.matcher.Timeouts()}
	for _, t := range e.rules {
		if t.evicted > 0 {
			s.Evicted[t.rule.ID] += t.evicted
		}
		if t.broken != "" {
			s.breaks(t.rule.ID, t.broken)
		}
	}
	for i, why := range e.matcher.Broken() {
		s.breaks(e.set.Rules()[i].ID, why)
	}
	return s
}

func (s *Status) breaks(id, why string) {
	if s.Broken == nil {
		s.Broken = map[string]string{}
	}
	s.Broken[id] = why
}

// deadlines is a heap of open alerts by when they may end.
type deadlines []deadline

type deadline struct {
	at    int64
	group *group
}

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at < d[j].at }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = deadline{}
	*d = (*d)[:last]
	return x
}
