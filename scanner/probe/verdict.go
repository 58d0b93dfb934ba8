package probe

import (
	"fmt"
	"time"
)

// A verdict is bad if maxFailures of the last verdictRuns runs failed: one failed run
// is not an outage.
const (
	verdictRuns = 5
	maxFailures = 3
)

// Verdict reports whether login works. It does not if 3 of the last 5 runs failed, or
// if there was no run for a while. The reasons come newest first.
func (p *Probe) Verdict() (ok bool, reasons []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.last) == 0 {
		return false, []string{"login: no run has ended yet"}
	}

	// Three missed runs, or one that a response delayed.
	overdue := max(3*p.cfg.Interval, p.last[0].Wait) + p.cfg.Timeout
	if age := time.Since(p.last[0].At); age > overdue {
		return false, []string{fmt.Sprintf("login: the last run was %s ago", age.Round(time.Second))}
	}

	for _, r := range p.last {
		if !r.OK {
			at := r.At.UTC().Format(time.RFC3339)
			reasons = append(reasons, fmt.Sprintf("login: %s: %d %s %s", at, r.Status, r.Error, r.Message))
		}
	}
	return len(reasons) < maxFailures, reasons
}
