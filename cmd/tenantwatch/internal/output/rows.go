package output

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
)

// Format is the flag for the output of a list.
type Format struct {
	Output string `enum:"table,json,csv" default:"table" help:"table, json (one array) or csv (with a header)."`
}

// Rows returns the rows of a list with the given columns. Call its End after the last row.
func (f *Format) Rows(w io.Writer, names ...string) (Rows, error) { return newRows(w, f.Output, names) }

// Rows prints rows in one output format. A row has a value for each column.
type Rows interface {
	Row(values ...any) error
	// End prints what follows the last row.
	End() error
}

// newRows returns the rows for table, json, ndjson or csv.
func newRows(w io.Writer, output string, names []string) (Rows, error) {
	switch output {
	case "json":
		return &jsonRows{w: w, names: names, open: "[\n", between: ",\n", none: "[]\n", last: "\n]\n"}, nil
	case "ndjson":
		return &jsonRows{w: w, names: names, between: "\n", last: "\n"}, nil
	case "csv":
		rows := &csvRows{w: csv.NewWriter(w)}
		return rows, rows.w.Write(names)
	}
	return newTable(w, names), nil
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
