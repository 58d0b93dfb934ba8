package main

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jedib0t/go-pretty/v6/table"
)

// rowPrinter prints rows in one output format. end prints what follows the last row.
type rowPrinter interface {
	row(values []any) error
	end() error
}

// newPrinter returns a printer for table, json, ndjson or csv.
func newPrinter(w io.Writer, output string, names []string) (rowPrinter, error) {
	switch output {
	case "json":
		return &jsonRows{w: w, names: names, open: "[\n", between: ",\n", none: "[]\n", last: "\n]\n"}, nil
	case "ndjson":
		return &jsonRows{w: w, names: names, between: "\n", last: "\n"}, nil
	case "csv":
		rows := &csvRows{w: csv.NewWriter(w)}
		return rows, rows.w.Write(names)
	}
	return newTableRows(w, names), nil
}

// tableLimit is the default of --limit for a table.
const tableLimit = 1000

// rowsOutput is the flags for the output of a query.
type rowsOutput struct {
	Output string `enum:"table,json,ndjson,csv" default:"table" help:"table, json (array), ndjson or csv (header)."`
	Limit  int    `default:"-1" placeholder:"N" help:"Maximum rows, 0 for all. Default: 1,000 for table, else all."`
}

// print prints the rows up to the limit, and the number of all rows if there are more.
func (o *rowsOutput) print(a *app, rows driver.Rows) error {
	limit := o.Limit
	if limit < 0 {
		limit = 0
		if o.Output == "table" {
			limit = tableLimit
		}
	}

	// A negative limit is the default: a table is for reading, the other formats are for programs.
	out, err := newPrinter(a.stdout, o.Output, rows.Columns())
	if err != nil {
		return err
	}

	// Rows beyond the limit are read to be counted.
	total := 0
	types := rows.ColumnTypes()
	for rows.Next() {
		if total++; limit > 0 && total > limit {
			continue
		}
		cells := make([]any, len(types))
		// Scan needs a variable of each column's type.
		for i, column := range types {
			cells[i] = reflect.New(column.ScanType()).Interface()
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
		return fmt.Errorf("query: %w", explainBounds(err))
	}

	// Formats for programs have nothing but rows on stdout.
	printed := min(total, cmp.Or(limit, total))
	if t, ok := out.(*tableRows); ok {
		t.total = total
	} else if printed < total {
		fmt.Fprintf(a.stderr, "%s of %s rows; --limit\n", thousands(uint64(printed)), thousands(uint64(total)))
	}
	return out.end()
}

// plainValue converts a value of ClickHouse to one that JSON can hold. Times are in RFC 3339.
func plainValue(v reflect.Value) any {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}

	// Decimals, addresses and UUIDs have a String method.
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
		object := map[string]any{}
		for entry := v.MapRange(); entry.Next(); {
			object[fmt.Sprint(plainValue(entry.Key()))] = plainValue(entry.Value())
		}
		return object
	}
	return v.Interface()
}

// text formats a value for a table or for CSV.
func text(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case []any, map[string]any:
		// Arrays and maps.
		out, err := json.Marshal(x)
		if err != nil {
			return fmt.Sprint(x)
		}
		return string(out)
	}
	return fmt.Sprint(v)
}

// jsonRows prints an object for each row, one a line, with the columns in their order.
type jsonRows struct {
	w     io.Writer
	names []string
	n     int // rows printed

	open    string // before the first row
	between string // between rows
	none    string // instead of all, without rows
	last    string // after the last row
}

func (j *jsonRows) row(values []any) error {
	var b strings.Builder
	separator := j.between
	if j.n == 0 {
		separator = j.open
	}
	b.WriteString(separator)

	b.WriteString("{")
	for i, v := range values {
		// A map would lose the order of the columns.
		name, err := json.Marshal(j.names[i])
		if err != nil {
			return err
		}
		value, err := json.Marshal(v)
		if err != nil {
			value = []byte("null") // NaN or infinite, which JSON does not have
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
	tail := j.last
	if j.n == 0 {
		tail = j.none
	}
	_, err := io.WriteString(j.w, tail)
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

// tableRows prints a table for people. A long one is printed in sections, so that it is not held in memory.
type tableRows struct {
	w     io.Writer
	names []string
	t     table.Writer // the current section
	n     int          // rows printed
	total int          // rows of the answer, if more than were printed
}

// sectionSize is the number of rows in a section of a table.
const sectionSize = 10_000

func newTableRows(w io.Writer, names []string) *tableRows {
	t := &tableRows{w: w, names: names}
	t.startSection()
	return t
}

func (t *tableRows) startSection() {
	t.t = table.NewWriter()
	t.t.SetOutputMirror(t.w)
	t.t.SetStyle(table.StyleLight)
	t.t.Style().Format.Header = 0 // names as they are

	// Each section repeats the header.
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

	if t.n++; t.n%sectionSize == 0 {
		t.t.Render()
		t.startSection()
	}
	return nil
}

// end prints the last section and the number of rows.
func (t *tableRows) end() error {
	if t.t.Length() > 0 || t.n == 0 {
		t.t.Render()
	}

	// The number of rows tells an empty answer from a missing one.
	summary := thousands(uint64(t.n)) + " rows"
	if t.n == 1 {
		summary = "1 row"
	}
	if t.total > t.n {
		summary = fmt.Sprintf("%s of %s rows; --limit, --output", thousands(uint64(t.n)), thousands(uint64(t.total)))
	}
	_, err := fmt.Fprintln(t.w, summary)
	return err
}

// printable escapes the characters that would control a terminal: an event may hold any text.
func printable(s string) string {
	if !strings.ContainsFunc(s, isControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isControl(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
}
