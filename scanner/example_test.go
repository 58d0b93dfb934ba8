package scanner_test

import (
	"fmt"
	"testing/fstest"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// A correlation counts the events of an export, which may come in any order.
func ExampleBatch() {
	set, _ := rules.Load(nil, fstest.MapFS{"many.yml": {Data: []byte(`
title: Failed login
name: failed_login
logsource: {product: auth0}
detection:
    failed: {type: [f, fp, fu]}
    condition: failed
---
title: Many failed logins from one address
correlation:
    type: event_count
    rules: failed_login
    group-by: ip
    timespan: 10m
    condition: {gte: 3}
level: high
`)}})

	// Up to two log_ids an alert.
	batch := scanner.NewBatch(set, 2)
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for _, minute := range []int{4, 0, 2, 30} {
		date := noon.Add(time.Duration(minute) * time.Minute)
		event := schema.Event{Tenant: "acme", Raw: fmt.Appendf(nil,
			`{"log_id": "%d", "date": %q, "type": "fp", "ip": "203.0.113.9"}`, minute, date.Format(time.RFC3339))}
		if err := event.Identify(); err != nil {
			fmt.Println(err)
		}
		batch.Observe(&event)
	}

	for _, alert := range batch.Alerts() {
		fmt.Println(alert.StartsAt.Format(time.TimeOnly), alert.Level, alert.Title)
		fmt.Println(alert.Group, alert.Count, alert.LogIDs)
	}
	// Output:
	// 12:04:00 high Many failed logins from one address
	// [{ip 203.0.113.9}] 3 [2 4]
}
