// Package history runs rules over the events stored in ClickHouse: over any span for
// a backtest, and periodically for rules whose windows are too long for the stream.
//
// A rule means the same as in the stream, since the same code evaluates it. ClickHouse
// returns the events that may matter, with the members that the rules read, and a
// scanner.Engine observes them. ClickHouse leaves out events of other types, and
// groups that have too few events in any window.
package history
