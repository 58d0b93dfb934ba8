package config

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// auth0Config is how to reach a tenant's Management API.
type auth0Config struct {
	// Domain is the tenant's domain, such as acme.eu.auth0.com, or its custom domain, in any spelling. Required.
	// Plain http is allowed for loopback only, such as http://127.0.0.1:4711 for the simulated tenant.
	Domain string `env:"DOMAIN"`

	// Audience is the identifier of the Management API. Default: https://DOMAIN/api/v2/. With a custom
	// domain it must be set to the canonical https://TENANT.REGION.auth0.com/api/v2/.
	Audience string `env:"AUDIENCE"`

	// ClientID is a machine-to-machine application with the scope read:logs. Required.
	ClientID string `env:"CLIENT_ID"`

	// ClientSecret is the application's secret. Required, unless AUTH0_PRIVATE_KEY is set.
	ClientSecret Secret `env:"CLIENT_SECRET"`

	// PrivateKey is the application's RSA key in PEM (PKCS #8 or PKCS #1), for private_key_jwt with RS256.
	// Default: none. It takes the place of AUTH0_CLIENT_SECRET.
	PrivateKey Secret `env:"PRIVATE_KEY"`
}

// probeConfig is the synthetic login of a tenant. Without it the tenant is not probed. ClientID, Username
// and Password are set together or not at all.
type probeConfig struct {
	// ClientID is the application of the synthetic login, with the password grant enabled. Default: no probe.
	// It is set together with PROBE_USERNAME and PROBE_PASSWORD, or none of them is.
	ClientID string `env:"CLIENT_ID"`

	// ClientSecret is the secret of that application. Default: none, for a public application.
	ClientSecret Secret `env:"CLIENT_SECRET"`

	// Username is a user who exists for the probe only. Default: no probe.
	Username string `env:"USERNAME"`

	// Password is the password of that user. Default: no probe. A wrong one is not tried again: brute-force
	// protection would lock the user.
	Password Secret `env:"PASSWORD"`

	// Realm is the connection of the probe's user. Default: the tenant's default directory.
	Realm string `env:"REALM"`

	// Audience is the API for which the probe requests a token. Default: the tenant's default audience.
	Audience string `env:"AUDIENCE"`
}

// Enabled reports whether a synthetic login is configured.
func (p *probeConfig) Enabled() bool { return p.Username != "" }

// tenantConfig is one of several tenants: TENANTS_0_DOMAIN, TENANTS_0_CLIENT_ID and so on. Its fields mean
// the same as those of auth0Config, Config and receiveConfig.
type tenantConfig struct {
	// Name is the tenant's name in the stored data, as TENANTWATCH_TENANT. Default: the first label of the
	// domain. Each tenant has a distinct one.
	Name string `env:"NAME"`

	// Domain is the tenant's domain, as AUTH0_DOMAIN. Required.
	Domain string `env:"DOMAIN"`

	// Audience is the identifier of its Management API, as AUTH0_AUDIENCE. Default: https://DOMAIN/api/v2/.
	Audience string `env:"AUDIENCE"`

	// ClientID is its machine-to-machine application, as AUTH0_CLIENT_ID. Required.
	ClientID string `env:"CLIENT_ID"`

	// ClientSecret is the application's secret, as AUTH0_CLIENT_SECRET. Required, unless its private key is set.
	ClientSecret Secret `env:"CLIENT_SECRET"`

	// PrivateKey is the application's key, as AUTH0_PRIVATE_KEY. Default: none.
	PrivateKey Secret `env:"PRIVATE_KEY"`

	// ReceiveToken is what the tenant's log stream sends, as RECEIVE_TOKEN. Default: none.
	ReceiveToken Secret `env:"RECEIVE_TOKEN"`

	// Probe is the tenant's synthetic login: TENANTS_0_PROBE_CLIENT_ID and so on.
	Probe probeConfig `envPrefix:"PROBE_"`

	// BaseURL is the parsed Domain, set by Load.
	BaseURL *url.URL

	nameVariable string // the variable that sets Name
}

