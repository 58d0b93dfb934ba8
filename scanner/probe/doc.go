// Package probe logs in to a tenant periodically, as a user would, and produces the
// result of every run as an event, so that a broken login is visible even if the
// tenant logs nothing.
//
// A refused password is never sent again: brute-force protection would lock the user,
// for up to 30 days. After a refusal every run fails without a call, until the process
// is restarted with the right password.
package probe
