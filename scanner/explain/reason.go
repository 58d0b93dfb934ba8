package explain

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/schema"
)

// maxRules bounds the rules that a sentence lists.
const maxRules = 3

// reason returns a sentence that says why the rule fires at the event or does not.
func (x *Explainer) reason() string {
	state, counted := &x.out.State, x.rule.Correlation

	if x.rule.Alert == nil {
		served := "The rule does not alert: it only serves " + strings.Join(x.out.Serves, ", ") + "."
		if x.out.Occurs {
			return "It occurs. " + served
		}
		return x.absence(state, counted) + " " + served
	}

	// Without a group or a count there is no alert to speak of.
	if len(state.Groups) == 0 || !x.counts {
		return x.absence(state, counted)
	}

	// With several groups, explain the one closest to an alert.
	furthest := state.furthest()
	if furthest.Missing != "" {
		return sentence(furthest.Missing)
	}
	switch open := furthest.Alert; {
	case open != nil && open.Fired:
		return "It fires: the alert begins with this event."
	case open != nil && open.Raised:
		return fmt.Sprintf("It raises the alert that has been open since %s to %s.", stamp(open.StartsAt), open.Level)
	case counted != nil && (furthest.Window == nil || !furthest.Window.Holds):
		return x.absence(state, counted) + x.outlook(furthest, counted)
	case open != nil && open.Silently:
		return fmt.Sprintf("It matches, but the alert has been open since %s; "+
			"a further match does not fire again before it closes at %s.", stamp(open.StartsAt), stamp(open.Ends))
	case open != nil:
		return fmt.Sprintf("The condition holds, but the alert has been open since %s; "+
			"a further match does not fire again.", stamp(open.StartsAt))
	case !x.fires && x.event.Source == schema.SourceBackfill:
		return "The condition holds, but the event was backfilled, and such events never begin an alert."
	case !x.fires:
		return fmt.Sprintf("The condition holds, but the event was %s old when it was pulled; "+
			"beyond %s none begins an alert.", x.age(), schema.ShortDuration(x.maxAge))
	}
	return "The condition holds."
}

// absence returns a sentence that says why a rule does not occur.
func (x *Explainer) absence(s *State, counted *rules.Correlation) string {
	switch {
	case counted == nil && !s.Match.Holds:
		return "It does not match: " + s.Match.Why() + "."
	case counted == nil && !x.counts:
		return x.tooOld()
	case counted == nil:
		return "It matches."
	case len(s.Groups) == 0:
		return x.noneCounted(s)
	}

	furthest := s.furthest()
	switch {
	case furthest.Missing != "":
		return sentence(furthest.Missing)
	case furthest.Window == nil:
		return "The event is no longer in a window."
	case furthest.Window.Holds:
		return "The condition holds."
	}
	return s.shortfall(furthest.Window, counted)
}

// noneCounted says why the event is of none of the rules that a correlation counts.
func (x *Explainer) noneCounted(s *State) string {
	if !x.counts && slices.ContainsFunc(s.Counts, func(k Counted) bool { return k.Occurs }) {
		return x.tooOld()
	}

	all := x.set.Rules()
	var list []string
	for _, counted := range s.Counts {
		if len(list) == maxRules {
			list = append(list, fmt.Sprintf("and %d more", len(s.Counts)-maxRules))
			break
		}

		why := ""
		switch {
		case counted.Match != nil:
			why = counted.Match.Why()
		case x.rule.Correlation != nil:
			inner := all[slices.IndexFunc(all, func(r *rules.Rule) bool { return r.ID == counted.RuleID })]
			why = strings.TrimSuffix(x.absence(&counted.State, inner.Correlation), ".")
		}
		list = append(list, fmt.Sprintf("%q (%s)", counted.Title, why))
	}
	return "The event is of none of the rules that are counted: " + strings.Join(list, "; ") + "."
}

// shortfall says what a window lacks for the condition to hold.
func (s *State) shortfall(w *Window, counted *rules.Correlation) string {
	window := "in the " + schema.ShortDuration(counted.Timespan) + " up to the event"
	switch {
	case counted.Last > 0:
		return fmt.Sprintf("%s of the last %d match; required: %s.", correlation.Number(w.Value), w.Events, s.Condition)
	case w.Sources != nil:
		return s.sourcesShortfall(w, window)
	case counted.Rises():
		threshold := correlation.Number(counted.Bounds[0].Than)
		return fmt.Sprintf("%s of %s %s.", correlation.Number(w.Value), threshold, window)
	}
	value := math.Round(w.Value*1e6) / 1e6
	return fmt.Sprintf("The value %s is %s; required: %s.", window, correlation.Number(value), s.Condition)
}

// sourcesShortfall lists the sources that are missing from a window, and those that
// must be absent and are not.
func (s *State) sourcesShortfall(w *Window, window string) string {
	var unseen, unwanted []string
	for _, source := range w.Sources {
		if source.Absent && source.Times > 0 {
			unwanted = append(unwanted, source.Text)
		} else if !source.Absent && source.Times == 0 {
			unseen = append(unseen, source.Text)
		}
	}

	var parts []string
	if len(unseen) > 0 {
		parts = append(parts, "still missing "+window+": "+strings.Join(unseen, ", "))
	}
	if len(unwanted) > 0 {
		parts = append(parts, "present, but must be absent: "+strings.Join(unwanted, ", "))
	}
	if len(parts) == 0 {
		parts = append(parts, correlation.Number(w.Value)+" of the rules were seen; required: "+s.Condition)
	}
	return sentence(strings.Join(parts, "; "))
}

// furthest returns the group that is closest to an alert, the first of equal ones.
func (s *State) furthest() *Group {
	rank := func(g *Group) int {
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
		if candidate := &s.Groups[i]; rank(candidate) > rank(best) {
			best = candidate
		}
	}
	return best
}

// tooOld says that the event was not counted.
func (x *Explainer) tooOld() string {
	return "The event was " + x.age() + " old when it was pulled, so it was not counted."
}

// age returns the event's age when it was pulled.
func (x *Explainer) age() string {
	return schema.ShortDuration(x.event.FetchedAt.Sub(x.out.At).Round(time.Second))
}

// outlook says what happened after the event, or what can still happen.
func (x *Explainer) outlook(g *Group, counted *rules.Correlation) string {
	switch later := x.out.Later; {
	case later != nil:
		return fmt.Sprintf(" The alert begins with the later event %s at %s.", later.LogID, stamp(later.At))
	case g.Alert != nil:
		return fmt.Sprintf(" An alert has been open since %s.", stamp(g.Alert.StartsAt))
	case g.Window != nil && counted.Rises():
		return fmt.Sprintf(" It takes %s more; the event is in the window until %s.",
			correlation.Number(g.Window.Missing), stamp(g.Window.LastsUntil))
	case g.Window != nil:
		return fmt.Sprintf(" The event is in the window until %s.", stamp(g.Window.LastsUntil))
	}
	return ""
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
