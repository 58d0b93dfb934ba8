// Package auth0sim is one simulated Auth0 tenant as an http.Handler: its token
// endpoint, its Management API as far as logs go, its health endpoints and its
// status feeds.
//
// The tenant's log is known exactly. Background events are a pure
// function of (Config.Seed, Config.Anchor, index): they take no memory, any page
// can be rendered from any checkpoint, and a restart with the same Config gives
// the same log byte for byte. Attacks are scripted and have Answers. Events caused
// by a caller (token fetches, failed logins, rate limits, Inject) are kept in
// memory and lost at a restart. IDs, Total and Event return what a client must
// have found.
//
// It implements what is known of the wire: ids ordered by ingest time, dates that
// are out of that order, batches that share a microsecond, late arrivals, mixed
// shapes, Link headers, limits, error bodies. Behavior that Auth0 does not
// document is marked "modeled" in a comment. The package is not a reference for
// anything else of Auth0. It imports nothing else of this module, so that it shares
// no mistake with it.
package auth0sim
