package lead

import (
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Progress sums the progress of requested chains.
type Progress struct {
	total  float64                          // seconds that the chains cover together
	chains map[string]checkpoint.Checkpoint // the newest of each, by its key
}

// NewProgress returns the progress of chains that cover so much time together.
func NewProgress(total time.Duration) *Progress {
	return &Progress{total: total.Seconds(), chains: map[string]checkpoint.Checkpoint{}}
}

// Add records a checkpoint and returns the progress of all chains: their events, and the finished part, from 0
// to 1.
func (p *Progress) Add(c checkpoint.Checkpoint) (events uint64, share float64) {
	p.chains[c.Key()] = c

	// What is left of a chain is the time from its position to its end.
	var left float64
	for _, chain := range p.chains {
		events += chain.Events
		if !chain.Done {
			at, _ := schema.IDTime(chain.LogID)
			end, _ := schema.IDTime(chain.Until)
			left += max(end.Sub(at).Seconds(), 0)
		}
	}
	return events, min(max(1-left/p.total, 0), 1)
}
