package scanner

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"hash/maphash"
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
	// MaxGroups is how many group keys a rule keeps. Default 20,000. Beyond
	// it, some without an open alert are forgotten, which Status counts.
	MaxGroups int
}

const (
	maxLookback  = 24 * time.Hour // longest time that is read again after a start
	eventClosing = 24 * time.Hour // an event alert without keep_firing_for closes after this
	maxDateGap   = 24 * time.Hour // a date that is further from its log_id's time is not believed
	minLimit     = 1024           // occurrences that a group keeps at least
	samples      = 5              // log_ids in an alert
)

// Engine runs a Set of rules over one partition's events, in their order. It
// belongs to one goroutine.
type Engine struct {
	cfg     Config
	matcher *rules.Matcher
	rules   []*tracked        // those that alert
	feeds   [][]feed          // by detection: the rules that it feeds
	tenants map[string]*clock // event time of each tenant
	horizon int64             // µs an event can matter to any rule
	seed    maphash.Seed

	touched []*tracked
	key     []byte
	out     []schema.Alert
	open    int
	evicted uint64
	late    uint64
}

// tracked is a rule with its state.
type tracked struct {
	rule     *rules.Rule
	groups   map[string]*group // by tenant and group key
	types    []string          // of the events that it counts; nil for any
	span     int64             // µs
	keep     int64             // µs, see rules.Alert
	horizon  int64             // µs that an occurrence matters
	limit    int               // occurrences that a group keeps
	distinct bool              // value_count
	last     int               // last_events
	sweepAt  int               // number of groups at which idle ones are looked for

	hit, match bool // by the current event
}

// feed says that a detection's matches concern a rule; match says that they are
// counted, not only looked at.
type feed struct {
	rule  *tracked
	match bool
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
	values []schema.GroupValue
	quoted []bool // values[i] is a string, not a number or a boolean
	window window

	open    bool
	level   int   // index into the rule's levels
	starts  int64 // µs
	updated int64 // µs, the newest time at which the condition held
}

// Status is what an Engine holds and had to give up.
type Status struct {
	Groups   int
	Open     int
	Evicted  uint64 // group keys forgotten because there were too many
	Late     uint64 // events later than Config.Lateness
	Timeouts uint64 // regular expressions that took too long
}

// NewEngine returns an engine without state.
func NewEngine(set *rules.Set, cfg Config) *Engine {
	if cfg.Lateness <= 0 {
		cfg.Lateness = 5 * time.Minute
	}
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = 2 * time.Hour
	}
	if cfg.MaxGroups <= 0 {
		cfg.MaxGroups = 20_000
	}
	e := &Engine{cfg: cfg, matcher: set.Matcher(), feeds: make([][]feed, len(set.Rules())), tenants: map[string]*clock{}, seed: maphash.MakeSeed()}
	for i, r := range set.Rules() {
		if r.Alert == nil {
			continue
		}
		t := newTracked(r, cfg.Lateness)
		e.rules = append(e.rules, t)
		e.horizon = max(e.horizon, t.horizon)
		c := r.Correlation
		if c == nil {
			e.feeds[i] = append(e.feeds[i], feed{t, true})
			t.types = r.Types
			continue
		}
		for _, k := range c.Rules {
			e.feeds[k] = append(e.feeds[k], feed{t, true})
		}
		for _, k := range c.Among {
			e.feeds[k] = append(e.feeds[k], feed{t, false})
		}
		t.types = typesOf(set, c.Rules)
	}
	return e
}

