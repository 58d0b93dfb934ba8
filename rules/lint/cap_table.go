package lint

import (
	"slices"
	"time"
)

// eventCap is a limit of Auth0's own: events beyond it do not occur, so a rule that requires them can
// never fire. It is modeled as a bucket with burst tokens that gains one token per interval every.
type eventCap struct {
	name        string
	types       []string      // of the events
	apart       bool          // each of the types has, or may have, its own bucket
	description string        // sapi: the description of the events; empty for any
	per         [][]string    // what has its own bucket: for each part of the key, the fields that may hold it
	burst       int           // maximum number of events at once
	every       time.Duration // interval after which one more is possible
	hard        bool          // it always applies, whatever the tenant's settings
	source      string
}

// allCaps returns the limits that Auth0 documents.
func allCaps() []eventCap {
	return slices.Concat(mfaCaps(), attackCaps(), noticeCaps())
}

// The fields that may hold the parts of a bucket's key.
func userFields() []string { return []string{"user_id", "user_name"} }
func ipFields() []string   { return []string{"ip"} }

// configurations is the source of several limits.
const configurations = "rate limit configurations of the Authentication API"

// mfaCaps returns the limits of multi-factor authentication.
func mfaCaps() []eventCap {
	return []eventCap{
		{
			name:  "text messages and calls for MFA",
			types: []string{"gd_send_sms", "gd_send_voice"}, apart: true, per: [][]string{userFields()},
			burst: 10, every: time.Hour, hard: true,
			source: "10 an hour to a user, then one an hour (" + configurations + ")",
		},
		{
			name:  "push notifications for MFA",
			types: []string{"gd_send_pn"}, per: [][]string{userFields()},
			burst: 5, every: 12 * time.Second, hard: true,
			source: "5 a minute to a user (" + configurations + ")",
		},
		{
			name:  "wrong recovery codes",
			types: []string{"gd_recovery_failed"}, per: [][]string{userFields()},
			burst: 10, every: 6 * time.Minute, hard: true,
			source: "10 an hour of a user, then gd_recovery_rate_limit_exceed (" + configurations + ")",
		},
		{
			name:  "wrong one-time passwords",
			types: []string{"gd_auth_failed"}, per: [][]string{userFields()},
			burst: 10, every: 6 * time.Minute,
			source: "10 an hour of a user, then gd_otp_rate_limit_exceed (" + configurations + "); " +
				"other failures are not limited",
		},
	}
}

// attackCaps returns the limits of attack protection and of dynamic registration.
func attackCaps() []eventCap {
	return []eventCap{
		// A client that stays below 20 logins a minute may never be limited to the 10 that follow.
		{
			name:  "logins of one user from one address",
			types: []string{"fp", "fu"}, per: [][]string{ipFields(), userFields()},
			burst: 20, every: 3 * time.Second, hard: true,
			source: "20 a minute, then limit_sul and 10 a minute " +
				"(rate limit policy, logins of the same user to a database connection)",
		},
		{
			name:  "brute-force protection",
			types: []string{"fp", "fu"}, per: [][]string{ipFields(), userFields()},
			burst: 10, every: 30 * 24 * time.Hour,
			source: "by default 10 failures of an address with a user, then limit_wc; " +
				"a login resets the count, and the tenant can turn it off or set 1 to 100",
		},
		{
			name:  "suspicious IP throttling of logins",
			types: []string{"fp", "fu"}, per: [][]string{ipFields()},
			burst: 100, every: 864 * time.Second,
			source: "by default 100 failures of an address a day, then limit_mu; " +
				"a login resets the count, and the tenant can turn it off or change it",
		},
		{
			name:  "suspicious IP throttling of signups",
			types: []string{"ss", "fs", "signup_pwd_leak"}, per: [][]string{ipFields()},
			burst: 50, every: 1200 * time.Millisecond,
			source: "by default 50 a minute from an address, then limit_mu; the tenant can turn it off or change it",
		},
		{
			name:  "dynamic client registration",
			types: []string{"sapi"}, description: "Dynamic client registration",
			burst: 5, every: 200 * time.Millisecond, hard: true,
			source: "5 a second (" + configurations + ")",
		},
	}
}

// noticeCaps returns the limits of the events that report a limit or a leaked password.
func noticeCaps() []eventCap {
	return []eventCap{
		{
			name:  "notices of a rate limit",
			types: []string{"api_limit", "api_limit_warning"}, apart: true, per: [][]string{{"details.limit.bucket"}},
			burst: 1, every: time.Minute,
			source: "an event when a bucket is exceeded, another one if it still is after about a minute " +
				"(rate limit use cases)",
		},
		{
			name:  "notices of a performance burst",
			types: []string{"appi"},
			burst: 1, every: 15 * time.Minute,
			source: "one for each 15 minutes of the burst allowance (rate limit use cases)",
		},
		{
			name:  "notices of leaked passwords",
			types: []string{"pwd_leak"}, per: [][]string{ipFields()},
			burst: 1, every: time.Hour,
			source: "one an hour and address (log event type codes)",
		},
	}
}

// most returns the maximum number of events in a window (t - timespan, t]. An event exactly one
// timespan after the first is not in a window with it.
func (c *eventCap) most(timespan time.Duration) int {
	return c.burst + int((timespan+c.every-1)/c.every) - 1
}
