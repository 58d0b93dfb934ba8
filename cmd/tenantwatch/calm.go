package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// calmPeriod is how often a warning is logged that comes again and again.
const calmPeriod = time.Minute

// calm passes on each warning once a minute at most, with how often it came meanwhile. A
// warning is the same when its message, and what the logger itself always adds, are; its
// own attributes, such as an error's text, may differ. Other levels pass: information is
// rare, and an error is never the same twice. They also tell that something has changed,
// such as that calls succeed again: the logger's next warning is a new one.
type calm struct {
	slog.Handler
	with   string // what WithAttrs and WithGroup added
	shared *calmed
}

// calmed is what a calm and those derived from it have in common.
type calmed struct {
	now func() time.Time

	mu   sync.Mutex                      // guards seen
	seen map[string]map[string]*repeated // by logger and message
}

type repeated struct {
	last  time.Time // when it was logged
	times int       // how often it came since
}

func newCalm(next slog.Handler) *calm {
	return &calm{Handler: next, shared: &calmed{now: time.Now, seen: map[string]map[string]*repeated{}}}
}

func (c *calm) Handle(ctx context.Context, r slog.Record) error {
	if r.Level != slog.LevelWarn {
		if r.Level > slog.LevelDebug {
			c.shared.forget(c.with)
		}
		return c.Handler.Handle(ctx, r)
	}
	times, pass := c.shared.admit(c.with, r.Message)
	if !pass {
		return nil
	}
	if times > 0 {
		r.AddAttrs(slog.Int("repeated", times))
	}
	return c.Handler.Handle(ctx, r)
}

// admit reports whether a warning is due, and how often it was held back before. The
// messages are constants of the program, so there are not many.
func (c *calmed) admit(logger, message string) (times int, pass bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	r := c.seen[logger][message]
	if r == nil {
		if c.seen[logger] == nil {
			c.seen[logger] = map[string]*repeated{}
		}
		c.seen[logger][message] = &repeated{last: now}
		return 0, true
	}
	if now.Sub(r.last) < calmPeriod {
		r.times++
		return 0, false
	}
	times = r.times
	r.last, r.times = now, 0
	return times, true
}

// forget has the next warnings of a logger be new ones.
func (c *calmed) forget(logger string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, logger)
}

func (c *calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := c.with
	for _, a := range attrs {
		with += a.String() + "\x00"
	}
	return &calm{Handler: c.Handler.WithAttrs(attrs), with: with, shared: c.shared}
}

func (c *calm) WithGroup(name string) slog.Handler {
	return &calm{Handler: c.Handler.WithGroup(name), with: c.with + name + "\x00", shared: c.shared}
}
