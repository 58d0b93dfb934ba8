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

const catalogDir = "../../../shared/data/auth0-detections"

// TestCatalogCounts runs those rules of Auth0's catalog that count, as our overlay
// has tuned them: each fires when what it is about has happened often enough, and
// not before, nor when it is spread over others.
func TestCatalogCounts(t *testing.T) {
	if _, err := os.Stat(catalogDir); err != nil {
		t.Skipf("Auth0's detection catalog is not beside the repository: %v", err)
	}
	set, _ := rules.Load(nil, builtin.FS(), os.DirFS(catalogDir))
	const each = "{n}"
	for _, tt := range []struct {
		file  string
		count int            // of events until it fires
		every time.Duration  // between them
		event map[string]any // {n} differs in each
		apart string         // a member that makes others of them when it differs; empty for none
		same  string         // value_count: a member that must differ
	}{
		{"credential_stuffing_signals", 20, time.Minute, map[string]any{"type": "fp", "ip": "203.0.113.7"}, "ip", ""},
		{"many_failed_authorization_requests", 20, 10 * time.Second, map[string]any{"type": "f", "ip": "203.0.113.7", "description": "Callback URL mismatch. x"}, "ip", ""},
		{"multiple_phone_numbers_are_registered_as_mfa", 2, 10 * time.Hour, map[string]any{"type": "gd_enrollment_complete", "description": "Guardian - Enrollment complete (sms)",
			"user_id": each, "details": map[string]any{"authenticator": map[string]any{"phone_number": "+15550100"}}}, "", "user_id"},
		{"rapid_creation_of_clients_with_dynamic_registration", 5, 10 * time.Minute, map[string]any{"type": "sapi", "description": "Dynamic client registration"}, "", ""},
		{"refresh_token_from_multiple_user_agent", 3, 5 * time.Hour, map[string]any{"type": "sertft", "user_agent": each, "details": map[string]any{"familyId": "f"}}, "", "user_agent"},
		{"refresh_token_from_too_many_locations", 10, time.Hour, map[string]any{"type": "sertft", "ip": "192.0.2." + each, "details": map[string]any{"familyId": "f"}}, "", "ip"},
		{"refresh_token_reuse", 3, 5 * time.Hour, map[string]any{"type": "ferrt", "user_id": "auth0|1", "description": "Unsuccessful Refresh Token exchange, reused refresh token detected"}, "user_id", ""},
		{"risk_for_mfa_push_fatigue", 5, time.Minute, map[string]any{"type": "gd_send_pn", "user_id": "auth0|1", "description": "Guardian - Second factor notification sent"}, "user_id", ""},
		{"risk_of_signup_fraud_by_disposable_domains", 10, 5 * time.Minute, map[string]any{"type": "ss", "user_name": each + "@mailinator.com"}, "", ""},
		{"risk_of_signup_fraud_by_volume", 10, 5 * time.Minute, map[string]any{"type": "fs", "ip": "203.0.113.7"}, "ip", ""},
		{"same_guardian_app_is_registered_for_mfa_in_multiple_users", 2, 10 * time.Hour, map[string]any{"type": "gd_enrollment_complete", "description": "Guardian - Enrollment complete",
			"user_id": each, "details": map[string]any{"enrollment": map[string]any{"identifier": "device"}}}, "", "user_id"},
		{"sms_bombarding", 5, 10 * time.Minute, map[string]any{"type": "gd_send_sms", "user_id": "auth0|1", "description": "Guardian - Second factor sms sent"}, "user_id", ""},
	} {
		t.Run(tt.file, func(t *testing.T) {
			rule := ruleIn(set, tt.file+".yml")
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
						if a.State == schema.Firing && a.RuleID == rule.ID {
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

// ruleIn is the rule of a file that alerts.
func ruleIn(set *rules.Set, file string) *rules.Rule {
	for _, r := range set.Rules() {
		if r.File == file && r.Alert != nil {
			return r
		}
	}
	return nil
}
