package output

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/list"

	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/scanner/explain"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Explanation prints an explanation for people: a summary, and a tree of the rule's state.
func Explanation(w io.Writer, e *explain.Explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s, %s, %s:%d)\n", e.Title, e.RuleID, e.Type, e.File, e.Line)
	fmt.Fprintf(&b, "event %s", e.LogID)
	if e.Tenant != "" {
		fmt.Fprintf(&b, " of %s", e.Tenant)
	}
	fmt.Fprintf(&b, ": %s at %s", e.EventType, Time(e.At))
	if !e.FetchedAt.IsZero() {
		fmt.Fprintf(&b, ", pulled %s later (%s)", e.FetchedAt.Sub(e.At).Round(time.Millisecond), e.Source)
	}
	fmt.Fprintf(&b, "\n\n%s\n\n", e.Reason)

	// The tree: the rule, what it counts, and the groups with their windows and alerts.
	tree := list.NewWriter()
	tree.SetStyle(list.StyleConnectedLight)
	drawState(tree, &e.State, "")
	b.WriteString(tree.Render())
	b.WriteString("\n")

	// What is known beside the event.
	if len(e.Levels) > 1 {
		var levels []string
		for _, level := range e.Levels {
			levels = append(levels, fmt.Sprintf("%s from %v", level.Name, level.Count))
		}
		fmt.Fprintf(&b, "\nlevels: %s\n", strings.Join(levels, ", "))
	}
	if len(e.Serves) > 0 {
		fmt.Fprintf(&b, "\ncounted by: %s\n", strings.Join(e.Serves, ", "))
	}
	if len(e.Recorded) > 0 {
		b.WriteString("\nrecorded transitions of the alert:\n")
		for _, r := range e.Recorded {
			fmt.Fprintf(&b, "  %s %s %s, count %v, started %s\n",
				Time(r.UpdatedAt), r.State, r.Level, r.Count, Time(r.StartsAt))
		}
	}

	_, err := io.WriteString(w, Printable(b.String()))
	return err
}

// mark returns the sign of a condition.
func mark(holds bool) string {
	if holds {
		return "✓ "
	}
	return "✗ "
}

// drawState draws a rule with the rules that it counts and its groups.
func drawState(tree list.Writer, s *explain.State, note string) {
	if s.Match != nil {
		tree.AppendItem(mark(s.Occurs) + s.Title + ", a detection" + note)
		tree.Indent()
		drawMatch(tree, s.Match, s.File)
	} else {
		tree.AppendItem(fmt.Sprintf("%s%s, %s%s: %s within %s",
			mark(s.Occurs), s.Title, s.Type, note, s.Condition, schema.ShortDuration(time.Duration(s.Timespan))))
		tree.Indent()
		// The rules that the correlation counts, or only looks at.
		for i := range s.Counts {
			role := ", counted"
			if s.Counts[i].OnlyLookedAt {
				role = ", looked at"
			}
			drawState(tree, &s.Counts[i].State, role)
		}
	}

	for i := range s.Groups {
		drawGroup(tree, &s.Groups[i])
	}
	tree.UnIndent()
}

// drawMatch draws the condition of a detection that is in a file.
func drawMatch(tree list.Writer, e *expr.Explanation, file string) {
	var label []string
	if e.Filter != "" {
		label = append(label, fmt.Sprintf("filter %q:", e.Filter))
	}
	if e.Search != "" {
		label = append(label, e.Search+":")
	}

	// A test shows both values, and/or/not their operator.
	switch e.Op {
	case expr.OpField:
		label = append(label, e.Field, "is", e.Got()+", wanted is", e.Want())
	case expr.OpKeyword:
		label = append(label, "anywhere", e.Want())
	default:
		label = append(label, string(e.Op))
	}

	// A leaf has a place. The parts of a filter are in another file than the rule.
	isLeaf := len(e.Parts) == 0 && e.Line != 0
	if isLeaf && e.File != file {
		label = append(label, fmt.Sprintf("(%s:%d)", e.File, e.Line))
	} else if isLeaf {
		label = append(label, fmt.Sprintf("(line %d)", e.Line))
	}
	if e.Note != "" {
		label = append(label, "- "+e.Note)
	}
	tree.AppendItem(mark(e.Holds) + strings.Join(label, " "))

	if len(e.Parts) > 0 {
		tree.Indent()
		for _, part := range e.Parts {
			drawMatch(tree, part, file)
		}
		tree.UnIndent()
	}
}

// drawGroup draws a group with its window and its alert.
func drawGroup(tree list.Writer, g *explain.Group) {
	var key []string
	for _, field := range g.Key {
		name := field.Field
		if field.Path != "" {
			name += " (" + field.Path + ")"
		}
		if field.Found {
			key = append(key, fmt.Sprintf("%s %q", name, field.Value))
		} else {
			key = append(key, name+" absent")
		}
	}
	// A rule without group-by.
	if len(key) == 0 {
		key = []string{"all events of the tenant"}
	}
	tree.AppendItem("group: " + strings.Join(key, ", "))
	tree.Indent()
	defer tree.UnIndent()

	if g.Missing != "" {
		tree.AppendItem(g.Missing)
	}
	if g.Window != nil {
		drawWindow(tree, g.Window)
	}
	if alert := g.Alert; alert != nil {
		text := fmt.Sprintf("alert open since %s, %s", Time(alert.StartsAt), alert.Level)
		switch {
		case alert.Ends.IsZero():
		case alert.Silently:
			text += ", closes silently at " + Time(alert.Ends)
		default:
			text += ", resolves at " + Time(alert.Ends) + " if nothing more comes"
		}
		tree.AppendItem(text)
	}
}

// drawWindow draws a window with its sources, values and events.
func drawWindow(tree list.Writer, w *explain.Window) {
	missing := ""
	if w.Missing > 0 && !w.Holds {
		missing = fmt.Sprintf(", %v too few", w.Missing)
	}
	tree.AppendItem(fmt.Sprintf("%swindow (%s, %s]: %v%s",
		mark(w.Holds), Time(w.After), Time(w.Until), w.Value, missing))
	tree.Indent()
	defer tree.UnIndent()

	for _, source := range w.Sources {
		drawSource(tree, source)
	}
	for _, value := range w.Values {
		tree.AppendItem(fmt.Sprintf("%q, %d times, last at %s", value.Text, value.Times, Time(value.Last)))
	}
	tree.AppendItem(fmt.Sprintf("%d events: %s", w.Events, strings.Join(w.LogIDs, " ")))
	tree.AppendItem(fmt.Sprintf("its first event leaves at %s, this one at %s",
		Time(w.FirstLeave), Time(w.LastsUntil)))
}

// drawSource draws one of the rules of a temporal correlation.
func drawSource(tree list.Writer, s explain.Seen) {
	seen := "not seen"
	if s.Times > 0 {
		seen = fmt.Sprintf("seen at %s (%s)", Time(s.Last), s.LogID)
	}
	if s.Absent {
		seen += ", must be absent"
	}
	tree.AppendItem(mark(s.Absent != (s.Times > 0)) + s.Text + " " + seen)
}
