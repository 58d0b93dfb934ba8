package pull

import (
	"log/slog"
	"time"
)

// Config configures the pull of one tenant.
type Config struct {
	Tenant       string        // its name in the data
	Domain       string        // host of its API; saved, so that it is not pulled under another name too
	Backfill     time.Duration // how far back the first start pulls; negative for everything, 0 for nothing
	Chains       int           // number of backfill chains that run in parallel; default 16
	Poll         time.Duration // pause after everything has been pulled; default 1 s
	Overlap      time.Duration // width of the overlap, which pulls late events; default 10 min
	OverlapEvery time.Duration // interval of the overlap; default 1 min
	RequestsOnly bool          // work on requests, and pull nothing else
	Retention    time.Duration // age at which ClickHouse drops events, so that no audit misses them; 0 for never
	Log          *slog.Logger
	Metrics      *Metrics
}

// withDefaults returns the configuration with the defaults filled in.
func (c Config) withDefaults() Config {
	if c.Poll <= 0 {
		c.Poll = time.Second
	}
	if c.Overlap <= 0 {
		c.Overlap = 10 * time.Minute
	}
	if c.OverlapEvery <= 0 {
		c.OverlapEvery = time.Minute
	}
	if c.Chains <= 0 {
		c.Chains = backfillChains
	}
	return c
}
