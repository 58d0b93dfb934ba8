package config

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/tenantwatch/tenantwatch/rules"
)

// logSources is the setting that also runs rules for other products than Auth0.
type logSources bool

// UnmarshalText parses the setting.
func (s *logSources) UnmarshalText(text []byte) error {
	all, err := strconv.ParseBool(string(text))
	if err != nil {
		return fmt.Errorf("TENANTWATCH_ALL_LOG_SOURCES: %q: want true or false", text)
	}
	*s = logSources(all)
	return nil
}

// RuleSettings returns the settings with which rules are loaded. Its variables include those that follow from
// the settings of tenants.
func (c *Config) RuleSettings() rules.Settings {
	// Set even when empty: without a probe, no failed login is our own.
	clients := []string{}
	add := func(probe *probeConfig) {
		if id := probe.ClientID; id != "" && !slices.Contains(clients, id) {
			clients = append(clients, id)
		}
	}
	for i := range c.Tenants {
		add(&c.Tenants[i].Probe)
	}
	add(&c.Probe)

	return rules.Settings{Vars: rules.Vars{"probe_clients": clients}, AllLogSources: bool(c.AllRules)}
}
