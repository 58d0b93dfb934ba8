package scanner

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/schema"
)

// timeline is one case of a .test.yml file: what happens, and which alerts of
// the rule in the .yml file beside it come of that. Times are from the start.
type timeline struct {
	Name   string
	Events []struct {
		At    time.Duration
		Times int           // 1 when left out
		Every time.Duration // between them
		Event map[string]any
	}
	Alerts []transition
}

// transition is what a timeline says of an alert.
type transition struct {
	At    time.Duration
	State schema.AlertState
	Level string
	Count float64
	Group map[string]string
}

var timelineStart = time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)

// events lays out the timeline. {n} in a text is the event's number in its series.
func (l *timeline) events(t *testing.T) []schema.Event {
	t.Helper()
	var list []schema.Event
	for _, s := range l.Events {
		for n := range max(s.Times, 1) {
			list = append(list, eventAt(t, timelineStart.Add(s.At+time.Duration(n)*s.Every), len(list), numbered(s.Event, n).(map[string]any)))
		}
	}
	slices.SortStableFunc(list, func(a, b schema.Event) int { return a.Date.Compare(b.Date) })
	return list
}

// eventAt makes an event that was stored half a second after its date and pulled
// another half later.
func eventAt(t testing.TB, date time.Time, n int, members map[string]any) schema.Event {
	t.Helper()
	stored := date.Add(500 * time.Millisecond)
	id := fmt.Sprintf("900%s%03d%036d", stored.Format("20060102150405"), stored.Nanosecond()/1e6, n)
	m := map[string]any{"log_id": id, "date": date.Format("2006-01-02T15:04:05.000Z"), "tenant_name": "acme"}
	for k, v := range members {
		m[k] = v
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	e := schema.Event{Tenant: "acme", Source: schema.Tail, FetchedAt: date.Add(time.Second), Raw: raw}
	if err := e.Identify(); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return e
}

func numbered(v any, n int) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "{n}", fmt.Sprint(n))
	case map[string]any:
		m := map[string]any{}
		for k, v := range v {
			m[k] = numbered(v, n)
		}
		return m
	}
	return v
}

func transitionOf(a *schema.Alert) transition {
	tr := transition{At: a.UpdatedAt.Sub(timelineStart), State: a.State, Level: a.Level, Count: a.Count}
	for _, g := range a.Group {
		if tr.Group == nil {
			tr.Group = map[string]string{}
		}
		tr.Group[g.Field] = g.Value
	}
	return tr
}

// TestBuiltinTimelines runs the timeline tests of the rules that we ship. Every
// rule that alerts must have one in which it fires.
func TestBuiltinTimelines(t *testing.T) {
	set, report := rules.Load(nil, builtin.FS())
	for _, d := range report.Documents {
		if d.Status != rules.Enabled || len(d.Warnings) > 0 {
			t.Errorf("%s:%d: %s %s %v", d.File, d.Line, d.Status, d.Reason, d.Warnings)
		}
	}
	fired := map[string]bool{}
	cases := 0
	err := fs.WalkDir(builtin.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		file, ok := strings.CutSuffix(name, ".test.yml")
		if err != nil || !ok {
			return err
		}
		data, err := fs.ReadFile(builtin.FS(), name)
		if err != nil {
			return err
		}
		var lines []timeline
		dec := yaml.NewDecoder(strings.NewReader(string(data)))
		dec.KnownFields(true)
		if err := dec.Decode(&lines); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, l := range lines {
			cases++
			t.Run(file+"/"+l.Name, func(t *testing.T) {
				engine := NewEngine(set, Config{})
				var got []transition
				for _, ev := range l.events(t) {
					for _, a := range engine.Observe(&ev) {
						if ruleOf(set, a.RuleID).File == file+".yml" {
							got = append(got, transitionOf(&a))
							fired[a.RuleID] = true
						}
					}
				}
				if len(l.Alerts) == 0 {
					l.Alerts = nil
				}
				if diff := cmp.Diff(l.Alerts, got); diff != "" {
					t.Errorf("alerts (-want +got):\n%s", diff)
				}
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if cases == 0 {
		t.Fatal("no timelines")
	}
	for _, r := range set.Rules() {
		if r.Alert != nil && !fired[r.ID] && !t.Failed() {
			t.Errorf("%s: %q fires in no timeline", r.File, r.Title)
		}
	}
}

func ruleOf(set *rules.Set, id string) *rules.Rule {
	for _, r := range set.Rules() {
		if r.ID == id {
			return r
		}
	}
	return nil
}