// checkTenants checks the single tenant of AUTH0_…, or those of TENANTS_….
func (c *Config) checkTenants(vars map[string]string, required Need, wrong *Faults) {
	c.reportGaps(vars, wrong)

	if len(c.Tenants) == 0 {
		// AUTH0_… and the settings beside it make one tenant. Without a domain there is none, which is a fault
		// only if the command requires one.
		single := tenantConfig{
			Name: c.Tenant, Domain: c.Auth0.Domain, Audience: c.Auth0.Audience, ClientID: c.Auth0.ClientID,
			ClientSecret: c.Auth0.ClientSecret, PrivateKey: c.Auth0.PrivateKey,
			ReceiveToken: c.Receive.Token, Probe: c.Probe,
		}
		single.check(required, wrong, singleVariable)
		if single.Name != "" {
			c.Tenants = append(c.Tenants, single)
		}
		return
	}

	// The settings of a single tenant would be ignored.
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		probe := strings.HasPrefix(name, "PROBE_") && name != "PROBE_INTERVAL"
		if probe || strings.HasPrefix(name, "AUTH0_") || name == "TENANTWATCH_TENANT" || name == "RECEIVE_TOKEN" {
			wrong.add(name, "TENANTS_0_… is set too; make this tenant one of TENANTS_0_…, TENANTS_1_…")
		}
	}

	seen := map[string]int{}
	for i := range c.Tenants {
		tenant := &c.Tenants[i]
		tenant.check(required, wrong, func(name string) string { return fmt.Sprintf("TENANTS_%d_%s", i, name) })

		// Two tenants with one name would be stored as one.
		if other, duplicate := seen[tenant.Name]; duplicate && tenant.Name != "" {
			wrong.add(fmt.Sprintf("TENANTS_%d_NAME", i),
				"TENANTS_%d is named %s too; give each tenant a distinct name", other, tenant.Name)
		}
		seen[tenant.Name] = i
	}
}

// singleVariable returns the variable of a single tenant for a setting of tenantConfig.
func singleVariable(name string) string {
	switch {
	case name == "NAME":
		return "TENANTWATCH_TENANT"
	case name == "RECEIVE_TOKEN", strings.HasPrefix(name, "PROBE_"):
		return name
	}
	return "AUTH0_" + name
}

// tenantVar matches the settings of several tenants.
var tenantVar = regexp.MustCompile(`^TENANTS_(\d+)_`)

// reportGaps reports tenants after a gap in the numbering, which are not read. One fault a tenant is enough.
func (c *Config) reportGaps(vars map[string]string, wrong *Faults) {
	missing := fmt.Sprintf("TENANTS_%d_DOMAIN", len(c.Tenants))
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		match := tenantVar.FindStringSubmatch(name)
		reported := slices.ContainsFunc(*wrong, func(fault string) bool {
			return strings.HasPrefix(fault, name+": ")
		})
		if match == nil || seen[match[1]] || reported {
			continue
		}
		if index, err := strconv.Atoi(match[1]); err == nil && index < len(c.Tenants) {
			continue
		}

		// The first tenant may look like an addition to AUTH0_….
		seen[match[1]] = true

		if len(c.Tenants) == 0 && c.Auth0.Domain != "" {
			wrong.add(name, "AUTH0_DOMAIN is set too, and %s is not: "+
				"make that tenant TENANTS_0_… (TENANTS_0_DOMAIN, TENANTS_0_CLIENT_ID, …)", missing)
			continue
		}
		wrong.add(name, "%s is not set; tenants are counted from 0 without a gap", missing)
	}
}

// check parses a tenant's settings and reports the invalid ones. The function variable returns the full name
// of a setting's variable.
func (t *tenantConfig) check(required Need, wrong *Faults, variable func(string) string) {
	t.checkAPI(required, wrong, variable)
	t.checkCredentials(required, wrong, variable)
	if !t.checkName(wrong, variable) {
		return
	}

	if required.Receive && len(t.ReceiveToken) < minToken {
		wrong.add(variable("RECEIVE_TOKEN"),
			"want what the log stream sends as its Authorization, of at least %d characters", minToken)
	}
	t.checkProbe(wrong, variable)
}

// checkAPI checks the address and the audience of the Management API.
func (t *tenantConfig) checkAPI(required Need, wrong *Faults, variable func(string) string) {
	if t.Domain != "" {
		var err error
		if t.BaseURL, err = auth0.ParseDomain(t.Domain); err != nil {
			wrong.add(variable("DOMAIN"), "%v", err)
		}
	} else if required.Tenant {
		wrong.add(variable("DOMAIN"), "is not set; want the tenant's domain, such as acme.eu.auth0.com")
	}

	if t.Audience == "" {
		return
	}
	parsed, err := url.Parse(t.Audience)
	valid := err == nil && parsed.Host != "" && strings.HasSuffix(parsed.Path, "/api/v2/")
	if !valid || strings.ContainsAny(t.Audience, " \"'") {
		wrong.add(variable("AUDIENCE"),
			"%q: want https://TENANT.REGION.auth0.com/api/v2/, with the slash at its end", t.Audience)
		return
	}
	// Auth0 compares audiences as text, so ours needs the spelling that Auth0 knows.
	parsed.Host = strings.TrimSuffix(strings.ToLower(parsed.Host), ":443")
	t.Audience = parsed.String()
}

