package config

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// wellSet is the least that a run needs.
func wellSet(more ...string) []string {
	return append([]string{"AUTH0_DOMAIN=acme.eu.auth0.com", "AUTH0_CLIENT_ID=abc", "AUTH0_CLIENT_SECRET=hush-1"}, more...)
}

func TestConfigDefaults(t *testing.T) {
	c, err := Load(wellSet("PATH=/bin", "OTHER=1", "AUTH0_AUDIENCE="), Need{Tenant: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tenants) != 1 || c.Tenants[0].BaseURL.String() != "https://acme.eu.auth0.com" || c.Tenants[0].Name != "acme" || c.Parsed.Backfill >= 0 || c.Parsed.RateShare != 0.3 ||
		c.Parsed.Poll != time.Second || c.Parsed.Retention != 0 || c.Parsed.ProbeEvery != time.Minute || c.Tenants[0].Probe.Enabled() || !filepath.IsAbs(c.DataDir) || c.HTTPAddr != "127.0.0.1:8080" {
		t.Errorf("%+v", c)
	}
	if _, err := Load(nil, Need{}); err != nil {
		t.Errorf("nothing set, nothing needed: %v", err)
	}
}

func TestConfigValues(t *testing.T) {
	c, err := Load([]string{"AUTH0_DOMAIN=http://127.0.0.1:4711", "AUTH0_CLIENT_ID=a", "AUTH0_CLIENT_SECRET=b", "TENANTWATCH_TENANT=my.tenant-1",
		"TENANTWATCH_BACKFILL=30d", "TENANTWATCH_RATE_SHARE=1", "TENANTWATCH_POLL=250ms", "TENANTWATCH_RETENTION=400d",
		"KAFKA_BROKERS=a:9092,b:9093", "KAFKA_SASL_MECHANISM=scram-sha-512", "KAFKA_USERNAME=u", "KAFKA_PASSWORD=p", "KAFKA_TLS=true",
		"CLICKHOUSE_DSN=clickhouse://u:p@host:9000/db", "KAFKA_SERVICE_HOST=10.0.0.1", "CLICKHOUSE_PORT=tcp://10.0.0.2:9000"}, Need{Tenant: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.Tenants[0].Name != "my.tenant-1" || c.Parsed.Backfill != 30*24*time.Hour || c.Parsed.RateShare != 1 || c.Parsed.Poll != 250*time.Millisecond || c.Parsed.Retention != 400*24*time.Hour ||
		len(c.Kafka.Brokers) != 2 || c.Parsed.KafkaSASL == nil || c.Parsed.KafkaTLS == nil || c.NeedsOneProcess() {
		t.Errorf("%+v", c)
	}
}

// TestConfigFaults: every fault is said at once, with its variable, and no
// secret with it.
func TestConfigFaults(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unreadable := filepath.Join(t.TempDir(), "rules")
	if err := os.Mkdir(unreadable, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(unreadable, "gone.yml")); err != nil { // root may read everything that is there
		t.Fatal(err)
	}
	for _, tt := range []struct {
		environ []string
		want    []string // variables, each with a part of what is said
	}{
		{nil, []string{"AUTH0_DOMAIN: is not set", "AUTH0_CLIENT_ID: is not set", "AUTH0_CLIENT_SECRET: is not set"}},
		{wellSet("AUTH0_DOMAIN=http://acme.eu.auth0.com"), []string{"AUTH0_DOMAIN: \"http://acme.eu.auth0.com\": plain http"}},
		{wellSet("AUTH0_DOMAIN=acme.eu.auth0.com/path"), []string{"AUTH0_DOMAIN: "}},
		{wellSet("AUTH0_AUDIENCE=https://acme.eu.auth0.com/api/v2"), []string{"AUTH0_AUDIENCE: "}},
		{wellSet("AUTH0_PRIVATE_KEY=x"), []string{"AUTH0_CLIENT_SECRET: AUTH0_PRIVATE_KEY is set too"}},
		{[]string{"AUTH0_DOMAIN=a.b", "AUTH0_CLIENT_ID=a", "AUTH0_PRIVATE_KEY=hush-2"}, []string{"AUTH0_PRIVATE_KEY: is not a PEM file"}},
		{wellSet("AUTH0_CLIENT_SECRET_FILE=" + empty), []string{"AUTH0_CLIENT_SECRET_FILE: AUTH0_CLIENT_SECRET is set too"}},
		{[]string{"AUTH0_DOMAIN=a.b", "AUTH0_CLIENT_ID=a", "AUTH0_CLIENT_SECRET_FILE=" + empty}, []string{"AUTH0_CLIENT_SECRET_FILE: " + empty + " is empty"}},
		{[]string{"AUTH0_DOMAIN=a.b", "AUTH0_CLIENT_ID=a", "AUTH0_CLIENT_SECRET_FILE=" + empty + "x"}, []string{"AUTH0_CLIENT_SECRET_FILE: open "}},
		{wellSet("AUTH0_CLIENTID=x"), []string{"AUTH0_CLIENTID: unknown setting"}},
		{wellSet("TENANTWATCH_RATE=0.5"), []string{"TENANTWATCH_RATE: unknown setting; did you mean TENANTWATCH_RATE_SHARE?"}},
		{wellSet("TENANTWATCH_TENANT=a b", "TENANTWATCH_BACKFILL=often", "TENANTWATCH_RATE_SHARE=2", "TENANTWATCH_POLL=1ms", "TENANTWATCH_RETENTION=1h",
			"TENANTWATCH_LOG_LEVEL=loud", "TENANTWATCH_LOG_FORMAT=xml", "HTTP_ADDR=8080", "TENANTWATCH_RULES="+dir+"/none", "TENANTWATCH_DATA_DIR="+empty),
			[]string{"TENANTWATCH_TENANT: ", "TENANTWATCH_BACKFILL: ", "TENANTWATCH_RATE_SHARE: ", "TENANTWATCH_POLL: ", "TENANTWATCH_RETENTION: ",
				"TENANTWATCH_LOG_LEVEL: ", "TENANTWATCH_LOG_FORMAT: ", "HTTP_ADDR: ", "TENANTWATCH_RULES: ", "TENANTWATCH_DATA_DIR: "}},
		{wellSet("TENANTWATCH_RATE_SHARE=NaN"), []string{"TENANTWATCH_RATE_SHARE: "}},
		{wellSet("TENANTWATCH_RULES=" + empty), []string{"TENANTWATCH_RULES: " + empty + " is not a folder"}},
		{wellSet("KAFKA_TLS=true", "KAFKA_USERNAME=u"), []string{"KAFKA_TLS: has no effect without KAFKA_BROKERS", "KAFKA_USERNAME: has no effect", "KAFKA_SASL_MECHANISM: is not set"}},
		{wellSet("KAFKA_BROKERS=host", "KAFKA_SASL_MECHANISM=GSSAPI", "KAFKA_TOPIC_PREFIX=a/b"), []string{"KAFKA_BROKERS: ", "KAFKA_SASL_MECHANISM: ", "KAFKA_USERNAME: ", "KAFKA_TOPIC_PREFIX: "}},
		{wellSet("TENANTWATCH_ALL_LOG_SOURCES=perhaps"), []string{"\n  TENANTWATCH_ALL_LOG_SOURCES: \"perhaps\": want true or false"}},
		{wellSet("KAFKA_TLS=perhaps"), []string{"KAFKA_TLS: \"perhaps\": want true or false"}},
		{wellSet("CLICKHOUSE_DSN=clickhouse://u:hush-3@"), []string{"CLICKHOUSE_DSN: want clickhouse://"}},
		{wellSet("CLICKHOUSE_DSN=::hush-4"), []string{"CLICKHOUSE_DSN: want clickhouse://"}},
		{wellSet("CLICKHOUSE_DSN=http://u:hush-5@host:8123/db"), []string{"CLICKHOUSE_DSN: inserts need the native protocol"}},
		{wellSet("CLICKHOUSE_DSN=mysql://u:hush-6@host:9000/db"), []string{"CLICKHOUSE_DSN: does not start with clickhouse://"}},
		{wellSet("CLICKHOUSE_DSN=clickhouse://u:hush-7@host/db"), []string{"CLICKHOUSE_DSN: \"host\" is not host:port"}},
		{wellSet("CLICKHOUSE_DSN=clickhouse://u:hush-8@host:8123/db"), []string{"CLICKHOUSE_DSN: \"host:8123\": this is the HTTP port"}},
		{wellSet("CLICKHOUSE_DSN=clickhouse://u:hush-9@host:9440/db"), []string{"CLICKHOUSE_DSN: \"host:9440\": this is the port for TLS"}},
		{wellSet("CLICKHOUSE_DSN=clickhouse://u:hush-9@host:0/db,"), []string{"CLICKHOUSE_DSN: \"host:0\": the port is not a number"}},
		{wellSet("KAFKA_BROKERS=a:9092 b:9092", "CLICKHOUSE_DSN=https://u:hush-9@host:8443/db"), []string{"KAFKA_BROKERS: ", "CLICKHOUSE_DSN: inserts need the native protocol"}},
		{wellSet("KAFKA_BROKERS=a:70000,:9092,a:kafka"), []string{"KAFKA_BROKERS: \"a:70000\"", "KAFKA_BROKERS: \":9092\"", "KAFKA_BROKERS: \"a:kafka\""}},
		{[]string{"AUTH0_DOMAIN=\"acme.eu.auth0.com\"", "AUTH0_CLIENT_ID='abc'", "AUTH0_CLIENT_SECRET=hush"}, []string{"AUTH0_DOMAIN: \"acme.eu.auth0.com\" has quotes",
			"AUTH0_CLIENT_ID: 'abc' has quotes"}},
		{wellSet("AUTH0_DOMAIN=https://\"acme\".eu.auth0.com"), []string{"AUTH0_DOMAIN: "}},
		{wellSet("AUTH0_DOMAIN=https://[2001:db8::1]"), []string{"AUTH0_DOMAIN: \"https://[2001:db8::1]\": cannot derive the tenant's name from it; set TENANTWATCH_TENANT"}},
		{wellSet("TENANTWATCH_RULES=" + dir + "," + unreadable), []string{"TENANTWATCH_RULES: " + unreadable + " cannot be read: "}},
		{wellSet("CLICKHOUSE_CA_FILE=" + empty), []string{"CLICKHOUSE_CA_FILE: has no effect"}},
		{wellSet("PROBE_USERNAME=u", "PROBE_INTERVAL=1ms"), []string{"PROBE_CLIENT_ID: is not set", "PROBE_PASSWORD: is not set", "PROBE_INTERVAL: "}},
	} {
		_, err := Load(tt.environ, Need{Tenant: true})
		if err == nil {
			t.Errorf("%v: no fault", tt.environ)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q is not said:\n%v", tt.environ, want, err)
			}
		}
		if n := strings.Count(err.Error(), "\n"); n != len(tt.want) {
			t.Errorf("%v: %d faults, want %d:\n%v", tt.environ, n, len(tt.want), err)
		}
		if strings.Contains(err.Error(), "hush") {
			t.Errorf("a secret is said:\n%v", err)
		}
	}
}

func TestConfigSecretsFromFiles(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load([]string{"AUTH0_DOMAIN=acme.eu.auth0.com", "AUTH0_CLIENT_ID=abc", "AUTH0_PRIVATE_KEY_FILE=" + file}, Need{Tenant: true})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(c.Auth0.PrivateKey), "-----BEGIN PRIVATE KEY-----") {
		t.Error("the key was not read")
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(form, c); strings.Contains(text, "BEGIN") {
			t.Errorf("%s tells the key: %s", form, text)
		}
	}
}

// TestConfigSpellings: what means the same is the same.
func TestConfigSpellings(t *testing.T) {
	for _, tt := range []struct{ domain, url, name string }{
		{"ACME.eu.Auth0.com", "https://acme.eu.auth0.com", "acme"},
		{"acme.eu.auth0.com:443", "https://acme.eu.auth0.com", "acme"},
		{"acme.eu.auth0.com.", "https://acme.eu.auth0.com", "acme"},
		{"HTTPS://Acme.eu.auth0.com.:443/", "https://acme.eu.auth0.com", "acme"},
		{"  acme.eu.auth0.com\r", "https://acme.eu.auth0.com", "acme"},
		{"login.example.com:8443", "https://login.example.com:8443", "login"},
		{"http://[::1]:8080", "http://[::1]:8080", "localhost"},
		{"http://LOCALHOST:80", "http://localhost", "localhost"},
		{"http://127.0.0.1:4711", "http://127.0.0.1:4711", "127.0.0.1"},
	} {
		c, err := Load([]string{"AUTH0_DOMAIN=" + tt.domain, "AUTH0_CLIENT_ID= abc ", "AUTH0_CLIENT_SECRET=hush"}, Need{Tenant: true})
		if err != nil {
			t.Errorf("%q: %v", tt.domain, err)
			continue
		}
		if got := c.Tenants[0]; got.BaseURL.String() != tt.url || got.Name != tt.name || got.ClientID != "abc" {
			t.Errorf("%q: %s, name %s, client %q; want %s, %s", tt.domain, got.BaseURL, got.Name, got.ClientID, tt.url, tt.name)
		}
	}
	c, err := Load(wellSet("AUTH0_AUDIENCE=https://ACME.eu.auth0.com:443/api/v2/", "KAFKA_BROKERS= a:9092, b:9093 ,", "TENANTWATCH_RULES= , "), Need{Tenant: true})
	if err != nil || c.Tenants[0].Audience != "https://acme.eu.auth0.com/api/v2/" || strings.Join(c.Kafka.Brokers, "|") != "a:9092|b:9093" || len(c.Rules) != 0 {
		t.Errorf("%v %+v", err, c)
	}
}

// TestConfigSeveralServers: a DSN may have more than one.
func TestConfigSeveralServers(t *testing.T) {
	for _, dsn := range []string{"clickhouse://u:p@a:9000,b:9000/db", "clickhouse://u:p@[::1]:9000", "native://a:9440?secure=true", "tcp://a:19000/db"} {
		if _, err := Load(wellSet("CLICKHOUSE_DSN="+dsn), Need{Tenant: true}); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

// TestProbesOfAllTenants: the rules know the applications of all synthetic logins, so
// that none of their failures counts as a user's.
func TestProbesOfAllTenants(t *testing.T) {
	several := []string{"TENANTS_0_DOMAIN=a.eu.auth0.com", "TENANTS_0_CLIENT_ID=x", "TENANTS_0_CLIENT_SECRET=y",
		"TENANTS_0_PROBE_CLIENT_ID=probe-a", "TENANTS_0_PROBE_USERNAME=u", "TENANTS_0_PROBE_PASSWORD=p",
		"TENANTS_1_DOMAIN=b.eu.auth0.com", "TENANTS_1_CLIENT_ID=x", "TENANTS_1_CLIENT_SECRET=y",
		"TENANTS_1_PROBE_CLIENT_ID=probe-b", "TENANTS_1_PROBE_USERNAME=u", "TENANTS_1_PROBE_PASSWORD=p"}
	for _, tt := range []struct {
		environ []string
		want    []string
	}{
		{several, []string{"probe-a", "probe-b"}},
		{wellSet("PROBE_CLIENT_ID=probe", "PROBE_USERNAME=u", "PROBE_PASSWORD=p"), []string{"probe"}},
		{wellSet(), []string{}},
	} {
		c, err := Load(tt.environ, Need{Tenant: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.RuleSettings().Vars["probe_clients"]; !slices.Equal(got, tt.want) {
			t.Errorf("got %v, want %v", got, tt.want)
		}
	}
}
