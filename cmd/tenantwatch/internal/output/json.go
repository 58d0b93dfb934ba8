package output

import (
	"encoding/json"
	"io"
	"strings"
)

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

func (j *jsonRows) Row(values ...any) error {
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

func (j *jsonRows) End() error {
	tail := j.last
	if j.n == 0 {
		tail = j.none
	}
	_, err := io.WriteString(j.w, tail)
	return err
}

// Object prints a value as indented JSON.
func Object(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
