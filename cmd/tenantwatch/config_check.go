package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/dustin/go-humanize"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tenantwatch/tenantwatch/rules"
)

// checkPull parses the settings of the pull, the retention and the folders of rules.
func (c *Config) checkPull(wrong *faults) {
	switch c.Backfill {
	case "all":
		c.backfill = -1
	case "none":
		c.backfill = 0
	default:
		reach, err := parseDuration(c.Backfill)
		if err != nil || reach <= 0 {
			wrong.add("TENANTWATCH_BACKFILL", "%q: want all, none or a duration such as 24h or 30d", c.Backfill)
		}
		c.backfill = reach
	}

	share, err := strconv.ParseFloat(c.RateShare, 64)
	if err != nil || !(share > 0 && share <= 1) { // false for NaN
		wrong.add("TENANTWATCH_RATE_SHARE", "%q: want a number above 0 and at most 1, such as 0.3", c.RateShare)
	}
	c.rateShare = share

	if c.poll, err = parseDuration(c.Poll); err != nil || c.poll < 100*time.Millisecond || c.poll > time.Hour {
		wrong.add("TENANTWATCH_POLL", "%q: want a duration from 100ms to 1h", c.Poll)
	}
	if c.Retention != "forever" {
		if c.retention, err = parseDuration(c.Retention); err != nil || c.retention < 24*time.Hour {
			wrong.add("TENANTWATCH_RETENTION", "%q: want forever or at least 1d, such as 400d", c.Retention)
		}
	}
	c.checkRules(wrong)
}

// checkRules checks that the folders of rules can be read.
func (c *Config) checkRules(wrong *faults) {
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

// topicPrefix matches a valid start of a topic's name.
var topicPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]{0,200}$`)

func (c *Config) checkKafka(wrong *faults) {
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
		c.kafkaTLS = newTLSConfig("KAFKA_CA_FILE", k.CAFile, wrong)
	}
	c.checkSASL(wrong)
}

// checkSASL sets the mechanism of Kafka's login.
func (c *Config) checkSASL(wrong *faults) {
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
		c.kafkaSASL = plain.Mechanism{Username: k.Username, Password: string(k.Password)}
	case "SCRAM-SHA-256":
		c.kafkaSASL, err = scram.Mechanism(scram.SHA256, k.Username, string(k.Password))
	case "SCRAM-SHA-512":
		c.kafkaSASL, err = scram.Mechanism(scram.SHA512, k.Username, string(k.Password))
	default:
		wrong.add("KAFKA_SASL_MECHANISM", "%q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", k.Mechanism)
	}
	if err != nil { // its text would repeat the password
		wrong.add("KAFKA_PASSWORD", "SCRAM does not allow this user name or password")
	}
}

// newTLSConfig trusts the authorities of a file, or without one those of the system.
func newTLSConfig(variable, caFile string, wrong *faults) *tls.Config {
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

func (c *Config) checkClickHouse(wrong *faults) {
	var err error

	// Below 64 MiB hardly any query could run.
	bounds := &c.sqlBounds
	if bounds.MaxMemory, err = humanize.ParseBytes(c.SQLMemory); err != nil || bounds.MaxMemory < 64<<20 {
		wrong.add("TENANTWATCH_SQL_MAX_MEMORY", "%q: want a size of at least 64MiB, such as 4GiB", c.SQLMemory)
	}
	if bounds.MaxTime, err = parseDuration(c.SQLTime); err != nil || bounds.MaxTime < time.Second {
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
		c.chTLS = newTLSConfig("CLICKHOUSE_CA_FILE", caFile, wrong)
	}
}

// checkDSN checks the address of an external ClickHouse. The faults do not repeat it, for it has a password.
func checkDSN(dsn string, wrong *faults) {
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
func checkServers(opts *clickhouse.Options, wrong *faults) {
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

// checkProcess checks the addresses, the log, the data folder and the interval of the probe.
func (c *Config) checkProcess(wrong *faults) {
	every, err := parseDuration(c.ProbeInterval)
	if err != nil || every < time.Second || every > time.Hour {
		wrong.add("PROBE_INTERVAL", "%q: want a duration from 1s to 1h; Auth0 advises 1m", c.ProbeInterval)
	}
	c.probeEvery = every

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

// parseDuration parses a duration as Go writes it, or a number of days such as 30d.
func parseDuration(text string) (time.Duration, error) {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 16)
		return time.Duration(days) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}
