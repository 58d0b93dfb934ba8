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

// migration is one file of migrations. Its statements can be repeated: if we stop
// between two of them, or before the migration is recorded, the next start
// runs the file again.
type migration struct {
	version    uint32
	name       string
	hash       string
	statements []string
}

// Options returns the options for a connection to the server of a DSN. The default database
// is "tenantwatch". tune, if not nil, changes the options.
func Options(dsn string, tune func(*clickhouse.Options)) (*clickhouse.Options, error) {
	// The error must not quote the DSN, which may have a password.
	opts, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, errors.New("CLICKHOUSE_DSN does not have the form clickhouse://user:password@host:9000/database")
	}
	if opts.Auth.Database == "" {
		opts.Auth.Database = "tenantwatch"
	}
	if tune != nil {
		tune(opts)
	}
	return opts, nil
}

// Open connects for writing to the server of a DSN and creates its database if it is
// missing. It does not try to create an existing one, since the user may have no
// privilege to create databases. tune is as in Options.
func Open(ctx context.Context, dsn string, tune func(*clickhouse.Options)) (driver.Conn, error) {
	opts, err := Options(dsn, tune)
	if err != nil {
		return nil, err
	}

	// Servers differ in their defaults. We need an insert to be acknowledged only when its rows are
	// in the table, and not to be dropped as a repeat: the keys of the tables remove duplicates.
	if opts.Settings == nil {
		opts.Settings = clickhouse.Settings{}
	}

	// An asynchronous insert may be acknowledged before it is stored.
	opts.Settings["async_insert"] = 0
	opts.Settings["insert_deduplicate"] = 0

	// The error of a missing database explains more than that of the login.
	missing := createDatabase(ctx, *opts)
	conn, err := Connect(ctx, opts)
	if err != nil && missing != nil {
		return nil, missing
	}
	return conn, err
}

// createDatabase creates the options' database if it is not listed. It connects to the
// database "default", since a login to a missing database is an error, which the embedded
// engine does not handle well. An error of createDatabase only matters if the login fails, too.
func createDatabase(ctx context.Context, opts clickhouse.Options) error {
	database := opts.Auth.Database
	opts.Auth.Database = "default"
	conn, err := Connect(ctx, &opts)
	if err != nil {
		return err
	}
	defer conn.Close()

	// Creating an existing database may be forbidden, so look first.
	var found uint64
	err = conn.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = ?", database).Scan(&found)
	if err != nil || found > 0 {
		return err
	}
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+Quote(database)+" ENGINE = Atomic"); err != nil {
		return fmt.Errorf("create the ClickHouse database %s (or let an administrator do so): %w", database, err)
	}
	return nil
}

// Connect connects to a server and pings it.
func Connect(ctx context.Context, opts *clickhouse.Options) (driver.Conn, error) {
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("connect to ClickHouse at %s: %w", strings.Join(opts.Addr, ", "), err)
	}
	if err := conn.Ping(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to ClickHouse at %s as %s: %w",
			strings.Join(opts.Addr, ", "), opts.Auth.Username, err)
	}
	return conn, nil
}

