// Package schema defines the terms of the system: events, alerts and dead letters,
// the Kafka topics that carry them and the ClickHouse tables that store them.
//
// An event is identified by (tenant, log_id), an alert by fingerprint + start.
// Both are derived from the content, never generated, so a record that is delivered
// twice has the same identity and does no harm.
package schema
