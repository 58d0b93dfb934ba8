// Package timeline tests rules: each case lists events over time and exactly the alerts
// that they must cause.
//
// A file x.test.yml stands beside the rules of x.yml and is a list of cases:
//
//   - name: fires at 5 and resolves when it has been quiet
//     events:
//   - at: 0s                # from the start of the case
//     times: 5              # 1 when left out
//     every: 30s            # between them
//     event: {type: fp, user_name: "user{n}"}   # {n} counts from 0 in each series
//   - at: 40m
//     event: {type: s}      # advances the clock
//     alerts:                   # all of the file's rules, in order; none when left out
//   - {at: 2m, state: firing, level: medium, count: 5, group: {ip: 203.0.113.9}}
//   - {at: 22m, state: resolved, level: medium, count: 2, group: {ip: 203.0.113.9}}
package timeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Case is one timeline.
type Case struct {
	Name   string
	Events []Series
	Alerts []Transition
}

// Series is an event that happens once or several times.
type Series struct {
	At    time.Duration
	Times int
	Every time.Duration
	Event map[string]any
}

// Transition is an expected state transition of an alert.
type Transition struct {
	At    time.Duration
	State schema.AlertState
	Level string
	Count float64
	Group map[string]string
}

func (t Transition) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %s %s %s, count %v", t.At, t.State, t.Level, math.Round(1e3*t.Count)/1e3)
	for _, name := range slices.Sorted(maps.Keys(t.Group)) {
		fmt.Fprintf(&b, ", %s %q", name, t.Group[name])
	}
	return b.String()
}

// Result is the outcome of one case. Failure is empty if it passed.
type Result struct {
	File    string // of the test
	Case    string
	Failure string
	Took    time.Duration
	Fired   []string // ids of the rules whose alerts changed
}

// start is the time at which every case begins.
var start = time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)

// tenant is the tenant of the events.
const tenant = "acme"

// maxEvents bounds a case.
const maxEvents = 1_000_000

// Run runs the tests in source over a set that was loaded from it, and possibly from
// others. A file that cannot be read is one failed result.
func Run(set *rules.Set, source fs.FS) ([]Result, error) {
	var list []Result
	err := rules.Walk(source, func(name string) error {
		if !rules.IsTest(name) {
			return nil
		}
		data, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		cases, err := Read(data)
		if err != nil {
			list = append(list, Result{File: name, Failure: err.Error()})
			return nil
		}

		// x.test.yml tests the rules of x.yml.
		ext := path.Ext(name)
		rulesFile := strings.TrimSuffix(name, ".test"+ext) + ext
		for _, c := range cases {
			list = append(list, c.run(set, name, rulesFile))
		}
		return nil
	})
	return list, err
}

// Read reads the cases of a file.
func Read(data []byte) ([]Case, error) {
	// An unknown key is an error, so that a typo cannot go unnoticed.
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	var cases []Case
	if err := decoder.Decode(&cases); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, errors.New("no cases")
	}

	for i := range cases {
		if err := cases[i].check(i + 1); err != nil {
			return nil, err
		}
	}
	return cases, nil
}

// check reports what is wrong with a case, the n-th of its file.
func (c *Case) check(n int) error {
	total := 0
	for _, series := range c.Events {
		if series.At < 0 || series.Times < 0 || series.Every < 0 || len(series.Event) == 0 {
			return fmt.Errorf("case %d, %q: an event needs members, "+
				"and at, times and every must not be below 0", n, c.Name)
		}

		// Checked within the loop, so that the sum cannot overflow.
		total += max(series.Times, 1)
		if total > maxEvents || series.Times > maxEvents {
			return fmt.Errorf("case %d, %q: more than %d events", n, c.Name, maxEvents)
		}
	}

	if c.Name == "" || total == 0 {
		return fmt.Errorf("case %d: want a name and events", n)
	}
	return nil
}

