package output

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
)

// State is how far a pull, or what reads as many events, has come.
type State struct {
	Done        uint64  // events
	Share       float64 // finished part, from 0 to 1
	Expected    float64 // events that are left; 0 if unknown
	Calls, Rate float64 // calls a second: made, and allowed; 0 without calls
}

// Progress shows the progress of a backfill: with a bar on a terminal, else with a line every lineInterval.
type Progress struct {
	c     *Console
	title string
	start time.Time
	due   time.Time // of the next line
}

const lineInterval = 10 * time.Second

// barSteps is the number of steps of a bar.
const barSteps = 1000

// StartProgress starts to show a progress. The caller ends it with Done.
func (c *Console) StartProgress(title string) *Progress {
	now := time.Now()
	if c.terminal {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bar = progressbar.NewOptions(barSteps,
			progressbar.OptionSetWriter(c.w),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionUseANSICodes(true),
			progressbar.OptionSetDescription(title))
	}
	return &Progress{c: c, title: title, start: now, due: now.Add(lineInterval)}
}

// Show updates the progress. When it started, first events had been pulled already, which do not count for
// the rate.
func (p *Progress) Show(s State, first uint64) {
	spent := time.Since(p.start).Seconds()
	rate := float64(s.Done-min(s.Done, first)) / max(spent, 0.001)

	// The expected events give the better estimate, where they are known.
	eta := "-"
	switch {
	case s.Expected > 0 && rate > 0:
		eta = formatSeconds(s.Expected / rate)
	case s.Share > 0.01:
		eta = formatSeconds(spent * (1 - s.Share) / s.Share)
	}

	// The share of the rate limit shows whether the pull could be faster.
	text := fmt.Sprintf("%s %s events, %s/s, ", p.title, Thousands(s.Done), Thousands(uint64(rate)))
	if s.Rate > 0 {
		text += fmt.Sprintf("%.0f %% of our limit, ", min(100*s.Calls/s.Rate, 100))
	}
	text += eta + " left"

	p.c.mu.Lock()
	// Set renders the bar, so it needs the lock that Write holds.
	bar := p.c.bar
	if bar != nil {
		bar.Describe(text)
		_ = bar.Set(int(barSteps * s.Share))
	}
	p.c.mu.Unlock()

	// Without a terminal, print a line now and then.
	if bar == nil && time.Now().After(p.due) {
		p.due = time.Now().Add(lineInterval)
		p.c.Printf("%s, %.0f %%", text, 100*s.Share)
	}
}

// formatSeconds formats a number of seconds as a duration.
func formatSeconds(n float64) string {
	return time.Duration(n * float64(time.Second)).Round(time.Second).String()
}

// Done removes the bar. It may be called more than once.
func (p *Progress) Done() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.bar != nil {
		_ = p.c.bar.Clear()
		p.c.bar = nil
	}
}
