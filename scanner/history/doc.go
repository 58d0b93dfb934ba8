// Package history runs rules over the events that ClickHouse keeps: over any time
// for a backtest, and again and again for rules whose windows are too long for the
// stream.
//
// A rule means the same as in the stream since the same code decides: ClickHouse is
// asked for the events that may matter, with the members that the rules look at, and
// a scanner.Engine judges them. What ClickHouse leaves out are events of other types
// and groups that have too few events anywhere.
package history
