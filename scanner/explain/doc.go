// Package explain says why a rule fires at an event, or why it does not: which conditions match, what
// the windows of its groups have counted, and which alert is open. It runs an engine of package scanner
// over the events around the explained one and describes the engine's state right after it.
package explain
