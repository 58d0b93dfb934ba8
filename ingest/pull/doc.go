// Package pull brings a tenant's log events into Kafka.
//
// A Puller promises that every event that the tenant shows is in Kafka at least once, in spite of
// crashes, outages of the tenant or of Kafka, rejected cursors and events that show up late. What it
// cannot promise it reports by an event of our own: a gap is a time whose events the tenant dropped
// before they were pulled.
//
//	page fetched → events acknowledged by Kafka → checkpoint saved → next start resumes there
//
// Its parts are chains, which share one budget of calls and one bound of memory:
//
//	          first start                                     now
//	 backfill     │          tail                              │
//	├──┤├──┤├────┤│───────────────────────────────────────────▶│
//	 slices, in   │                                   ├───────┤│  overlap: re-reads for late events
//	 parallel     │                                        ├──┤│  short overlap
//
// It leaves to others: calls and their errors (auth0), their pace (pace), positions (checkpoint),
// the comparison with ClickHouse (audit), and which process pulls a tenant. Two processes that pull
// the same tenant do no harm.
package pull
