package rules

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// Class says how an alert of a rule ends.
type Class string

const (
	// ClassEvent is for something that has happened and remains so, such as a changed
	// setting. The alert fires once and closes silently after Alert.KeepFiringFor.
	ClassEvent Class = "event"
	// ClassCondition is for something that lasts and ends, such as a rate. The alert resolves
	// when the count has been below Alert.ResolveBelow for Alert.KeepFiringFor.
	ClassCondition Class = "condition"
)

// Rule is one detection or correlation that can be evaluated. It is immutable; callers must
// not change its slices and maps either.
type Rule struct {
	ID             string
	Name           string
	Title          string
	Description    string
	Level          string // informational, low, medium, high, critical
	Tags           []string
	FalsePositives []string
	Prevention     string // advice, from the key "prevention"
	File           string
	Line           int
	Types          []string     // event types it can match, * being a wildcard; nil for any
	Alert          *Alert       // how it alerts; nil if it only serves correlations
	Match          *expr.Tree   // which events a detection matches; nil for a correlation
	Correlation    *Correlation // nil for a detection
}

// Alert is how a rule alerts.
type Alert struct {
	Class  Class
	Levels []Level // by rising count, at least one; the first is the rule's own
	// ResolveBelow is at least 1, or 0 for a correlation that does not rise: that one
	// resolves as soon as its condition is false. See Correlation.Rises.
	ResolveBelow  float64
	KeepFiringFor time.Duration // see Class; 0 in ClassEvent means the engine's default
	// Summary may have {count}, {percent}, {threshold}, {window}, {level}, {tenant} and {FIELD}
	// of the group.
	Summary       string
	GroupBy       []expr.Field // one alert for each combination of values
	Investigation string       // the saved query to run next, see schema.Investigations; empty for none
}

// Level is a severity and the count, or value, from which it applies. The first
// level of a rule applies as soon as the rule's condition holds.
type Level struct {
	Name  string
	Count float64
}

// levelNames are Sigma's levels by rising severity.
var levelNames = [...]string{"informational", "low", "medium", "high", "critical"}

// CompareLevels orders levels by severity; unknown levels come first.
func CompareLevels(a, b string) int {
	return cmp.Compare(slices.Index(levelNames[:], a), slices.Index(levelNames[:], b))
}

// DefaultLevel is the level of rules that have none, such as some of Auth0's catalog.
const DefaultLevel = "medium"

// defaultKeepFiring is how long a condition must be over before its alert resolves.
const defaultKeepFiring = 15 * time.Minute

// rule reads the keys that detections and correlations have in common.
func (d *document) rule() (*Rule, error) {
	rule := &Rule{
		ID:             d.id,
		Name:           d.name,
		Title:          d.title,
		Description:    d.text("description"),
		Level:          strings.ToLower(d.text("level")),
		Tags:           d.list("tags"),
		FalsePositives: d.list("falsepositives"),
		Prevention:     strings.Join(d.list("prevention"), "\n"),
		File:           d.file,
		Line:           d.line,
	}

	// The title names the alert.
	if rule.Title == "" {
		return nil, d.errorf(nil, "title is missing")
	}
	if rule.Level != "" && !slices.Contains(levelNames[:], rule.Level) {
		return nil, d.errorf(d.keys["level"], "unknown level %q", rule.Level)
	}
	return rule, nil
}

// alertKeys are the keys of x-tenantwatch-alert while they are read.
type alertKeys struct {
	*Alert
	keepSet, belowSet bool // keep_firing_for and resolve_below are given
}

// alert compiles x-tenantwatch-alert over the defaults. groupBy and threshold
// are the correlation's; a detection has no groupBy and the threshold 1.
func (d *document) alert(rule *Rule, f *expr.Fields, groupBy []expr.Field, threshold float64) (*Alert, error) {
	keys := alertKeys{Alert: &Alert{Class: ClassEvent, GroupBy: groupBy, Levels: []Level{{rule.Level, threshold}}}}
	if rule.Correlation != nil {
		keys.Class = ClassCondition
	}

	node := d.keys[keyAlert]
	if node != nil {
		entries, err := mapping(node)
		if err != nil {
			return nil, d.errorf(node, "%s: %w", keyAlert, err)
		}

		for _, entry := range entries {
			if err := keys.read(entry, rule, f); err != nil {
				return nil, d.errorf(entry.value, "%s.%s: %w", keyAlert, entry.key, err)
			}
		}
	}

	// Check the combination once all keys are known.
	if err := keys.check(rule.Correlation, threshold); err != nil {
		return nil, d.errorf(node, "%s%w", keyAlert, err)
	}

	// The defaults depend on the other keys.
	if keys.ResolveBelow == 0 && (rule.Correlation == nil || rule.Correlation.Rises()) {
		keys.ResolveBelow = halfOf(threshold)
	}

	resolvesAtOnce := rule.Correlation != nil && rule.Correlation.Last > 0
	if keys.Class == ClassCondition && !keys.keepSet && !resolvesAtOnce {
		keys.KeepFiringFor = defaultKeepFiring
	}

	return keys.Alert, nil
}

