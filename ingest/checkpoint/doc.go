// Package checkpoint keeps the positions of a tenant's chains in a topic of Kafka.
//
// A chain pulls or audits a stretch of the tenant's log: the tail, a slice of the backfill, an audit.
// Its checkpoint says up to which log_id it is done, and is also the request for a chain by another
// process. The package promises that checkpoints become durable in the order in which they were
// saved, that the start of a chain is never skipped, and that a damaged record costs only repeated
// work. It leaves to others what a chain does and when it may save: after Kafka has acknowledged
// the events up to the checkpoint.
package checkpoint
