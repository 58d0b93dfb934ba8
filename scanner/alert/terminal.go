package alert

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Terminal prints alerts, each on one line.
type Terminal struct {
	mu    sync.Mutex // guards w
	w     io.Writer
	color bool
}

// NewTerminal returns a sink that prints to w, in colours when asked to.
func NewTerminal(w io.Writer, color bool) *Terminal { return &Terminal{w: w, color: color} }

// Notify prints an alert. A terminal that has gone is no reason to stop.
func (t *Terminal) Notify(_ context.Context, a *schema.Alert) error {
	line := Line(a)
	if t.color {
		line = colorOf(a).Sprint(line)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintln(t.w, line)
	return nil
}

// Line is an alert in one line. What users control in it cannot make it two, or
// steer the terminal.
func Line(a *schema.Alert) string {
	var b strings.Builder
	state := "ALERT"
	if a.State == schema.Resolved {
		state = "RESOLVED"
	}
	fmt.Fprintf(&b, "%s %-8s %-8s", a.UpdatedAt.UTC().Format(time.DateTime+"Z"), state, a.Level)
	if family := Family(a); family != "" {
		fmt.Fprintf(&b, " [%s]", family)
	}
	fmt.Fprintf(&b, " %s", a.Title)
	if a.Summary != "" {
		fmt.Fprintf(&b, ": %s", a.Summary)
	}
	fmt.Fprintf(&b, " (tenant %s", a.Tenant)
	if a.State == schema.Resolved {
		fmt.Fprintf(&b, ", after %s", a.UpdatedAt.Sub(a.StartsAt).Round(time.Second))
	} else if len(a.LogIDs) > 0 {
		fmt.Fprintf(&b, ", see log_id %s", a.LogIDs[len(a.LogIDs)-1])
	}
	b.WriteString(")")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			return '\uFFFD'
		}
		return r
	}, b.String())
}

func colorOf(a *schema.Alert) text.Colors {
	if a.State == schema.Resolved {
		return text.Colors{text.FgGreen}
	}
	switch a.Level {
	case "critical":
		return text.Colors{text.FgRed, text.Bold}
	case "high":
		return text.Colors{text.FgRed}
	case "medium":
		return text.Colors{text.FgYellow}
	}
	return text.Colors{text.FgCyan}
}
