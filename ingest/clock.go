package ingest

import "time"

// The tenant's ids and dates are of its clock, so whatever is compared with them is
// told by that clock too: ours may be an hour ahead, of a machine that was resumed.

const (
	// clockNoise is what two clocks may differ by without a reason to think so: the
	// answers' Date is in whole seconds.
	clockNoise = 2 * time.Second
	// ClocksDiffer is a difference that is worth a word.
	ClocksDiffer = 30 * time.Second
)

// compareClocks takes the tenant's time from an answer.
func (p *Puller) compareClocks(page Page) {
	if page.Date.IsZero() {
		return
	}
	came := page.Came
	if came.IsZero() {
		came = time.Now()
	}
	ahead := came.Sub(page.Date) - 500*time.Millisecond // half of what Date cuts off
	p.cfg.Metrics.clock.WithLabelValues(p.cfg.Tenant).Set(ahead.Seconds())

	p.mu.Lock()
	first, before := p.tenantDate.IsZero(), p.aheadSaid
	p.tenantDate, p.ahead = page.Date, ahead
	if ahead.Abs() < clockNoise {
		p.ahead = 0
	}
	say := first || (ahead-before).Abs() > ClocksDiffer
	if say {
		p.aheadSaid = ahead
	}
	p.mu.Unlock()

	switch rounded := ahead.Round(time.Second); {
	case say && ahead.Abs() > ClocksDiffer:
		p.cfg.Log.Warn("our clock differs from the tenant's; set the clock of this machine", "ahead", rounded)
	case say:
		p.cfg.Log.Info("our clock agrees with the tenant's", "ahead", rounded)
	}
}

// lead is how far our clock is ahead of the tenant's.
func (p *Puller) lead() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ahead
}

// now is the tenant's time.
func (p *Puller) now() time.Time { return p.byTenant(time.Now()) }

// byTenant is a time of ours by the tenant's clock.
func (p *Puller) byTenant(t time.Time) time.Time { return t.Add(-p.lead()) }

// beginning is a time that the tenant's clock has surely reached.
func (p *Puller) beginning() time.Time {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tenantDate.IsZero() && p.tenantDate.Before(now) {
		now = p.tenantDate
	}
	return now.UTC().Truncate(time.Second)
}
