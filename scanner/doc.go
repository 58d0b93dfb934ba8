// Package scanner runs rules over a tenant's events and reports when an alert fires,
// escalates and ends.
//
// Time is event time. A window slides: it is (t-timespan, t] at every event, never a
// fixed bucket, so that no series is cut in two. Events may arrive out of order, late
// and more than once; each is sorted in and counted once. The result for an event
// depends only on the events before it in its partition, never on when it was scanned,
// so that a second scan gives the same alerts.
//
// Engine is the evaluation, without I/O. An event's way through it is one file a step:
//
//	engine.go    the matcher says which detections match, and so which rules to evaluate
//	insert.go    the event is inserted into the window of each of its groups
//	evaluate.go  every window with the event is evaluated
//	alert.go     alerts fire and escalate; those whose condition has ended resolve
//
// Package stream feeds an Engine from Kafka, package history from ClickHouse, Batch from
// a list of events. Package explain finds out why a rule fires at an event or does not.
package scanner
