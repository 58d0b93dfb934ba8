package checkpoint

import (
	"fmt"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// logID is a log_id of an event that was stored at t, the n-th of its moment.
func logID(t time.Time, n int) string {
	return fmt.Sprintf("900%s%06d%014d%019d", t.UTC().Format("20060102150405"), t.Nanosecond()/1000, 0, n)
}

func TestHigher(t *testing.T) {
	ids := []string{logID(noon, 1), logID(noon, 2), logID(noon.Add(time.Second), 1), logID(noon.Add(time.Hour), 0)}
	for i, a := range ids {
		for j, b := range ids {
			if got := Higher(a, b); got != (i > j) {
				t.Errorf("Higher(%s, %s) = %v", a, b, got)
			}
		}
		if !Higher(a, "") || Higher("", a) || Higher(a, "x") || Higher("x", a) {
			t.Errorf("%s against what is no id of its kind", a)
		}
	}
}
