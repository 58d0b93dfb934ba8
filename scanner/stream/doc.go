// Package stream runs rules over the partitions of the events topic as they grow and produces the
// alerts to Kafka.
//
// It promises at least once: an event's alerts are acknowledged before its offset is committed. After
// a crash, the events since the last commit are scanned again and give the same alerts. Before the
// first new event, it replays the events that the windows reach back to, and restores the alerts that
// are open.
package stream
