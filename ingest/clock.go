package ingest

import (
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// The tenant's ids and dates come from its clock. So every time that is compared with them
// is converted to that clock: ours may be an hour ahead, on a machine that was resumed.

const (
	// clockNoise is a difference that does not count: the Date of an answer is in whole seconds.
	clockNoise = 2 * time.Second
	// ClocksDiffer is the difference from which it is reported.
	ClocksDiffer = 30 * time.Second
)

// compareClocks compares our clock with the tenant's time in an answer.
func (p *Puller) compareClocks(page auth0.Page) {
	if page.Date.IsZero() {
		return
	}
	came := page.Came
	if came.IsZero() {
		came = time.Now()
	}

	// Date is cut off to seconds: half of one is the expected value.
	ahead := came.Sub(page.Date) - 500*time.Millisecond
	p.cfg.Metrics.clock.WithLabelValues(p.cfg.Tenant).Set(ahead.Seconds())

	// Log a difference once, and again when it changes.
	p.mu.Lock()
	first, logged := p.tenantDate.IsZero(), p.clockAheadLogged
	p.tenantDate, p.clockAhead = page.Date, ahead
	if ahead.Abs() < clockNoise {
		p.clockAhead = 0
	}
	changed := first || (ahead-logged).Abs() > ClocksDiffer
	if changed {
		p.clockAheadLogged = ahead
	}
	p.mu.Unlock()

	switch rounded := ahead.Round(time.Second); {
	case changed && ahead.Abs() > ClocksDiffer:
		p.cfg.Log.Warn("our clock differs from the tenant's; correct the clock of this machine", "ahead", rounded)
	case changed:
		p.cfg.Log.Info("our clock agrees with the tenant's", "ahead", rounded)
	}
}

// lead returns how far our clock is ahead of the tenant's.
func (p *Puller) lead() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clockAhead
}

// now returns the tenant's time.
func (p *Puller) now() time.Time { return p.byTenant(time.Now()) }

// byTenant converts a time of our clock to the tenant's clock.
func (p *Puller) byTenant(t time.Time) time.Time { return t.Add(-p.lead()) }

// beginning returns a time that the tenant's clock has certainly reached.
func (p *Puller) beginning() time.Time {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()

	// The tenant's last answer is a little older than now, but certain.
	if !p.tenantDate.IsZero() && p.tenantDate.Before(now) {
		now = p.tenantDate
	}
	return now.UTC().Truncate(time.Second)
}
