package scanner

import (
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Config bounds an Engine. Zero values select the defaults.
type Config struct {
	// Lateness is how long after newer events an event may arrive and still be
	// counted in its complete window. Default 5 min. A later event is counted with
	// the part of its window that is still kept.
	Lateness time.Duration
	// MaxAge is the age, when it is pulled, up to which an event may fire an alert.
	// Default 2 h. Backfilled events never fire one, whatever their age.
	MaxAge time.Duration
	// MaxGroups is the number of group keys that an Engine keeps for all rules
	// together. Default 200,000, about 100 MB with a few events each. Above it, the
	// least recently used groups without an open alert are evicted. Status counts
	// evictions, and an event of schema.TypeForgotten reports them to the rules.
	MaxGroups int
	// Samples is the number of log_ids in an alert. Default 5.
	Samples int
	// CorrelationsOnly leaves out the alerts of detections, which Batch returns itself.
	CorrelationsOnly bool
	// Explains makes windows that count distinct values keep the values themselves, not only
	// their hashes, so that Inspect can show them, and Reach end with the windows.
	Explains bool
	// Evaluated, if set, is called with the value of each window that is compared
	// with the condition of an alerting rule.
	Evaluated func(r *rules.Rule, g Evaluated, value float64)
}

// Evaluated is a group of a rule whose window was evaluated.
type Evaluated struct{ g *group }

// Key returns a key that is unique for each tenant and group of a rule.
func (v Evaluated) Key() string { return v.g.key }

// Tenant returns the tenant of the group's events.
func (v Evaluated) Tenant() string { return v.g.clock.tenant }

// Values returns the fields of the group key.
func (v Evaluated) Values() []schema.GroupValue { return v.g.values() }

// MaxAge is the default of Config.MaxAge.
const MaxAge = 2 * time.Hour

// withDefaults returns the configuration with the defaults filled in.
func (c Config) withDefaults() Config {
	if c.Lateness <= 0 {
		c.Lateness = 5 * time.Minute
	}
	if c.MaxAge <= 0 {
		c.MaxAge = MaxAge
	}
	if c.MaxGroups <= 0 {
		c.MaxGroups = 200_000
	}
	if c.Samples <= 0 {
		c.Samples = 5
	}
	return c
}
