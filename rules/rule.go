package rules

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Class says how an alert of a rule ends.
type Class string

const (
	// Event is for what has happened and stays so, such as a changed setting. The
	// alert fires once and closes silently after Alert.KeepFiringFor.
	Event Class = "event"
	// Condition is for what lasts and ends, such as a rate. The alert resolves
	// when the count has been below Alert.ResolveBelow for Alert.KeepFiringFor.
	Condition Class = "condition"
)

// Rule is one detection or correlation that can be evaluated. It does not
// change; nor may its slices and maps be changed.
type Rule struct {
	ID             string
	Name           string
	Title          string
	Description    string
	Status         string
	Level          string // informational, low, medium, high, critical
	Tags           []string
	FalsePositives []string
	Prevention     string         // advice, from the key "prevention"
	Explanation    string         // from the key "explanation"
	Extra          map[string]any // top-level keys unknown to Sigma, as decoded
	File           string
	Line           int
	Types          []string     // event types it can match, * being a wildcard; nil for any
	Alert          *Alert       // how it alerts; nil when it only serves correlations
	Correlation    *Correlation // nil for a detection

	match     expr
	readsType bool
	outline   *outline // of match
	types     types
}

// Alert is how a rule alerts.
type Alert struct {
	Class         Class
	Levels        []Level       // by rising count, at least one; the first is the rule's own
	ResolveBelow  float64       // at least 1; 0 where the correlation does not rise: it resolves when its condition is false
	KeepFiringFor time.Duration // see Class; 0 in the event class means the engine's default
	Summary       string        // with {count}, {percent}, {threshold}, {window}, {level}, {tenant} and {FIELD} of the group
	GroupBy       []Field       // one alert for each combination of values
	Investigation string        // the saved query to look at next, see schema.Investigations; empty for none
}

// Level is a severity and the count, or value, from which it applies. The first
// of a rule applies when its condition holds.
type Level struct {
	Name  string
	Count float64
}

// levelNames are Sigma's levels by rising severity.
var levelNames = [...]string{"informational", "low", "medium", "high", "critical"}

// CompareLevels orders levels by severity; unknown ones come first.
func CompareLevels(a, b string) int {
	return cmp.Compare(slices.Index(levelNames[:], a), slices.Index(levelNames[:], b))
}

// defaultLevel is for the rules of Auth0's catalog that have none.
const defaultLevel = "medium"

func (d *document) rule() (*Rule, error) {
	r := &Rule{
		ID:             d.id,
		Name:           d.name,
		Title:          d.title,
		Description:    d.text("description"),
		Status:         d.text("status"),
		Level:          strings.ToLower(d.text("level")),
		Tags:           d.list("tags"),
		FalsePositives: d.list("falsepositives"),
		Prevention:     strings.Join(d.list("prevention"), "\n"),
		Explanation:    strings.Join(d.list("explanation"), "\n"),
		Extra:          d.extra(),
		File:           d.file,
		Line:           d.line,
	}
	if r.Title == "" {
		return nil, d.errorf(nil, "title is missing")
	}
	if r.Level != "" && !slices.Contains(levelNames[:], r.Level) {
		return nil, d.errorf(d.keys["level"], "unknown level %q", r.Level)
	}
	return r, nil
}

// alert compiles x-tenantwatch-alert over the defaults. groupBy and threshold
// are the correlation's; a detection has neither.
func (d *document) alert(r *Rule, f *fields, groupBy []Field, threshold float64) (*Alert, error) {
	a := &Alert{Class: Event, GroupBy: groupBy, Levels: []Level{{r.Level, threshold}}}
	if r.Correlation != nil {
		a.Class = Condition
	}
	n := d.keys[keyAlert]
	var entries []entry
	if n != nil {
		var err error
		if entries, err = mapping(n); err != nil {
			return nil, d.errorf(n, "%s: %w", keyAlert, err)
		}
	}
	keepSet, belowSet := false, false
	for _, e := range entries {
		err := error(nil)
		switch e.key {
		case "class":
			if a.Class = Class(e.value.Value); a.Class != Event && a.Class != Condition {
				err = fmt.Errorf("want event or condition, not %q", e.value.Value)
			}
		case "levels":
			a.Levels, err = levels(a.Levels, e)
		case "resolve_below":
			belowSet = true
			if err = e.value.Decode(&a.ResolveBelow); err == nil && a.ResolveBelow < 1 {
				err = fmt.Errorf("want 1 or more: a count is never below 0")
			}
		case "keep_firing_for":
			keepSet = true
			a.KeepFiringFor, err = parseTimespan(e.value.Value)
		case "summary":
			a.Summary = strings.Join(strings.Fields(e.value.Value), " ")
		case "investigation":
			a.Investigation = e.value.Value
		case "group-by":
			if r.Correlation != nil {
				err = fmt.Errorf("a correlation has its own group-by")
				break
			}
			a.GroupBy, err = f.list(e.value)
		default:
			err = fmt.Errorf("unknown key")
		}
		if err != nil {
			return nil, d.errorf(e.value, "%s.%s: %w", keyAlert, e.key, err)
		}
	}
	c := r.Correlation
	switch {
	case c == nil && len(a.Levels) > 1:
		return nil, d.errorf(n, "%s.levels: a detection counts nothing; write a correlation", keyAlert)
	case c != nil && len(a.Levels) > 1 && (len(c.Bounds) != 1 || c.Bounds[0].Op != "gte" && c.Bounds[0].Op != "gt"):
		return nil, d.errorf(n, "%s.levels: the condition is no lower bound that could be raised", keyAlert)
	case c != nil && c.Type == EventRatio && a.Levels[len(a.Levels)-1].Count > 1:
		return nil, d.errorf(n, "%s.levels: a ratio is from 0 to 1", keyAlert)
	case c != nil && belowSet && !c.Rises():
		return nil, d.errorf(n, "%s.resolve_below: only counts with one lower bound have it", keyAlert)
	case belowSet && a.ResolveBelow > threshold:
		return nil, d.errorf(n, "%s.resolve_below: %v is above the threshold %v", keyAlert, a.ResolveBelow, threshold)
	case a.ResolveBelow == 0 && (c == nil || c.Rises()):
		a.ResolveBelow = halfOf(threshold)
	}
	if a.Class == Condition && !keepSet {
		a.KeepFiringFor = 15 * time.Minute
	}
	if c != nil && c.Type == LastEvents {
		if a.Class != Condition || keepSet {
			return nil, d.errorf(n, "%s: last_events resolves as soon as its condition is false", keyAlert)
		}
		a.KeepFiringFor = 0
	}
	return a, nil
}

// halfOf is below what count an alert ends where its rule does not say so.
func halfOf(threshold float64) float64 { return math.Floor((threshold + 1) / 2) }

// levels adds the higher levels to the rule's own.
func levels(list []Level, e entry) ([]Level, error) {
	entries, err := mapping(e.value)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		l := Level{Name: e.key}
		if err := e.value.Decode(&l.Count); err != nil {
			return nil, err
		}
		if !slices.Contains(levelNames[:], l.Name) {
			return nil, fmt.Errorf("unknown level %q", l.Name)
		}
		list = append(list, l)
	}
	slices.SortStableFunc(list[1:], func(a, b Level) int { return cmp.Compare(a.Count, b.Count) })
	for i := range list[1:] {
		if list[i].Count >= list[i+1].Count || CompareLevels(list[i].Name, list[i+1].Name) >= 0 {
			return nil, fmt.Errorf("%s from %v does not come after %s from %v",
				list[i+1].Name, list[i+1].Count, list[i].Name, list[i].Count)
		}
	}
	return list, nil
}