// run runs one case against the rules of a file.
func (c *Case) run(set *rules.Set, file, rulesFile string) Result {
	result := Result{File: file, Case: c.Name}
	began := time.Now()
	defer func() { result.Took = time.Since(began) }()

	byID := map[string]*rules.Rule{}
	alerting := false
	for _, rule := range set.Rules() {
		byID[rule.ID] = rule
		alerting = alerting || rule.File == rulesFile && rule.Alert != nil
	}

	// Without one, a case that expects no alert would pass.
	if !alerting {
		result.Failure = rulesFile + " has no rule that alerts; run rules list to see why"
		return result
	}

	events, err := c.events()
	if err != nil {
		result.Failure = err.Error()
		return result
	}

	// Rules of other files run as well, but their alerts do not count.
	engine := scanner.NewEngine(set, scanner.Config{})
	var got []Transition
	for i := range events {
		for _, alert := range engine.Observe(&events[i]) {
			if byID[alert.RuleID].File == rulesFile {
				got = append(got, transitionOf(&alert))
				result.Fired = append(result.Fired, alert.RuleID)
			}
		}
	}

	// Compared as text, which rounds the counts.
	same := func(a, b Transition) bool { return a.String() == b.String() }
	if !slices.EqualFunc(c.Alerts, got, same) {
		result.Failure = "want:\n" + lines(c.Alerts) + "got:\n" + lines(got)
	}
	return result
}

func lines(list []Transition) string {
	if len(list) == 0 {
		return "  nothing\n"
	}
	var b strings.Builder
	for _, transition := range list {
		fmt.Fprintf(&b, "  %s\n", transition)
	}
	return b.String()
}

// events returns the events of the timeline, by date.
func (c *Case) events() ([]schema.Event, error) {
	var list []schema.Event
	for _, series := range c.Events {
		for n := range max(series.Times, 1) {
			date := start.Add(series.At + time.Duration(n)*series.Every)
			event, err := newEvent(date, len(list), numbered(series.Event, n).(map[string]any))
			if err != nil {
				return nil, fmt.Errorf("event at %s: %w", series.At, err)
			}
			list = append(list, event)
		}
	}

	// Stable, so that events of the same time stay in the order of the file.
	slices.SortStableFunc(list, func(a, b schema.Event) int { return a.Date.Compare(b.Date) })
	return list, nil
}

// newEvent returns the n-th event. It is stored half a second after its date and pulled
// another half later.
func newEvent(date time.Time, n int, members map[string]any) (schema.Event, error) {
	stored := date.Add(500 * time.Millisecond)
	id := fmt.Sprintf("900%s%03d%036d", stored.Format("20060102150405"), stored.Nanosecond()/1e6, n)
	all := map[string]any{
		"log_id":      id,
		"date":        date.Format("2006-01-02T15:04:05.000Z"),
		"tenant_name": tenant,
	}

	// The case may set any member, these three included.
	maps.Copy(all, members)
	raw, err := json.Marshal(all)
	if err != nil {
		return schema.Event{}, err
	}
	event := schema.Event{Tenant: tenant, Source: schema.SourceTail, FetchedAt: date.Add(time.Second), Raw: raw}
	return event, event.Identify()
}

// numbered returns a value with {n} replaced by a number in its texts.
func numbered(value any, n int) any {
	switch value := value.(type) {
	case string:
		return strings.ReplaceAll(value, "{n}", fmt.Sprint(n))
	case []any:
		list := make([]any, len(value))
		for i := range value {
			list[i] = numbered(value[i], n)
		}
		return list
	case map[string]any:
		members := map[string]any{}
		for name, member := range value {
			members[name] = numbered(member, n)
		}
		return members
	}
	return value
}

func transitionOf(a *schema.Alert) Transition {
	transition := Transition{At: a.UpdatedAt.Sub(start), State: a.State, Level: a.Level, Count: a.Count}
	for _, value := range a.Group {
		if transition.Group == nil {
			transition.Group = map[string]string{}
		}
		transition.Group[value.Field] = value.Value
	}
	return transition
}
