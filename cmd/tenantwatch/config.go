package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/dustin/go-humanize"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// Secret is a setting that is never printed. Every one can also be read from
// the file that its variable with _FILE names.
type Secret string

func (Secret) String() string   { return "<secret>" }
func (Secret) GoString() string { return "<secret>" }

// MarshalText keeps a secret out of logs and dumps.
func (Secret) MarshalText() ([]byte, error) { return []byte("<secret>"), nil }

// UnmarshalText takes a setting.
func (s *Secret) UnmarshalText(b []byte) error { *s = Secret(b); return nil }

// Config is all settings, as the environment gives them.
type Config struct {
	Auth0     auth0Config    `envPrefix:"AUTH0_"`
	Tenant    string         `env:"TENANTWATCH_TENANT"`
	Tenants   []tenantConfig `envPrefix:"TENANTS"` // instead of these two and Probe's login, for several; once checked, all there are
	DataDir   string         `env:"TENANTWATCH_DATA_DIR" envDefault:"./data"`
	Engine    string         `env:"TENANTWATCH_CLICKHOUSE"`
	Backfill  string         `env:"TENANTWATCH_BACKFILL" envDefault:"all"`
	RateShare string         `env:"TENANTWATCH_RATE_SHARE" envDefault:"0.3"`
	Poll      string         `env:"TENANTWATCH_POLL" envDefault:"1s"`
	Rules     []string       `env:"TENANTWATCH_RULES"`
	AllRules  allLogSources  `env:"TENANTWATCH_ALL_LOG_SOURCES"`
	Retention string         `env:"TENANTWATCH_RETENTION" envDefault:"forever"`
	SQLMemory string         `env:"TENANTWATCH_SQL_MAX_MEMORY" envDefault:"4GiB"`
	SQLTime   string         `env:"TENANTWATCH_SQL_MAX_TIME" envDefault:"10m"`
	LogLevel  string         `env:"TENANTWATCH_LOG_LEVEL" envDefault:"info"`
	LogFormat string         `env:"TENANTWATCH_LOG_FORMAT" envDefault:"text"`
	Kafka     struct {
		Brokers   []string `env:"BROKERS"`
		Prefix    string   `env:"TOPIC_PREFIX" envDefault:"tenantwatch."`
		TLS       string   `env:"TLS" envDefault:"false"`
		CAFile    string   `env:"CA_FILE"`
		Mechanism string   `env:"SASL_MECHANISM"`
		Username  string   `env:"USERNAME"`
		Password  Secret   `env:"PASSWORD"`
	} `envPrefix:"KAFKA_"`
	ClickHouse struct {
		DSN    Secret `env:"DSN"`
		CAFile string `env:"CA_FILE"`
	} `envPrefix:"CLICKHOUSE_"`
	Probe         probeConfig `envPrefix:"PROBE_"`
	ProbeInterval string      `env:"PROBE_INTERVAL" envDefault:"1m"`
	Receive       struct {
		Addr  string `env:"ADDR" envDefault:"127.0.0.1:8090"`
		Token Secret `env:"TOKEN"`
	} `envPrefix:"RECEIVE_"`
	HTTPAddr string `env:"HTTP_ADDR" envDefault:"127.0.0.1:8080"`

	// What the texts above mean, once they have been checked.
	backfill   time.Duration // negative for all
	rateShare  float64
	poll       time.Duration
	retention  time.Duration // 0 for ever
	probeEvery time.Duration
	kafkaTLS   *tls.Config
	kafkaSASL  sasl.Mechanism
	chTLS      *tls.Config
	sqlBounds  chlocal.Bounds
}

// need says which settings a command depends on; the others need not be there,
// but those that are must make sense.
type need struct {
	tenant  bool // one that can be called
	receive bool // its log stream
}

// faults are all that is wrong with the settings.
type faults []string

func (f *faults) add(variable, format string, args ...any) {
	*f = append(*f, variable+": "+fmt.Sprintf(format, args...))
}

