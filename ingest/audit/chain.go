package audit

import (
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// chainPrefix is the prefix of comparisons with ClickHouse.
const chainPrefix = "audit/"

// Request returns a checkpoint that requests an audit from the leader of a tenant. It
// compares ClickHouse with the tenant's events that were stored between two times, and
// pulls the missing ones if repair is set. The times are widened to whole hours.
func Request(tenant, name string, from, until time.Time, repair bool) checkpoint.Checkpoint {
	chain := newChain(tenant, name, from.Truncate(time.Hour), until, repair)
	chain.Requested = true
	return chain
}

// newChain returns the start of an audit.
func newChain(tenant, name string, from, until time.Time, repair bool) checkpoint.Checkpoint {
	id := schema.SyntheticID(from)
	return checkpoint.Checkpoint{Tenant: tenant, Chain: chainPrefix + name, From: id, LogID: id,
		Until: schema.SyntheticID(until), Repair: repair, Audit: &checkpoint.Tally{}}
}

// The background audits. Both repair.
const (
	nameFresh = "fresh" // each hour after its end
	nameRound = "round" // everything that the tenant still has, again and again
)

// IsBackground reports whether a chain is one of the background audits. They never end for
// good.
func IsBackground(chain string) bool {
	return chain == chainPrefix+nameFresh || chain == chainPrefix+nameRound
}

// IsRequest reports whether a chain is an audit that somebody requested.
func IsRequest(chain string) bool {
	return strings.HasPrefix(chain, chainPrefix) && !IsBackground(chain)
}
