package explain

import (
	"time"

	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Explanation says whether a rule fires at an event, and why.
type Explanation struct {
	State
	Level     string       `json:"level"`
	Levels    []Level      `json:"levels,omitempty"` // by rising count; empty if the rule does not alert
	Serves    []string     `json:"serves,omitempty"` // titles of the correlations that count the rule
	Tenant    string       `json:"tenant"`
	LogID     string       `json:"log_id"`
	EventType string       `json:"event_type"`
	At        time.Time    `json:"at"` // time at which the event counts: its date, unless that is implausible
	Source    string       `json:"source,omitempty"`
	FetchedAt time.Time    `json:"fetched_at,omitzero"`
	Fires     bool         `json:"fires"` // the event fires or escalates an alert
	Reason    string       `json:"reason"`
	Later     *Later       `json:"later,omitempty"`
	Recorded  []Transition `json:"recorded,omitempty"` // stored transitions of the alerts of the same groups, by time
}

// Level is a level and the value from which it applies.
type Level struct {
	Name  string  `json:"name"`
	Count float64 `json:"count"`
}

// Later is the first later event, in a window with the explained one, that fires an
// alert.
type Later struct {
	At    time.Time `json:"at"`
	LogID string    `json:"log_id"`
	Count float64   `json:"count"`
}

// Transition is a stored state of an alert.
type Transition struct {
	State     schema.AlertState `json:"state"`
	Level     string            `json:"level"`
	StartsAt  time.Time         `json:"starts_at"`
	UpdatedAt time.Time         `json:"updated_at"`
	Count     float64           `json:"count"`
}

// State is the state of a rule right after the event.
type State struct {
	RuleID    string            `json:"rule_id"`
	Title     string            `json:"title"`
	Type      string            `json:"type"` // detection, or the type of the correlation
	File      string            `json:"file"`
	Line      int               `json:"line"`
	Occurs    bool              `json:"occurs"`              // the detection matches, or the condition holds
	Match     *expr.Explanation `json:"match,omitempty"`     // of a detection
	Condition string            `json:"condition,omitempty"` // of a correlation, in words
	Timespan  schema.Seconds    `json:"timespan_seconds,omitempty"`
	Counts    []Counted         `json:"counts,omitempty"` // the rules that a correlation counts
	Groups    []Group           `json:"groups,omitempty"` // that the event belongs to
}

// Counted is one of the rules that a correlation counts.
type Counted struct {
	State
	OnlyLookedAt bool `json:"only_looked_at,omitempty"` // in Correlation.Among
}

// Group is the state of one group key.
type Group struct {
	Key     []Key   `json:"key,omitempty"`
	Missing string  `json:"missing,omitempty"` // why the event is not counted in the group
	Window  *Window `json:"window,omitempty"`
	Alert   *Open   `json:"alert,omitempty"` // the open one
}

// Key is one field of a group key.
type Key struct {
	Field string `json:"field"`          // as alerts name it
	Path  string `json:"path,omitempty"` // path in the event, if it is an alias
	Value string `json:"value"`
	Found bool   `json:"found"`
}

// Window is what a group has counted in (Until - timespan, Until].
type Window struct {
	After      time.Time `json:"after"`
	Until      time.Time `json:"until"`
	Value      float64   `json:"value"` // compared with the condition
	Holds      bool      `json:"holds"`
	Missing    float64   `json:"missing,omitempty"` // distance to the lower bound
	Events     int       `json:"events"`
	LogIDs     []string  `json:"log_ids"`           // the newest, newest last
	Values     []Seen    `json:"values,omitempty"`  // value_count: distinct values; value_sum and the like: numbers
	Sources    []Seen    `json:"sources,omitempty"` // temporal: the rules
	LastsUntil time.Time `json:"lasts_until"`       // time at which the event leaves the last window
	FirstLeave time.Time `json:"first_leaves"`      // time at which the first event leaves the window
}

// Seen is a value, or a rule of a temporal correlation, in a window.
type Seen struct {
	Text   string    `json:"text"`
	Times  int       `json:"times"`
	Last   time.Time `json:"last,omitzero"`
	LogID  string    `json:"log_id,omitempty"` // of the last event; in an order, of the event that counts
	Absent bool      `json:"absent,omitempty"` // it must not be there
}

// Open is an open alert.
type Open struct {
	StartsAt time.Time `json:"starts_at"`
	Level    string    `json:"level"`
	Fired    bool      `json:"fired"`            // by the event
	Raised   bool      `json:"raised"`           // by the event
	Ends     time.Time `json:"ends_at,omitzero"` // if no further event arrives
	Silently bool      `json:"ends_silently,omitempty"`
}
