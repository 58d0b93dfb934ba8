// Package auth0sim is one simulated Auth0 tenant as an http.Handler: its token
// endpoint, its Management API as far as logs go, its health endpoints and its
// status feeds.
//
// It promises that the tenant's log is known. Background events are a pure
// function of (Config.Seed, Config.Anchor, index): they take no memory, any page
// can be rendered from any checkpoint, and a restart with the same Config gives
// the same log byte for byte. Attacks are scripted and come with their Answers.
// Events caused by a caller (token fetches, failed logins, rate limits, Inject)
// are kept in memory and are gone after a restart. IDs, Total and Event tell
// what a client must have found.
//
// It speaks what is known of the wire: ids ordered by ingest time, dates that
// are out of that order, batches that share a microsecond, late arrivals, mixed
// shapes, Link headers, limits, error bodies. Where Auth0 documents nothing the
// comment says "modelled". It is no reference for anything else of Auth0, and it
// imports nothing else of this module, so that no mistake is shared.
package auth0sim
