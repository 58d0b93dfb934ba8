package main

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// auth0Config is how to reach a tenant.
type auth0Config struct {
	Domain       string `env:"DOMAIN"`
	Audience     string `env:"AUDIENCE"`
	ClientID     string `env:"CLIENT_ID"`
	ClientSecret Secret `env:"CLIENT_SECRET"`
	PrivateKey   Secret `env:"PRIVATE_KEY"`
}

// probeConfig is the synthetic login of a tenant.
type probeConfig struct {
	ClientID     string `env:"CLIENT_ID"`
	ClientSecret Secret `env:"CLIENT_SECRET"`
	Username     string `env:"USERNAME"`
	Password     Secret `env:"PASSWORD"`
	Realm        string `env:"REALM"`
	Audience     string `env:"AUDIENCE"`
}

// on reports whether a synthetic login is set up.
func (p *probeConfig) on() bool { return p.Username != "" }

// tenantConfig is one tenant: TENANTS_0_DOMAIN, TENANTS_0_CLIENT_ID, …
type tenantConfig struct {
	Name         string      `env:"NAME"`
	Domain       string      `env:"DOMAIN"`
	Audience     string      `env:"AUDIENCE"`
	ClientID     string      `env:"CLIENT_ID"`
	ClientSecret Secret      `env:"CLIENT_SECRET"`
	PrivateKey   Secret      `env:"PRIVATE_KEY"`
	ReceiveToken Secret      `env:"RECEIVE_TOKEN"`
	Probe        probeConfig `envPrefix:"PROBE_"`

	baseURL      *url.URL
	nameVariable string // the setting of its name
}

// checkTenants checks the one tenant of AUTH0_…, or those of TENANTS_….
func (c *Config) checkTenants(vars map[string]string, n need, f *faults) {
	single := tenantConfig{Name: c.Tenant, Domain: c.Auth0.Domain, Audience: c.Auth0.Audience, ClientID: c.Auth0.ClientID,
		ClientSecret: c.Auth0.ClientSecret, PrivateKey: c.Auth0.PrivateKey, ReceiveToken: c.Receive.Token, Probe: c.Probe}
	c.reportGaps(vars, f)
	if len(c.Tenants) == 0 {
		single.check(n, f, func(name string) string {
			switch name {
			case "NAME":
				return "TENANTWATCH_TENANT"
			case "RECEIVE_TOKEN":
				return name
			}
			if strings.HasPrefix(name, "PROBE_") {
				return name
			}
			return "AUTH0_" + name
		})
		if single.Name != "" {
			c.Tenants = append(c.Tenants, single)
		}
		return
	}
	for _, name := range slices.Sorted(keysOf(vars)) {
		if strings.HasPrefix(name, "AUTH0_") || strings.HasPrefix(name, "PROBE_") && name != "PROBE_INTERVAL" || name == "TENANTWATCH_TENANT" || name == "RECEIVE_TOKEN" {
			f.add(name, "TENANTS_0_… is set too; make this tenant one of TENANTS_0_…, TENANTS_1_…")
		}
	}
	seen := map[string]int{}
	for i := range c.Tenants {
		t := &c.Tenants[i]
		t.check(n, f, func(name string) string { return fmt.Sprintf("TENANTS_%d_%s", i, name) })
		if other, twice := seen[t.Name]; twice && t.Name != "" {
			f.add(fmt.Sprintf("TENANTS_%d_NAME", i), "TENANTS_%d is called %s too; give each tenant a name of its own", other, t.Name)
		}
		seen[t.Name] = i
	}
}

// tenantVar is a setting of one of several tenants.
var tenantVar = regexp.MustCompile(`^TENANTS_(\d+)_`)

// reportGaps finds tenants that nobody reads: they are counted from 0 on, without a gap.
func (c *Config) reportGaps(vars map[string]string, f *faults) {
	missing := fmt.Sprintf("TENANTS_%d_DOMAIN", len(c.Tenants))
	seen := map[string]bool{}
	for _, name := range slices.Sorted(keysOf(vars)) {
		match := tenantVar.FindStringSubmatch(name)
		told := slices.ContainsFunc(*f, func(fault string) bool { return strings.HasPrefix(fault, name+": ") })
		if match == nil || seen[match[1]] || told {
			continue
		}
		if n, err := strconv.Atoi(match[1]); err == nil && n < len(c.Tenants) {
			continue
		}
		seen[match[1]] = true
		if len(c.Tenants) == 0 && c.Auth0.Domain != "" {
			f.add(name, "AUTH0_DOMAIN is set too, and %s is not: make that tenant TENANTS_0_… (TENANTS_0_DOMAIN, TENANTS_0_CLIENT_ID, …)", missing)
			continue
		}
		f.add(name, "%s is not set; tenants are counted from 0 on without a gap", missing)
	}
}

