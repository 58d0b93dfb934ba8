package demo

import (
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

// Environ returns the settings with which tenantwatch pulls and probes a simulated tenant.
func Environ(s *auth0sim.Server) []string {
	cfg := s.Tenant.Config()
	return []string{
		"AUTH0_DOMAIN=" + s.URL.String(),
		"AUTH0_CLIENT_ID=" + cfg.ClientID,
		"AUTH0_CLIENT_SECRET=" + cfg.ClientSecret,
		"TENANTWATCH_TENANT=" + cfg.Name,
		"PROBE_CLIENT_ID=" + cfg.ProbeClientID,
		"PROBE_USERNAME=" + cfg.Username,
		"PROBE_PASSWORD=" + cfg.Password,
		"PROBE_REALM=" + cfg.Realm,
	}
}

// WithoutTenant returns the environment without the settings of a real tenant, which do not apply to the demo.
func WithoutTenant(environ []string) []string {
	tenantVars := []string{
		"AUTH0_", "PROBE_", "TENANTWATCH_TENANT=", "TENANTWATCH_BACKFILL=", "TENANTWATCH_RATE_SHARE=",
	}
	environ = slices.DeleteFunc(slices.Clone(environ), func(line string) bool {
		return slices.ContainsFunc(tenantVars, func(prefix string) bool { return strings.HasPrefix(line, prefix) })
	})

	isHTTPAddr := func(line string) bool { return strings.HasPrefix(line, "HTTP_ADDR=") }
	if !slices.ContainsFunc(environ, isHTTPAddr) {
		environ = append(environ, "HTTP_ADDR=127.0.0.1:0")
	}
	return environ
}
