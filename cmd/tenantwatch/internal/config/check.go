package config

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
)

// checkPull parses the settings of the pull, the retention and the folders of rules.
func (c *Config) checkPull(wrong *Faults) {
	switch c.Backfill {
	case "all":
		c.Parsed.Backfill = -1
	case "none":
		c.Parsed.Backfill = 0
	default:
		reach, err := ParseDuration(c.Backfill)
		if err != nil || reach <= 0 {
			wrong.add("TENANTWATCH_BACKFILL", "%q: want all, none or a duration such as 24h or 30d", c.Backfill)
		}
		c.Parsed.Backfill = reach
	}

	share, err := strconv.ParseFloat(c.RateShare, 64)
	if err != nil || !(share > 0 && share <= 1) { // false for NaN
		wrong.add("TENANTWATCH_RATE_SHARE", "%q: want a number above 0 and at most 1, such as 0.3", c.RateShare)
	}
	c.Parsed.RateShare = share

	poll, err := ParseDuration(c.Poll)
	if err != nil || poll < 100*time.Millisecond || poll > time.Hour {
		wrong.add("TENANTWATCH_POLL", "%q: want a duration from 100ms to 1h", c.Poll)
	}
	c.Parsed.Poll = poll

	if c.Retention != "forever" {
		if c.Parsed.Retention, err = ParseDuration(c.Retention); err != nil || c.Parsed.Retention < 24*time.Hour {
			wrong.add("TENANTWATCH_RETENTION", "%q: want forever or at least 1d, such as 400d", c.Retention)
		}
	}
	c.checkRules(wrong)
}

// checkRules checks which rules run, and that their folders can be read.
func (c *Config) checkRules(wrong *Faults) {
	all, err := strconv.ParseBool(c.AllRules)
	if err != nil {
		wrong.add("TENANTWATCH_ALL_LOG_SOURCES", "%q: want true or false", c.AllRules)
	}
	c.Parsed.AllLogSources = all

	c.Rules = trimmed(c.Rules)
	for _, dir := range c.Rules {
		if info, err := os.Stat(dir); err != nil {
			wrong.add("TENANTWATCH_RULES", "%v", err)
		} else if !info.IsDir() {
			wrong.add("TENANTWATCH_RULES", "%s is not a folder", dir)
		} else if err := checkReadable(dir); err != nil {
			wrong.add("TENANTWATCH_RULES", "%s cannot be read: %v", dir, err)
		}
	}
}

// checkReadable opens every rule file of a folder: one that cannot be read must not be skipped silently.
func checkReadable(dir string) error {
	return rules.Walk(os.DirFS(dir), func(name string) error {
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		return file.Close()
	})
}

// checkProcess checks the addresses, the log, the data folder and the interval of the probe.
func (c *Config) checkProcess(wrong *Faults) {
	every, err := ParseDuration(c.ProbeInterval)
	if err != nil || every < time.Second || every > time.Hour {
		wrong.add("PROBE_INTERVAL", "%q: want a duration from 1s to 1h; Auth0 advises 1m", c.ProbeInterval)
	}
	c.Parsed.ProbeEvery = every

	if _, _, err := net.SplitHostPort(c.HTTPAddr); err != nil {
		wrong.add("HTTP_ADDR",
			"%q: want host:port, such as 127.0.0.1:8080; port 0 picks a free one", c.HTTPAddr)
	}
	if _, _, err := net.SplitHostPort(c.Receive.Addr); err != nil {
		wrong.add("RECEIVE_ADDR",
			"%q: want host:port, such as 127.0.0.1:8090; port 0 picks a free one", c.Receive.Addr)
	}

	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		wrong.add("TENANTWATCH_LOG_LEVEL", "%q: want debug, info, warn or error", c.LogLevel)
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		wrong.add("TENANTWATCH_LOG_FORMAT", "%q: want text or json", c.LogFormat)
	}

	// The folder may not exist yet. Its path is made absolute, since it is printed and passed on.
	if info, err := os.Stat(c.DataDir); err == nil && !info.IsDir() {
		wrong.add("TENANTWATCH_DATA_DIR", "%s is not a folder", c.DataDir)
	}
	if dir, err := filepath.Abs(c.DataDir); err == nil {
		c.DataDir = dir
	}
}

// ParseDuration parses a duration as Go writes it, such as 90s, or a number of days such as 30d.
func ParseDuration(text string) (time.Duration, error) {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 16)
		return time.Duration(days) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}