// plain leaves out that a secret is not set where its file could not be read.
func (f faults) plain() faults {
	return slices.DeleteFunc(slices.Clone(f), func(fault string) bool {
		name, what, _ := strings.Cut(fault, ": ")
		return strings.HasPrefix(what, "is not set") && slices.ContainsFunc(f, func(other string) bool { return strings.HasPrefix(other, name+"_FILE: ") })
	})
}

// Error lists the faults, one a line.
func (f faults) Error() string {
	return "the settings are not right:\n  " + strings.Join(f, "\n  ")
}

// loadConfig reads and checks the environment. The error is a faults.
func loadConfig(environ []string, n need) (*Config, error) {
	var c Config
	var f faults
	vars := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if value != "" { // set to nothing is not set
			vars[name] = value
		}
	}
	names, secrets := settingNames(reflect.TypeFor[Config](), "", vars)
	tidy(vars, names, secrets, &f)
	c.readFiles(vars, secrets, &f)
	reportUnknown(vars, names, secrets, &f)
	err := env.ParseWithOptions(&c, env.Options{Environment: vars})
	var wrong env.AggregateError
	if errors.As(err, &wrong) {
		for _, e := range wrong.Errors {
			f.add("settings", "%v", e)
		}
	} else if err != nil {
		f.add("settings", "%v", err)
	}
	c.checkTenants(vars, n, &f)
	c.checkPull(&f)
	c.checkKafka(&f)
	c.checkClickHouse(&f)
	c.checkRest(&f)
	if len(f) > 0 {
		slices.Sort(f)
		return nil, f.plain()
	}
	return &c, nil
}

// settingNames collects the variables of Config from its tags. A list has as many
// entries as the environment begins to fill, without a gap, and one at least.
func settingNames(t reflect.Type, prefix string, vars map[string]string) (names, secrets []string) {
	add := func(t reflect.Type, prefix string) {
		n, s := settingNames(t, prefix, vars)
		names, secrets = append(names, n...), append(secrets, s...)
	}
	for i := range t.NumField() {
		field := t.Field(i)
		if p, ok := field.Tag.Lookup("envPrefix"); ok {
			if field.Type.Kind() != reflect.Slice {
				add(field.Type, prefix+p)
				continue
			}
			begun := func(prefix string) bool {
				for name := range vars {
					if strings.HasPrefix(name, prefix) {
						return true
					}
				}
				return false
			}
			for n := 0; n == 0 || begun(fmt.Sprintf("%s%s_%d_", prefix, p, n)); n++ {
				add(field.Type.Elem(), fmt.Sprintf("%s%s_%d_", prefix, p, n))
			}
			continue
		}
		name, ok := field.Tag.Lookup("env")
		if !ok {
			continue
		}
		names = append(names, prefix+name)
		if field.Type == reflect.TypeFor[Secret]() {
			secrets = append(secrets, prefix+name)
		}
	}
	return names, secrets
}

// tidy takes off what env files leave around values. Quotes that are still there were
// meant to be taken off by somebody else.
func tidy(vars map[string]string, names, secrets []string, f *faults) {
	for _, name := range names {
		value, ok := vars[name]
		if !ok || slices.Contains(secrets, name) {
			continue
		}
		if value = strings.TrimSpace(value); value == "" {
			delete(vars, name)
			continue
		}
		vars[name] = value
		if first, last := value[0], value[len(value)-1]; len(value) > 1 && first == last && (first == '"' || first == '\'') {
			f.add(name, "%s has quotes around it, which are part of the value here: leave them out", value)
			vars[name] = value[1 : len(value)-1] // what else is wrong with it is said too
		}
	}
}

// trimmed is a list without the spaces around its members, and without empty ones.
func trimmed(list []string) []string {
	var out []string
	for _, member := range list {
		if member = strings.TrimSpace(member); member != "" {
			out = append(out, member)
		}
	}
	return out
}

