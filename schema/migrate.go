package schema

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migration is one file of migrations. Its statements can be repeated, so if we
// die between two of them, or before the migration is noted, the next start
// runs the file again.
type migration struct {
	version    uint32
	name       string
	hash       string
	statements []string
}

// Options are how to connect to the server of a DSN. One without a database
// means "tenantwatch". tune, if given, changes them.
func Options(dsn string, tune func(*clickhouse.Options)) (*clickhouse.Options, error) {
	opts, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, errors.New("CLICKHOUSE_DSN is not of the form clickhouse://user:password@host:9000/database")
	}
	if opts.Auth.Database == "" {
		opts.Auth.Database = "tenantwatch"
	}
	if tune != nil {
		tune(opts)
	}
	return opts, nil
}

// Open connects for writing to the server of a DSN and makes sure that its database is
// there. The database is only created when it is missing, for a user may own one
// and not be allowed to make any. tune is as in Options.
func Open(ctx context.Context, dsn string, tune func(*clickhouse.Options)) (driver.Conn, error) {
	opts, err := Options(dsn, tune)
	if err != nil {
		return nil, err
	}
	// Servers differ in their defaults. An insert is acknowledged once its rows are
	// in the table, and is never taken for a repeat: the keys of the tables see to that.
	if opts.Settings == nil {
		opts.Settings = clickhouse.Settings{}
	}
	opts.Settings["async_insert"] = 0
	opts.Settings["insert_deduplicate"] = 0

	missing := createDatabase(ctx, *opts)
	conn, err := Connect(ctx, opts)
	if err != nil && missing != nil {
		return nil, missing
	}
	return conn, err
}

// createDatabase makes the options' database when it does not show. It goes by
// way of the database "default", since a login to one that is missing is an
// error, and one that the embedded engine does not take well. What it cannot do
// only matters when the login fails too.
func createDatabase(ctx context.Context, opts clickhouse.Options) error {
	database := opts.Auth.Database
	opts.Auth.Database = "default"
	conn, err := Connect(ctx, &opts)
	if err != nil {
		return err
	}
	defer conn.Close()
	var found uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = ?", database).Scan(&found); err != nil || found > 0 {
		return err
	}
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+Quote(database)+" ENGINE = Atomic"); err != nil {
		return fmt.Errorf("create the ClickHouse database %s (or let an administrator do so): %w", database, err)
	}
	return nil
}

// Connect connects and asks for a sign of life.
func Connect(ctx context.Context, opts *clickhouse.Options) (driver.Conn, error) {
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("connect to ClickHouse at %s: %w", strings.Join(opts.Addr, ", "), err)
	}
	if err := conn.Ping(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to ClickHouse at %s as %s: %w", strings.Join(opts.Addr, ", "), opts.Auth.Username, err)
	}
	return conn, nil
}

// Quote makes a ClickHouse identifier of any text.
func Quote(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// escaped is a text within a ClickHouse string.
var escaped = strings.NewReplacer(`\`, `\\`, "'", `\'`)

// Literal writes a text as a ClickHouse string.
func Literal(text string) string { return "'" + escaped.Replace(text) + "'" }

// Like writes a text with the wildcards * and ? as a ClickHouse pattern for LIKE.
func Like(text string) string {
	return Literal(strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, "*", "%", "?", "_").Replace(text))
}

// Migrate brings the tables of conn's database up to this program's version and
// returns the names of the migrations that it ran. It refuses a database that a
// newer program has changed, or one where a migration ran in another wording.
// Any number of processes may run it at once.
func Migrate(ctx context.Context, conn driver.Conn) ([]string, error) {
	const table = `CREATE TABLE IF NOT EXISTS schema_migrations
		(version UInt32, name String, hash String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))
		ENGINE = ReplacingMergeTree ORDER BY version SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`
	if err := conn.Exec(ctx, table); err != nil {
		return nil, fmt.Errorf("create table schema_migrations: %w", err)
	}
	applied, err := appliedMigrations(ctx, conn)
	if err != nil {
		return nil, err
	}
	list, err := readMigrations(migrations)
	if err != nil {
		return nil, err
	}
	var ran []string
	for _, m := range list {
		hash, known := applied[m.version]
		delete(applied, m.version)
		if known {
			if hash != m.hash {
				return ran, fmt.Errorf("migration %s ran in another wording before: this database belongs to another build of tenantwatch", m.name)
			}
			continue
		}
		for i, statement := range m.statements {
			if err := conn.Exec(ctx, statement); err != nil {
				return ran, fmt.Errorf("migration %s, statement %d: %w", m.name, i+1, err)
			}
		}
		err := conn.Exec(ctx, "INSERT INTO schema_migrations (version, name, hash) VALUES (?, ?, ?)", m.version, m.name, m.hash)
		if err != nil {
			return ran, fmt.Errorf("note migration %s: %w", m.name, err)
		}
		ran = append(ran, m.name)
	}
	for version := range applied {
		return ran, fmt.Errorf("the database has migration %d, which this tenantwatch does not know: use the newer one", version)
	}
	return ran, nil
}

func appliedMigrations(ctx context.Context, conn driver.Conn) (map[uint32]string, error) {
	rows, err := conn.Query(ctx, "SELECT version, hash FROM schema_migrations")
	if err != nil {
		return nil, fmt.Errorf("read table schema_migrations: %w", err)
	}
	defer rows.Close()
	applied := map[uint32]string{}
	for rows.Next() {
		var version uint32
		var hash string
		if err := rows.Scan(&version, &hash); err != nil {
			return nil, fmt.Errorf("read table schema_migrations: %w", err)
		}
		applied[version] = hash
	}
	return applied, rows.Err()
}

// readMigrations reads the files NNNN_name.sql in order.
func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var list []migration
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		base := strings.TrimSuffix(path.Base(name), ".sql")
		number, _, _ := strings.Cut(base, "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if err != nil || version != uint64(i+1) {
			return nil, fmt.Errorf("%s: want number %04d", name, i+1)
		}
		sum := sha256.Sum256(text)
		m := migration{version: uint32(version), name: base, hash: hex.EncodeToString(sum[:])}
		for statement := range strings.SplitSeq(string(text), ";\n") {
			if statement = strings.TrimSpace(statement); statement != "" {
				m.statements = append(m.statements, statement)
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// SetRetention makes ClickHouse drop events this long after their date; 0 keeps
// them for good. It changes the table only when the setting is another one, and
// leaves it to ClickHouse to drop what is old by then in the background.
func SetRetention(ctx context.Context, conn driver.Conn, keep time.Duration) error {
	var engine string
	err := conn.QueryRow(ctx, "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'events_stored'").Scan(&engine)
	if err != nil {
		return fmt.Errorf("read the retention of events: %w", err)
	}
	has := strings.Contains(engine, " TTL ")
	days := int(keep / (24 * time.Hour))
	// A date beyond what DateTime can hold would wrap around and be dropped at once.
	ttl := fmt.Sprintf("TTL toDateTime(least(date, toDateTime64('2100-01-01 00:00:00', 3, 'UTC'))) + toIntervalDay(%d)", days)
	switch {
	case keep == 0 && !has, keep > 0 && strings.Contains(engine, ttl):
		return nil
	case keep == 0:
		err = conn.Exec(ctx, "ALTER TABLE events_stored REMOVE TTL")
	default:
		err = conn.Exec(ctx, "ALTER TABLE events_stored MODIFY "+ttl+" SETTINGS materialize_ttl_after_modify = 0")
	}
	if err != nil {
		return fmt.Errorf("set the retention of events to %d days: %w", days, err)
	}
	return nil
}