// checkCredentials checks the application that calls the Management API.
func (t *tenantConfig) checkCredentials(required Need, wrong *Faults, variable func(string) string) {
	// Calls need an application and one of two ways to prove who it is.
	if t.ClientID == "" && required.Tenant {
		wrong.add(variable("CLIENT_ID"),
			"is not set; want the id of a machine-to-machine application with the scope read:logs")
	}

	secret, key := variable("CLIENT_SECRET"), variable("PRIVATE_KEY")
	switch {
	case t.ClientSecret != "" && t.PrivateKey != "":
		wrong.add(secret, "%s is set too; keep the one that the application uses", key)
	case t.ClientSecret == "" && t.PrivateKey == "" && required.Tenant:
		wrong.add(secret, "is not set; set it, %s_FILE or %s_FILE", secret, key)
	case t.PrivateKey != "":
		if err := checkPrivateKey(string(t.PrivateKey)); err != nil {
			wrong.add(key, "%v", err)
		}
	}
}

// checkName derives the name from the domain when none is set. It reports false when that is impossible.
func (t *tenantConfig) checkName(wrong *Faults, variable func(string) string) bool {
	t.nameVariable = variable("NAME")
	// The name of an IPv6 address, for example, would be invalid.
	if t.Name == "" && t.BaseURL != nil {
		if t.Name = defaultName(t.BaseURL.Hostname()); !tenantName.MatchString(t.Name) {
			wrong.add(variable("DOMAIN"),
				"%q: cannot derive the tenant's name from it; set %s", t.Domain, t.nameVariable)
			return false
		}
	}
	if t.Name != "" && !tenantName.MatchString(t.Name) {
		wrong.add(t.nameVariable, "%q: want letters, digits, dots, dashes and underscores", t.Name)
	}
	return true
}

// checkProbe checks that the synthetic login is complete.
func (t *tenantConfig) checkProbe(wrong *Faults, variable func(string) string) {
	p := &t.Probe
	if p.Username == "" && p.Password == "" && p.ClientID == "" {
		return
	}

	id, user, password := variable("PROBE_CLIENT_ID"), variable("PROBE_USERNAME"), variable("PROBE_PASSWORD")
	for name, set := range map[string]bool{id: p.ClientID != "", user: p.Username != "", password: p.Password != ""} {
		if !set {
			wrong.add(name, "is not set; the probe needs %s, %s and %s, or none of them", id, user, password)
		}
	}
}

// defaultName returns the name of a tenant for which none is set.
func defaultName(host string) string {
	ip := net.ParseIP(host)
	switch {
	case ip == nil:
		label, _, _ := strings.Cut(host, ".")
		return label
	case ip.IsLoopback() && ip.To4() == nil:
		return "localhost"
	}
	return host
}

// minToken is the least length of a token, which makes guessing hopeless.
const minToken = 16

// tenantName matches a valid name of a tenant.
var tenantName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// checkPrivateKey reports why a private key cannot be used, without a part of it.
func checkPrivateKey(text string) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("is not a PEM file")
	}

	// The errors of the parsers could contain parts of the key.
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return errors.New("is not a private key in PKCS #8 or PKCS #1")
		}
		return nil
	}
	if _, ok := key.(*rsa.PrivateKey); !ok {
		return errors.New("is not an RSA key; private_key_jwt is supported with RS256 only")
	}
	return nil
}

// TenantNames returns the names of the tenants, never nil.
func (c *Config) TenantNames() []string {
	names := []string{}
	for _, tenant := range c.Tenants {
		names = append(names, tenant.Name)
	}
	return names
}

// CheckNames refuses to pull a tenant whose events are stored under another name: all of them would be pulled
// and stored again. stored is the domain of each tenant with events, by name. The error is Faults.
func (c *Config) CheckNames(stored map[string]string) error {
	var wrong Faults
	for i := range c.Tenants {
		tenant := &c.Tenants[i]
		if _, ok := stored[tenant.Name]; ok || tenant.BaseURL == nil {
			continue
		}
		domain := tenant.BaseURL.Host
		for _, other := range slices.Sorted(maps.Keys(stored)) {
			// A tenant that is still configured under its own name may share the domain.
			if stored[other] != domain || slices.Contains(c.TenantNames(), other) {
				continue
			}
			wrong.add(tenant.nameVariable, "the events of %s are stored under the name %s, not %s, "+
				"and would all be pulled and stored again: set %s=%s, or another TENANTWATCH_DATA_DIR "+
				"(with external servers, another KAFKA_TOPIC_PREFIX and database)",
				domain, other, tenant.Name, tenant.nameVariable, other)
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}
