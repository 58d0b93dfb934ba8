// Package scanner runs rules over a tenant's events and reports when an alert fires,
// escalates and ends.
//
// Time is event time. A window slides: it is (t-timespan, t] at every event, never a
// fixed bucket, so that no series is cut in two. Events may arrive out of order, late
// and more than once; each is sorted in and counted once. The result for an event
// depends only on the events before it in its partition, never on when it was scanned,
// so that a second scan gives the same alerts.
//
// Engine is the evaluation, without I/O. Stream feeds it from Kafka, Batch from a list
// of events. Explainer finds out why a rule fires at an event or does not.
package scanner