// check reports what is wrong with a tenant. variable is the full name of one of
// its settings.
func (t *tenantConfig) check(n need, f *faults, variable func(string) string) {
	t.nameVariable = variable("NAME")
	if t.Domain != "" {
		var err error
		if t.baseURL, err = auth0.ParseDomain(t.Domain); err != nil {
			f.add(variable("DOMAIN"), "%v", err)
		}
	} else if n.tenant {
		f.add(variable("DOMAIN"), "is not set; want the tenant's domain, such as acme.eu.auth0.com")
	}
	if t.Audience != "" {
		if u, err := url.Parse(t.Audience); err == nil && u.Host != "" && strings.HasSuffix(u.Path, "/api/v2/") && !strings.ContainsAny(t.Audience, " \"'") {
			// It is compared as text, so it has the one spelling that Auth0 knows.
			u.Host = strings.TrimSuffix(strings.ToLower(u.Host), ":443")
			t.Audience = u.String()
		} else {
			f.add(variable("AUDIENCE"), "%q is not of the form https://TENANT.REGION.auth0.com/api/v2/ (with the slash at its end)", t.Audience)
		}
	}
	if t.ClientID == "" && n.tenant {
		f.add(variable("CLIENT_ID"), "is not set; want the id of a machine-to-machine application with the scope read:logs")
	}
	switch {
	case t.ClientSecret != "" && t.PrivateKey != "":
		f.add(variable("CLIENT_SECRET"), "%s is set too; keep the one that the application uses", variable("PRIVATE_KEY"))
	case t.ClientSecret == "" && t.PrivateKey == "" && n.tenant:
		f.add(variable("CLIENT_SECRET"), "is not set; set it, %s_FILE or %s_FILE", variable("CLIENT_SECRET"), variable("PRIVATE_KEY"))
	case t.PrivateKey != "":
		if err := checkKey(string(t.PrivateKey)); err != nil {
			f.add(variable("PRIVATE_KEY"), "%v", err)
		}
	}
	if t.Name == "" && t.baseURL != nil {
		if t.Name = nameOf(t.baseURL.Hostname()); !tenantName.MatchString(t.Name) {
			f.add(variable("DOMAIN"), "%q makes no name for the tenant's data; set %s", t.Domain, variable("NAME"))
			return
		}
	}
	if t.Name != "" && !tenantName.MatchString(t.Name) {
		f.add(variable("NAME"), "%q: want letters, digits, dots, dashes and underscores", t.Name)
	}
	if n.receive && len(t.ReceiveToken) < minToken {
		f.add(variable("RECEIVE_TOKEN"), "want what the log stream sends as its Authorization, %d characters at least", minToken)
	}
	p := &t.Probe
	if p.Username == "" && p.Password == "" && p.ClientID == "" {
		return
	}
	for name, set := range map[string]bool{"PROBE_CLIENT_ID": p.ClientID != "", "PROBE_USERNAME": p.Username != "", "PROBE_PASSWORD": p.Password != ""} {
		if !set {
			f.add(variable(name), "is not set; the probe needs %s, %s and %s, or none of them", variable("PROBE_CLIENT_ID"), variable("PROBE_USERNAME"), variable("PROBE_PASSWORD"))
		}
	}
}

// nameOf is the name of a tenant in the data, when none is set.
func nameOf(host string) string {
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

// minToken keeps guesses out.
const minToken = 16

var tenantName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// checkKey reports what is wrong with a private key, without a word of it.
func checkKey(text string) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("is not a PEM file")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return errors.New("is not a private key in PKCS #8 or PKCS #1")
		}
		return nil
	}
	if _, ok := key.(*rsa.PrivateKey); !ok {
		return errors.New("is not an RSA key; private_key_jwt is supported with RS256")
	}
	return nil
}
