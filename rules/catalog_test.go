package rules_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
)

// catalogDir has Auth0's detection catalog, unchanged, beside the repository.
var catalogDir = filepath.Join("..", "..", "shared", "data", "auth0-detections")

// catalogVars sets what the catalog asks its reader for.
var catalogVars = rules.Vars{
	"global_client_id": {"dashboard"}, "api_explorer_client_id": {"explorer"}, "your-tenant-url": {"t.auth0.com"},
	"your-tenant-domain": {"t.eu.auth0.com"}, "trusted-client_id-1": {"trusted1"}, "trusted-client_id-2": {"trusted2"},
}

func catalog(t *testing.T, vars rules.Vars) (*rules.Set, *rules.Report) {
	t.Helper()
	if _, err := os.Stat(catalogDir); err != nil {
		t.Skipf("not proven: that Auth0's catalog itself loads and matches; rules in its manner are tested (TestManner): %v", err)
	}
	return rules.Load(vars, os.DirFS(catalogDir))
}

// unloaded is the fate of what is not loaded, by file and kind.
func unloaded(r *rules.Report) map[string]string {
	fates := map[string]string{}
	for _, d := range r.Documents {
		if !d.Runs() {
			fates[d.File+" "+d.Kind] = string(d.Status) + ": " + d.Reason
		}
	}
	return fates
}

func TestCatalog(t *testing.T) {
	set, report := catalog(t, catalogVars)
	if diff := cmp.Diff(map[string]string{}, unloaded(report)); diff != "" {
		t.Errorf("with variables (-want +got):\n%s", diff)
	}
	kinds := map[string]int{}
	for _, d := range report.Documents {
		kinds[d.Kind]++
	}
	if diff := cmp.Diff(map[string]int{"detection": 33, "correlation": 8}, kinds); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	alone, levels := 0, map[string]int{}
	for _, r := range set.Rules() {
		levels[r.Level]++
		if r.Correlation == nil && r.Alert != nil {
			alone++
		}
		if r.ID == "" || r.Title == "" {
			t.Errorf("%s:%d has no id or title", r.File, r.Line)
		}
		if r.Correlation != nil && (!strings.HasSuffix(r.ID, "#1") || len(r.Correlation.Sources) != 1 || set.Rules()[r.Correlation.Sources[0].Rule].File != r.File) {
			t.Errorf("%s: id %s, counts %v", r.File, r.ID, r.Correlation.Sources)
		}
		if r.Correlation == nil && r.Prevention == "" {
			t.Errorf("%s lost its keys", r.File)
		}
	}
	if len(set.Rules()) != 33+8 || alone != 33-8 {
		t.Errorf("%d rules, %d detections that alert; want 41 and 25", len(set.Rules()), alone)
	}
	if diff := cmp.Diff(map[string]int{"medium": 41}, levels); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}

	set, report = catalog(t, nil)
	waiting := map[string]string{
		"client_with_overpermissive_granted_scopes.yml detection": "waiting: set the variable global_client_id",
		"grant_mgn_api_scopes.yml detection":                      "waiting: set the variables trusted-client_id-1, trusted-client_id-2, your-tenant-domain",
		"risk_of_copying_the_most_powerful_token.yml detection":   "waiting: set the variable api_explorer_client_id",
		"use_of_auth0_tenant_name_url.yml detection":              "waiting: set the variable your-tenant-url",
	}
	if diff := cmp.Diff(waiting, unloaded(report)); diff != "" || len(set.Rules()) != 41-4 {
		t.Errorf("without variables: %d rules (-want +got):\n%s", len(set.Rules()), diff)
	}
}

