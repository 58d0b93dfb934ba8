// Package scanner runs rules over a tenant's events and says when an alert
// begins, grows and ends.
//
// Time is event time. A window slides: (t-timespan, t] at every event, never a
// fixed bucket, so that no series is cut in two. Events come out of order, late
// and more than once; each is put in its place and counted once. What came of an
// event depends on the events before it in its partition alone, never on when it
// was scanned, so that a second scan gives the same alerts.
//
// Engine is the evaluation, free of input and output; Stream feeds it from Kafka.
// An Explainer says why a rule fires at an event or does not.
package scanner
