package logger

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// throttlePeriod is the least time between two log lines of the same warning.
const throttlePeriod = time.Minute

// throttle is a log handler that passes on each warning at most once a minute, with the number of repeats
// in between.
//
// Two warnings are the same when their message and the attributes of their logger are equal; their own
// attributes, such as the text of an error, may differ. Records of other levels always pass: information is
// rare, and an error is never the same twice. Such a record also shows that something has changed, for
// example that calls succeed again, so the logger's next warning passes at once.
type throttle struct {
	slog.Handler
	logger string // the attributes and groups that identify the logger
	shared *throttleState
}

// throttleState is shared by a throttle and the handlers derived from it.
type throttleState struct {
	now func() time.Time

	mu   sync.Mutex                      // guards seen
	seen map[string]map[string]*repeated // by logger and message
}

type repeated struct {
	last  time.Time // when it was last logged
	times int       // suppressed since then
}

func newThrottle(next slog.Handler) *throttle {
	return &throttle{Handler: next, shared: &throttleState{now: time.Now, seen: map[string]map[string]*repeated{}}}
}

func (t *throttle) Handle(ctx context.Context, r slog.Record) error {
	if r.Level != slog.LevelWarn {
		if r.Level > slog.LevelDebug {
			t.shared.forget(t.logger)
		}
		return t.Handler.Handle(ctx, r)
	}

	times, pass := t.shared.admit(t.logger, r.Message)
	if !pass {
		return nil
	}
	if times > 0 {
		r.AddAttrs(slog.Int("repeated", times))
	}
	return t.Handler.Handle(ctx, r)
}

// admit reports whether a warning is due, and how often it was suppressed before. Messages are constants of
// the program, so the map stays small.
func (s *throttleState) admit(logger, message string) (times int, pass bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()

	// The first one passes.
	entry := s.seen[logger][message]
	if entry == nil {
		if s.seen[logger] == nil {
			s.seen[logger] = map[string]*repeated{}
		}
		s.seen[logger][message] = &repeated{last: now}
		return 0, true
	}

	// A repeat within the period is counted only.
	if now.Sub(entry.last) < throttlePeriod {
		entry.times++
		return 0, false
	}
	times = entry.times
	entry.last, entry.times = now, 0
	return times, true
}

// forget lets the next warning of each message of a logger pass.
func (s *throttleState) forget(logger string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, logger)
}

func (t *throttle) WithAttrs(attrs []slog.Attr) slog.Handler {
	logger := t.logger
	for _, attr := range attrs {
		logger += attr.String() + "\x00"
	}
	return &throttle{Handler: t.Handler.WithAttrs(attrs), logger: logger, shared: t.shared}
}

func (t *throttle) WithGroup(name string) slog.Handler {
	return &throttle{Handler: t.Handler.WithGroup(name), logger: t.logger + name + "\x00", shared: t.shared}
}
