// Package ingest brings a tenant's log events into Kafka (Puller) and from
// there into ClickHouse (package write), each event at least once on every hop and
// exactly once in the view events.
//
// Every hop has the same order: data is made durable at the destination first,
// and only then acknowledged at the source.
//
//	page fetched → events acknowledged by Kafka → checkpoint saved → next start resumes there
//	record read → row inserted into ClickHouse, or dead letter acknowledged by Kafka → offset committed
//
// A crash between two of these steps repeats the step before it. Repeats are
// harmless, because an event is identified by (tenant, log_id). Nothing is ever
// skipped to make progress.
//
// Package auth0 implements the calls to a tenant, package pace divides them, and
// package kafka implements the protocol of Kafka.
package ingest
