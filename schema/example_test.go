package schema_test

import (
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// An event as Auth0 sends it becomes a row: members with a column, details, and the rest.
func ExampleParseRow() {
	row, err := schema.ParseRow([]byte(`{"log_id": "90020260304", "date": "2026-03-04T10:00:00.250Z", "type": "fp",
		"ip": "203.0.113.9", "details": {"error": {"message": "Wrong password"}}, "new_member": null}`))
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(row.LogID, row.Type, row.Date.Format(time.RFC3339Nano))
	fmt.Println("ip:", row.Texts[schema.ColumnIndex("ip")])
	fmt.Println("details:", row.Details)
	fmt.Println("rest:", row.Rest)
	// Output:
	// 90020260304 fp 2026-03-04T10:00:00.25Z
	// ip: 203.0.113.9
	// details: {"error": {"message": "Wrong password"}}
	// rest: {"new_member":null}
}

// An event travels through Kafka as a record: its JSON unchanged, and what we know of it as headers.
func ExampleEvent_Record() {
	event := schema.Event{
		Tenant: "acme", Source: schema.SourceTail, FetchedAt: time.Date(2026, 3, 4, 10, 0, 1, 0, time.UTC),
		Raw: []byte(`{"log_id": "90020260304", "date": "2026-03-04T10:00:00.250Z", "type": "fp"}`),
	}
	record := event.Record()
	fmt.Println(string(record.Key), record.Header("source"), record.Header("fetched_at"))

	received := schema.EventOf(&record)
	if err := received.Identify(); err != nil {
		fmt.Println(err)
	}
	fmt.Println(received.LogID, received.Type, received.Date.Format(time.RFC3339Nano))
	// Output:
	// acme tail 2026-03-04T10:00:01Z
	// 90020260304 fp 2026-03-04T10:00:00.25Z
}

// Texts from outside become literals before they are part of a query.
func ExampleLiteral() {
	fmt.Println("SELECT count() FROM events WHERE user_name = " + schema.Literal(`O'Brien\`))
	// Output:
	// SELECT count() FROM events WHERE user_name = 'O\'Brien\\'
}

// A text with wildcards becomes a pattern: only * and ? stand for other characters.
func ExampleLike() {
	fmt.Println("user_agent LIKE " + schema.Like("*Chrome/1_2?"))
	// Output:
	// user_agent LIKE '%Chrome/1\\_2_'
}
