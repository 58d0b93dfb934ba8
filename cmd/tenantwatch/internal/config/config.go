package config

import (
	"crypto/tls"
	"time"

	"github.com/segmentio/kafka-go/sasl"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// Config is all settings, read from the environment. The tags name the variables; a prefix applies to the
// variables of the nested struct. Durations are written as in Go (90s, 5m, 24h) or in days (30d). A setting
// with an empty value counts as not set.
//
// The table of settings in deploy/README.md is generated from the paragraphs of the fields. Each begins with
// the name of its field, and says "Required." or has a sentence "Default: …." Variables stand for settings.
type Config struct {
	// Auth0 is how to reach the tenant, when there is one only. See Tenants for several.
	Auth0 auth0Config `envPrefix:"AUTH0_"`

	// Tenant is the tenant's name in the stored data, in metrics and in alerts: letters, digits, dots, dashes
	// and underscores. Default: the first label of the domain. It must not change later: the same events
	// under another name would be pulled and stored again, so a new name for a known domain is refused.
	Tenant string `env:"TENANTWATCH_TENANT"`

	// Tenants are several tenants in one process: TENANTS_0_DOMAIN, TENANTS_0_CLIENT_ID, TENANTS_1_DOMAIN
	// and so on, counted from 0 without a gap. They replace AUTH0_…, TENANTWATCH_TENANT, RECEIVE_TOKEN and
	// the login of PROBE_…, which must not be set as well. Default: none.
	//
	// After Load the list holds every tenant, also the single one of AUTH0_….
	Tenants []tenantConfig `envPrefix:"TENANTS"`

	// DataDir is the folder of the embedded Kafka and ClickHouse. Default: ./data. It is created with mode
	// 0700, so that only its user can read it. Commands find a running instance by this folder.
	DataDir string `env:"TENANTWATCH_DATA_DIR" envDefault:"./data"`

	// Engine is the ClickHouse to embed: the path of a clickhouse binary or of a libchdb.so. Default: a
	// clickhouse on PATH, else the library that `make engine` fetched. It is not used with CLICKHOUSE_DSN.
	Engine string `env:"TENANTWATCH_CLICKHOUSE"`

	// Backfill is how far into the past the first start pulls: all, none, or a duration such as 24h or 30d.
	// Default: all, which is as far as the tenant's log retention reaches. Later starts resume it.
	Backfill string `env:"TENANTWATCH_BACKFILL" envDefault:"all"`

	// RateShare is the share of the tenant's Management API limit that tenantwatch may use, above 0 and at most
	// 1. Default: 0.3, which leaves 70 % to other clients of the tenant. A smaller one prolongs the backfill.
	RateShare string `env:"TENANTWATCH_RATE_SHARE" envDefault:"0.3"`

	// Poll is the pause after a call that returned no new events, from 100ms to 1h. Default: 1s. A longer
	// pause saves calls and delays alerts.
	Poll string `env:"TENANTWATCH_POLL" envDefault:"1s"`

	// Rules are folders with Sigma rules and overlays, separated by commas. Their rules run beside the
	// built-in ones and replace those with the same id. Default: none. Changes are picked up while running.
	Rules []string `env:"TENANTWATCH_RULES"`

	// AllRules is whether rules whose logsource is another product than Auth0 run too: true or false.
	// Default: false. Such rules rarely match a tenant's log, and cost time.
	AllRules string `env:"TENANTWATCH_ALL_LOG_SOURCES" envDefault:"false"`

	// Retention is how long ClickHouse keeps events: forever, or a duration of at least 1d such as 400d.
	// Default: forever. Older events are deleted for good.
	Retention string `env:"TENANTWATCH_RETENTION" envDefault:"forever"`

	// SQLMemory is the largest memory limit that a reader's query in the embedded ClickHouse may request, of
	// at least 64MiB. Default: 4GiB. A query that requests none gets 1GiB, or this if it is less.
	SQLMemory string `env:"TENANTWATCH_SQL_MAX_MEMORY" envDefault:"4GiB"`

	// SQLTime is the longest time limit that a reader's query in the embedded ClickHouse may request, of at
	// least 1s. Default: 10m. A query that requests none gets 1m, or this if it is less.
	SQLTime string `env:"TENANTWATCH_SQL_MAX_TIME" envDefault:"10m"`

	// LogLevel is the least level that is logged: debug, info, warn or error. Default: info. The log goes to
	// stderr.
	LogLevel string `env:"TENANTWATCH_LOG_LEVEL" envDefault:"info"`

	// LogFormat is the format of log lines: text (key=value) or json (one object a line). Default: text.
	LogFormat string `env:"TENANTWATCH_LOG_FORMAT" envDefault:"text"`

	// Kafka is an external Kafka. Default: the embedded one, in DataDir.
	Kafka kafkaConfig `envPrefix:"KAFKA_"`

	// ClickHouse is an external ClickHouse. Default: the embedded one, in DataDir.
	ClickHouse clickhouseConfig `envPrefix:"CLICKHOUSE_"`

	// Probe is the synthetic login of the tenant, when there is one only. Default: no probe.
	Probe probeConfig `envPrefix:"PROBE_"`

	// ProbeInterval is the time between two logins of a tenant's probe, from 1s to 1h. Default: 1m, which
	// Auth0 advises. It applies to all tenants. A shorter one finds an outage sooner and uses up logins.
	ProbeInterval string `env:"PROBE_INTERVAL" envDefault:"1m"`

	// Receive is the endpoint for Auth0's log streams. It is served by the role receive only.
	Receive receiveConfig `envPrefix:"RECEIVE_"`

	// HTTPAddr is the host:port that serves metrics and health. Default: 127.0.0.1:8080. Port 0 picks a free
	// port, which is printed at the start. They have no login: everyone who reaches the address can read them.
	HTTPAddr string `env:"HTTP_ADDR" envDefault:"127.0.0.1:8080"`

	// Parsed is the settings above in the types of their users. Load sets it.
	Parsed Parsed
}

// Parsed is settings that are written as text, in the types of their users.
type Parsed struct {
	Backfill   time.Duration // negative for all
	RateShare  float64       // above 0, at most 1
	Poll       time.Duration
	Retention  time.Duration // 0 for forever
	ProbeEvery time.Duration

	AllLogSources bool // of rules

	KafkaTLS      *tls.Config    // nil without TLS
	KafkaSASL     sasl.Mechanism // nil without a login
	ClickHouseTLS *tls.Config    // nil for what the DSN says
	SQLBounds     chlocal.Bounds // of readers' queries in the embedded ClickHouse
}

// Group returns the full name of a consumer group.
func (c *Config) Group(name string) string { return c.Kafka.Prefix + name }

// NeedsOneProcess reports whether an engine is embedded, which serves one process only.
func (c *Config) NeedsOneProcess() bool {
	return len(c.Kafka.Brokers) == 0 || c.ClickHouse.DSN == ""
}

// kafkaConfig is an external Kafka. Without Brokers, all except Prefix must be unset.
type kafkaConfig struct {
	// Brokers are the bootstrap brokers of your Kafka, host:port, separated by commas. Default: the embedded
	// Kafka. The other KAFKA_… except KAFKA_TOPIC_PREFIX need it.
	Brokers []string `env:"BROKERS"`

	// Prefix is the start of the name of each topic and consumer group: letters, digits, dots, dashes and
	// underscores. Default: "tenantwatch.". Instances with different prefixes share a cluster
	// without sharing data.
	Prefix string `env:"TOPIC_PREFIX" envDefault:"tenantwatch."`

	// TLS is whether to connect with TLS, version 1.2 or later: true or false. Default: false.
	TLS string `env:"TLS" envDefault:"false"`

	// CAFile is a PEM file with the authorities to trust. Default: those of the system. It implies KAFKA_TLS.
	CAFile string `env:"CA_FILE"`

	// Mechanism is the SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Default: none. It needs
	// KAFKA_USERNAME and KAFKA_PASSWORD.
	Mechanism string `env:"SASL_MECHANISM"`

	// Username is the SASL user. Default: none. It needs KAFKA_SASL_MECHANISM.
	Username string `env:"USERNAME"`

	// Password is the SASL password. Default: none. It needs KAFKA_SASL_MECHANISM.
	Password Secret `env:"PASSWORD"`
}

// clickhouseConfig is an external ClickHouse.
type clickhouseConfig struct {
	// DSN is the address of your ClickHouse, clickhouse://user:password@host:9000/database, with the port of the
	// native protocol: 9000, or 9440 with ?secure=true. Several host:port are separated by commas. The user must
	// be allowed to create tables in the database. Default: the embedded ClickHouse.
	DSN Secret `env:"DSN"`

	// CAFile is a PEM file with the authorities to trust for ?secure=true in CLICKHOUSE_DSN. Default: those of
	// the system.
	CAFile string `env:"CA_FILE"`
}

// receiveConfig is the endpoint for Auth0's log streams.
type receiveConfig struct {
	// Addr is the host:port on which the role receive listens for log streams. Default: 127.0.0.1:8090. Port 0
	// picks a free port, which is printed at the start and logged.
	Addr string `env:"ADDR" envDefault:"127.0.0.1:8090"`

	// Token is the Authorization header that the tenant's log stream sends, of at least 16 characters. Default:
	// none. The role receive needs it. With several tenants, each has TENANTS_0_RECEIVE_TOKEN and so on instead.
	Token Secret `env:"TOKEN"`
}
