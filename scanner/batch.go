package scanner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Batch runs a Set of rules over a complete list of events, such as an export, that
// arrive in any order. It keeps only those fields of an event that correlations need.
type Batch struct {
	set      *rules.Set
	engine   *Engine
	fields   captureList
	hits     []hit
	interned map[string]string // each string once
}

// hit is an event that correlations count.
type hit struct {
	at         int64
	tenant     string
	id         string
	detections []int // that match and that correlations count
	fields     *correlation.Fields
}

// NewBatch returns a batch without events. Its alerts have up to samples log_ids.
func NewBatch(set *rules.Set, samples int) *Batch {
	batch := &Batch{
		set:      set,
		interned: map[string]string{},
		engine:   NewEngine(set, Config{MaxGroups: 1 << 30, Samples: samples}),
	}

	// Observe returns detections itself, so only correlations are fed.
	for i, list := range batch.engine.feeds {
		batch.engine.feeds[i] = slices.DeleteFunc(list, func(f feed) bool { return f.rule.rule.Correlation == nil })
	}

	// Alerts reads group keys and values from these fields, after the event is gone.
	for _, rule := range set.Rules() {
		if rule.Correlation == nil {
			continue
		}
		for _, source := range rule.Correlation.Sources {
			batch.fields.add(source.GroupBy, source.Values)
		}
	}
	return batch
}

// Observe adds an event and returns the detections that match it and alert without a
// correlation. The event must be identified, see schema.Event.
func (b *Batch) Observe(ev *schema.Event) []*rules.Rule {
	engine := b.engine
	var alerting []*rules.Rule
	var counted []int
	for _, i := range engine.matcher.Match(ev.Raw) {
		if rule := b.set.Rules()[i]; rule.Alert != nil {
			alerting = append(alerting, rule)
		}
		if len(engine.feeds[i]) > 0 {
			counted = append(counted, i)
		}
	}
	if len(counted) == 0 {
		return alerting
	}

	// Keep what correlations need, with each string in memory once.
	fields := engine.capture(&b.fields)
	for _, texts := range fields.Texts {
		for i := range texts {
			texts[i].Text = b.intern(texts[i].Text)
		}
	}
	b.hits = append(b.hits, hit{ev.Date.UnixMicro(), b.intern(ev.Tenant), ev.LogID, counted, fields})
	return alerting
}

// intern returns the copy of a string that the batch keeps.
func (b *Batch) intern(text string) string {
	known, ok := b.interned[text]
	if !ok {
		b.interned[text], known = text, text
	}
	return known
}

// Alerts returns the alerts of correlations as they fire or escalate, by time.
func (b *Batch) Alerts() []schema.Alert {
	b.sort()

	var list []schema.Alert
	for _, counted := range b.hits {
		for _, alert := range b.evaluate(counted) {
			if alert.State == schema.Firing {
				list = append(list, alert)
			}
		}
	}
	return list
}

// sort sorts the events into the order of evaluation.
func (b *Batch) sort() {
	slices.SortStableFunc(b.hits, func(x, y hit) int {
		return cmp.Or(cmp.Compare(x.at, y.at), strings.Compare(x.id, y.id))
	})
}

// evaluate runs the correlations over an event and returns the transitions. Events
// must come in the order of sort.
func (b *Batch) evaluate(h hit) []schema.Alert {
	engine := b.engine
	engine.out, engine.captured = nil, h.fields

	// The order is by time, so the clock follows the events and nothing is late.
	clock := engine.clock(h.tenant, false)
	clock.now = h.at
	engine.expire(clock)

	for _, i := range h.detections {
		for _, target := range engine.feeds[i] {
			engine.touch(target)
		}
	}
	engine.evaluateTouched(clock, h.at, h.id, true)
	return engine.out
}

// Timeouts returns how many regular expressions exceeded their time limit. Each
// counts as no match.
func (b *Batch) Timeouts() uint64 { return b.engine.matcher.Timeouts() }

// Broken returns the rules disabled by a panic, by id, with its message.
func (b *Batch) Broken() map[string]string { return b.engine.Status().Broken }
