package chlocal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/tenantwatch/tenantwatch/schema/datadir"
)

// The folders and files in the engine's folder, beside access.json. The engine itself may access the three
// folders and read the two files.
const (
	storeDir   = "store"
	tmpDir     = "tmp"
	logDir     = "log"
	configFile = "config.xml"
	usersFile  = "users.xml"
)

// Bounds limit what a reader's query may ask for. A query that asks for nothing gets less.
type Bounds struct {
	MaxMemory uint64        // bytes
	MaxTime   time.Duration // run time
}

// The limits of a query that asks for nothing.
const (
	queryMemory = 1 << 30 // bytes
	queryTime   = time.Minute
	queryRows   = 20_000_000_000 // rows read, also the maximum; a year of a large tenant is a tenth
)

// The default of Bounds.
const (
	defaultMaxMemory = 4 << 30 // bytes
	defaultMaxTime   = 10 * time.Minute
)

// maxQueries is the maximum number of queries of one reader at once.
const maxQueries = 16

// defaultBounds returns 4 GiB and 10 minutes.
func defaultBounds() Bounds { return Bounds{MaxMemory: defaultMaxMemory, MaxTime: defaultMaxTime} }

// login is a user of the engine, as the guard knows it.
type login struct {
	name     string // in the engine
	password string // in the engine; in no file, new with each start
	public   string // the password that clients have
	tenant   string // whose rows it may read; empty for all
}

// newLogins returns the users of the engine, by their public names.
func newLogins(access Access) map[string]login {
	logins := map[string]login{
		Owner:  {name: Owner, password: rand.Text(), public: access.OwnerPassword},
		Reader: {name: Reader, password: rand.Text(), public: access.ReaderPassword},
	}
	for i, tenant := range slices.Sorted(maps.Keys(access.TenantReaders)) {
		// A tenant's name may contain characters that the name of an XML element may not.
		name := fmt.Sprintf("%s_%d", Reader, i)
		reader := access.TenantReaders[tenant]
		logins[reader.User] = login{name: name, password: rand.Text(), public: reader.Password, tenant: tenant}
	}
	return logins
}

// settings are the values in the templates of the engine's files.
type settings struct {
	Users, Log, Tmp string // paths
	Owner           settingsUser
	Reader          settingsUser
	Tenants         []settingsUser
	Database        string
	Bounds          Bounds
	QueryMemory     uint64
	QueryTime       time.Duration
	QueryRows       uint64
	MaxQueries      int
}

type settingsUser struct{ Name, Hash, Tenant string }

// configText is the engine's configuration.
//
// System tables need a grant; otherwise every user would see all of them. Native clients must not send in
// chunks, which the guard could not read.
const configText = `<clickhouse>
  <user_directories>
    <users_xml><path>{{xml .Users}}</path></users_xml>
  </user_directories>
  <logger><log>{{xml .Log}}</log><size>10M</size><count>2</count></logger>
  <tmp_path>{{xml .Tmp}}/</tmp_path>
  <access_control_improvements>
    <users_without_row_policies_can_read_rows>true</users_without_row_policies_can_read_rows>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
    <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
  </access_control_improvements>
  <proto_caps><send>notchunked</send><recv>notchunked</recv></proto_caps>
  <shutdown_wait_unfinished>1</shutdown_wait_unfinished>
  <keep_alive_timeout>1</keep_alive_timeout>
  <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
  <mark_cache_size>268435456</mark_cache_size>
</clickhouse>
`

