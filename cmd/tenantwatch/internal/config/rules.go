package config

import (
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
)

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

	return rules.Settings{Vars: rules.Vars{"probe_clients": clients}, AllLogSources: c.Parsed.AllLogSources}
}
