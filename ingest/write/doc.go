// Package write moves events from Kafka to ClickHouse.
//
// It promises that a record is committed only after its row is in ClickHouse and on its disk, or
// after Kafka has acknowledged it as a dead letter. Chunks of a partition are committed in their
// order. While ClickHouse or Kafka is down, the writer retries from bounded memory forever.
//
//	record fetched → chunk gathered → first dates looked up → blocks inserted → offset committed
//
// A crash repeats chunks, perhaps cut differently. The table drops the repeats, since a row is
// identified by its tenant, date and log_id; so an event that comes again with its date in another
// form is stored under its first date.
//
// It leaves to others: the assignment of partitions (kafka), the form of a row (schema), and the
// comparison of what is stored with the tenant (audit).
package write
