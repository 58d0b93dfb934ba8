// Package web is the HTTP server of a process, and what it serves: metrics, liveness, readiness, the verdicts of
// the probes and the start page.
package web
