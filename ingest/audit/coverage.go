package audit

import (
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// counts are the counts of a chain after a piece.
type counts struct {
	all, hour *checkpoint.Tally
	rows      []schema.Coverage // of the hours that are over
}

// count adds a piece to the counts of a chain. missing are the events that were missing,
// left those that still are.
func (p *piece) count(chain checkpoint.Checkpoint, cursor string, end bool, missing, left []int) counts {
	n := counts{all: &checkpoint.Tally{}, hour: &checkpoint.Tally{From: chain.LogID}}
	n.all.Add(chain.Audit)
	if chain.Hour != nil {
		*n.hour = *chain.Hour
	}

	// An hour that is over gets a row, with the counts of the pieces before.
	hour, now := hourOf(chain.LogID), time.Now().UTC().Truncate(time.Millisecond)
	part := checkpoint.Tally{} // of the piece, in the current hour
	closeHour := func(until string) {
		n.hour.Add(&part)
		n.all.Add(&part)
		from, _ := schema.IDTime(n.hour.From)
		to, _ := schema.IDTime(until)
		n.rows = append(n.rows, schema.Coverage{
			Tenant: chain.Tenant, Hour: hour, From: from, Until: to,
			Expected: n.hour.Expected, Stored: n.hour.Stored, Dead: n.hour.Dead,
			Missing: n.hour.Missing, Healed: n.hour.Healed, CheckedAt: now,
		})
	}
	advance := func(to time.Time) {
		for hour.Before(to) {
			next := schema.SyntheticID(hour.Add(time.Hour))
			closeHour(next)
			hour, part, *n.hour = hour.Add(time.Hour), checkpoint.Tally{}, checkpoint.Tally{From: next}
		}
	}

	// Hours without events get rows too: advance closes each.
	wasMissing, isMissing := indexes(missing), indexes(left)
	for i := range p.events {
		advance(p.hours[i])
		part.Expected++
		switch {
		case isMissing[i]:
			part.Missing++
		case p.events[i].LogID == "":
			part.Dead++
		default:
			part.Stored++
		}
		if wasMissing[i] && !isMissing[i] {
			part.Healed++
		}
	}

	// The last hour of the audit has a row, even if the audit ends within it.
	advance(hourOf(cursor))
	if end && checkpoint.Higher(cursor, n.hour.From) {
		closeHour(cursor)
	} else {
		n.hour.Add(&part)
		n.all.Add(&part)
	}
	return n
}

// all returns the indexes of all events.
func (p *piece) all() []int {
	list := make([]int, len(p.events))
	for i := range list {
		list[i] = i
	}
	return list
}

// indexes returns a list as a set.
func indexes(list []int) map[int]bool {
	set := map[int]bool{}
	for _, i := range list {
		set[i] = true
	}
	return set
}
