package scanner

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/schema"
)

// mostRules is how many rules a sentence names.
const mostRules = 3

// reason says in a sentence why the event fires the rule or does not.
func (x *Explainer) reason() string {
	s, c := &x.out.State, x.rule.Correlation
	counts, pages := x.engine.admits(&x.event, x.at)
	if x.rule.Alert == nil {
		served := "The rule does not alert: it only serves " + strings.Join(x.out.Serves, ", ") + "."
		if x.out.Occurs {
			return "It occurs. " + served
		}
		return x.absence(s, c, counts) + " " + served
	}
	if len(s.Groups) == 0 || !counts {
		return x.absence(s, c, counts)
	}
	g := s.furthest()
	switch a := g.Alert; {
	case g.Missing != "":
		return sentence(g.Missing)
	case a != nil && a.Fired:
		return "It fires: the alert begins with this event."
	case a != nil && a.Raised:
		return "It raises the alert that has been open since " + stamp(a.StartsAt) + " to " + a.Level + "."
	case c != nil && (g.Window == nil || !g.Window.Holds):
		return x.absence(s, c, counts) + x.more(g, c)
	case a != nil && a.Silently:
		return "It matches, but the alert has been open since " + stamp(a.StartsAt) + "; a further match does not fire again before it closes at " + stamp(a.Ends) + "."
	case a != nil:
		return "The condition holds, but the alert has been open since " + stamp(a.StartsAt) + "; a further match does not fire again."
	case !pages && x.event.Source == schema.Backfill:
		return "The condition holds, but the event was backfilled, and such events never begin an alert."
	case !pages:
		return "The condition holds, but the event was " + shortDuration(x.event.FetchedAt.Sub(x.out.At).Round(time.Second)) + " old when it was pulled; beyond " + shortDuration(x.engine.cfg.MaxAge) + " none begins an alert."
	}
	return "The condition holds."
}

// absence says why a rule does not occur.
func (x *Explainer) absence(s *State, c *rules.Correlation, counts bool) string {
	if c == nil {
		if !s.Match.Holds {
			return "It does not match: " + s.Match.Why() + "."
		}
		if !counts {
			return x.tooOld()
		}
		return "It matches."
	}
	if len(s.Groups) == 0 {
		if !counts && slices.ContainsFunc(s.Counts, func(k Counted) bool { return k.Occurs }) {
			return x.tooOld()
		}
		var list []string
		for _, k := range s.Counts {
			why := ""
			switch {
			case k.Match != nil:
				why = k.Match.Why()
			case x.rule.Correlation != nil:
				inner := x.set.Rules()[slices.IndexFunc(x.set.Rules(), func(r *rules.Rule) bool { return r.ID == k.RuleID })]
				why = strings.TrimSuffix(x.absence(&k.State, inner.Correlation, counts), ".")
			}
			if len(list) == mostRules {
				list = append(list, fmt.Sprintf("and %d more", len(s.Counts)-mostRules))
				break
			}
			list = append(list, fmt.Sprintf("%q (%s)", k.Title, why))
		}
		return "The event is of none of the rules that are counted: " + strings.Join(list, "; ") + "."
	}
	g := s.furthest()
	if g.Missing != "" {
		return sentence(g.Missing)
	}
	w := g.Window
	if w == nil {
		return "The event is no longer in a window."
	}
	if w.Holds {
		return "The condition holds."
	}
	window := "in the " + shortDuration(c.Timespan) + " up to the event"
	switch {
	case c.Type == rules.LastEvents:
		return fmt.Sprintf("%s of the last %d match; wanted is %s.", number(w.Value), w.Events, s.Condition)
	case w.Sources != nil:
		var unseen, unwanted []string
		for _, k := range w.Sources {
			if k.Absent && k.Times > 0 {
				unwanted = append(unwanted, k.Text)
			} else if !k.Absent && k.Times == 0 {
				unseen = append(unseen, k.Text)
			}
		}
		text := ""
		if len(unseen) > 0 {
			text = "still missing " + window + ": " + strings.Join(unseen, ", ")
		}
		if len(unwanted) > 0 {
			if text != "" {
				text += "; "
			}
			text += "there, but to be absent: " + strings.Join(unwanted, ", ")
		}
		if text == "" {
			text = number(w.Value) + " of the rules were seen; wanted is " + s.Condition
		}
		return sentence(text)
	case c.Rises():
		return fmt.Sprintf("%s of %s %s.", number(w.Value), number(c.Bounds[0].Than), window)
	}
	return fmt.Sprintf("The value %s is %s; wanted is: %s.", window, number(math.Round(w.Value*1e6)/1e6), s.Condition)
}

// furthest is the group that got furthest, of those the first.
func (s *State) furthest() *Group {
	far := func(g *Group) int {
		switch {
		case g.Alert != nil && (g.Alert.Fired || g.Alert.Raised):
			return 4
		case g.Alert != nil:
			return 3
		case g.Window != nil && g.Window.Holds:
			return 2
		case g.Missing == "":
			return 1
		}
		return 0
	}
	best := &s.Groups[0]
	for i := range s.Groups {
		if g := &s.Groups[i]; far(g) > far(best) {
			best = g
		}
	}
	return best
}

// tooOld says that the event was not counted.
func (x *Explainer) tooOld() string {
	return "The event was " + shortDuration(x.event.FetchedAt.Sub(x.out.At).Round(time.Second)) + " old when it was pulled, so it was not counted."
}

// more says what can still come, or came, of a window.
func (x *Explainer) more(g *Group, c *rules.Correlation) string {
	switch {
	case x.out.Later != nil:
		return " The alert begins with the later event " + x.out.Later.LogID + " at " + stamp(x.out.Later.At) + "."
	case g.Alert != nil:
		return " An alert has been open since " + stamp(g.Alert.StartsAt) + "."
	case g.Window != nil && c.Rises():
		return " It takes " + number(g.Window.Missing) + " more; the event is in the window until " + stamp(g.Window.LastsUntil) + "."
	case g.Window != nil:
		return " The event is in the window until " + stamp(g.Window.LastsUntil) + "."
	}
	return ""
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
