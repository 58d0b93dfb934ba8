package auth0sim

import "sort"

// view is the log as it is visible at one time.
type view struct {
	t      *Tenant
	now    int64   // µs; later ids are not visible yet
	oldest int64   // µs; earlier ids are beyond retention
	others []event // sorted by pos
}

func (t *Tenant) view() *view {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	return &view{t, now, now - t.cfg.Retention.Microseconds(), t.others}
}

// ref identifies one event of a view.
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

// span is a range of visible events that is consumed from either end. It merges the
// three sources by log_id.
type span struct {
	v              *view
	bg, bgEnd      int64
	plan, planEnd  int
	other, otherTo int
}

// all returns every visible event.
func (v *view) all() span { return v.between(pos{us: v.oldest}, pos{us: v.now, tail: ^uint64(0)}) }

// between returns the visible events above low, up to and including high.
func (v *view) between(low, high pos) span {
	if oldest := (pos{us: v.oldest}); low.less(oldest) {
		low = oldest
	}
	if newest := (pos{us: v.now, tail: ^uint64(0)}); newest.less(high) {
		high = newest
	}

	events := span{v: v, bg: v.t.timeline.after(low)}
	events.bgEnd = max(events.bg, v.t.timeline.after(high))

	plannedAfter := func(p pos) int {
		return sort.Search(len(v.t.planned), func(i int) bool { return p.less(v.t.planned[i].pos) })
	}
	othersAfter := func(p pos) int {
		return sort.Search(len(v.others), func(i int) bool { return p.less(v.others[i].pos) })
	}

	// A high end below the low one gives an empty span.
	events.plan, events.other = plannedAfter(low), othersAfter(low)
	events.planEnd, events.otherTo = max(events.plan, plannedAfter(high)), max(events.other, othersAfter(high))
	return events
}

// first removes and returns the lowest event.
func (s *span) first() (ref, bool) {
	for s.bg < s.bgEnd && s.v.hidden(s.bg) {
		s.bg++
	}

	// Each source offers its next event; the lowest is taken.
	var lowest ref
	found := false
	offer := func(candidate ref) {
		if !found || candidate.pos.less(lowest.pos) {
			lowest, found = candidate, true
		}
	}
	if s.bg < s.bgEnd {
		offer(ref{s.v.t.timeline.pos(s.bg), fromBackground, s.bg})
	}
	if s.plan < s.planEnd {
		offer(ref{s.v.t.planned[s.plan].pos, fromPlan, int64(s.plan)})
	}
	if s.other < s.otherTo {
		offer(ref{s.v.others[s.other].pos, fromOthers, int64(s.other)})
	}
	if !found {
		return lowest, false
	}

	// Only the source of the event advances.
	switch lowest.source {
	case fromBackground:
		s.bg++
	case fromPlan:
		s.plan++
	case fromOthers:
		s.other++
	}
	return lowest, true
}

// last removes and returns the highest event.
func (s *span) last() (ref, bool) {
	// Late events are skipped until they arrive.
	for s.bg < s.bgEnd && s.v.hidden(s.bgEnd-1) {
		s.bgEnd--
	}

	var highest ref
	found := false
	offer := func(candidate ref) {
		if !found || highest.pos.less(candidate.pos) {
			highest, found = candidate, true
		}
	}
	if s.bg < s.bgEnd {
		offer(ref{s.v.t.timeline.pos(s.bgEnd - 1), fromBackground, s.bgEnd - 1})
	}
	if s.plan < s.planEnd {
		offer(ref{s.v.t.planned[s.planEnd-1].pos, fromPlan, int64(s.planEnd - 1)})
	}
	if s.other < s.otherTo {
		offer(ref{s.v.others[s.otherTo-1].pos, fromOthers, int64(s.otherTo - 1)})
	}
	if !found {
		return highest, false
	}

	switch highest.source {
	case fromBackground:
		s.bgEnd--
	case fromPlan:
		s.planEnd--
	case fromOthers:
		s.otherTo--
	}
	return highest, true
}

// count returns the number of events that are left.
func (s *span) count() int {
	background := s.bgEnd - s.bg
	if s.v.t.cfg.LateShare > 0 {
		// Only events within LateBy can be hidden.
		events := &s.v.t.timeline
		since := events.first(s.v.now - s.v.t.cfg.LateBy.Microseconds())
		for index := max(s.bg, events.history, since); index < s.bgEnd; index++ {
			if s.v.hidden(index) {
				background--
			}
		}
	}
	return int(background) + s.planEnd - s.plan + s.otherTo - s.other
}

// hidden reports whether background event i arrives late and has not arrived yet.
func (v *view) hidden(i int64) bool {
	tenant := v.t
	if tenant.cfg.LateShare <= 0 || i < tenant.timeline.history {
		return false
	}

	draw := mix(tenant.cfg.Seed ^ mix(uint64(i)+0x6c617465))
	late := float64(draw>>11)/(1<<53) < tenant.cfg.LateShare
	return late && tenant.timeline.at(i)+tenant.cfg.LateBy.Microseconds() > v.now
}

// find returns the visible event with a log_id.
func (v *view) find(id string) (ref, bool) {
	event, ok := v.issued(id)
	if !ok || event.pos.us < v.oldest || event.source == fromBackground && v.hidden(event.n) {
		return ref{}, false
	}
	return event, true
}

// issued returns the event with a log_id, even if it is no longer visible.
func (v *view) issued(id string) (ref, bool) {
	position, ok := parseID(id)
	if !ok || position.us > v.now || position.id() != id {
		return ref{}, false
	}

	if index, ok := v.t.timeline.index(position); ok {
		return ref{position, fromBackground, index}, true
	}
	i, ok := sort.Find(len(v.t.planned), func(i int) int { return position.compare(v.t.planned[i].pos) })
	if ok {
		return ref{position, fromPlan, int64(i)}, true
	}
	i, ok = sort.Find(len(v.others), func(i int) int { return position.compare(v.others[i].pos) })
	if ok {
		return ref{position, fromOthers, int64(i)}, true
	}
	return ref{}, false
}

// render appends an event as it is served.
func (v *view) render(b []byte, r ref) []byte {
	switch r.source {
	case fromBackground:
		return v.t.background(b, r.n)
	case fromPlan:
		return v.t.renderPlanned(b, v.t.planned[r.n])
	}
	return append(b, v.others[r.n].raw...)
}

// date returns the date of an event, in µs. For an event that a caller caused, it is the
// time of its log_id.
func (v *view) date(r ref) int64 {
	switch r.source {
	case fromBackground:
		sc := v.t.backgroundScene(r.n)
		return sc.date
	case fromPlan:
		sc, _ := v.t.plannedScene(&v.t.occurrences[v.t.planned[r.n].occurrence], v.t.planned[r.n])
		return sc.date
	}
	return r.pos.us
}
