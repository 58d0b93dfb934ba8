package output

import "encoding/csv"

// csvRows prints comma-separated values below a header.
type csvRows struct{ w *csv.Writer }

func (c *csvRows) Row(values ...any) error {
	record := make([]string, len(values))
	for i, v := range values {
		record[i] = text(v)
	}
	return c.w.Write(record)
}

func (c *csvRows) End() error {
	c.w.Flush()
	return c.w.Error()
}