// readFiles replaces NAME_FILE by NAME for every secret.
func (c *Config) readFiles(vars map[string]string, secrets []string, f *faults) {
	for _, name := range secrets {
		file, ok := vars[name+"_FILE"]
		if !ok {
			continue
		}
		if _, both := vars[name]; both {
			f.add(name+"_FILE", "%s is set too; keep one of them", name)
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			f.add(name+"_FILE", "%v", err)
			continue
		}
		if vars[name] = strings.TrimSpace(string(data)); vars[name] == "" {
			f.add(name+"_FILE", "%s is empty", file)
		}
	}
}

// ours are the beginnings of the names of settings.
var ours = [...]string{"AUTH0_", "TENANTWATCH_", "KAFKA_", "CLICKHOUSE_", "PROBE_", "RECEIVE_", "ALERT_", "TENANTS_"}

// serviceVar matches what Kubernetes puts into the environment for services
// that are called kafka or clickhouse.
var serviceVar = regexp.MustCompile(`^(KAFKA|CLICKHOUSE)_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT.*)|PORT(_.*)?)$`)

// reportUnknown finds settings that would be passed over in silence.
func reportUnknown(vars map[string]string, names, secrets []string, f *faults) {
	for _, name := range slices.Sorted(keysOf(vars)) {
		if !slices.ContainsFunc(ours[:], func(p string) bool { return strings.HasPrefix(name, p) }) || serviceVar.MatchString(name) {
			continue
		}
		if base, ok := strings.CutSuffix(name, "_FILE"); slices.Contains(names, name) || ok && slices.Contains(secrets, base) || slices.Contains(testVars[:], name) {
			continue
		}
		if near := nearest(name, names); near != "" {
			f.add(name, "there is no such setting; did you mean %s?", near)
		} else {
			f.add(name, "there is no such setting; see the README for those that are")
		}
	}
}

// testVars are the settings of our tests.
var testVars = [...]string{"TENANTWATCH_TEST_ENGINE", "TENANTWATCH_TEST_KAFKA"}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// nearest is the setting whose name has the most parts in common.
func nearest(name string, names []string) string {
	best, score := "", 1
	for _, n := range names {
		common := 0
		parts := strings.Split(n, "_")
		for part := range strings.SplitSeq(name, "_") {
			if slices.Contains(parts, part) {
				common++
			}
		}
		if common > score {
			best, score = n, common
		}
	}
	return best
}

func (c *Config) checkPull(f *faults) {
	switch c.Backfill {
	case "all":
		c.backfill = -1
	case "none":
		c.backfill = 0
	default:
		d, err := parseDuration(c.Backfill)
		if err != nil || d <= 0 {
			f.add("TENANTWATCH_BACKFILL", "%q: want all, none or a time such as 24h or 30d", c.Backfill)
		}
		c.backfill = d
	}
	share, err := strconv.ParseFloat(c.RateShare, 64)
	if err != nil || !(share > 0 && share <= 1) {
		f.add("TENANTWATCH_RATE_SHARE", "%q: want a number above 0 and at most 1, such as 0.3", c.RateShare)
	}
	c.rateShare = share
	if c.poll, err = parseDuration(c.Poll); err != nil || c.poll < 100*time.Millisecond || c.poll > time.Hour {
		f.add("TENANTWATCH_POLL", "%q: want a time from 100ms to 1h", c.Poll)
	}
	if c.Retention != "forever" {
		if c.retention, err = parseDuration(c.Retention); err != nil || c.retention < 24*time.Hour {
			f.add("TENANTWATCH_RETENTION", "%q: want forever or at least 1d, such as 400d", c.Retention)
		}
	}
	c.Rules = trimmed(c.Rules)
	for _, dir := range c.Rules {
		if info, err := os.Stat(dir); err != nil {
			f.add("TENANTWATCH_RULES", "%v", err)
		} else if !info.IsDir() {
			f.add("TENANTWATCH_RULES", "%s is not a folder", dir)
		} else if err := readable(dir); err != nil {
			f.add("TENANTWATCH_RULES", "%s cannot be read: %v", dir, err)
		}
	}
}