// read reads one key.
func (a *alertKeys) read(e entry, rule *Rule, f *expr.Fields) (err error) {
	switch e.key {
	case "class":
		if a.Class = Class(e.value.Value); a.Class != ClassEvent && a.Class != ClassCondition {
			return fmt.Errorf("want event or condition, not %q", e.value.Value)
		}
	case "levels":
		a.Levels, err = levels(a.Levels, e)
	case "resolve_below":
		a.belowSet = true
		if err = e.value.Decode(&a.ResolveBelow); err == nil && a.ResolveBelow < 1 {
			return errors.New("want 1 or more: a count is never below 0")
		}
	case "keep_firing_for":
		a.keepSet = true
		a.KeepFiringFor, err = parseTimespan(e.value.Value)
	case "summary":
		a.Summary = strings.Join(strings.Fields(e.value.Value), " ")
	case "investigation":
		a.Investigation = e.value.Value
	case "group-by":
		if rule.Correlation != nil {
			return errors.New("a correlation has its own group-by")
		}
		a.GroupBy, err = fieldList(f, e.value)
	default:
		return errors.New("unknown key")
	}

	return err
}

// fieldList reads one or several field names.
func fieldList(f *expr.Fields, node *yaml.Node) ([]expr.Field, error) {
	names, err := texts(node)
	if err != nil {
		return nil, err
	}
	var list []expr.Field
	for _, name := range names {
		if name == "" {
			return nil, fmt.Errorf("line %d: a field has no name", node.Line)
		}
		list = append(list, f.Field(name))
	}
	return list, nil
}

// check refuses keys that do not fit each other or the correlation, which is nil for a
// detection. An error begins with what follows the name of the key in an error message.
func (a *alertKeys) check(corr *Correlation, threshold float64) error {
	more := len(a.Levels) > 1
	switch {
	case corr == nil && more:
		return errors.New(".levels: a detection counts nothing; write a correlation")
	case corr != nil && more && !corr.HasLowerBound():
		return errors.New(".levels: the condition is not a lower bound that could be raised")
	case corr != nil && a.belowSet && !corr.Rises():
		return errors.New(".resolve_below: only a count with a single lower bound can have it")
	case a.belowSet && a.ResolveBelow > threshold:
		return fmt.Errorf(".resolve_below: %v is above the threshold %v", a.ResolveBelow, threshold)
	case corr != nil && corr.Last > 0 && (a.Class != ClassCondition || a.keepSet):
		return fmt.Errorf(": %s resolves as soon as its condition is false", corr.Type.Name())
	}

	// A level is a bound as well.
	if more && corr.Type.Traits().Fraction {
		top := corr.Spec
		top.Bounds = []correlation.Bound{{Op: "gte", Than: a.Levels[len(a.Levels)-1].Count}}
		if err := corr.Type.Check(&top); err != nil {
			return fmt.Errorf(".levels: %w", err)
		}
	}
	return nil
}

// halfOf returns the default count below which an alert ends.
func halfOf(threshold float64) float64 { return math.Floor((threshold + 1) / 2) }

// levels adds the higher levels to the rule's own.
func levels(list []Level, e entry) ([]Level, error) {
	entries, err := mapping(e.value)
	if err != nil {
		return nil, err
	}

	// Levels are added to the rule's own, which is the first.
	for _, entry := range entries {
		level := Level{Name: entry.key}
		if err := entry.value.Decode(&level.Count); err != nil {
			return nil, err
		}
		if !slices.Contains(levelNames[:], level.Name) {
			return nil, fmt.Errorf("unknown level %q", level.Name)
		}
		list = append(list, level)
	}

	// A higher count must mean a higher severity, or an alert could not escalate.
	slices.SortStableFunc(list[1:], func(a, b Level) int { return cmp.Compare(a.Count, b.Count) })
	for i, level := range list[1:] {
		before := list[i]
		if before.Count >= level.Count || CompareLevels(before.Name, level.Name) >= 0 {
			return nil, fmt.Errorf("%s from %v does not come after %s from %v",
				level.Name, level.Count, before.Name, before.Count)
		}
	}

	return list, nil
}
