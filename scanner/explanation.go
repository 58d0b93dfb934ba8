package scanner

import (
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Explanation is what one rule makes of one event, and why.
type Explanation struct {
	State
	Level     string       `json:"level"`
	Levels    []Level      `json:"levels,omitempty"` // by rising count; none where the rule does not alert
	Serves    []string     `json:"serves,omitempty"` // titles of the correlations that count the rule
	Tenant    string       `json:"tenant"`
	LogID     string       `json:"log_id"`
	EventType string       `json:"event_type"`
	At        time.Time    `json:"at"` // when the event counts: its date, unless that cannot be
	Source    string       `json:"source,omitempty"`
	FetchedAt time.Time    `json:"fetched_at,omitzero"`
	Fires     bool         `json:"fires"` // the event begins an alert or raises its level
	Reason    string       `json:"reason"`
	Later     *Later       `json:"later,omitempty"`
	Recorded  []Transition `json:"recorded,omitempty"` // what the alerts of the same groups went through, by time
}

// Level is a level and the value from which it applies.
type Level struct {
	Name  string  `json:"name"`
	Count float64 `json:"count"`
}

// Later is the first event after the one at hand, in a window with it, that begins
// an alert.
type Later struct {
	At    time.Time `json:"at"`
	LogID string    `json:"log_id"`
	Count float64   `json:"count"`
}

// Transition is what an alert has become.
type Transition struct {
	State     schema.AlertState `json:"state"`
	Level     string            `json:"level"`
	StartsAt  time.Time         `json:"starts_at"`
	UpdatedAt time.Time         `json:"updated_at"`
	Count     float64           `json:"count"`
}

// State is how a rule stands right after the event.
type State struct {
	RuleID    string             `json:"rule_id"`
	Title     string             `json:"title"`
	Type      string             `json:"type"` // detection, or the type of the correlation
	File      string             `json:"file"`
	Line      int                `json:"line"`
	Occurs    bool               `json:"occurs"`              // a detection matches the event, or a correlation's condition holds at it
	Match     *rules.Explanation `json:"match,omitempty"`     // of a detection
	Condition string             `json:"condition,omitempty"` // of a correlation, in words
	Timespan  schema.Seconds     `json:"timespan_seconds,omitempty"`
	Counts    []Counted          `json:"counts,omitempty"` // the rules that a correlation counts
	Groups    []Group            `json:"groups,omitempty"` // that the event belongs to; several only where aliases make it so
}

// Counted is one of the rules that a correlation counts.
type Counted struct {
	State
	OnlyLookedAt bool `json:"only_looked_at,omitempty"` // last_events: it is among these that matches are counted
}

// Group is the state of one group key.
type Group struct {
	Key     []Key   `json:"key,omitempty"`
	Missing string  `json:"missing,omitempty"` // why the event takes no part
	Window  *Window `json:"window,omitempty"`
	Alert   *Open   `json:"alert,omitempty"` // the open one
}

// Key is one field of a group key.
type Key struct {
	Field string `json:"field"`          // as alerts name it
	Path  string `json:"path,omitempty"` // where the event has it, if it is an alias
	Value string `json:"value"`
	Found bool   `json:"found"`
}

// Window is what a group has counted in (Until - timespan, Until].
type Window struct {
	After      time.Time `json:"after"`
	Until      time.Time `json:"until"`
	Value      float64   `json:"value"` // what the condition is about
	Holds      bool      `json:"holds"`
	Missing    float64   `json:"missing,omitempty"` // how much more a lower bound wants
	Events     int       `json:"events"`
	LogIDs     []string  `json:"log_ids"`           // the newest, newest last
	Values     []Seen    `json:"values,omitempty"`  // value_count: the distinct ones; value_sum and its like: the numbers
	Sources    []Seen    `json:"sources,omitempty"` // temporal: the rules
	LastsUntil time.Time `json:"lasts_until"`       // from then on the event is in no window any more
	FirstLeave time.Time `json:"first_leaves"`      // from then on the window's first event is not
}

// Seen is a value, or a rule of a temporal correlation, in a window.
type Seen struct {
	Text   string    `json:"text"`
	Times  int       `json:"times"`
	Last   time.Time `json:"last,omitzero"`
	LogID  string    `json:"log_id,omitempty"` // of the last; of the one that has its place in an order
	Absent bool      `json:"absent,omitempty"` // it is wanted not to be there
}

// Open is an open alert.
type Open struct {
	StartsAt time.Time `json:"starts_at"`
	Level    string    `json:"level"`
	Fired    bool      `json:"fired"`            // by the event
	Raised   bool      `json:"raised"`           // by the event
	Ends     time.Time `json:"ends_at,omitzero"` // if nothing more comes
	Silently bool      `json:"ends_silently,omitempty"`
}
