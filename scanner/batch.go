package scanner

import (
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Batch runs a Set of rules over a complete list of events, such as an export, that
// arrive in any order. It keeps only those fields of an event that correlations need.
type Batch struct {
	set      *rules.Set
	engine   *Engine
	hits     []Hit
	interned map[string]string // each string once
}

// NewBatch returns a batch without events. Its alerts have up to samples log_ids.
func NewBatch(set *rules.Set, samples int) *Batch {
	return &Batch{
		set:      set,
		interned: map[string]string{},
		engine:   NewEngine(set, Config{MaxGroups: 1 << 30, Samples: samples, CorrelationsOnly: true}),
	}
}

// Observe adds an event and returns the detections that match it and alert without a
// correlation. The event must be identified, see schema.Event.
func (b *Batch) Observe(ev *schema.Event) []*rules.Rule {
	matching := b.engine.Match(ev.Raw)
	var alerting []*rules.Rule
	for _, i := range matching {
		if rule := b.set.Rules()[i]; rule.Alert != nil {
			alerting = append(alerting, rule)
		}
	}

	hit, ok := b.engine.Hit(ev, matching)
	if !ok {
		return alerting
	}

	// Keep each string in memory once.
	hit.tenant = b.intern(hit.tenant)
	for _, texts := range hit.kept.Texts {
		for i := range texts {
			texts[i].Text = b.intern(texts[i].Text)
		}
	}
	b.hits = append(b.hits, hit)
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
	slices.SortStableFunc(b.hits, func(x, y Hit) int { return x.Compare(&y) })

	var list []schema.Alert
	for i := range b.hits {
		for _, alert := range b.engine.ObserveHit(&b.hits[i]) {
			if alert.State == schema.StateFiring {
				list = append(list, alert)
			}
		}
	}
	return list
}

// Timeouts returns how many regular expressions exceeded their time limit. Each
// counts as no match.
func (b *Batch) Timeouts() uint64 { return b.engine.Status().Timeouts }

// Broken returns the rules disabled by a panic, by id, with its message.
func (b *Batch) Broken() map[string]string { return b.engine.Status().Broken }
