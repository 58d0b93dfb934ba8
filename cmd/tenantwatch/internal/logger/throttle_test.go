package logger

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestThrottle has failures repeat nine times a second: each is one line a minute, and none
// hides another.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newThrottle(slog.NewTextHandler(&out, nil)))
		acme, other := log.With("part", "pull", "tenant", "acme"), log.With("part", "pull", "tenant", "other")
		for i := range 9 * 180 { // three minutes
			acme.Warn("call failed", "err", errors.New(strings.Repeat("x", i%7)))
			other.Warn("call failed", "err", "y")
			log.Error("damaged", "offset", i) // another logger's
			time.Sleep(time.Second / 9)
		}
		count := func(text string) int { return strings.Count(out.String(), text) }
		if n := count("tenant=acme"); n != 3 {
			t.Errorf("%d lines about acme, want 3", n)
		}
		if n := count("tenant=other"); n != 3 {
			t.Errorf("%d lines about the other, want 3", n)
		}
		if n := count("repeated=5"); n != 4 { // some 540
			t.Errorf("%d lines say how often it came, want 4:\n%s", n, out.String()[:500])
		}
		if n := count("damaged"); n != 9*180 {
			t.Errorf("%d errors, want all", n)
		}
		acme.Info("calls succeed again")
		acme.Warn("call failed", "err", "z")
		if n := count("err=z"); n != 1 {
			t.Errorf("a failure after a success: %d lines, want 1", n)
		}
	})
}
