package builtin_test

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/scanner/timeline"
	"github.com/tenantwatch/tenantwatch/schema"
)

// noAttack are the families about how things run, where no technique of ATT&CK
// need fit.
var noAttack = []string{"completeness", "probe", "rate_limit", "management_api", "operation"}

// TestEveryAlert holds the rules that alert to what whoever is woken by one needs:
// how bad it is, what it may be, what to do and where to look. Each stands alone in
// its file, in the folder of its family, with a timeline in which it fires and one
// in which it does not.
func TestEveryAlert(t *testing.T) {
	set, _ := rules.Load(nil, builtin.FS())
	alone := map[string]string{}
	for _, r := range set.Rules() {
		if r.Alert == nil {
			continue
		}
		name, family := strings.TrimSuffix(r.File, ".yml"), path.Dir(r.File)
		t.Run(name, func(t *testing.T) {
			if other, ok := alone[r.File]; ok {
				t.Errorf("%q alerts in the same file", other)
			}
			alone[r.File] = r.Title
			for what, text := range map[string]string{"level": r.Level, "description": r.Description, "prevention": r.Prevention,
				"investigation": r.Alert.Investigation, "summary": r.Alert.Summary, "falsepositives": strings.Join(r.FalsePositives, "")} {
				if text == "" {
					t.Errorf("it has no %s", what)
				}
			}
			if r.Name != path.Base(name) {
				t.Errorf("its name is %q", r.Name)
			}
			if !slices.Contains(r.Tags, "tenantwatch."+family) {
				t.Errorf("no tag tells its family: %v", r.Tags)
			}
			tactic := func(tag string) bool {
				rest, ok := strings.CutPrefix(tag, "attack.")
				return ok && !isTechnique(rest)
			}
			technique := func(tag string) bool {
				rest, ok := strings.CutPrefix(tag, "attack.")
				return ok && isTechnique(rest)
			}
			if a, b := slices.ContainsFunc(r.Tags, tactic), slices.ContainsFunc(r.Tags, technique); a != b || !a && !slices.Contains(noAttack, family) {
				t.Errorf("want a tactic and a technique of ATT&CK: %v", r.Tags)
			}
			i, known := schema.FindInvestigation(r.Alert.Investigation)
			if !known {
				t.Errorf("there is no investigation %q", r.Alert.Investigation)
			}
			if len(i.Fields) > 0 && !slices.ContainsFunc(r.Alert.GroupBy, func(f expr.Field) bool { return slices.Contains(i.Fields, f.Path) }) {
				t.Errorf("the investigation %s wants one of %v; it is grouped by %v", i.Name, i.Fields, r.Alert.GroupBy)
			}
			for _, text := range strings.Split(r.Alert.Summary, "{")[1:] {
				field, _, closed := strings.Cut(text, "}")
				grouped := slices.ContainsFunc(r.Alert.GroupBy, func(f expr.Field) bool { return f.Path == field })
				if !closed || !grouped && !slices.Contains([]string{"count", "percent", "threshold", "window", "level", "tenant"}, field) {
					t.Errorf("its summary asks for {%s}, which the group has not", field)
				}
			}
			timelines(t, name+".test.yml")
		})
	}
	if len(alone) < 80 {
		t.Errorf("only %d rules alert", len(alone))
	}
}

// isTechnique tells t1110.003 from credential-access.
func isTechnique(tag string) bool {
	return len(tag) > 4 && tag[0] == 't' && strings.Trim(tag[1:5], "0123456789") == ""
}

// timelines asks for one that fires and one that is silent. That they come out as
// written is tested where they are run.
func timelines(t *testing.T, name string) {
	t.Helper()
	data, err := fs.ReadFile(builtin.FS(), name)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := timeline.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	firing := func(c timeline.Case) bool {
		return slices.ContainsFunc(c.Alerts, func(a timeline.Transition) bool { return a.State == schema.StateFiring })
	}
	if !slices.ContainsFunc(cases, firing) {
		t.Error("it fires in no timeline")
	}
	if !slices.ContainsFunc(cases, func(c timeline.Case) bool { return len(c.Alerts) == 0 }) {
		t.Error("it is silent in no timeline")
	}
}

// TestNamesAndIDs keeps references plain: they are resolved by name in the file
// first and then everywhere.
func TestNamesAndIDs(t *testing.T) {
	set, report := rules.Load(nil, builtin.FS())
	ids := map[string]string{}
	for _, d := range report.Documents {
		if d.ID == "" {
			continue // an overlay
		}
		if other, ok := ids[d.ID]; ok {
			t.Errorf("%s and %s have the same id", other, d.File)
		}
		ids[d.ID] = d.File
	}
	names := map[string]string{}
	for _, r := range set.Rules() {
		if other, ok := names[r.Name]; ok || r.Name == "" {
			t.Errorf("%s:%d: the name %q is missing or that of %s", r.File, r.Line, r.Name, other)
		}
		names[r.Name] = r.File
	}
}

// TestReachable holds thresholds against the limits at which Auth0 itself stops.
func TestReachable(t *testing.T) {
	set, _ := rules.Load(nil, builtin.FS())
	caps := map[string]float64{
		"push_bombing":        50,  // 5 a minute and user
		"sms_flood":           10,  // an hour and user
		"users_tried_by_ip":   100, // failed logins a day and address
		"failed_logins_by_ip": 100,
		// 20 a minute, then 10, of a user from one address
		"failed_logins_of_user":       110,
		"usernames_guessed_by_ip":     100,
		"cross_origin_failures_by_ip": 100,
		"signups_by_ip":               3000,  // 50 a minute and address
		"clients_registered":          18000, // 5 a second
	}
	for _, r := range set.Rules() {
		most, ok := caps[r.Name]
		if !ok {
			continue
		}
		delete(caps, r.Name)
		levels := r.Alert.Levels
		if top := levels[len(levels)-1].Count; top > most {
			t.Errorf("%s: %s is from %v, and Auth0 stops at %v", r.File, levels[len(levels)-1].Name, top, most)
		}
	}
	for name := range caps {
		t.Errorf("there is no rule %s", name)
	}
}
