package schema

import "time"

// Coverage is the result of an audit for one hour of a tenant's log, by the
// time in the log_ids. Expected = Stored + Dead + Missing.
type Coverage struct {
	Tenant    string
	Hour      time.Time
	From      time.Time // the part of the hour that was audited
	Until     time.Time
	Expected  uint64 // events that Auth0 has
	Stored    uint64 // of these, in ClickHouse after the audit
	Dead      uint64 // of these, kept as dead letters
	Missing   uint64 // of these, missing even after the audit
	Healed    uint64 // events that were missing, and that the audit pulled again and stored
	CheckedAt time.Time
}
