package correlation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const day = 24 * time.Hour

// eventSpike is the number of events divided by the usual number at this time of the day: the
// median of the counts one day, two days and so on before.
type eventSpike struct{}

func (eventSpike) Name() string { return "event_spike" }

func (eventSpike) Traits() Traits { return Traits{Keys: []string{"over", "min"}, Fraction: true} }

func (eventSpike) Check(*Spec) error { return nil }

func (eventSpike) Evaluate(s *Spec, all Window, begin, end int) (value float64, holds, enough bool) {
	count := end + 1 - begin
	usual, known := all.usual(all[end].At, s.span(), s.Over.Microseconds())
	value = float64(count) / max(usual, 1)
	enough = known && count >= s.Least
	return value, enough && s.Holds(value), enough
}

func (eventSpike) Keep(*Spec, float64) int { return keepDays }

func (eventSpike) Describe(s *Spec, words Words) string {
	return fmt.Sprintf("%s times as many events as usual, and %d", words.Bounds, s.Least)
}

// usual returns the median count of the windows that end one day, two days and so on before a
// time, back to the first occurrence. It is known if these are at least half of the days in over.
func (w Window) usual(at, span, over int64) (median float64, known bool) {
	var counts []int
	step := day.Microseconds()
	for back := step; back <= over && at-back-span >= w[0].At; back += step {
		counts = append(counts, w.After(at-back)-w.After(at-back-span))
	}

	days := len(counts)
	if days == 0 || int64(2*days) < over/step {
		return 0, false
	}

	// The median, so that a single unusual day does not change it.
	slices.Sort(counts)
	return float64(counts[(days-1)/2]+counts[days/2]) / 2, true
}

// SpikeSlack is how much longer than its span a group of event_spike keeps events, with the
// engine's default settings: a day counts as known only if there is an event before it.
const SpikeSlack = 5 * time.Minute

// SQL repeats each event for every day that looks back at it, so that one window has the events of
// all days; the column back is the number of days. On its day, such a copy sorts before the events
// of that time. The usual number is known if there are at least half of the days.
func (eventSpike) SQL(s *Spec, query *SQL) {
	days := int(s.Over / day)
	query.Notes = append(query.Notes,
		"A group without events for longer than the query looks back counts as new.")
	query.Frame = frameOf("shifted", float64(s.Timespan.Milliseconds())-0.5)

	// At an event, the engine knows of the group what mattered at the previous event: first_at is
	// the first event that it still has.
	known := s.Timespan + s.Over + SpikeSlack + query.Kept
	query.From = fmt.Sprintf("(\n      SELECT *, arrayJoin(range(%d)) AS back, "+
		"if(back = 0, place, %s + back * %d) AS shifted\n"+
		"      FROM (SELECT *, if((row_number() OVER up_to) = 1, %s, lagInFrame(kept_at) OVER up_to) AS first_at\n"+
		"        FROM (SELECT *, %s AS kept_at FROM %s\n          WINDOW kept AS (%s %s))\n"+
		"        WINDOW up_to AS (%s %s))\n    )",
		days+1, sqlTime("at"), day.Milliseconds(), sqlTime("at"), sqlTime("nth_value(at, 1) OVER kept"),
		query.From, query.GroupBy, frameOf("place", float64(known.Milliseconds())+0.5), query.GroupBy, frameUpTo)

	var counts []string
	for back := range days {
		counts = append(counts, fmt.Sprintf("countIf(back = %d) OVER w", back+1))
	}

	query.Columns = []string{
		"countIf(back = 0) OVER w AS events",
		fmt.Sprintf("least(intDiv(greatest(%s - %d - first_at, 0), %d), %d) AS days",
			sqlTime("at"), s.Timespan.Milliseconds(), day.Milliseconds(), days),
		"arraySort(arraySlice([" + strings.Join(counts, ", ") + "], 1, days)) AS earlier",
		"(earlier[intDiv(days - 1, 2) + 1] + earlier[intDiv(days, 2) + 1]) / 2 AS usual",
	}
	query.Holds = []string{
		"back = 0",
		fmt.Sprintf("days > 0 AND 2 * days >= %d", days),
		fmt.Sprintf("events >= %d", s.Least),
	}
	query.Value = "events / greatest(usual, 1)"
}
