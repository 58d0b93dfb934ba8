package pull

import (
	"strings"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// syntheticEnd is the end of all synthetic ids, which are made from times.
var syntheticEnd = strings.Repeat("0", 39)

// earlierCursor returns the cursor to try after a rejected one. It is before the rejected
// one, so nothing is skipped.
func (p *Puller) earlierCursor(cursor string) string {
	at, ok := schema.IDTime(cursor)
	if ok && !strings.HasSuffix(cursor, syntheticEnd) {
		p.cfg.Log.Warn("tenant rejects the checkpoint; resuming at its time", "log_id", cursor)
		return schema.SyntheticID(at)
	}

	if cursor != "" {
		p.cfg.Log.Warn("tenant rejects synthetic ids; starting at its oldest event", "log_id", cursor)
	}
	return ""
}

// largestEvent is the space for an event in a record of Kafka, beside its headers.
const largestEvent = schema.MaxMessage - 1<<20

// identify returns the events of a page. An event that cannot be identified has no LogID;
// it is kept nevertheless, since only the writer decides what cannot be stored.
func identify(raws [][]byte) []schema.Event {
	events := make([]schema.Event, len(raws))
	for i, raw := range raws {
		raw = raw[:min(len(raw), largestEvent)] // the rest is lost, but no event after it
		events[i].Raw = raw
		if events[i].Identify() != nil {
			events[i] = schema.Event{Raw: raw}
		}
	}
	return events
}

// nextCursor returns the cursor after a page: the highest id in it. The tenant's link is
// used if the events have no ids, and never leads backwards. ok is false if there is no
// cursor after the current one.
func nextCursor(cursor string, events []schema.Event, link string) (next string, ok bool) {
	next = cursor
	lowest, last := "", cursor
	for i := range events {
		id := events[i].LogID
		if id == "" {
			continue
		}
		if lowest == "" || id < lowest {
			lowest = id
		}
		if checkpoint.Higher(id, next) {
			next = id
		}
		last = id
	}

	// The oldest events are sorted by date, which is not the order of their ids.
	if cursor == "" {
		return lowest, lowest != ""
	}

	// The link counts if it is higher, as on a page whose last events cannot be identified.
	if checkpoint.Higher(link, next) {
		next = link
	}
	if next == cursor && len(last) != len(cursor) {
		next = last // ids of another kind, whose order is unknown
	}
	return next, next != cursor
}
