package auth0sim

import "sort"

// A view is the log as it is visible at one moment.
type view struct {
	t      *Tenant
	now    int64   // µs; later ids are not visible yet
	oldest int64   // µs; earlier ids are past retention
	others []event // sorted by pos
}

func (t *Tenant) view() *view {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	return &view{t, now, now - t.cfg.Retention.Microseconds(), t.others}
}

// A ref names one event of a view.
type ref struct {
	pos    pos
	source source
	n      int64 // index in its source
}

type source uint8

const (
	fromBackground source = iota
	fromPlan
	fromOthers
)

// A span is a run of visible events that is consumed from either end. It merges
// the three sources by log_id.
type span struct {
	v              *view
	bg, bgEnd      int64
	plan, planEnd  int
	other, otherTo int
}

// all is every visible event.
func (v *view) all() span { return v.between(pos{us: v.oldest}, pos{us: v.now, tail: ^uint64(0)}) }

// between is the visible events above low, up to and including high.
func (v *view) between(low, high pos) span {
	if oldest := (pos{us: v.oldest}); low.less(oldest) {
		low = oldest
	}
	if newest := (pos{us: v.now, tail: ^uint64(0)}); newest.less(high) {
		high = newest
	}
	s := span{v: v, bg: v.t.timeline.after(low)}
	s.bgEnd = max(s.bg, v.t.timeline.after(high))
	plannedAfter := func(p pos) int {
		return sort.Search(len(v.t.planned), func(i int) bool { return p.less(v.t.planned[i].pos) })
	}
	othersAfter := func(p pos) int {
		return sort.Search(len(v.others), func(i int) bool { return p.less(v.others[i].pos) })
	}
	s.plan, s.other = plannedAfter(low), othersAfter(low)
	s.planEnd, s.otherTo = max(s.plan, plannedAfter(high)), max(s.other, othersAfter(high))
	return s
}

// first takes the lowest event.
func (s *span) first() (ref, bool) {
	for s.bg < s.bgEnd && s.v.hidden(s.bg) {
		s.bg++
	}
	var r ref
	found := false
	take := func(c ref) {
		if !found || c.pos.less(r.pos) {
			r, found = c, true
		}
	}
	if s.bg < s.bgEnd {
		take(ref{s.v.t.timeline.pos(s.bg), fromBackground, s.bg})
	}
	if s.plan < s.planEnd {
		take(ref{s.v.t.planned[s.plan].pos, fromPlan, int64(s.plan)})
	}
	if s.other < s.otherTo {
		take(ref{s.v.others[s.other].pos, fromOthers, int64(s.other)})
	}
	if !found {
		return r, false
	}
	switch r.source {
	case fromBackground:
		s.bg++
	case fromPlan:
		s.plan++
	case fromOthers:
		s.other++
	}
	return r, true
}

// last takes the highest event.
func (s *span) last() (ref, bool) {
	for s.bg < s.bgEnd && s.v.hidden(s.bgEnd-1) {
		s.bgEnd--
	}
	var r ref
	found := false
	take := func(c ref) {
		if !found || r.pos.less(c.pos) {
			r, found = c, true
		}
	}
	if s.bg < s.bgEnd {
		take(ref{s.v.t.timeline.pos(s.bgEnd - 1), fromBackground, s.bgEnd - 1})
	}
	if s.plan < s.planEnd {
		take(ref{s.v.t.planned[s.planEnd-1].pos, fromPlan, int64(s.planEnd - 1)})
	}
	if s.other < s.otherTo {
		take(ref{s.v.others[s.otherTo-1].pos, fromOthers, int64(s.otherTo - 1)})
	}
	if !found {
		return r, false
	}
	switch r.source {
	case fromBackground:
		s.bgEnd--
	case fromPlan:
		s.planEnd--
	case fromOthers:
		s.otherTo--
	}
	return r, true
}

// len counts the events that are left.
func (s *span) len() int {
	n := s.bgEnd - s.bg
	if s.v.t.cfg.LateShare > 0 {
		// Only what came within LateBy can be hidden.
		tl := &s.v.t.timeline
		for i := max(s.bg, tl.history, tl.first(s.v.now-s.v.t.cfg.LateBy.Microseconds())); i < s.bgEnd; i++ {
			if s.v.hidden(i) {
				n--
			}
		}
	}
	return int(n) + s.planEnd - s.plan + s.otherTo - s.other
}

// hidden says that background event i arrives late and has not arrived yet.
func (v *view) hidden(i int64) bool {
	t := v.t
	if t.cfg.LateShare <= 0 || i < t.timeline.history {
		return false
	}
	draw := mix(t.cfg.Seed ^ mix(uint64(i)+0x6c617465))
	return float64(draw>>11)/(1<<53) < t.cfg.LateShare && t.timeline.at(i)+t.cfg.LateBy.Microseconds() > v.now
}

// find is the visible event with this log_id.
func (v *view) find(id string) (ref, bool) {
	r, ok := v.issued(id)
	if !ok || r.pos.us < v.oldest || r.source == fromBackground && v.hidden(r.n) {
		return ref{}, false
	}
	return r, true
}

// issued is the event with this log_id, visible or not any more.
func (v *view) issued(id string) (ref, bool) {
	p, ok := parseID(id)
	if !ok || p.us > v.now || p.id() != id {
		return ref{}, false
	}
	if i, ok := v.t.timeline.index(p); ok {
		return ref{p, fromBackground, i}, true
	}
	if i, ok := sort.Find(len(v.t.planned), func(i int) int { return p.compare(v.t.planned[i].pos) }); ok {
		return ref{p, fromPlan, int64(i)}, true
	}
	if i, ok := sort.Find(len(v.others), func(i int) int { return p.compare(v.others[i].pos) }); ok {
		return ref{p, fromOthers, int64(i)}, true
	}
	return ref{}, false
}

// render appends the event as it is served.
func (v *view) render(b []byte, r ref) []byte {
	switch r.source {
	case fromBackground:
		return v.t.background(b, r.n)
	case fromPlan:
		return v.t.renderPlanned(b, v.t.planned[r.n])
	}
	return append(b, v.others[r.n].raw...)
}

// date is the time an event tells in date, in µs; for an event that a caller
// caused it is the time of its log_id.
func (v *view) date(r ref) int64 {
	switch r.source {
	case fromBackground:
		s := v.t.backgroundScene(r.n)
		return s.date
	case fromPlan:
		s, _ := v.t.plannedScene(&v.t.occurrences[v.t.planned[r.n].occurrence], v.t.planned[r.n])
		return s.date
	}
	return r.pos.us
}
