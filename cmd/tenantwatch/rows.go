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

// rowPrinter prints one form of output.
type rowPrinter interface {
	row(values []any) error
	end() error
}

// newPrinter prints a table, json, ndjson or csv.
func newPrinter(w io.Writer, output string, names []string) (rowPrinter, error) {
	switch output {
	case "json":
		return &jsonRows{w: w, names: names, open: "[\n", between: ",\n", none: "[]\n", last: "\n]\n"}, nil
	case "ndjson":
		return &jsonRows{w: w, names: names, between: "\n", last: "\n"}, nil
	case "csv":
		c := &csvRows{w: csv.NewWriter(w)}
		return c, c.w.Write(names)
	}
	return newTableRows(w, names), nil
}

// tableLimit is how many rows a table has when nothing else is asked for.
const tableLimit = 1000

// rowsOutput is how a command prints rows.
type rowsOutput struct {
	Output string `enum:"table,json,ndjson,csv" default:"table" help:"table, json (an array of objects), ndjson (an object a line) or csv (with a header)."`
	Limit  int    `default:"-1" placeholder:"N" help:"At most so many rows, 0 for all. Default: 1,000 in a table, all in the others."`
}

// print prints all rows, or says of how many it has printed some.
func (o *rowsOutput) print(a *app, rows driver.Rows) error {
	most := o.Limit
	if most < 0 {
		most = 0
		if o.Output == "table" {
			most = tableLimit
		}
	}
	out, err := newPrinter(a.stdout, o.Output, rows.Columns())
	if err != nil {
		return err
	}

	total := 0
	types := rows.ColumnTypes()
	for rows.Next() {
		if total++; most > 0 && total > most {
			continue // only counted
		}
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
		return fmt.Errorf("query: %w", explainBounds(err))
	}

	printed := min(total, cmp.Or(most, total))
	if t, ok := out.(*tableRows); ok {
		t.total = total
	} else if printed < total { // other forms are for programs, which read all of stdout
		fmt.Fprintf(a.stderr, "%s of %s rows; --limit\n", thousands(uint64(printed)), thousands(uint64(total)))
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

// jsonRows prints objects, one a line, columns in their order.
type jsonRows struct {
	w     io.Writer
	names []string
	n     int

	open, between, none, last string // before the first row, between rows, in place of all, after the last
}

func (j *jsonRows) row(values []any) error {
	var b strings.Builder
	b.WriteString(map[bool]string{true: j.open, false: j.between}[j.n == 0])
	b.WriteString("{")
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
	_, err := io.WriteString(j.w, map[bool]string{true: j.none, false: j.last}[j.n == 0])
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
	n     int // rows printed
	total int // rows that there are, where that is more
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

// end prints what is left and how many rows there are.
func (t *tableRows) end() error {
	if t.t.Length() > 0 || t.n == 0 {
		t.t.Render()
	}
	text := thousands(uint64(t.n)) + " rows"
	if t.n == 1 {
		text = "1 row"
	}
	if t.total > t.n {
		text = fmt.Sprintf("%s of %s rows; --limit, --output", thousands(uint64(t.n)), thousands(uint64(t.total)))
	}
	_, err := fmt.Fprintln(t.w, text)
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
