// Package correlation holds the types of Sigma correlations: what each one counts, how it is
// evaluated over a window of events, how much a group must keep for it, how it is described, and
// its SQL. Each type has a file; Types lists them.
//
// It knows nothing of rule files, events or alerts: package rules reads a Spec, and package
// scanner fills the windows.
package correlation