// typesOf joins the types of several detections.
func typesOf(set *rules.Set, detections []int) []string {
	var list []string
	for _, i := range detections {
		types := set.Rules()[i].Types
		if types == nil {
			return nil
		}
		list = append(list, types...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func newTracked(r *rules.Rule, lateness time.Duration) *tracked {
	t := &tracked{rule: r, groups: map[string]*group{}, keep: r.Alert.KeepFiringFor.Microseconds(), limit: minLimit, sweepAt: minLimit}
	if r.Alert.Class == rules.Event && t.keep == 0 {
		t.keep = eventClosing.Microseconds()
	}
	if c := r.Correlation; c != nil {
		t.span = c.Timespan.Microseconds()
		t.distinct = c.Type == rules.ValueCount
		t.limit = max(minLimit, 4*int(min(t.top(), 1<<20)))
		if c.Type == rules.LastEvents {
			t.last = c.Last
			t.limit = c.Last + 64 // some to spare, so that a late one finds its place
		}
	}
	t.horizon = t.span + lateness.Microseconds()
	if r.Alert.Class == rules.Condition {
		t.horizon += t.keep
	}
	return t
}

// top is the count of the highest level.
func (t *tracked) top() uint64 { return t.rule.Alert.Levels[len(t.rule.Alert.Levels)-1].Count }

// Lookback is how far back events are to be replayed before the first new one.
func (e *Engine) Lookback() time.Duration {
	return min(time.Duration(e.horizon)*time.Microsecond, maxLookback)
}

// Restore takes up an alert as its last transition has it. It comes after the
// replay, which may not reach back to where the alert began, and before the first
// new event. One that was firing when an earlier run ended goes on. One that had
// ended is taken up only where the replay stands before its end, which will be
// seen again and is to be the end of the same alert. Alerts of rules that are no
// more are left alone.
func (e *Engine) Restore(a *schema.Alert) {
	t := e.ruleOf(a)
	if t == nil {
		return
	}
	var values []schema.GroupValue
	e.key = append(e.key[:0], a.Tenant...)
	for _, f := range t.rule.Alert.GroupBy {
		k := slices.IndexFunc(a.Group, func(g schema.GroupValue) bool { return g.Field == f.Path })
		if k < 0 {
			return
		}
		values = append(values, a.Group[k])
		e.appendKey([]byte(a.Group[k].Value))
	}
	g := t.groups[string(e.key)]
	if a.State == schema.Resolved && (g == nil || !g.open || g.starts > a.ResolvedAt.UnixMicro()) {
		return
	}
	if g == nil {
		g = &group{rule: t, tenant: e.clock(a.Tenant), values: values, quoted: slices.Repeat([]bool{true}, len(values))}
		t.groups[string(e.key)] = g
	}
	starts, level := a.StartsAt.UnixMicro(), 0
	for i, l := range t.rule.Alert.Levels {
		if rules.CompareLevels(l.Name, a.Level) <= 0 {
			level = i
		}
	}
	switch {
	case !g.open:
		e.open++
		g.open, g.starts, g.level, g.updated = true, starts, level, a.UpdatedAt.UnixMicro()
	case g.starts >= starts:
		g.starts, g.level = starts, max(g.level, level)
	default: // the earlier run was further on: it will be seen again how that came
		return
	}
	e.schedule(g)
}

func (e *Engine) ruleOf(a *schema.Alert) *tracked {
	for _, t := range e.rules {
		if t.rule.ID == a.RuleID && len(a.Group) == len(t.rule.Alert.GroupBy) {
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
	age := ev.FetchedAt.UnixMicro() - at
	c := e.clock(ev.Tenant)
	if at > c.now {
		c.now = at
		e.expire(c)
	} else if c.now-at > e.cfg.Lateness.Microseconds() && ev.Source != schema.Backfill {
		e.late++
	}
	if age > e.horizon+e.cfg.MaxAge.Microseconds() {
		return e.out // no event that may still fire can share a window with it
	}
	pages := ev.Source != schema.Backfill && age <= e.cfg.MaxAge.Microseconds()
	e.touched = e.touched[:0]
	for _, i := range e.matcher.Match(ev.Raw) {
		for _, f := range e.feeds[i] {
			if !f.rule.hit {
				f.rule.hit, f.rule.match = true, false
				e.touched = append(e.touched, f.rule)
			}
			f.rule.match = f.rule.match || f.match
		}
	}
	for _, t := range e.touched {
		t.hit = false
		e.track(t, c, ev, at, pages)
	}
	return e.out
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

func (e *Engine) clock(tenant string) *clock {
	c := e.tenants[tenant]
	if c == nil {
		c = &clock{name: tenant}
		e.tenants[tenant] = c
	}
	return c
}

// track counts an event in its group and judges what that makes of it.
func (e *Engine) track(t *tracked, c *clock, ev *schema.Event, at int64, pages bool) {
	g := e.groupOf(t, c)
	if g == nil {
		return
	}
	o := occurrence{at: at, match: t.match, id: ev.LogID}
	if t.distinct {
		var ok bool
		if o.value, ok = e.valueOf(t); !ok {
			return
		}
	}
	pos, ok := g.window.insert(o, t.distinct)
	if !ok {
		return // delivered once more
	}
	levels := t.rule.Alert.Levels
	switch {
	case t.last > 0:
		e.judgeLast(g, pages)
	case g.open && g.level == len(levels)-1:
		g.updated = max(g.updated, at) // nothing can rise any more; expire looks at the window
	default:
		count, end := uint64(1), pos
		if t.span > 0 {
			count, end = g.window.peak(pos, t.span, t.distinct)
		}
		e.judge(g, count, end, pages)
	}
	g.window.trim(g.window[len(g.window)-1].at-t.horizon, t.limit)
}

// judge fires or raises an alert where the count calls for it.
func (e *Engine) judge(g *group, count uint64, end int, pages bool) {
	levels := g.rule.rule.Alert.Levels
	level := -1
	for level+1 < len(levels) && levels[level+1].Count <= count {
		level++
	}
	if level < 0 || !pages {
		return
	}
	at := g.window[end].at
	switch {
	case !g.open:
		e.open++
		g.open, g.level, g.starts, g.updated = true, level, at, at
		e.emit(g, schema.Firing, count, end)
		e.schedule(g)
	case level > g.level:
		g.level, g.updated = level, max(g.updated, at)
		e.emit(g, schema.Firing, count, end)
	default:
		g.updated = max(g.updated, at)
	}
}

// judgeLast fires and resolves a last_events rule.
func (e *Engine) judgeLast(g *group, pages bool) {
	end := len(g.window) - 1
	count := g.window.lastMatches(g.rule.last, g.rule.span)
	if count >= g.rule.rule.Alert.Levels[0].Count || !g.open {
		e.judge(g, count, end, pages)
		return
	}
	e.open--
	g.open, g.updated = false, g.window[end].at
	e.emit(g, schema.Resolved, count, end)
}

// groupOf finds the state for the group key of the current event. It is nil
// where a correlation's event lacks a field of the key: it belongs to no group.
func (e *Engine) groupOf(t *tracked, c *clock) *group {
	e.key = append(e.key[:0], c.name...)
	for _, f := range t.rule.Alert.GroupBy {
		text, _ := e.matcher.Value(f)
		if len(text) == 0 && t.rule.Correlation != nil {
			return nil
		}
		e.appendKey(text)
	}
	if g := t.groups[string(e.key)]; g != nil {
		return g
	}
	if len(t.groups) >= t.sweepAt {
		e.sweep(t)
	}
	g := &group{rule: t, tenant: c}
	for _, f := range t.rule.Alert.GroupBy {
		text, quoted := e.matcher.Value(f)
		g.values = append(g.values, schema.GroupValue{Field: f.Path, Value: string(text)})
		g.quoted = append(g.quoted, quoted)
	}
	t.groups[string(e.key)] = g
	return g
}

// appendKey appends one part of a key, with its length, so that no two keys are
// mistaken for each other.
func (e *Engine) appendKey(part []byte) {
	e.key = binary.AppendUvarint(e.key, uint64(len(part)))
	e.key = append(e.key, part...)
}

// valueOf is what value_count tells apart in the current event.
func (e *Engine) valueOf(t *tracked) (uint64, bool) {
	var h maphash.Hash
	h.SetSeed(e.seed)
	for _, f := range t.rule.Correlation.Values {
		text, _ := e.matcher.Value(f)
		if len(text) == 0 {
			return 0, false
		}
		var n [binary.MaxVarintLen64]byte
		_, _ = h.Write(binary.AppendUvarint(n[:0], uint64(len(text))))
		_, _ = h.Write(text)
	}
	return h.Sum64(), true
}

// sweep forgets groups that no window reaches any more and, where that is not
// enough, others without an open alert.
func (e *Engine) sweep(t *tracked) {
	for key, g := range t.groups {
		if !g.open && (len(g.window) == 0 || g.window[len(g.window)-1].at < g.tenant.now-t.horizon) {
			delete(t.groups, key)
		}
	}
	if len(t.groups) >= e.cfg.MaxGroups*7/8 {
		room := e.cfg.MaxGroups / 4 // so that it need not be done again at once
		for key, g := range t.groups {
			if len(t.groups) <= e.cfg.MaxGroups-room {
				break
			}
			if !g.open {
				delete(t.groups, key)
				e.evicted++
			}
		}
	}
	t.sweepAt = min(max(minLimit, 2*len(t.groups)), max(e.cfg.MaxGroups, len(t.groups)+len(t.groups)/4+1))
}

// deadline is when the alert ends if nothing more happens; false for never.
func (g *group) deadline() (at int64, ok bool) {
	t := g.rule
	switch {
	case t.last > 0:
		return 0, false
	case t.rule.Alert.Class == rules.Event:
		return g.starts + t.keep, true
	}
	// The count is below n as soon as the n-th newest has left the window.
	below := g.updated
	if x, ok := g.window.nth(max(t.rule.Alert.ResolveBelow, 1), t.distinct); ok {
		below = max(below, x+t.span)
	}
	return below + t.keep, true
}

// schedule notes an open alert's deadline. Later events only put it off, so the
// noted one is at worst too early.
func (e *Engine) schedule(g *group) {
	if at, ok := g.deadline(); ok {
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
		g := heap.Pop(&c.deadlines).(deadline).group
		at, ok := g.deadline()
		switch {
		case !g.open || !ok:
		case at > c.now:
			heap.Push(&c.deadlines, deadline{at, g})
		case g.rule.rule.Alert.Class == rules.Event:
			e.open--
			g.open = false // what has happened stays so: nothing to tell
		default:
			e.open--
			g.open, g.updated = false, at
			e.emit(g, schema.Resolved, g.window.count(at, g.rule.span, g.rule.distinct), len(g.window)-1)
		}
	}
}

// Status returns what the engine holds now.
func (e *Engine) Status() Status {
	s := Status{Open: e.open, Evicted: e.evicted, Late: e.late, Timeouts: e.matcher.Timeouts()}
	for _, t := range e.rules {
		s.Groups += len(t.groups)
	}
	return s
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
