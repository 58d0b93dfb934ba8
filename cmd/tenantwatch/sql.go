package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

type sqlCmd struct {
	Query  string `arg:"" help:"The query, such as 'SELECT type, count() FROM events GROUP BY type'."`
	Output string `enum:"table,json,csv" default:"table" help:"table, json (an array of objects) or csv (with a header)."`
}

// Run asks the query. It reaches the running instance's engine by the address in
// the data folder, starts the engine itself when none runs, and asks
// CLICKHOUSE_DSN when that is set.
func (q *sqlCmd) Run(ctx context.Context, a *app) error {
	if strings.TrimSpace(q.Query) == "" {
		return usageError("the query is empty")
	}
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}
	conn, end, err := connectReader(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	rows, err := conn.Query(ctx, q.Query)
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	defer rows.Close()
	return printRows(a.stdout, q.Output, rows)
}

// connectReader connects for reading, to wherever the data is, and tells what to
// end then.
func connectReader(ctx context.Context, c *Config) (driver.Conn, func(), error) {
	dsn, end, err := readerDSN(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	conn, err := openReader(ctx, c, dsn)
	if err != nil {
		end()
		return nil, nil, err
	}
	return conn, func() { conn.Close(); end() }, nil
}

// readerDSN is where to ask, as a user who may only read, and what to end then.
func readerDSN(ctx context.Context, c *Config) (dsn string, end func(), err error) {
	end = func() {}
	if c.ClickHouse.DSN != "" {
		return string(c.ClickHouse.DSN), end, nil
	}
	dir := filepath.Join(c.DataDir, clickhouseDir)
	access, err := chlocal.ReadAccess(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("there is no data in %s: set TENANTWATCH_DATA_DIR to the folder of the running instance, or CLICKHOUSE_DSN", c.DataDir)
	}
	if err != nil {
		return "", nil, err
	}
	if chlocal.Ping(ctx, access) != nil {
		found, err := chlocal.FindEngine(c.Engine)
		if err != nil {
			return "", nil, err
		}
		srv, err := chlocal.Start(ctx, chlocal.Config{Dir: dir, Engine: found, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return "", nil, err
		}
		access, end = srv.Access, func() { _ = srv.Close() }
	}
	if ok, err := chlocal.HasDatabase(ctx, access, database); err != nil || !ok {
		end()
		return "", nil, errors.Join(fmt.Errorf("there is no data in %s yet: ask again once tenantwatch has started", c.DataDir), err)
	}
	user := chlocal.Reader
	if access.Unconfined {
		user = chlocal.Owner // who is let in; openReader makes the session read-only
	}
	return access.DSN(user, database), end, nil
}

// openReader connects for reading only.
func openReader(ctx context.Context, c *Config, dsn string) (driver.Conn, error) {
	opts, err := schema.Options(dsn, c.tuneClickHouse)
	if err != nil {
		return nil, err
	}
	if opts.Auth.Username != chlocal.Reader {
		// 2: read only, but settings may be changed, which clients need. A user who
		// is read-only anyway may not be told so; then the server itself sees to it.
		if opts.Settings == nil {
			opts.Settings = clickhouse.Settings{}
		}
		opts.Settings["readonly"] = 2
	}
	return schema.Connect(ctx, opts)
}

// rowPrinter prints one form of output.
type rowPrinter interface {
	row(values []any) error
	end() error
}

// newPrinter prints a table, json or csv.
func newPrinter(w io.Writer, output string, names []string) (rowPrinter, error) {
	switch output {
	case "json":
		return &jsonRows{w: w, names: names}, nil
	case "csv":
		c := &csvRows{w: csv.NewWriter(w)}
		return c, c.w.Write(names)
	}
	return newTableRows(w, names), nil
}

func printRows(w io.Writer, output string, rows driver.Rows) error {
	out, err := newPrinter(w, output, rows.Columns())
	if err != nil {
		return err
	}
	types := rows.ColumnTypes()
	for rows.Next() {
		cells := make([]any, len(types))
		for i, t := range types {
			cells[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(cells...); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		for i := range cells {
			cells[i] = plainValue(reflect.ValueOf(cells[i]).Elem())
		}
		if err := out.row(cells); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	return out.end()
}

// plainValue is a value of ClickHouse as JSON knows it: times in RFC 3339.
func plainValue(v reflect.Value) any {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return x.UTC().Format("2006-01-02T15:04:05.999Z07:00")
	case fmt.Stringer:
		return x.String()
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plainValue(v.Index(i))
		}
		return list
	case reflect.Map:
		m := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			m[fmt.Sprint(plainValue(it.Key()))] = plainValue(it.Value())
		}
		return m
	}
	return v.Interface()
}

// text is a value in a table or in CSV.
func text(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case []any, map[string]any:
		out, err := json.Marshal(x)
		if err != nil {
			return fmt.Sprint(x)
		}
		return string(out)
	}
	return fmt.Sprint(v)
}

// jsonRows prints an array of objects, one a line, columns in their order.
type jsonRows struct {
	w     io.Writer
	names []string
	n     int
}

func (j *jsonRows) row(values []any) error {
	var b strings.Builder
	b.WriteString(map[bool]string{true: "[\n{", false: ",\n{"}[j.n == 0])
	for i, v := range values {
		name, err := json.Marshal(j.names[i])
		if err != nil {
			return err
		}
		value, err := json.Marshal(v)
		if err != nil {
			value = []byte("null") // not a number, or infinite: JSON has neither
		}
		if i > 0 {
			b.WriteString(",")
		}
		b.Write(name)
		b.WriteString(":")
		b.Write(value)
	}
	b.WriteString("}")
	j.n++
	_, err := io.WriteString(j.w, b.String())
	return err
}

func (j *jsonRows) end() error {
	_, err := io.WriteString(j.w, map[bool]string{true: "[]\n", false: "\n]\n"}[j.n == 0])
	return err
}

type csvRows struct{ w *csv.Writer }

func (c *csvRows) row(values []any) error {
	record := make([]string, len(values))
	for i, v := range values {
		record[i] = text(v)
	}
	return c.w.Write(record)
}

func (c *csvRows) end() error {
	c.w.Flush()
	return c.w.Error()
}

// tableRows prints a table for people, in pieces, so that a long answer does not
// have to be held.
type tableRows struct {
	w     io.Writer
	names []string
	t     table.Writer
	n     int
}

const tablePiece = 10_000

func newTableRows(w io.Writer, names []string) *tableRows {
	t := &tableRows{w: w, names: names}
	t.begin()
	return t
}

func (t *tableRows) begin() {
	t.t = table.NewWriter()
	t.t.SetOutputMirror(t.w)
	t.t.SetStyle(table.StyleLight)
	t.t.Style().Format.Header = 0
	header := table.Row{}
	for _, name := range t.names {
		header = append(header, name)
	}
	t.t.AppendHeader(header)
}

func (t *tableRows) row(values []any) error {
	row := table.Row{}
	for _, v := range values {
		row = append(row, printable(text(v)))
	}
	t.t.AppendRow(row)
	if t.n++; t.n%tablePiece == 0 {
		t.t.Render()
		t.begin()
	}
	return nil
}

func (t *tableRows) end() error {
	if t.t.Length() > 0 || t.n == 0 {
		t.t.Render()
	}
	rows := "rows"
	if t.n == 1 {
		rows = "row"
	}
	_, err := fmt.Fprintf(t.w, "%d %s\n", t.n, rows)
	return err
}

// printable shows what would steer a terminal: an event may hold anything.
func printable(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if steers(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func steers(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
}
