// Package rules reads detection rules in the Sigma format, version 2.1.
//
// Load compiles the files of one or more sources into a Set. Its Report lists the
// outcome of each document: a document that cannot be evaluated as written is
// refused, with its position; one that needs a variable waits until that is set;
// one for another product than Auth0 is skipped unless Settings say otherwise.
//
// The rules themselves are used elsewhere. Package expr evaluates the detections of
// a Set for one event after the other, and explains the results. Package correlation
// has the types of correlations. Package scanner evaluates behavior over time, that
// is, correlations and alerts, which are only described here. Package lint finds
// mistakes in rules, and package tosql writes a rule as a query for ClickHouse.
//
// # Detections
//
// All of Sigma's conditions and modifiers are supported; package expr says how
// values compare.
//
// A placeholder is %name% with the modifier expand, as in Sigma, or, in rules for
// Auth0, {name} as a whole value, as in Auth0's catalog.
//
// # Correlations
//
// All of Sigma's types are supported, with aliases, ranges, conditions in words
// and correlations of correlations; the README says how we read what Sigma leaves
// open. Three types are our own, under the key x-tenantwatch-correlation so that no
// other tool misreads them:
//
//   - event_ratio is the share, from 0 to 1, of the events of the detections in
//     "among" that match those in "rules", in a window with at least "min" of them.
//   - event_spike is the number of events divided by the median of the windows at the
//     same time of the days before, for as many days as "over" says; "min" is as above.
//   - last_events is true while at least so many of the last events of the detections
//     in "among" match the detections in "rules".
//
// For example, 3 of the last 5 runs failed:
//
//	x-tenantwatch-correlation:
//	  type: last_events
//	  rules: failed
//	  among: run
//	  last: 5
//	  timespan: 1h
//	  condition:
//	    gte: 3
//
// # Keys of our own
//
// x-tenantwatch-vars holds defaults for variables. x-tenantwatch-alert says how a
// rule alerts; each key is optional: class (event or condition), levels
// (higher levels and the counts from which they apply), resolve_below,
// keep_firing_for, investigation, summary, and for a detection group-by; see [Alert].
package rules
