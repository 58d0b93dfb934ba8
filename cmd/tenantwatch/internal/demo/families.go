package demo

import (
	"context"
	"sync"

	"github.com/tenantwatch/tenantwatch/scanner/alert"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Families is a sink that records which families of alerts have fired, and whether the probe has
// recovered.
type Families struct {
	mu      sync.Mutex // guards missing
	missing map[string]bool
	seen    chan struct{} // closed when none is missing
}

// probeRecovered stands for the resolved alert of the probe among the families.
const probeRecovered = "probe recovered"

// NewFamilies returns a sink that has seen none.
func NewFamilies() *Families {
	return &Families{seen: make(chan struct{}), missing: map[string]bool{
		"rate limit": true, "authentication": true, "management api": true, "probe": true, probeRecovered: true}}
}

// Notify records an alert.
func (s *Families) Notify(_ context.Context, a *schema.Alert) error {
	family := alert.Family(a)
	if a.State == schema.StateResolved {
		if family != "probe" {
			return nil
		}
		// Of resolved alerts only that of the probe counts: the outage is over.
		family = probeRecovered
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing[family] {
		delete(s.missing, family)
		if len(s.missing) == 0 {
			close(s.seen)
		}
	}
	return nil
}

// Seen is closed once all have been seen.
func (s *Families) Seen() <-chan struct{} { return s.seen }
