package auth0

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// defaultPorts are the ports that a URL leaves out, by scheme.
var defaultPorts = map[string]string{"https": "443", "http": "80"}

var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// ParseDomain parses a tenant's domain: acme.eu.auth0.com or a custom domain, with or
// without https://. Plain http:// is accepted for loopback addresses only.
//
// The result is normalized, since the audience is derived from it and compared as
// text: lower case, no trailing dot, no default port.
func ParseDomain(domain string) (*url.URL, error) {
	text := strings.TrimSuffix(strings.TrimSpace(domain), "/")
	if strings.ContainsAny(text, "\"'`") {
		return nil, fmt.Errorf("%q has quotes, which are part of the value in an env file: "+
			"want acme.eu.auth0.com without them", domain)
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}

	// Only a host and a port may be left.
	invalid := fmt.Errorf("%q is not a domain such as acme.eu.auth0.com", domain)
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, invalid
	}

	host, port := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()
	ip := net.ParseIP(host)
	if host == "" || ip == nil && !hostName.MatchString(host) || strings.HasSuffix(u.Host, ":") {
		return nil, invalid
	}

	if port == defaultPorts[u.Scheme] {
		port = ""
	}

	// An IPv6 address.
	if u.Host = host; strings.Contains(host, ":") {
		u.Host = "[" + host + "]"
	}
	if port != "" {
		u.Host = net.JoinHostPort(host, port)
	}

	switch u.Scheme {
	case "https":
		return u, nil
	case "http":
		if host == "localhost" || ip != nil && ip.IsLoopback() {
			return u, nil
		}
		return nil, fmt.Errorf("%q: plain http is only for a simulated tenant on 127.0.0.1; write https", domain)
	}
	return nil, fmt.Errorf("%q: want https", domain)
}
