package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/list"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
)

// printExplanation writes it for people.
func printExplanation(w io.Writer, e *scanner.Explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s, %s, %s:%d)\n", e.Title, e.RuleID, e.Type, e.File, e.Line)
	fmt.Fprintf(&b, "event %s", e.LogID)
	if e.Tenant != "" {
		fmt.Fprintf(&b, " of %s", e.Tenant)
	}
	fmt.Fprintf(&b, ": %s at %s", e.EventType, rfc3339(e.At))
	if !e.FetchedAt.IsZero() {
		fmt.Fprintf(&b, ", pulled %s later (%s)", e.FetchedAt.Sub(e.At).Round(time.Millisecond), e.Source)
	}
	fmt.Fprintf(&b, "\n\n%s\n\n", e.Reason)
	t := list.NewWriter()
	t.SetStyle(list.StyleConnectedLight)
	drawState(t, &e.State, "")
	b.WriteString(t.Render())
	b.WriteString("\n")
	if len(e.Levels) > 1 {
		var levels []string
		for _, l := range e.Levels {
			levels = append(levels, fmt.Sprintf("%s from %v", l.Name, l.Count))
		}
		fmt.Fprintf(&b, "\nlevels: %s\n", strings.Join(levels, ", "))
	}
	if len(e.Serves) > 0 {
		fmt.Fprintf(&b, "\ncounted by: %s\n", strings.Join(e.Serves, ", "))
	}
	if len(e.Recorded) > 0 {
		b.WriteString("\nwhat is recorded of the alert:\n")
		for _, r := range e.Recorded {
			fmt.Fprintf(&b, "  %s %s %s, count %v, begun %s\n", rfc3339(r.UpdatedAt), r.State, r.Level, r.Count, rfc3339(r.StartsAt))
		}
	}
	_, err := io.WriteString(w, printable(b.String()))
	return err
}

// mark shows a verdict.
func mark(holds bool) string {
	if holds {
		return "✓ "
	}
	return "✗ "
}

// drawState draws a rule with what it counts.
func drawState(t list.Writer, s *scanner.State, note string) {
	if s.Match != nil {
		t.AppendItem(mark(s.Occurs) + s.Title + ", a detection" + note)
		t.Indent()
		drawMatch(t, s.Match, s.File)
	} else {
		t.AppendItem(fmt.Sprintf("%s%s, %s%s: %s within %s", mark(s.Occurs), s.Title, s.Type, note, s.Condition, duration(time.Duration(s.Timespan))))
		t.Indent()
		for i := range s.Counts {
			note := ", counted"
			if s.Counts[i].OnlyLookedAt {
				note = ", looked at"
			}
			drawState(t, &s.Counts[i].State, note)
		}
	}
	for i := range s.Groups {
		drawGroup(t, &s.Groups[i])
	}
	t.UnIndent()
}

// drawMatch draws the condition of a detection in a file.
func drawMatch(t list.Writer, e *rules.Explanation, file string) {
	var label []string
	if e.Filter != "" {
		label = append(label, fmt.Sprintf("filter %q:", e.Filter))
	}
	if e.Search != "" {
		label = append(label, e.Search+":")
	}
	switch e.Op {
	case rules.OpField:
		label = append(label, e.Field, "is", e.Got()+", wanted is", e.Want())
	case rules.OpKeyword:
		label = append(label, "anywhere", e.Want())
	default:
		label = append(label, e.Op)
	}
	switch {
	case len(e.Parts) > 0 || e.Line == 0:
	case e.File != file: // of a filter
		label = append(label, fmt.Sprintf("(%s:%d)", e.File, e.Line))
	default:
		label = append(label, fmt.Sprintf("(line %d)", e.Line))
	}
	if e.Note != "" {
		label = append(label, "- "+e.Note)
	}
	t.AppendItem(mark(e.Holds) + strings.Join(label, " "))
	if len(e.Parts) > 0 {
		t.Indent()
		for _, p := range e.Parts {
			drawMatch(t, p, file)
		}
		t.UnIndent()
	}
}

// drawGroup draws a group with its window and its alert.
func drawGroup(t list.Writer, g *scanner.Group) {
	var key []string
	for _, k := range g.Key {
		name := k.Field
		if k.Path != "" {
			name += " (" + k.Path + ")"
		}
		if k.Found {
			key = append(key, fmt.Sprintf("%s %q", name, k.Value))
		} else {
			key = append(key, name+" absent")
		}
	}
	if len(key) == 0 {
		key = []string{"all events of the tenant"}
	}
	t.AppendItem("group: " + strings.Join(key, ", "))
	t.Indent()
	defer t.UnIndent()
	if g.Missing != "" {
		t.AppendItem(g.Missing)
	}
	if w := g.Window; w != nil {
		missing := ""
		if w.Missing > 0 && !w.Holds {
			missing = fmt.Sprintf(", %v too few", w.Missing)
		}
		t.AppendItem(fmt.Sprintf("%swindow (%s, %s]: %v%s", mark(w.Holds), rfc3339(w.After), rfc3339(w.Until), w.Value, missing))
		t.Indent()
		for _, s := range w.Sources {
			drawSource(t, s)
		}
		for _, s := range w.Values {
			t.AppendItem(fmt.Sprintf("%q, %d times, last at %s", s.Text, s.Times, rfc3339(s.Last)))
		}
		t.AppendItem(fmt.Sprintf("%d events: %s", w.Events, strings.Join(w.LogIDs, " ")))
		t.AppendItem(fmt.Sprintf("its first event leaves at %s, this one at %s", rfc3339(w.FirstLeave), rfc3339(w.LastsUntil)))
		t.UnIndent()
	}
	if o := g.Alert; o != nil {
		text := fmt.Sprintf("alert open since %s, %s", rfc3339(o.StartsAt), o.Level)
		switch {
		case o.Ends.IsZero():
		case o.Silently:
			text += ", closes silently at " + rfc3339(o.Ends)
		default:
			text += ", resolves at " + rfc3339(o.Ends) + " if nothing more comes"
		}
		t.AppendItem(text)
	}
}

// drawSource draws one of the rules of a temporal correlation.
func drawSource(t list.Writer, s scanner.Seen) {
	seen := "not seen"
	if s.Times > 0 {
		seen = fmt.Sprintf("seen at %s (%s)", rfc3339(s.Last), s.LogID)
	}
	if s.Absent {
		seen += ", to be absent"
	}
	t.AppendItem(mark(s.Absent != (s.Times > 0)) + s.Text + " " + seen)
}

// duration writes 10m rather than 10m0s.
func duration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