// TestCatalogWarnings is what the catalog's author would want to hear: most of
// its correlations are true at once.
func TestCatalogWarnings(t *testing.T) {
	_, report := catalog(t, nil)
	got := map[string][]string{}
	for _, d := range report.Documents {
		for _, w := range d.Warnings {
			name, _, _ := strings.Cut(d.File, ".")
			got[name] = append(got[name], w)
		}
	}
	const (
		atOnce  = "the condition is true at the first event"
		noField = "event_count has no use for condition.field"
	)
	want := map[string][]string{
		"liquidjs_xss_vulnerability":                 {"liquidjs_xss_vulnerability.yml:18: RE2 does not support the regular expression, so it backtracks, for at most 50ms an event"},
		"many_unverified_accounts_created":           {atOnce}, // it asks for the absence of another event
		"refresh_token_from_multiple_user_agent":     {atOnce},
		"refresh_token_from_too_many_locations":      {atOnce},
		"refresh_token_reuse":                        {noField, atOnce},
		"risk_of_signup_fraud_by_disposable_domains": {"the condition is true without any event; read as gte: 1", atOnce},
		"risk_of_signup_fraud_by_volume":             {noField, atOnce},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestCatalogMatches runs the catalog over events of its making, bare as from
// the Management API and in the envelope of a log stream.
func TestCatalogMatches(t *testing.T) {
	set, _ := catalog(t, catalogVars)
	// sapi is a change by a client that the catalog's rule 5 trusts.
	sapi := func(description, details string) string {
		return `{"type":"sapi","client_id":"dashboard","description":"` + description + `","details":` + details + `}`
	}
	for _, tt := range []struct {
		event string
		want  []string // files without .yml
	}{
		{`{"type":"fp"}`, []string{"credential_stuffing_signals"}},
		{`{"type":"s"}`, []string{"logins_from_suspicious_tls_fingerprints", "logins_or_signups_from_suspicious_ips"}},
		{`{"type":"s","hostname":"T.auth0.com"}`, []string{"logins_from_suspicious_tls_fingerprints", "logins_or_signups_from_suspicious_ips", "use_of_auth0_tenant_name_url"}},
		{`{"type":"pla","details":{"requiresVerification":true}}`, []string{"logins_or_signups_from_suspicious_ips"}},
		{`{"type":"pla","details":{"requiresVerification":false}}`, nil},
		{`{"type":null}`, []string{"logins_or_signups_from_suspicious_ips"}}, // as written: its list of types is empty
		{`{"type":"f","description":"Callback URL mismatch. x"}`, []string{"credential_stuffing_signals", "many_failed_authorization_requests"}},
		{`{"type":"ss","user_name":"x@Mailinator.com"}`, []string{"many_unverified_accounts_created", "risk_of_signup_fraud_by_disposable_domains", "risk_of_signup_fraud_by_volume"}},
		{`{"type":"ss","user_name":"x@mailinator.com.example"}`, []string{"many_unverified_accounts_created", "risk_of_signup_fraud_by_volume"}},
		{`{"type":"sertft"}`, []string{"refresh_token_from_multiple_user_agent", "refresh_token_from_too_many_locations"}},
		{`{"type":"ferrt","description":"Unsuccessful Refresh Token exchange, reused refresh token detected"}`, []string{"refresh_token_reuse"}},
		{`{"type":"gd_send_pn","description":"Guardian - Second factor notification sent"}`, []string{"risk_for_mfa_push_fatigue"}},
		{`{"type":"gd_send_sms","description":"Guardian - Second factor sms sent"}`, []string{"sms_bombarding"}},
		{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete (sms)"}`, []string{"multiple_phone_numbers_are_registered_as_mfa"}},
		{`{"type":"seccft","client_id":"explorer"}`, []string{"risk_of_copying_the_most_powerful_token"}},
		{`{"type":"seccft","client_id":"other"}`, nil},
		{`{"type":"mgmt_api_read","description":"Get client by ID","details":{"accessedSecrets":["x","client_secret"],"response":{"body":{"client_id":"critical-client_id-1"}}}}`, []string{"risk_of_copying_client_credentials"}},
		{`{"type":"mgmt_api_read","description":"Get client by ID","details":{"accessedSecrets":[],"response":{"body":{"client_id":"critical-client_id-1"}}}}`, nil},
		{`{"type":"sapi","client_id":"other"}`, []string{"client_with_overpermissive_granted_scopes"}},
		{sapi("x", `{}`), nil},
		{sapi("Update Suspicious IP Throttling settings", `{"request":{"body":{"enabled":false,"allowlist":[]}},"response":{"body":{"enabled":false}}}`),
			[]string{"attack_protection_features_turned_off", "suspicious_ip_throttling_critical_settings_manipulated", "unrecognized_ip_in_allowlist"}},
		{sapi("Create or update the anomaly detection captcha", `{"response":{"statusCode":200,"body":{"policy":"OFF","passwordless_policy":"on"}}}`), []string{"bot_detection_turned_off", "unrecognized_ip_in_allowlist"}},
		{sapi("Update Breached Password Detection settings", `{"response":{"body":{"enabled":true,"shields":["block","admin_notification"],"stage":{"pre-user-registration":{"shields":["block"]}}}}}`), nil},
		{sapi("Update Breached Password Detection settings", `{"response":{"body":{"enabled":true,"shields":["block"],"stage":{"pre-user-registration":{"shields":["admin_notification"]}}}}}`), []string{"breached_password_detection_settings_manipulated"}},
		{sapi("Update client grant", `{"request":{"body":{"scope":["read:users","delete:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/","client_id":"c"}}}`), []string{"grant_mgn_api_scopes"}},
		{sapi("Update client grant", `{"request":{"body":{"scope":["delete:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/","client_id":"trusted2"}}}`), nil},
		{sapi("Update client grant", `{"request":{"body":{"scope":["read:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/","client_id":"c"}}}`), nil},
		{sapi("Update a client", `{"response":{"statusCode":200,"body":{"grant_types":["authorization_code","implicit"],"cross_origin_authentication":true}}}`), []string{"cross_origin_authentication_enabled", "insecure_grants_enabled_for_applications"}},
		{sapi("Update a client", `{"response":{"statusCode":400,"body":{"grant_types":["implicit"]}}}`), nil},
		{sapi("Update tenant settings", `{"response":{"body":{"error_page":{"html":"<p>{{ error }}</p>"}}}}`), []string{"liquidjs_xss_vulnerability"}},
		{sapi("Update tenant settings", `{"response":{"body":{"error_page":{"html":"<p>{{ error | escape }}</p>"}}}}`), []string{"liquidjs_xss_vulnerability"}}, // its [^}]+ takes the filter, too
		{sapi("Update tenant settings", `{"response":{"body":{"error_page":{"html":"<p>{ error }</p>"}}}}`), nil},
		{sapi("Updates risk assessment configs", `{"response":{"statusCode":200,"body":{"AfterAuthentication":false}}}`), []string{"mfa_donwgrade_risk_assessment_disabled"}},
		{sapi("Update multi-factor authentication type", `{"request":{"body":{"enabled":false}}}`), []string{"mfa_downgrade_detect_disable_factors"}},
		{sapi("Update multi-factor authentication policies", `{"response":{"body":["all-applications"]}}`), []string{"mfa_downgrade_disable_mfa_policies"}},
		{sapi("Update multi-factor authentication policies", `{"response":{"body":[]}}`), nil},
		{sapi("Dynamic client registration", `{}`), []string{"rapid_creation_of_clients_with_dynamic_registration"}},
		{sapi("Create tenant invitations for a given client", `{"request":{"body":{"roles":["viewer","owner"]}}}`), []string{"risk_of_tenant_takeover"}},
	} {
		m := set.Matcher()
		for _, event := range []string{tt.event, `{"log_id":"900","data":` + tt.event + `}`} {
			var got []string
			for _, i := range m.Match([]byte(event)) {
				got = append(got, strings.TrimSuffix(set.Rules()[i].File, ".yml"))
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", event, diff)
			}
		}
	}
}
