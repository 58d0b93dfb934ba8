package schema

import "time"

// Coverage is what an audit found out about an hour of a tenant's log, by the
// time in the log_ids: Expected = Stored + Dead + Missing.
type Coverage struct {
	Tenant    string
	Hour      time.Time
	From      time.Time // the part of the hour that was looked at
	Until     time.Time
	Expected  uint64 // events that Auth0 has
	Stored    uint64 // that ClickHouse has too, after the audit
	Dead      uint64 // that are kept as dead letters
	Missing   uint64 // that are still missing after the audit
	Healed    uint64 // that were missing, and were pulled again and stored
	CheckedAt time.Time
}
