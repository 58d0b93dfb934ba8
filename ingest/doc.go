// Package ingest brings a tenant's log events into Kafka (Puller) and from
// there into ClickHouse (Writer), each event at least once on every hop and
// exactly once in the view events.
//
// The order is the same on every hop: what came is first made durable in the
// next place, and only then is the place it came from told to forget it.
//
//	page pulled → events acked by Kafka → checkpoint → next start goes on there
//	record read → row acked by ClickHouse, or dead letter acked by Kafka → offset committed
//
// If we die between two of these steps, the step before is done again and makes
// repeats. They are harmless because an event is known by (tenant, log_id).
// Nothing is ever skipped to make progress.
//
// How a tenant is called is package auth0's affair, how Kafka is spoken to
// package kafka's.
package ingest
