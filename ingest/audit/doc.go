// Package audit proves that every event of a tenant is stored: it reads the log again, compares it
// with ClickHouse and the deadletter topic, and pulls what is missing.
//
// It promises that each audited hour has a row in coverage with what the tenant has and what is
// stored, that an event counts as missing only if no backfill, insert or late arrival explains it,
// and as healed only once it is stored. Missing events are reported by an event of our own even if
// all were recovered, since something has lost them.
//
// There are three kinds: every hour after its end, everything that the tenant still has in rounds,
// and what another process requests. An audit is a chain with a checkpoint: after a crash it resumes
// after the last piece that it compared.
//
// It leaves to the pull how the log is read and events are produced, see Pull.
package audit
