package tosql

import (
	"strings"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Place is where a field is.
type Place struct {
	// Column is the field's own column, details or rest.
	Column string
	// Steps are the names on the way to the field in the column's JSON. A field with
	// its own column has none.
	Steps []string
	// Bit is the field's bit in the column members, which is set if the field's own
	// column has all of its value; -1 if it has no column.
	Bit int
	// Text is the field's text as an expression. It is empty for a value that is not
	// text, and for a field that is absent.
	Text string
}

// Locate returns the place of a field, by its path with dots.
func Locate(path string) Place {
	if i := schema.ColumnIndex(path); i >= 0 {
		column := schema.Columns[i]
		return Place{Column: column.Name, Bit: i, Text: column.SQL()}
	}

	place := Place{Column: "rest", Steps: strings.Split(path, "."), Bit: -1}
	if place.Steps[0] == "details" && len(place.Steps) > 1 {
		place.Column, place.Steps = "details", place.Steps[1:]
	}
	place.Text = place.call("JSONExtractString")
	return place
}

// Own reports whether the field has its own column.
func (p Place) Own() bool { return p.Bit >= 0 }

// Plain reports whether the field's own column has its text as it is, and under its name.
func (p Place) Plain() bool { return p.Bit >= schema.FirstText }

// Raw returns the field's JSON as an expression, where the field has no column.
func (p Place) Raw() string { return p.call("JSONExtractRaw") }

// Path returns the steps as an array in SQL.
func (p Place) Path() string { return "[" + strings.Join(p.literals(), ", ") + "]" }

// Elsewhere returns a condition on rest that holds for every event with a value of the
// field that its own column does not have.
func (p Place) Elsewhere() string { return "position(rest, " + schema.Literal(p.Column+`"`) + ") > 0" }

func (p Place) call(function string) string {
	return function + "(" + strings.Join(append([]string{p.Column}, p.literals()...), ", ") + ")"
}

func (p Place) literals() []string {
	list := make([]string, len(p.Steps))
	for i, step := range p.Steps {
		list[i] = schema.Literal(step)
	}
	return list
}
