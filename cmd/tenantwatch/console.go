package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// console is an output that lines, the log and a progress bar share. Write puts its lines above the bar.
type console struct {
	w        io.Writer
	terminal bool // w is a terminal

	mu  sync.Mutex // guards bar and writes
	bar *progressbar.ProgressBar
}

func newConsole(w io.Writer) *console {
	file, ok := w.(*os.File)
	return &console{w: w, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

// Write prints whole lines.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bar != nil {
		_ = c.bar.Clear()
		// Draw the bar again below the lines.
		defer func() { _ = c.bar.RenderBlank() }()
	}
	return c.w.Write(p)
}

// printf prints a line.
func (c *console) printf(format string, args ...any) {
	fmt.Fprintf(c, format+"\n", args...)
}

// progress shows the progress of a backfill: with a bar on a terminal, else with a line every lineInterval.
type progress struct {
	c     *console
	title string
	start time.Time
	due   time.Time // of the next line
}

const lineInterval = 10 * time.Second

// barSteps is the number of steps of a bar.
const barSteps = 1000

func (c *console) startProgress(title string) *progress {
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
	return &progress{c: c, title: title, start: now, due: now.Add(lineInterval)}
}

// show updates the progress. When it started, first events had been pulled already, which do not count for
// the rate.
func (p *progress) show(s pullStatus, first uint64) {
	spent := time.Since(p.start).Seconds()
	rate := float64(s.done-min(s.done, first)) / max(spent, 0.001)

	// The expected events give the better estimate, where they are known.
	eta := "-"
	switch {
	case s.expected > 0 && rate > 0:
		eta = formatSeconds(s.expected / rate)
	case s.share > 0.01:
		eta = formatSeconds(spent * (1 - s.share) / s.share)
	}

	// The share of the rate limit shows whether the pull could be faster.
	text := fmt.Sprintf("%s %s events, %s/s, ", p.title, thousands(s.done), thousands(uint64(rate)))
	if s.rate > 0 {
		text += fmt.Sprintf("%.0f %% of our limit, ", min(100*s.calls/s.rate, 100))
	}
	text += eta + " left"

	p.c.mu.Lock()
	// Set renders the bar, so it needs the lock that Write holds.
	bar := p.c.bar
	if bar != nil {
		bar.Describe(text)
		_ = bar.Set(int(barSteps * s.share))
	}
	p.c.mu.Unlock()

	// Without a terminal, print a line now and then.
	if bar == nil && time.Now().After(p.due) {
		p.due = time.Now().Add(lineInterval)
		p.c.printf("%s, %.0f %%", text, 100*s.share)
	}
}

// formatSeconds formats a number of seconds as a duration.
func formatSeconds(n float64) string {
	return time.Duration(n * float64(time.Second)).Round(time.Second).String()
}

// done removes the bar. It may be called more than once.
func (p *progress) done() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.bar != nil {
		_ = p.c.bar.Clear()
		p.c.bar = nil
	}
}

// thousands formats a number with commas.
func thousands(n uint64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
