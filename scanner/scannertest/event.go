// Package scannertest has events and rules for the tests of package scanner and those below it.
package scannertest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Start is the time at which the events of tests begin.
var Start = time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)

// Event returns an event that was stored half a second after its date and pulled
// another half later.
func Event(t testing.TB, date time.Time, n int, members map[string]any) schema.Event {
	t.Helper()
	stored := date.Add(500 * time.Millisecond)
	id := fmt.Sprintf("900%s%03d%036d", stored.Format("20060102150405"), stored.Nanosecond()/1e6, n)
	m := map[string]any{"log_id": id, "date": date.Format("2006-01-02T15:04:05.000Z"), "tenant_name": "acme"}
	for k, v := range members {
		m[k] = v
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	e := schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: date.Add(time.Second), Raw: raw}
	if err := e.Identify(); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return e
}

// RuleOf returns the rule with an id; nil if the set has none.
func RuleOf(set *rules.Set, id string) *rules.Rule {
	for _, r := range set.Rules() {
		if r.ID == id {
			return r
		}
	}
	return nil
}
