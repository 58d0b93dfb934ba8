package main

import (
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
)

// span is the flags for a command's time range.
type span struct {
	Since string `required:"" help:"Start of the range: a duration ago (24h, 7d) or a time (2026-11-20T10:00:00Z)."`
	Until string `help:"End of the range, in the same form. Default: now."`
}

// times parses the range.
func (s *span) times(now time.Time) (since, until time.Time, err error) {
	until = now
	if since, err = parseTime(s.Since, now); err != nil {
		return since, until, usageError("--since: " + err.Error())
	}
	if s.Until != "" {
		if until, err = parseTime(s.Until, now); err != nil {
			return since, until, usageError("--until: " + err.Error())
		}
	}
	if !since.Before(until) {
		return since, until, usageError(fmt.Sprintf("--since %s is not before --until %s",
			since.Format(time.RFC3339), until.Format(time.RFC3339)))
	}
	return since, until, nil
}

// parseTime parses a time, or a duration before now.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := config.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want a time ago such as 24h or 7d, "+
		"or a time such as 2026-11-20 or 2026-11-20T10:00:00Z", text)
}
