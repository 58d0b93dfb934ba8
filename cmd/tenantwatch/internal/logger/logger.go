package logger

import (
	"io"
	"log/slog"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
)

// New returns a logger with the configured level and format that logs a repeated warning once a minute.
func New(w io.Writer, c *config.Config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}

	// config.Load has checked both settings.
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(newThrottle(slog.NewJSONHandler(w, opts)))
	}
	return slog.New(newThrottle(slog.NewTextHandler(w, opts)))
}