// usersText is the engine's users.
//
// The user default runs the launcher's statements and must be admitted without a password. Its last statement
// runs as long as the engine, and the profile allows one at a time, so no one else can use it.
//
// Readers may change settings, which clients need, but not their own limits. The minimums above 0 are there
// because 0 means "no limit".
const usersText = `<clickhouse>
  <profiles>
    <default>
      <cancel_http_readonly_queries_on_client_close>1</cancel_http_readonly_queries_on_client_close>
      <allow_python_table_function>0</allow_python_table_function>
    </default>
    <launcher>
      <max_concurrent_queries_for_all_users>1</max_concurrent_queries_for_all_users>
      <constraints>
        <max_concurrent_queries_for_all_users><readonly/></max_concurrent_queries_for_all_users>
      </constraints>
    </launcher>
    <reader>
      <readonly>2</readonly>
      <cancel_http_readonly_queries_on_client_close>1</cancel_http_readonly_queries_on_client_close>
      <max_memory_usage>{{.QueryMemory}}</max_memory_usage>
      <max_memory_usage_for_user>{{.Bounds.MaxMemory}}</max_memory_usage_for_user>
      <max_bytes_before_external_group_by>{{half .QueryMemory}}</max_bytes_before_external_group_by>
      <max_bytes_before_external_sort>{{half .QueryMemory}}</max_bytes_before_external_sort>
      <max_execution_time>{{.QueryTime.Seconds}}</max_execution_time>
      <max_rows_to_read>{{.QueryRows}}</max_rows_to_read>
      <max_concurrent_queries_for_user>{{.MaxQueries}}</max_concurrent_queries_for_user>
      <allow_python_table_function>0</allow_python_table_function>
      <constraints>
        <cancel_http_readonly_queries_on_client_close><readonly/></cancel_http_readonly_queries_on_client_close>
        <max_memory_usage><min>1</min><max>{{.Bounds.MaxMemory}}</max></max_memory_usage>
        <max_memory_usage_for_user><readonly/></max_memory_usage_for_user>
        <max_untracked_memory><max>4194304</max></max_untracked_memory>
        <max_execution_time><min>0.001</min><max>{{.Bounds.MaxTime.Seconds}}</max></max_execution_time>
        <max_rows_to_read><min>1</min><max>{{.QueryRows}}</max></max_rows_to_read>
        <max_concurrent_queries_for_user><readonly/></max_concurrent_queries_for_user>
        <max_concurrent_queries_for_all_users><readonly/></max_concurrent_queries_for_all_users>
        <timeout_overflow_mode><readonly/></timeout_overflow_mode>
        <read_overflow_mode><readonly/></read_overflow_mode>
        <timeout_before_checking_execution_speed><readonly/></timeout_before_checking_execution_speed>
        <add_http_cors_header><readonly/></add_http_cors_header>
        <http_response_headers><readonly/></http_response_headers>
        <allow_experimental_eval_table_function><readonly/></allow_experimental_eval_table_function>
        <allow_python_table_function><readonly/></allow_python_table_function>
        <allow_introspection_functions><readonly/></allow_introspection_functions>
      </constraints>
    </reader>
  </profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <no_password/><networks><ip>127.0.0.1</ip></networks><profile>launcher</profile><quota>default</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
        <query>GRANT READ ON FILE</query>
      </grants>
    </default>
    <{{.Owner.Name}}>
      <password_sha256_hex>{{.Owner.Hash}}</password_sha256_hex><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota><access_management>1</access_management>
    </{{.Owner.Name}}>
    <{{.Reader.Name}}>
      <password_sha256_hex>{{.Reader.Hash}}</password_sha256_hex><networks><ip>127.0.0.1</ip></networks>
      <profile>reader</profile><quota>default</quota>
      <grants>
        <query>GRANT SELECT, SHOW, dictGet ON {{$.Database}}.*</query>
        {{- template "system"}}
        <query>GRANT SELECT ON system.parts</query>
        <query>GRANT SELECT ON system.merges</query>
      </grants>
    </{{.Reader.Name}}>
    {{- range .Tenants}}
    <{{.Name}}>
      <password_sha256_hex>{{.Hash}}</password_sha256_hex><networks><ip>127.0.0.1</ip></networks>
      <profile>reader</profile><quota>default</quota>
      <grants>
        {{- range tables}}
        <query>GRANT SELECT, SHOW ON {{$.Database}}.{{.}}</query>
        {{- end}}
        {{- template "system"}}
      </grants>
      <databases><{{$.Database}}>
        {{- $tenant := .Tenant}}
        {{- range stored}}
        <{{.}}><filter>tenant = {{quote $tenant}}</filter></{{.}}>
        {{- end}}
      </{{$.Database}}></databases>
    </{{.Name}}>
    {{- end}}
  </users>
</clickhouse>
{{define "system"}}
        {{- range systemTables}}
        <query>GRANT SELECT ON {{.}}</query>
        {{- end}}
{{- end}}`

// storedTables have a column tenant, and views read from them. The readers of single tenants see these and no
// others.
var (
	storedTables = []string{"events_stored", "alerts_stored", "coverage_stored"}
	views        = []string{"events", "alerts", "alert_transitions", "probes", "coverage", "gaps"}
)

// clientTables are the tables from which clients learn about the server. They show a user only what it has a
// grant for.
var clientTables = []string{
	"system.databases", "system.tables", "system.columns", "system.functions", "system.data_type_families",
	"system.settings", "system.formats", "system.table_functions", "system.table_engines", "system.time_zones",
	"system.build_options", "system.keywords", "system.contributors", "system.one", "system.numbers",
	"system.macros", "system.collations",
	"information_schema.*", "INFORMATION_SCHEMA.*",
}

// writeSettings writes the engine's configuration and users.
func writeSettings(dir, database string, bounds Bounds, logins map[string]login) error {
	s := settings{
		Users:       filepath.Join(dir, usersFile),
		Log:         filepath.Join(dir, logDir, "engine.log"),
		Tmp:         filepath.Join(dir, tmpDir),
		Database:    database,
		Bounds:      bounds,
		QueryMemory: min(queryMemory, bounds.MaxMemory),
		QueryTime:   min(queryTime, bounds.MaxTime),
		QueryRows:   queryRows,
		MaxQueries:  maxQueries,
	}

	for _, name := range slices.Sorted(maps.Keys(logins)) {
		l := logins[name]
		// Only hashes are written.
		user := settingsUser{Name: l.name, Hash: hash(l.password), Tenant: l.tenant}
		switch {
		case name == Owner:
			s.Owner = user
		case name == Reader:
			s.Reader = user
		default:
			s.Tenants = append(s.Tenants, user)
		}
	}

	// If we stop between the two, the next start writes both again.
	for _, file := range []struct{ name, text string }{{usersFile, usersText}, {configFile, configText}} {
		text, err := render(file.text, s)
		if err != nil {
			return err
		}
		if err := datadir.Replace(filepath.Join(dir, file.name), text); err != nil {
			return err
		}
	}
	return nil
}

// render executes a template of one of the engine's files.
func render(text string, s settings) ([]byte, error) {
	functions := template.FuncMap{
		"xml":          escapeXML,
		"half":         func(n uint64) uint64 { return n / 2 },
		"quote":        quoteSQL,
		"tables":       func() []string { return slices.Concat(storedTables, views) },
		"stored":       func() []string { return storedTables },
		"systemTables": func() []string { return clientTables },
	}
	parsed, err := template.New("").Funcs(functions).Parse(text)
	if err != nil {
		return nil, err
	}

	var out bytes.Buffer
	err = parsed.Execute(&out, s)
	return out.Bytes(), err
}

// quoteSQL returns a text as a string literal of SQL in XML. A tenant's name has no backslash.
func quoteSQL(s string) (string, error) {
	return escapeXML("'" + strings.ReplaceAll(s, "'", `\'`) + "'")
}

func escapeXML(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// hash returns a password as the engine's settings hold it.
func hash(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}
