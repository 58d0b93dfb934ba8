package output

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// tableLimit is the default of --limit for a table.
const tableLimit = 1000

// Answer is the flags for the output of a query.
type Answer struct {
	Output string `enum:"table,json,ndjson,csv" default:"table" help:"table, json (array), ndjson or csv (header)."`
	Limit  int    `default:"-1" placeholder:"N" help:"Maximum rows, 0 for all. Default: 1,000 for table, else all."`
}

// Rows returns the rows of a list with the given columns. Call its End after the last row.
func (o *Answer) Rows(w io.Writer, names ...string) (Rows, error) { return newRows(w, o.Output, names) }

// Print prints the rows up to the limit, and the number of all rows if there are more: below a table, else on
// stderr.
func (o *Answer) Print(stdout, stderr io.Writer, rows driver.Rows) error {
	limit := o.Limit
	if limit < 0 {
		limit = 0
		if o.Output == "table" {
			limit = tableLimit
		}
	}

	// A negative limit is the default: a table is for reading, the other formats are for programs.
	out, err := newRows(stdout, o.Output, rows.Columns())
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
		if err := out.Row(cells...); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("query: %w", err)
	}

	// Formats for programs have nothing but rows on stdout.
	printed := min(total, cmp.Or(limit, total))
	if t, ok := out.(*tableRows); ok {
		t.total = total
	} else if printed < total {
		fmt.Fprintf(stderr, "%s of %s rows; --limit\n", Thousands(uint64(printed)), Thousands(uint64(total)))
	}
	return out.End()
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
