package scanner

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Hit is an event that some rule of an Engine counts, reduced to what the rules need of it. It can be
// observed later, in another order than that of arrival.
type Hit struct {
	LogID      string
	At         int64 // date of the event, µs since 1970
	tenant     string
	detections []int // that match and that a rule counts
	kept       *correlation.Fields
}

// Compare orders hits by date and then by log_id, as ObserveHit requires.
func (h *Hit) Compare(other *Hit) int {
	return cmp.Or(cmp.Compare(h.At, other.At), strings.Compare(h.LogID, other.LogID))
}

// Match returns the indexes of the detections in the Set that an event matches. They are valid until
// the next call of any method.
func (e *Engine) Match(raw []byte) []int { return e.matcher.Match(raw) }

// Hit returns what the rules need of the event that was last passed to Match, with the detections
// that it matches. It returns false if no rule counts it.
func (e *Engine) Hit(ev *schema.Event, detections []int) (Hit, bool) {
	counts := func(i int) bool { return len(e.feeds[i]) > 0 }
	if !slices.ContainsFunc(detections, counts) {
		return Hit{}, false
	}

	hit := Hit{At: ev.Date.UnixMicro(), LogID: ev.LogID, tenant: ev.Tenant}
	for _, i := range detections {
		if counts(i) {
			hit.detections = append(hit.detections, i)
		}
	}
	hit.kept = e.capture(&observed{}, &e.read)
	return hit, true
}

// ObserveHit runs the rules over a hit and returns the transitions. Hits must come in the order of
// Compare: then the clock follows them, and none is late or too old.
func (e *Engine) ObserveHit(h *Hit) []schema.Alert {
	e.out = nil
	clock := e.clock(h.tenant, false)
	clock.now = h.At
	e.expire(clock)

	for _, i := range h.detections {
		e.touchAll(e.feeds[i])
	}
	e.evaluateTouched(&observed{clock: clock, at: h.At, id: h.LogID, fires: true, kept: h.kept})
	return e.out
}

// EventTime returns the time at which an Engine counts an event: its date, unless that is implausible.
func (e *Engine) EventTime(ev *schema.Event) time.Time { return time.UnixMicro(e.eventTime(ev)).UTC() }
