// Package silence checks once a minute whether a tenant's events arrive and produces the
// result as an event, so that rules can detect silence:
//
//	{"type":"tenantwatch_health","details":{
//	  "events":       {"newest":"…","age_seconds":12.5,"limit_seconds":900,"silent":false},
//	  "probe":        {"newest":"…","age_seconds":31,"limit_seconds":300,"silent":false},
//	  "checkpoint":   {"newest":"…","age_seconds":95,"limit_seconds":1800,"silent":false},
//	  "clock":        {"ahead_seconds":-2,"off":false},
//	  "dead_letters": {"hour":0,"growing":false},
//	  "store":        {"ok":true},
//	  "roles":        {"ok":true}}}
//
// newest is the date of the newest event of Auth0, the date of the newest result of the
// probe, and the time at which the tail's checkpoint was last saved. limit_seconds is
// the age above which this is silence. probe and checkpoint are absent if the tenant
// has none; for example, a tenant that is only received from a log stream has no
// checkpoint.
//
// clock is how far the clock of the pulling process is ahead of the tenant's, by which
// the age of Auth0's events is corrected. It is off beyond 30 s, and absent without a
// checkpoint. If ClickHouse does not answer, store.ok is false, store.error has the
// reason, and events and probe are absent. roles.ok is false while roles of the process
// that produces the event fail, for the reason in roles.error.
package silence
