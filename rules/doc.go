// Package rules reads detection rules in the Sigma format, version 2.1, and
// finds the events that they match.
//
// Load compiles the files of some sources into a Set, and says in a Report what
// became of each document: what cannot be evaluated as written is refused with
// its place, what needs a variable is disabled until that is set, and what is for
// another product than Auth0 is left out unless Settings say otherwise. A Set has the rules; a
// Matcher runs its detections over events, one after the other. What happens
// over time, correlations and alerts, is only described here; package scanner
// evaluates it. A Matcher also explains how each part of a detection comes out,
// Settings.Lint finds mistakes in rules, and Set.SQL writes a rule as a query for ClickHouse.
//
// # Detections
//
// All of Sigma's conditions and modifiers are supported. Text is compared without
// regard to case, numbers and booleans also with their text. Null stands for an
// absent field, too. An array stands for its members: a test holds when it holds
// for one of them. A field may be written with the envelope of a log stream
// ("data.type") or without, and arrays with "{}"; events may come either way.
//
// A placeholder is %name% with the modifier expand, as Sigma has it, or, in rules for
// Auth0, {name} as a whole value, as Auth0's catalog has it.
//
// # Speed
//
// A Matcher reads of an event what its rules ask for. Rules that demand a type are
// narrowed to what is left of them for that type; of the others, an index of the texts
// that they need says which an event may match.
//
// # Correlations
//
// All of Sigma's types are supported, with aliases, ranges, conditions in words
// and correlations of correlations; the README says how what Sigma leaves open is
// taken. Three types are ours, under the key x-tenantwatch-correlation so that no other
// tool misreads them. event_ratio is about the part, from 0 to 1, of the events of the
// detections in "among" that match those in "rules", where the window has "min" of
// them at least. event_spike is about how many times as many events there are as in
// the median of the windows at the same time of the days before, as many days as
// "over" says; "min" as well. last_events is true while at least so many of the last events
// of the detections in "among" match the detections in "rules". Such as, 3 of the
// last 5 runs failed:
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
// x-tenantwatch-vars has defaults for variables. x-tenantwatch-alert says how a
// rule alerts, each key being optional: class (event or condition), levels
// (higher levels and the counts from which they apply), resolve_below,
// keep_firing_for, investigation, summary, and for a detection group-by; see [Alert].
package rules
