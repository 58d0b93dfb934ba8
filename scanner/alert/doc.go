// Package alert delivers alerts to sinks and stores them in ClickHouse.
//
// Every transition in the alerts topic is delivered at least once: its offset is
// committed only after both. If the process stops in between, sinks get the transition
// again; in the table it is the same row.
package alert
