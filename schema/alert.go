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

// AlertState is the state of an alert.
type AlertState string

// The states of an alert. An alert of the event class fires once and closes
// after a timeout; one of the condition class resolves when its condition has ended.
const (
	StateFiring   AlertState = "firing"
	StateResolved AlertState = "resolved"
)

// GroupValue is one field of the key by which an alert is grouped, such as
// {ip 198.51.100.7}.
type GroupValue struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

// GroupMap returns the values of a group by their fields.
func GroupMap(values []GroupValue) map[string]string {
	group := make(map[string]string, len(values))
	for _, g := range values {
		group[g.Field] = g.Value
	}
	return group
}

// Alert is one transition of an alert with its full state. The alerts topic, the
// alerts table and every sink carry it. Times are event time.
//
// An alert is identified by Fingerprint + StartsAt. A transition that is written twice
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
	Count         float64      `json:"count"`                   // the count, or value, at this transition
	Threshold     float64      `json:"threshold"`               // the bound that the count or value is compared with
	Window        Seconds      `json:"window_seconds"`          // 0 if a single event is enough
	Summary       string       `json:"summary"`                 // one line that says what happened
	LogIDs        []string     `json:"log_ids,omitempty"`       // up to five events of the window, newest last
	Query         string       `json:"query,omitempty"`         // SQL that lists the window's events
	Tags          []string     `json:"tags,omitempty"`          // the rule's, such as attack.t1110
	Prevention    string       `json:"prevention,omitempty"`    // the rule's advice
	Investigation string       `json:"investigation,omitempty"` // the command to run next, see InvestigationCommand
}

// ReadAlert reads a value of the alerts topic. It returns an error if that is not an alert.
func ReadAlert(value []byte) (Alert, error) {
	var alert Alert
	if err := json.Unmarshal(value, &alert); err != nil {
		return alert, err
	}
	if alert.State != StateFiring && alert.State != StateResolved || alert.Fingerprint == "" {
		return alert, fmt.Errorf("not an alert: fingerprint %q, state %q", alert.Fingerprint, alert.State)
	}
	return alert, nil
}

// Seconds is a duration that JSON has as a number of seconds.
type Seconds time.Duration

// MarshalJSON writes whole or fractional seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return err
	}
	*s = Seconds(seconds * float64(time.Second))
	return nil
}

// Fingerprint returns the identity of the subject of an alert: tenant, rule and group
// key, never a count or a time. It is 32 hexadecimal digits of a SHA-256.
func Fingerprint(tenant, ruleID string, group []GroupValue) string {
	// The order of the fields does not matter.
	sorted := slices.SortedFunc(slices.Values(group), func(a, b GroupValue) int {
		return strings.Compare(a.Field, b.Field)
	})

	// Quote each part, so that no two lists of parts have the same text.
	hash := sha256.New()
	for _, part := range []string{tenant, ruleID} {
		hash.Write([]byte(strconv.Quote(part)))
	}

	for _, value := range sorted {
		hash.Write([]byte(strconv.Quote(value.Field)))
		hash.Write([]byte(strconv.Quote(value.Value)))
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}