// readable looks whether a folder's rules can be read, all of them: one that cannot
// would be missed in silence.
func readable(dir string) error {
	return rules.Walk(os.DirFS(dir), func(name string) error {
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		return file.Close()
	})
}

func (c *Config) checkKafka(f *faults) {
	k := &c.Kafka
	useTLS, badTLS := strconv.ParseBool(k.TLS)
	if badTLS != nil {
		f.add("KAFKA_TLS", "%q: want true or false", k.TLS)
	}
	k.Brokers = trimmed(k.Brokers)
	for _, b := range k.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || !isPort(port) || strings.ContainsAny(b, " /") {
			f.add("KAFKA_BROKERS", "%q: want host:port, several with commas", b)
		}
	}
	if len(k.Brokers) == 0 {
		for name, set := range map[string]bool{"KAFKA_TLS": useTLS, "KAFKA_CA_FILE": k.CAFile != "", "KAFKA_SASL_MECHANISM": k.Mechanism != "",
			"KAFKA_USERNAME": k.Username != "", "KAFKA_PASSWORD": k.Password != ""} {
			if set {
				f.add(name, "has no use without KAFKA_BROKERS: the embedded Kafka is on loopback")
			}
		}
	}
	if !topicPrefix.MatchString(k.Prefix) {
		f.add("KAFKA_TOPIC_PREFIX", "%q: want letters, digits, dots, dashes and underscores", k.Prefix)
	}
	if useTLS || k.CAFile != "" {
		c.kafkaTLS = c.tlsConfig("KAFKA_CA_FILE", k.CAFile, f)
	}
	if k.Mechanism == "" && (k.Username != "" || k.Password != "") {
		f.add("KAFKA_SASL_MECHANISM", "is not set; want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	}
	if k.Mechanism != "" && (k.Username == "" || k.Password == "") {
		f.add("KAFKA_USERNAME", "set KAFKA_USERNAME and KAFKA_PASSWORD for KAFKA_SASL_MECHANISM=%s", k.Mechanism)
	}
	var err error
	switch strings.ToUpper(k.Mechanism) {
	case "":
	case "PLAIN":
		c.kafkaSASL = plain.Mechanism{Username: k.Username, Password: string(k.Password)}
	case "SCRAM-SHA-256":
		c.kafkaSASL, err = scram.Mechanism(scram.SHA256, k.Username, string(k.Password))
	case "SCRAM-SHA-512":
		c.kafkaSASL, err = scram.Mechanism(scram.SHA512, k.Username, string(k.Password))
	default:
		f.add("KAFKA_SASL_MECHANISM", "%q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", k.Mechanism)
	}
	if err != nil {
		f.add("KAFKA_PASSWORD", "user name or password cannot be used with SCRAM")
	}
}

var topicPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]{0,200}$`)

// tlsConfig trusts the system's authorities, or those of a file.
func (c *Config) tlsConfig(variable, caFile string, f *faults) *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return t
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		f.add(variable, "%v", err)
		return t
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(data) {
		f.add(variable, "%s has no certificate in it", caFile)
	}
	return t
}

func (c *Config) checkClickHouse(f *faults) {
	var err error
	if c.sqlBounds.MaxMemory, err = humanize.ParseBytes(c.SQLMemory); err != nil || c.sqlBounds.MaxMemory < 64<<20 {
		f.add("TENANTWATCH_SQL_MAX_MEMORY", "%q: want a size of 64MiB or more, such as 4GiB", c.SQLMemory)
	}
	if c.sqlBounds.MaxTime, err = parseDuration(c.SQLTime); err != nil || c.sqlBounds.MaxTime < time.Second {
		f.add("TENANTWATCH_SQL_MAX_TIME", "%q: want a time of 1s or more, such as 10m", c.SQLTime)
	}
	if c.ClickHouse.DSN == "" {
		if c.ClickHouse.CAFile != "" {
			f.add("CLICKHOUSE_CA_FILE", "has no use without CLICKHOUSE_DSN: the embedded ClickHouse is on loopback")
		}
		return
	}
	c.ClickHouse.DSN = Secret(strings.TrimSpace(string(c.ClickHouse.DSN)))
	const want = "want clickhouse://user:password@host:9000/database"
	scheme, _, _ := strings.Cut(string(c.ClickHouse.DSN), "://")
	opts, err := clickhouse.ParseDSN(string(c.ClickHouse.DSN))
	switch {
	case strings.EqualFold(scheme, "http"), strings.EqualFold(scheme, "https"):
		f.add("CLICKHOUSE_DSN", "inserts need the native protocol: %s, not %s://", want, scheme)
	case err != nil: // it would repeat the password
		f.add("CLICKHOUSE_DSN", want)
	case !slices.Contains([]string{"clickhouse", "native", "tcp"}, scheme):
		f.add("CLICKHOUSE_DSN", "it does not begin with clickhouse://: "+want)
	default:
		checkServers(opts, f)
	}
	if c.ClickHouse.CAFile != "" {
		c.chTLS = c.tlsConfig("CLICKHOUSE_CA_FILE", c.ClickHouse.CAFile, f)
	}
}

// checkServers checks the addresses of a DSN. Its ports tell mistakes at once that
// would otherwise be a handshake that fails.
func checkServers(opts *clickhouse.Options, f *faults) {
	for _, addr := range opts.Addr {
		host, port, err := net.SplitHostPort(addr)
		switch {
		case err != nil || host == "" || strings.ContainsAny(host, " /@"):
			f.add("CLICKHOUSE_DSN", "%q is not host:port; the native protocol has port 9000, or 9440 with ?secure=true", addr)
		case !isPort(port):
			f.add("CLICKHOUSE_DSN", "%q: the port is not a number from 1 to 65535", addr)
		case port == "8123" || port == "8443":
			f.add("CLICKHOUSE_DSN", "%q: this is the HTTP port; inserts need the native protocol: port 9000, or 9440 with ?secure=true", addr)
		case port == "9440" && opts.TLS == nil:
			f.add("CLICKHOUSE_DSN", "%q: this is the port for TLS; add ?secure=true", addr)
		}
	}
}

// isPort reports whether a text is the number of a port that can be called.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

func (c *Config) checkRest(f *faults) {
	var err error
	if c.probeEvery, err = parseDuration(c.ProbeInterval); err != nil || c.probeEvery < time.Second || c.probeEvery > time.Hour {
		f.add("PROBE_INTERVAL", "%q: want a time from 1s to 1h; Auth0 advises 1m", c.ProbeInterval)
	}
	if _, _, err := net.SplitHostPort(c.HTTPAddr); err != nil {
		f.add("HTTP_ADDR", "%q: want host:port, such as 127.0.0.1:8080; port 0 takes any", c.HTTPAddr)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		f.add("TENANTWATCH_LOG_LEVEL", "%q: want debug, info, warn or error", c.LogLevel)
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		f.add("TENANTWATCH_LOG_FORMAT", "%q: want text or json", c.LogFormat)
	}
	if _, _, err := net.SplitHostPort(c.Receive.Addr); err != nil {
		f.add("RECEIVE_ADDR", "%q: want host:port, such as 127.0.0.1:8090; port 0 takes any", c.Receive.Addr)
	}
	if info, err := os.Stat(c.DataDir); err == nil && !info.IsDir() {
		f.add("TENANTWATCH_DATA_DIR", "%s is not a folder", c.DataDir)
	}
	if dir, err := filepath.Abs(c.DataDir); err == nil {
		c.DataDir = dir
	}
}

// parseDuration reads Go's durations, and days.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}
