package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AlertState is where an alert stands.
type AlertState string

// The states of an alert. An alert of the event class is fired once and closes
// by timeout; one of the condition class resolves when its condition has ended.
const (
	Firing   AlertState = "firing"
	Resolved AlertState = "resolved"
)

// GroupValue is one field of the key that an alert was grouped by, such as
// {ip 198.51.100.7}.
type GroupValue struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

// Alert is one transition of an alert, complete in itself: it is what the
// alerts topic, the alerts table and every sink carry. Times are event time.
//
// Its identity is Fingerprint + StartsAt: a transition that is written twice
// is the same alert in the same state, so a repeat is harmless.
type Alert struct {
	Fingerprint   string       `json:"fingerprint"` // see Fingerprint
	Tenant        string       `json:"tenant"`
	RuleID        string       `json:"rule_id"`
	Title         string       `json:"title"`
	Level         string       `json:"level"` // Sigma's: informational, low, medium, high, critical
	State         AlertState   `json:"state"`
	StartsAt      time.Time    `json:"starts_at"`  // the event that fired it
	UpdatedAt     time.Time    `json:"updated_at"` // the event that caused this transition
	ResolvedAt    time.Time    `json:"resolved_at,omitzero"`
	Group         []GroupValue `json:"group,omitempty"`         // sorted by field
	Count         float64      `json:"count"`                   // what was counted in the window at this transition, or the value of value_sum and its like
	Threshold     float64      `json:"threshold"`               // what it is held against
	Window        Seconds      `json:"window_seconds"`          // 0 where a single event is enough
	Summary       string       `json:"summary"`                 // one line: what happened
	LogIDs        []string     `json:"log_ids,omitempty"`       // up to five events of the window, newest last
	Query         string       `json:"query,omitempty"`         // SQL that lists the window's events
	Tags          []string     `json:"tags,omitempty"`          // the rule's, such as attack.t1110
	Prevention    string       `json:"prevention,omitempty"`    // the rule's advice
	Investigation string       `json:"investigation,omitempty"` // the command that looks further, see InvestigationCommand
}

// ReadAlert reads what the alerts topic holds. An error says why it is no alert.
func ReadAlert(value []byte) (Alert, error) {
	var a Alert
	if err := json.Unmarshal(value, &a); err != nil {
		return a, err
	}
	if a.State != Firing && a.State != Resolved || a.Fingerprint == "" {
		return a, fmt.Errorf("fingerprint %q, state %q", a.Fingerprint, a.State)
	}
	return a, nil
}

// Seconds is a duration that is written as a number of seconds.
type Seconds time.Duration

// MarshalJSON writes whole or fractional seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return err
	}
	*s = Seconds(f * float64(time.Second))
	return nil
}

// Fingerprint is the identity of what an alert is about: tenant, rule and group
// key, never a count or a time. It is 32 hexadecimal digits of a SHA-256.
func Fingerprint(tenant, ruleID string, group []GroupValue) string {
	sorted := slices.SortedFunc(slices.Values(group), func(a, b GroupValue) int {
		return strings.Compare(a.Field, b.Field)
	})
	h := sha256.New()
	for _, part := range []string{tenant, ruleID} {
		h.Write([]byte(strconv.Quote(part)))
	}
	for _, g := range sorted {
		h.Write([]byte(strconv.Quote(g.Field)))
		h.Write([]byte(strconv.Quote(g.Value)))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
