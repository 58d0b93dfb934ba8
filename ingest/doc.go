// Package ingest has no code; its folders bring a tenant's log events into Kafka and from there
// into ClickHouse, each event at least once on every hop and exactly once in the view events.
//
//	auth0 ─▶ pull ─▶ kafka ─▶ write ─▶ ClickHouse
//	  ▲        │ ▲                         │
//	 pace ─────┘ └──────── audit ◀─────────┘
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
// From top to bottom: lead decides which process pulls a tenant; pull runs the chains of a tenant and its
// audits; audit compares what is stored with the tenant; checkpoint keeps the positions of chains; pace divides
// the calls; auth0 makes them. write, deadletter, logstream, eventfile, kafka and kafkalocal know none of these.
package ingest
