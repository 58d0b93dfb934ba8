package scannertest

import (
	"encoding/json"
	"testing"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Engine is an engine of package scanner.
type Engine interface {
	Observe(ev *schema.Event) []schema.Alert
}

// Scan returns the transitions that events cause.
func Scan(e Engine, events []schema.Event) []schema.Alert {
	var list []schema.Alert
	for i := range events {
		list = append(list, e.Observe(&events[i])...)
	}
	return list
}

// Through carries an alert through its JSON.
func Through(t *testing.T, a schema.Alert) *schema.Alert {
	t.Helper()
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var b schema.Alert
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}
