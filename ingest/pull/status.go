package pull

import (
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Status is the state of a pull.
type Status struct {
	Tenant    string
	Running   bool           // this process leads the tenant
	Backfill  bool           // some events of the past are not pulled yet
	Slices    BackfillStatus // of the backfill, if it is cut into slices
	Serial    int            // backfills that the tail itself has finished
	Events    uint64         // acknowledged since this start
	Total     uint64         // acknowledged by the tail in all
	Oldest    time.Time      // of the first event that the tail pulled
	Position  time.Time      // of the newest acknowledged event; zero at first
	LiveFrom  time.Time      // end of the backfill
	CaughtUp  time.Time      // when the tenant last had no more events; zero if never
	Limit     auth0.Limit
	Use       pace.Use
	Failing   string // why calls fail at the moment; empty if they succeed
	LastLogID string
}

// Status returns the state of the pull.
func (p *Puller) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()

	status := p.status
	status.Tenant, status.Total = p.cfg.Tenant, p.tail.Events
	status.LiveFrom, status.LastLogID = p.tail.LiveFrom, p.tail.LogID
	status.Slices = p.backfill.status()

	// Before start is finished, it is not known yet whether there is a backfill.
	starting := status.Running && p.tail.LogID == "" && !p.cfg.RequestsOnly
	status.Backfill = p.tail.Backfill || starting || status.Slices.Chains > 0

	status.Failing = p.outage.current()
	status.Limit, status.Use = p.limiter.Limit(), p.limiter.Use()
	status.Oldest, _ = schema.IDTime(p.tail.Oldest)
	status.Position, _ = schema.IDTime(p.tail.LogID)
	return status
}
