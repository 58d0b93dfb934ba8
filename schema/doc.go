// Package schema holds the words of the system: what an event, an alert and a
// dead letter are, the Kafka topics that carry them and the ClickHouse tables
// that keep them.
//
// An event's identity is (tenant, log_id), an alert's is fingerprint + start.
// Both are derived, never drawn, so whatever is delivered twice is the same
// thing twice and harmless.
package schema
