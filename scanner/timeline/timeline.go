// Package timeline tests rules: each case lays out events over time and says which
// alerts are to come of them, and that no others do.
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
//     event: {type: s}      # moves the clock on
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

// Transition is what an alert is to become.
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

// Result is what became of one case. Failure is empty when it passed.
type Result struct {
	File    string // of the test
	Case    string
	Failure string
	Took    time.Duration
	Fired   []string // the ids of the rules that fired
}

// start is when every case begins.
var start = time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)

// tenant is whose events they are.
const tenant = "acme"

// maxEvents bounds a case.
const maxEvents = 1_000_000

// Run runs the tests that lie in a source, over a set that was loaded from it and
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
	var cases []Case
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cases); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for i, c := range cases {
		n := 0
		for _, s := range c.Events {
			if s.At < 0 || s.Times < 0 || s.Every < 0 || len(s.Event) == 0 {
				return nil, fmt.Errorf("case %d, %q: an event needs members, and at, times and every are not below 0", i+1, c.Name)
			}
			if n += max(s.Times, 1); n > maxEvents || s.Times > maxEvents {
				return nil, fmt.Errorf("case %d, %q: more than %d events", i+1, c.Name, maxEvents)
			}
		}
		if c.Name == "" || n == 0 {
			return nil, fmt.Errorf("case %d: want a name and events", i+1)
		}
	}
	if len(cases) == 0 {
		return nil, errors.New("no cases")
	}
	return cases, nil
}

// run runs one case against the rules of a file.
func (c *Case) run(set *rules.Set, file, rulesFile string) Result {
	r := Result{File: file, Case: c.Name}
	began := time.Now()
	defer func() { r.Took = time.Since(began) }()
	byID := map[string]*rules.Rule{}
	alerting := false
	for _, rule := range set.Rules() {
		byID[rule.ID] = rule
		alerting = alerting || rule.File == rulesFile && rule.Alert != nil
	}
	if !alerting {
		r.Failure = rulesFile + " has no rule that alerts; rules list says why"
		return r
	}
	events, err := c.events()
	if err != nil {
		r.Failure = err.Error()
		return r
	}
	engine := scanner.NewEngine(set, scanner.Config{})
	var got []Transition
	for i := range events {
		for _, a := range engine.Observe(&events[i]) {
			if byID[a.RuleID].File == rulesFile {
				got = append(got, transitionOf(&a))
				r.Fired = append(r.Fired, a.RuleID)
			}
		}
	}
	if !slices.EqualFunc(c.Alerts, got, func(a, b Transition) bool { return a.String() == b.String() }) {
		r.Failure = "want:\n" + lines(c.Alerts) + "got:\n" + lines(got)
	}
	return r
}

func lines(list []Transition) string {
	if len(list) == 0 {
		return "  nothing\n"
	}
	var b strings.Builder
	for _, t := range list {
		fmt.Fprintf(&b, "  %s\n", t)
	}
	return b.String()
}

// events lays out the timeline.
func (c *Case) events() ([]schema.Event, error) {
	var list []schema.Event
	for _, s := range c.Events {
		for n := range max(s.Times, 1) {
			e, err := newEvent(start.Add(s.At+time.Duration(n)*s.Every), len(list), numbered(s.Event, n).(map[string]any))
			if err != nil {
				return nil, fmt.Errorf("event at %s: %w", s.At, err)
			}
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b schema.Event) int { return a.Date.Compare(b.Date) })
	return list, nil
}

// newEvent makes the n-th event, which was stored half a second after its date and
// pulled another half later.
func newEvent(date time.Time, n int, members map[string]any) (schema.Event, error) {
	stored := date.Add(500 * time.Millisecond)
	m := map[string]any{"log_id": fmt.Sprintf("900%s%03d%036d", stored.Format("20060102150405"), stored.Nanosecond()/1e6, n),
		"date": date.Format("2006-01-02T15:04:05.000Z"), "tenant_name": tenant}
	maps.Copy(m, members)
	raw, err := json.Marshal(m)
	if err != nil {
		return schema.Event{}, err
	}
	e := schema.Event{Tenant: tenant, Source: schema.Tail, FetchedAt: date.Add(time.Second), Raw: raw}
	return e, e.Identify()
}

// numbered puts a number in place of {n} in the texts of a value.
func numbered(v any, n int) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "{n}", fmt.Sprint(n))
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = numbered(v[i], n)
		}
		return list
	case map[string]any:
		m := map[string]any{}
		for k, v := range v {
			m[k] = numbered(v, n)
		}
		return m
	}
	return v
}

func transitionOf(a *schema.Alert) Transition {
	t := Transition{At: a.UpdatedAt.Sub(start), State: a.State, Level: a.Level, Count: a.Count}
	for _, g := range a.Group {
		if t.Group == nil {
			t.Group = map[string]string{}
		}
		t.Group[g.Field] = g.Value
	}
	return t
}
