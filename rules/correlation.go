package rules

import (
	"time"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// Correlation is how a correlation counts. Its value is evaluated at each event, over the
// window (t - Timespan, t] in event time.
type Correlation struct {
	Type    string
	Sources []Source // the rules that it counts, in the order written
	// Among are the detections whose events are the whole of which LastEvents and EventRatio
	// count a part, as indexes into Set.Rules.
	Among []int
	Last  int // LastEvents: the number of events of Among that it looks at
	// Least is the minimum number of events in a window for the condition of EventRatio and
	// EventSpike to hold.
	Least      int
	Over       time.Duration // EventSpike: the period before, in whole days, that gives the usual number
	Percentile float64       // ValuePercentile: more than 0 and at most 100
	Timespan   time.Duration
	Bounds     []Bound // all of which the value must satisfy; none if there is a Need
	Need       *Need   // Temporal and TemporalOrdered: a condition in words
}

// Source is one of the rules that a correlation counts.
type Source struct {
	Rule int // index into Set.Rules, of a detection or a correlation
	// GroupBy are the fields of its events that Alert.GroupBy stands for. They differ between
	// sources that have aliases.
	GroupBy []expr.Field
	Values  []expr.Field // the fields from which ValueCount and the other value types compute
}

// The types of correlations, with the value that their bounds apply to.
const (
	EventCount      = "event_count"      // the number of events in the window
	ValueCount      = "value_count"      // the number of distinct values of a field, or of combinations of several
	ValueSum        = "value_sum"        // the sum of a field's numbers
	ValueAvg        = "value_avg"        // their mean
	ValuePercentile = "value_percentile" // the smallest of them that at least that many percent do not exceed
	Temporal        = "temporal"         // the number of rules that have matched
	TemporalOrdered = "temporal_ordered" // the same, in the order written, each with a different event

	// The types of our own; see the package comment.

	LastEvents = "last_events" // the number of matches among the last events of another rule
	EventRatio = "event_ratio" // the share, from 0 to 1, of other rules' events that match
	EventSpike = "event_spike" // the number of events divided by the usual number at this time of the day
)

// maxSources is the maximum number of rules of a correlation: a window keeps one bit for each.
const maxSources = 64

// Bound is one comparison of a correlation's condition.
type Bound struct {
	Op   string // gt, gte, lt, lte, eq, neq
	Than float64
}

func (b Bound) holds(v float64) bool {
	switch b.Op {
	case "gt":
		return v > b.Than
	case "gte":
		return v >= b.Than
	case "lt":
		return v < b.Than
	case "lte":
		return v <= b.Than
	case "eq":
		return v == b.Than
	}
	return v != b.Than
}

// Holds reports whether a value satisfies all bounds.
func (c *Correlation) Holds(v float64) bool { return holdsAll(c.Bounds, v) }

func holdsAll(bounds []Bound, v float64) bool {
	for _, bound := range bounds {
		if !bound.holds(v) {
			return false
		}
	}
	return true
}

// Rises reports whether the condition is a single lower bound on a count: once it holds, it
// continues to hold as more is counted.
func (c *Correlation) Rises() bool {
	return (c.Type == EventCount || c.Type == ValueCount) && len(c.Bounds) == 1 && c.Bounds[0].Op == "gte"
}

// hasLowerBound reports whether the condition is a single lower bound, on whatever value.
func (c *Correlation) hasLowerBound() bool {
	return len(c.Bounds) == 1 && (c.Bounds[0].Op == "gte" || c.Bounds[0].Op == "gt")
}
