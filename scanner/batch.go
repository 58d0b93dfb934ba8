package scanner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Batch runs a Set of rules over events that are all at hand, such as those of an
// export, in whatever order they come. It keeps of an event only what correlations
// want to know of it.
type Batch struct {
	set    *rules.Set
	engine *Engine
	wanted []rules.Field
	facts  []fact
	texts  map[string]string // each text once
}

// fact is what is kept of an event.
type fact struct {
	at     int64
	tenant string
	id     string
	hits   []int // detections that correlations count
	fields *captured
}

// NewBatch returns a batch without events. An alert has up to samples log_ids.
func NewBatch(set *rules.Set, samples int) *Batch {
	b := &Batch{set: set, texts: map[string]string{}, engine: NewEngine(set, Config{MaxGroups: 1 << 30, Samples: samples})}
	for i, list := range b.engine.feeds { // what matches is told as it is observed
		b.engine.feeds[i] = slices.DeleteFunc(list, func(f feed) bool { return f.rule.rule.Correlation == nil })
	}
	for _, r := range set.Rules() {
		if r.Correlation == nil {
			continue
		}
		for _, s := range r.Correlation.Sources {
			b.wanted = slices.Concat(b.wanted, s.GroupBy, s.Values)
		}
	}
	slices.SortFunc(b.wanted, func(x, y rules.Field) int { return strings.Compare(x.Path, y.Path) })
	b.wanted = slices.Compact(b.wanted)
	return b
}

// Observe returns the detections that match an event and alert by themselves. The
// event is identified, see schema.Event.
func (b *Batch) Observe(ev *schema.Event) []*rules.Rule {
	e := b.engine
	var alone []*rules.Rule
	var hits []int
	for _, i := range e.matcher.Match(ev.Raw) {
		if r := b.set.Rules()[i]; r.Alert != nil {
			alone = append(alone, r)
		}
		if len(e.feeds[i]) > 0 {
			hits = append(hits, i)
		}
	}
	if len(hits) == 0 {
		return alone
	}
	fields := e.capture(b.wanted)
	for _, texts := range fields.texts {
		for i := range texts {
			texts[i].text = b.once(texts[i].text)
		}
	}
	b.facts = append(b.facts, fact{ev.Date.UnixMicro(), b.once(ev.Tenant), ev.LogID, hits, fields})
	return alone
}

// once returns an equal text that is kept only once.
func (b *Batch) once(text string) string {
	known, ok := b.texts[text]
	if !ok {
		b.texts[text], known = text, text
	}
	return known
}

// Alerts returns the alerts of the correlations as they begin or rise, by time.
func (b *Batch) Alerts() []schema.Alert {
	b.sort()
	var list []schema.Alert
	for _, f := range b.facts {
		for _, a := range b.judge(f) {
			if a.State == schema.Firing {
				list = append(list, a)
			}
		}
	}
	return list
}

// sort puts the events into the order in which they are judged.
func (b *Batch) sort() {
	slices.SortStableFunc(b.facts, func(x, y fact) int {
		return cmp.Or(cmp.Compare(x.at, y.at), strings.Compare(x.id, y.id))
	})
}

// judge returns what an event changes. It comes after those before it.
func (b *Batch) judge(f fact) []schema.Alert {
	e := b.engine
	e.out, e.from = nil, f.fields
	c := e.clock(f.tenant, false)
	c.now = f.at
	e.expire(c)
	for _, i := range f.hits {
		for _, to := range e.feeds[i] {
			e.touch(to)
		}
	}
	e.judgeTouched(c, f.at, f.id, true)
	return e.out
}

// Timeouts returns how often a regular expression took too long and counted as no
// match.
func (b *Batch) Timeouts() uint64 { return b.engine.matcher.Timeouts() }

// Broken are the rules that failed and were left out from then on, by id, and why.
func (b *Batch) Broken() map[string]string { return b.engine.Status().Broken }