// Quote quotes a text as a ClickHouse identifier.
func Quote(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// literalReplacer escapes a text within a ClickHouse string.
var literalReplacer = strings.NewReplacer(`\`, `\\`, "'", `\'`)

// Literal writes a text as a ClickHouse string.
func Literal(text string) string { return "'" + literalReplacer.Replace(text) + "'" }

// Literals writes texts as a list of ClickHouse strings for a query that also has parameters. They
// consist of letters, digits and escapes only: the driver would replace ?, $1, @x and {x:y} by
// parameters, even within quotes.
func Literals(texts []string) string {
	var b strings.Builder
	for i, text := range texts {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('\'')
		for _, c := range []byte(text) {
			if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
		b.WriteByte('\'')
	}
	return b.String()
}

// Like writes a text with the wildcards * and ? as a ClickHouse pattern for LIKE.
func Like(text string) string {
	return Literal(strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, "*", "%", "?", "_").Replace(text))
}

// Migrate brings the tables of conn's database up to this program's version and
// returns the names of the migrations that it ran. It refuses a database that a
// newer version has changed, or in which a different version of a migration ran.
// Several processes may run it at the same time.
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

	// Run the migrations that are not recorded, in order.
	for _, m := range list {
		hash, known := applied[m.version]
		delete(applied, m.version)
		if known {
			if hash != m.hash {
				return ran, fmt.Errorf("migration %s differs from the one that ran: "+
					"this database belongs to another build of tenantwatch", m.name)
			}
			continue
		}
		if err := m.run(ctx, conn); err != nil {
			return ran, err
		}
		ran = append(ran, m.name)
	}

	// What is left in applied is not in this program.
	for version := range applied {
		return ran, fmt.Errorf("the database has migration %d, which this version of tenantwatch does not have: "+
			"use the newer version", version)
	}

	return ran, nil
}

// run executes the statements of a migration and records it.
func (m *migration) run(ctx context.Context, conn driver.Conn) error {
	for i, statement := range m.statements {
		if err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("migration %s, statement %d: %w", m.name, i+1, err)
		}
	}

	// If we stop here, the next start runs the statements again.
	err := conn.Exec(ctx, "INSERT INTO schema_migrations (version, name, hash) VALUES (?, ?, ?)",
		m.version, m.name, m.hash)
	if err != nil {
		return fmt.Errorf("record migration %s: %w", m.name, err)
	}
	return nil
}

// appliedMigrations returns the hashes of the migrations that ran, by version.

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

// readMigrations reads the files NNNN_name.sql in order. Their numbers must have no gaps.
func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var list []migration

	// Glob returns the names sorted.
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}

		// The number comes from the name, and must agree with the order.
		base := strings.TrimSuffix(path.Base(name), ".sql")
		number, _, _ := strings.Cut(base, "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if err != nil || version != uint64(i+1) {
			return nil, fmt.Errorf("%s: want number %04d", name, i+1)
		}

		// A statement ends with a semicolon at the end of a line.
		sum := sha256.Sum256(text)
		file := migration{version: uint32(version), name: base, hash: hex.EncodeToString(sum[:])}
		for statement := range strings.SplitSeq(string(text), ";\n") {
			if statement = strings.TrimSpace(statement); statement != "" {
				file.statements = append(file.statements, statement)
			}
		}

		list = append(list, file)
	}

	return list, nil
}

// SetRetention makes ClickHouse delete events this long after their date; 0 keeps
// them forever. It changes the table only if the setting differs.
// ClickHouse deletes old events in the background.
func SetRetention(ctx context.Context, conn driver.Conn, keep time.Duration) error {
	var engine string
	const query = "SELECT engine_full FROM system.tables " +
		"WHERE database = currentDatabase() AND name = 'events_stored'"
	if err := conn.QueryRow(ctx, query).Scan(&engine); err != nil {
		return fmt.Errorf("read the retention of events: %w", err)
	}

	// A date beyond the range of DateTime would wrap around, and its event would be deleted at once.
	days := int(keep / (24 * time.Hour))
	ttl := fmt.Sprintf("TTL toDateTime(least(date, toDateTime64('2100-01-01 00:00:00', 3, 'UTC'))) + "+
		"toIntervalDay(%d)", days)

	var err error
	hasTTL := strings.Contains(engine, " TTL ")
	switch {
	case keep == 0 && !hasTTL, keep > 0 && strings.Contains(engine, ttl):
		return nil
	case keep == 0:
		err = conn.Exec(ctx, "ALTER TABLE events_stored REMOVE TTL")
	default:
		// Do not rewrite all parts now: merges in the background apply the TTL.
		err = conn.Exec(ctx, "ALTER TABLE events_stored MODIFY "+ttl+" SETTINGS materialize_ttl_after_modify = 0")
	}

	if err != nil {
		return fmt.Errorf("set the retention of events to %d days: %w", days, err)
	}
	return nil
}
