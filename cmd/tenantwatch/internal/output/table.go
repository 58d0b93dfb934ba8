package output

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
)

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

// NewTable returns the rows of a table. Call its End after the last row.
func NewTable(w io.Writer, names ...string) Rows { return newTable(w, names) }

func newTable(w io.Writer, names []string) *tableRows {
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

func (t *tableRows) Row(values ...any) error {
	row := table.Row{}
	for _, v := range values {
		row = append(row, Printable(text(v)))
	}
	t.t.AppendRow(row)

	if t.n++; t.n%sectionSize == 0 {
		t.t.Render()
		t.startSection()
	}
	return nil
}

// End prints the last section and the number of rows.
func (t *tableRows) End() error {
	if t.t.Length() > 0 || t.n == 0 {
		t.t.Render()
	}

	// The number of rows tells an empty answer from a missing one.
	summary := Thousands(uint64(t.n)) + " rows"
	if t.n == 1 {
		summary = "1 row"
	}
	if t.total > t.n {
		summary = fmt.Sprintf("%s of %s rows; --limit, --output", Thousands(uint64(t.n)), Thousands(uint64(t.total)))
	}
	_, err := fmt.Fprintln(t.w, summary)
	return err
}
