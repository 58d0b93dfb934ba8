package schema

import (
	"strings"
	"time"
)

// ShortDuration formats a duration without zero units at its end: 1h30m rather than 1h30m0s.
func ShortDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
