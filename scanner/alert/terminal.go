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

// NewTerminal returns a sink that prints to w, in colors if color is set.
func NewTerminal(w io.Writer, color bool) *Terminal { return &Terminal{w: w, color: color} }

// Notify prints an alert. It ignores write errors: a closed terminal must not stop the
// delivery to other sinks.
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

// Line returns an alert as one line. Control characters are replaced, since end users
// control parts of the text: they cannot break the line or control the terminal.
func Line(a *schema.Alert) string {
	state := "ALERT"
	if a.State == schema.StateResolved {
		state = "RESOLVED"
	}

	var line strings.Builder
	fmt.Fprintf(&line, "%s %-8s %-8s", a.UpdatedAt.UTC().Format(time.DateTime+"Z"), state, a.Level)
	if family := Family(a); family != "" {
		fmt.Fprintf(&line, " [%s]", family)
	}
	fmt.Fprintf(&line, " %s", a.Title)
	if a.Summary != "" {
		fmt.Fprintf(&line, ": %s", a.Summary)
	}

	fmt.Fprintf(&line, " (tenant %s", a.Tenant)
	if a.State == schema.StateResolved {
		fmt.Fprintf(&line, ", after %s", a.UpdatedAt.Sub(a.StartsAt).Round(time.Second))
	} else if len(a.LogIDs) > 0 {
		fmt.Fprintf(&line, ", see log_id %s", a.LogIDs[len(a.LogIDs)-1])
	}
	line.WriteString(")")

	// Bidi controls and separators can also hide or move text.
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			return '\uFFFD'
		}
		return r
	}, line.String())
}

func colorOf(a *schema.Alert) text.Colors {
	if a.State == schema.StateResolved {
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
