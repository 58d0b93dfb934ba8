package timeline

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// The folders of Auth0's catalog, and of rules in its manner that have the ids of those
// which our overlay tunes.
const (
	catalogDir = "../../../shared/data/auth0-detections"
	mannerDir  = "../../rules/testdata/catalog"
)

// TestMannerCounts runs rules in the catalog's manner that count, as our overlay has tuned
// them.
func TestMannerCounts(t *testing.T) {
	set, _ := rules.Load(nil, builtin.FS(), os.DirFS(mannerDir))
	counts(t, func(id, _ string) *rules.Rule { return ruleOf(set, id) }, set)
}

// TestCatalogCounts runs those rules of Auth0's catalog that count, as our overlay has
// tuned them.
func TestCatalogCounts(t *testing.T) {
	if _, err := os.Stat(catalogDir); err != nil {
		t.Skipf("not proven: that our overlay fits Auth0's catalog itself; rules in its manner with the same ids are tested (TestMannerCounts): %v", err)
	}
	set, _ := rules.Load(nil, builtin.FS(), os.DirFS(catalogDir))
	counts(t, func(_, file string) *rules.Rule { return ruleIn(set, file+".yml") }, set)
}

// counts has each rule fire when what it is about has happened often enough, and not
// before, nor when it is spread over others.
func counts(t *testing.T, find func(id, file string) *rules.Rule, set *rules.Set) {
	t.Helper()
	const each = "{n}"
	for _, tt := range []struct {
		id    string // of the detection that is counted
		file  string
		count int            // of events until it fires
		every time.Duration  // between them
		event map[string]any // {n} differs in each
		apart string         // a member that makes others of them when it differs; empty for none
		same  string         // value_count: a member that must differ
	}{
		{"e604e40e-9db6-449d-854d-2b5323644fd7", "credential_stuffing_signals", 20, time.Minute, map[string]any{"type": "fp", "ip": "203.0.113.7"}, "ip", ""},
		{"27d3b46e-3a2e-48e9-95bb-4622101572b9", "many_failed_authorization_requests", 20, 10 * time.Second, map[string]any{"type": "f", "ip": "203.0.113.7", "description": "Callback URL mismatch. x"}, "ip", ""},
		{"25b35d32-716b-11f0-a54e-723487b9527c", "multiple_phone_numbers_are_registered_as_mfa", 2, 10 * time.Hour, map[string]any{"type": "gd_enrollment_complete", "description": "Guardian - Enrollment complete (sms)",
			"user_id": each, "details": map[string]any{"authenticator": map[string]any{"phone_number": "+15550100"}}}, "", "user_id"},
		{"4bf28f3a-716c-11f0-9932-723487b9527c", "rapid_creation_of_clients_with_dynamic_registration", 5, 10 * time.Minute, map[string]any{"type": "sapi", "description": "Dynamic client registration"}, "", ""},
		{"6a19be71-ade9-4bdd-9d24-6f93800d8328", "refresh_token_from_multiple_user_agent", 3, 5 * time.Hour, map[string]any{"type": "sertft", "user_agent": each, "details": map[string]any{"familyId": "f"}}, "", "user_agent"},
		{"a37fcabe-9ec1-4088-9157-b8121377cbca", "refresh_token_from_too_many_locations", 10, time.Hour, map[string]any{"type": "sertft", "ip": "192.0.2." + each, "details": map[string]any{"familyId": "f"}}, "", "ip"},
		{"a7b2e75c-7171-11f0-aa28-723487b9527c", "refresh_token_reuse", 3, 5 * time.Hour, map[string]any{"type": "ferrt", "user_id": "auth0|1", "description": "Unsuccessful Refresh Token exchange, reused refresh token detected"}, "user_id", ""},
		{"e675f02e-716c-11f0-8602-723487b9527c", "risk_for_mfa_push_fatigue", 5, time.Minute, map[string]any{"type": "gd_send_pn", "user_id": "auth0|1", "description": "Guardian - Second factor notification sent"}, "user_id", ""},
		{"e92605d8-716d-11f0-b2ae-723487b9527c", "risk_of_signup_fraud_by_disposable_domains", 10, 5 * time.Minute, map[string]any{"type": "ss", "user_name": each + "@mailinator.com"}, "", ""},
		{"3a9be414-716e-11f0-8153-723487b9527c", "risk_of_signup_fraud_by_volume", 10, 5 * time.Minute, map[string]any{"type": "fs", "ip": "203.0.113.7"}, "ip", ""},
		{"bad8fcc0-716e-11f0-b852-723487b9527c", "same_guardian_app_is_registered_for_mfa_in_multiple_users", 2, 10 * time.Hour, map[string]any{"type": "gd_enrollment_complete", "description": "Guardian - Enrollment complete",
			"user_id": each, "details": map[string]any{"enrollment": map[string]any{"identifier": "device"}}}, "", "user_id"},
		{"74a1ddea-7172-11f0-ace0-723487b9527c", "sms_bombarding", 5, 10 * time.Minute, map[string]any{"type": "gd_send_sms", "user_id": "auth0|1", "description": "Guardian - Second factor sms sent"}, "user_id", ""},
	} {
		t.Run(tt.file, func(t *testing.T) {
			rule := find(tt.id, tt.file)
			if rule == nil {
				t.Fatal("no rule of the file alerts")
			}
			fired := func(count int, every time.Duration, change func(map[string]any, int)) (list []schema.Alert) {
				engine := scanner.NewEngine(set, scanner.Config{})
				for i := range count {
					event := numbered(tt.event, i).(map[string]any)
					if change != nil {
						change(event, i)
					}
					ev, err := newEvent(start.Add(time.Duration(i)*every), i, event)
					if err != nil {
						t.Fatal(err)
					}
					for _, a := range engine.Observe(&ev) {
						if a.State == schema.StateFiring && a.RuleID == rule.ID {
							list = append(list, a)
						}
					}
				}
				return list
			}
			got := fired(tt.count, tt.every, nil)
			if want := start.Add(time.Duration(tt.count-1) * tt.every); len(got) != 1 || !got[0].StartsAt.Equal(want) || got[0].Count != float64(tt.count) {
				t.Errorf("fired %d times, want once at %s: %+v", len(got), want, got)
			}
			if got := fired(tt.count-1, tt.every, nil); len(got) != 0 {
				t.Errorf("fired at %v already", got[0].Count)
			}
			window := rule.Correlation.Timespan
			if got := fired(3*tt.count, window/time.Duration(tt.count-1)+time.Millisecond, nil); len(got) != 0 {
				t.Errorf("fired although the first had left the window: %+v", got[0])
			}
			if tt.apart != "" {
				if got := fired(3*tt.count, time.Second, func(e map[string]any, i int) { e[tt.apart] = fmt.Sprint("other", i) }); len(got) != 0 {
					t.Errorf("fired over many, each once: %+v", got[0])
				}
			}
			if tt.same != "" {
				if got := fired(3*tt.count, time.Second, func(e map[string]any, _ int) { e[tt.same] = "same" }); len(got) != 0 {
					t.Errorf("fired although all are the same: %+v", got[0])
				}
			}
		})
	}
}

// ruleOf is the rule that alerts when a detection has been counted.
func ruleOf(set *rules.Set, id string) *rules.Rule {
	for _, r := range set.Rules() {
		if r.ID == id+"#1" && r.Alert != nil {
			return r
		}
	}
	return nil
}

// ruleIn is the rule of a file that alerts.
func ruleIn(set *rules.Set, file string) *rules.Rule {
	for _, r := range set.Rules() {
		if r.File == file && r.Alert != nil {
			return r
		}
	}
	return nil
}
