package demo

import (
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

// TestDemoGoesOnWithTheSameLog: a later start changes nothing of what the tenant
// has told before.
func TestDemoGoesOnWithTheSameLog(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	script := Script{Seed: 7, Anchor: begin, Events: 300, Rate: 2, Starts: []time.Time{begin}}
	told := map[string]string{}
	for _, pause := range []time.Duration{90 * time.Second, 5 * time.Minute, 47 * time.Minute, time.Second} {
		now := script.Starts[len(script.Starts)-1].Add(pause)
		cfg := script.Tenant()
		cfg.Now = func() time.Time { return now }
		tenant := auth0sim.New(cfg)
		seen := 0
		for _, id := range tenant.IDs() {
			raw, _ := tenant.Event(id)
			if before, ok := told[id]; ok {
				seen++
				if before != string(raw) {
					t.Fatalf("%s was changed", id)
				}
			}
		}
		if seen != len(told) {
			t.Fatalf("%d of %d events are gone", len(told)-seen, len(told))
		}
		for _, id := range tenant.IDs() {
			raw, _ := tenant.Event(id)
			told[id] = string(raw)
		}
		script.Starts = append(script.Starts, now)
	}
}
