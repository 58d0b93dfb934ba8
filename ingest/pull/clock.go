package pull

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

const (
	// clockNoise is a difference that does not count: the Date of an answer is in whole seconds.
	clockNoise = 2 * time.Second
	// clocksDiffer is the difference from which it is reported.
	clocksDiffer = 30 * time.Second
)

// clock is the tenant's clock, as its answers show it. The tenant's ids and dates come from that
// clock. So every time that is compared with them is converted to it: ours may be an hour ahead, on
// a machine that was resumed.
type clock struct {
	tenant string
	log    *slog.Logger
	skew   *prometheus.GaugeVec

	mu     sync.Mutex    // guards the fields below
	ahead  time.Duration // of our clock, compared with the tenant's
	logged time.Duration // ahead, when it was last logged
	date   time.Time     // of the tenant's last answer
}

// reset forgets the answers of an earlier run.
func (c *clock) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.date, c.ahead = time.Time{}, 0
}

// compare compares our clock with the tenant's time in an answer.
func (c *clock) compare(page auth0.Page) {
	if page.Date.IsZero() {
		return
	}
	came := page.Came
	if came.IsZero() {
		came = time.Now()
	}

	// Date is cut off to seconds: half of one is the expected value.
	ahead := came.Sub(page.Date) - 500*time.Millisecond
	c.skew.WithLabelValues(c.tenant).Set(ahead.Seconds())

	// Log a difference once, and again when it changes.
	c.mu.Lock()
	first, logged := c.date.IsZero(), c.logged
	c.date, c.ahead = page.Date, ahead
	if ahead.Abs() < clockNoise {
		c.ahead = 0
	}
	changed := first || (ahead-logged).Abs() > clocksDiffer
	if changed {
		c.logged = ahead
	}
	c.mu.Unlock()

	switch rounded := ahead.Round(time.Second); {
	case changed && ahead.Abs() > clocksDiffer:
		c.log.Warn("our clock differs from the tenant's; correct the clock of this machine", "ahead", rounded)
	case changed:
		c.log.Info("our clock agrees with the tenant's", "ahead", rounded)
	}
}

// Lead returns how far our clock is ahead of the tenant's.
func (c *clock) Lead() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead
}

// Now returns the tenant's time.
func (c *clock) Now() time.Time { return c.byTenant(time.Now()) }

// byTenant converts a time of our clock to the tenant's clock.
func (c *clock) byTenant(t time.Time) time.Time { return t.Add(-c.Lead()) }

// beginning returns a time that the tenant's clock has certainly reached.
func (c *clock) beginning() time.Time {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()

	// The tenant's last answer is a little older than now, but certain.
	if !c.date.IsZero() && c.date.Before(now) {
		now = c.date
	}
	return now.UTC().Truncate(time.Second)
}
