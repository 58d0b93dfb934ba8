// Package output is what commands print: rows as a table, JSON or CSV, progress, explanations and backtests
// for people. It is the only place that knows an output format. Texts that come from events or rules are
// escaped before they reach a terminal.
package output
