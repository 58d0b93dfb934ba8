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

// console is the terminal that lines, log and progress bar share. Its Write
// makes room for a line above the bar.
type console struct {
	w        io.Writer
	terminal bool // w is one

	mu  sync.Mutex // guards bar and writes
	bar *progressbar.ProgressBar
}

func newConsole(w io.Writer) *console {
	f, ok := w.(*os.File)
	return &console{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// Write prints whole lines.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bar != nil {
		_ = c.bar.Clear()
		defer func() { _ = c.bar.RenderBlank() }()
	}
	return c.w.Write(p)
}

// printf prints a line.
func (c *console) printf(format string, args ...any) {
	fmt.Fprintf(c, format+"\n", args...)
}

// progress shows how far a backfill is: a bar on a terminal, otherwise a line
// every lineEvery.
type progress struct {
	c     *console
	what  string
	start time.Time
	due   time.Time
}

const lineEvery = 10 * time.Second

func (c *console) startProgress(what string) *progress {
	now := time.Now()
	p := &progress{c: c, what: what, start: now, due: now.Add(lineEvery)}
	if c.terminal {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bar = progressbar.NewOptions(1000, progressbar.OptionSetWriter(c.w), progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionUseANSICodes(true),
			progressbar.OptionSetDescription(what))
	}
	return p
}

// show tells how far a backfill is that had pulled first events when the progress
// began.
func (p *progress) show(s pullStatus, first uint64) {
	spent := time.Since(p.start).Seconds()
	rate := float64(s.done-min(s.done, first)) / max(spent, 0.001)
	eta := "-"
	switch {
	case s.expected > 0 && rate > 0:
		eta = time.Duration(s.expected / rate * float64(time.Second)).Round(time.Second).String()
	case s.share > 0.01:
		eta = time.Duration(spent * (1 - s.share) / s.share * float64(time.Second)).Round(time.Second).String()
	}
	text := fmt.Sprintf("%s %s events, %s/s, ", p.what, thousands(s.done), thousands(uint64(rate)))
	if s.rate > 0 {
		text += fmt.Sprintf("%.0f %% of our limit, ", min(100*s.calls/s.rate, 100))
	}
	text += eta + " left"
	p.c.mu.Lock()
	bar := p.c.bar
	if bar != nil {
		bar.Describe(text)
		_ = bar.Set(int(1000 * s.share))
	}
	p.c.mu.Unlock()
	if bar == nil && time.Now().After(p.due) {
		p.due = time.Now().Add(lineEvery)
		p.c.printf("%s, %.0f %%", text, 100*s.share)
	}
}

// done removes the bar.
func (p *progress) done() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.bar != nil {
		_ = p.c.bar.Clear()
		p.c.bar = nil
	}
}

// thousands writes a number with commas.
func thousands(n uint64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
