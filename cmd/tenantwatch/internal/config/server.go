package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/dustin/go-humanize"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// topicPrefix matches a valid start of a topic's name.
var topicPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]{0,200}$`)

func (c *Config) checkKafka(wrong *Faults) {
	k := &c.Kafka
	useTLS, err := strconv.ParseBool(k.TLS)
	if err != nil {
		wrong.add("KAFKA_TLS", "%q: want true or false", k.TLS)
	}

	k.Brokers = trimmed(k.Brokers)
	for _, broker := range k.Brokers {
		host, port, err := net.SplitHostPort(broker)
		if err != nil || host == "" || !isPort(port) || strings.ContainsAny(broker, " /") {
			wrong.add("KAFKA_BROKERS", "%q: want host:port, several separated by commas", broker)
		}
	}

	// The embedded Kafka listens on loopback without TLS and without a login.
	if len(k.Brokers) == 0 {
		for name, set := range map[string]bool{
			"KAFKA_TLS": useTLS, "KAFKA_CA_FILE": k.CAFile != "", "KAFKA_SASL_MECHANISM": k.Mechanism != "",
			"KAFKA_USERNAME": k.Username != "", "KAFKA_PASSWORD": k.Password != "",
		} {
			if set {
				wrong.add(name, "has no effect without KAFKA_BROKERS: the embedded Kafka is on loopback")
			}
		}
	}

	if !topicPrefix.MatchString(k.Prefix) {
		wrong.add("KAFKA_TOPIC_PREFIX", "%q: want letters, digits, dots, dashes and underscores", k.Prefix)
	}
	if useTLS || k.CAFile != "" {
		// A file of authorities implies TLS.
		c.Parsed.KafkaTLS = newTLSConfig("KAFKA_CA_FILE", k.CAFile, wrong)
	}
	c.checkSASL(wrong)
}

// checkSASL sets the mechanism of Kafka's login.
func (c *Config) checkSASL(wrong *Faults) {
	k := &c.Kafka
	// A user without a mechanism would not be sent, and a mechanism without a user cannot work.
	if k.Mechanism == "" && (k.Username != "" || k.Password != "") {
		wrong.add("KAFKA_SASL_MECHANISM", "is not set; want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	}
	if k.Mechanism != "" && (k.Username == "" || k.Password == "") {
		wrong.add("KAFKA_USERNAME", "set KAFKA_USERNAME and KAFKA_PASSWORD for KAFKA_SASL_MECHANISM=%s", k.Mechanism)
	}

	var err error
	// The names of mechanisms are not case-sensitive here.
	switch strings.ToUpper(k.Mechanism) {
	case "":
	case "PLAIN":
		c.Parsed.KafkaSASL = plain.Mechanism{Username: k.Username, Password: string(k.Password)}
	case "SCRAM-SHA-256":
		c.Parsed.KafkaSASL, err = scram.Mechanism(scram.SHA256, k.Username, string(k.Password))
	case "SCRAM-SHA-512":
		c.Parsed.KafkaSASL, err = scram.Mechanism(scram.SHA512, k.Username, string(k.Password))
	default:
		wrong.add("KAFKA_SASL_MECHANISM", "%q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", k.Mechanism)
	}
	if err != nil { // its text would repeat the password
		wrong.add("KAFKA_PASSWORD", "SCRAM does not allow this user name or password")
	}
}

// newTLSConfig trusts the authorities of a file, or without one those of the system.
func newTLSConfig(variable, caFile string, wrong *Faults) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return cfg
	}

	data, err := os.ReadFile(caFile)
	if err != nil {
		wrong.add(variable, "%v", err)
		return cfg
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(data) {
		wrong.add(variable, "%s contains no certificate", caFile)
	}
	return cfg
}

func (c *Config) checkClickHouse(wrong *Faults) {
	var err error

	// Below 64 MiB hardly any query could run.
	bounds := &c.Parsed.SQLBounds
	if bounds.MaxMemory, err = humanize.ParseBytes(c.SQLMemory); err != nil || bounds.MaxMemory < 64<<20 {
		wrong.add("TENANTWATCH_SQL_MAX_MEMORY", "%q: want a size of at least 64MiB, such as 4GiB", c.SQLMemory)
	}
	if bounds.MaxTime, err = ParseDuration(c.SQLTime); err != nil || bounds.MaxTime < time.Second {
		wrong.add("TENANTWATCH_SQL_MAX_TIME", "%q: want a duration of at least 1s, such as 10m", c.SQLTime)
	}

	caFile := c.ClickHouse.CAFile
	if c.ClickHouse.DSN == "" {
		if caFile != "" {
			wrong.add("CLICKHOUSE_CA_FILE",
				"has no effect without CLICKHOUSE_DSN: the embedded ClickHouse is on loopback")
		}
		return
	}

	// trimValues leaves secrets alone; white space around an address is a mistake.
	c.ClickHouse.DSN = Secret(strings.TrimSpace(string(c.ClickHouse.DSN)))
	checkDSN(string(c.ClickHouse.DSN), wrong)
	if caFile != "" {
		c.Parsed.ClickHouseTLS = newTLSConfig("CLICKHOUSE_CA_FILE", caFile, wrong)
	}
}

// checkDSN checks the address of an external ClickHouse. The faults do not repeat it, for it has a password.
func checkDSN(dsn string, wrong *Faults) {
	const want = "want clickhouse://user:password@host:9000/database"
	scheme, _, _ := strings.Cut(dsn, "://")
	opts, err := clickhouse.ParseDSN(dsn)
	switch {
	case strings.EqualFold(scheme, "http"), strings.EqualFold(scheme, "https"):
		wrong.add("CLICKHOUSE_DSN", "inserts need the native protocol: %s, not %s://", want, scheme)
	case err != nil:
		wrong.add("CLICKHOUSE_DSN", want)
	case !slices.Contains([]string{"clickhouse", "native", "tcp"}, scheme):
		wrong.add("CLICKHOUSE_DSN", "does not start with clickhouse://: "+want)
	default:
		checkServers(opts, wrong)
	}
}

// checkServers checks the addresses of a DSN. A wrong port would otherwise show as a failed handshake only.
func checkServers(opts *clickhouse.Options, wrong *Faults) {
	for _, addr := range opts.Addr {
		host, port, err := net.SplitHostPort(addr)
		switch {
		case err != nil || host == "" || strings.ContainsAny(host, " /@"):
			wrong.add("CLICKHOUSE_DSN", "%q is not host:port; "+
				"the native protocol has port 9000, or 9440 with ?secure=true", addr)
		case !isPort(port):
			wrong.add("CLICKHOUSE_DSN", "%q: the port is not a number from 1 to 65535", addr)
		case port == "8123" || port == "8443":
			wrong.add("CLICKHOUSE_DSN", "%q: this is the HTTP port; "+
				"inserts need the native protocol: port 9000, or 9440 with ?secure=true", addr)
		case port == "9440" && opts.TLS == nil:
			wrong.add("CLICKHOUSE_DSN", "%q: this is the port for TLS; add ?secure=true", addr)
		}
	}
}

// isPort reports whether a text is a port that can be connected to.
func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}
