package rules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
)

// mannerDir has rules in the manner of Auth0's catalog; see its README.
var mannerDir = filepath.Join("testdata", "catalog")

// manner is events that these rules match as they are written, and others.
var manner = map[string]struct{ yes, no []string }{
	"stuffing":           {[]string{`{"type":"fp"}`, `{"type":"FCOA"}`, `{"type":"limit_wc"}`}, []string{`{"type":"s"}`, `{"type":null}`, `{}`, `{"details":{"type":"fp"}}`}},
	"malformed_requests": {[]string{`{"type":"f","description":"Callback URL mismatch. x"}`, `{"type":"f","description":["x","Unknown client: y"]}`}, []string{`{"type":"f"}`, `{"type":"fp","description":"Unknown client: y"}`, `{"type":"f","description":""}`}},
	"shared_phone":       {[]string{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete (sms)"}`}, []string{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete"}`}},
	"client_burst":       {[]string{`{"type":"sapi","description":"dynamic client registration"}`}, []string{`{"type":"sapi","description":null}`, `{"type":"sapi","description":"Create a client"}`}},
	"token_agents":       {[]string{`{"type":"sertft"}`}, []string{`{"type":"sertf"}`, `{"type":"fertft"}`}},
	"token_places":       {[]string{`{"type":"seacft"}`}, []string{`{"type":"feacft"}`}},
	"token_reuse":        {[]string{`{"type":"ferrt","description":"Unsuccessful Refresh Token exchange, reused refresh token detected"}`}, []string{`{"type":"ferrt"}`}},
	"push_flood":         {[]string{`{"type":"gd_send_pn","description":"Guardian - Second factor notification sent"}`}, []string{`{"type":"gd_send_pn","description":"Guardian - Second factor sms sent"}`}},
	"throwaway_mail":     {[]string{`{"type":"ss","user_name":"x@Mailinator.com"}`}, []string{`{"type":"ss","user_name":"x@mailinator.com.example"}`, `{"type":"fs","user_name":"x@mailinator.com"}`}},
	"signup_volume":      {[]string{`{"type":"fs"}`, `{"type":"signup_pwd_leak"}`}, []string{`{"type":"pwd_leak"}`}},
	"shared_device":      {[]string{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete"}`}, []string{`{"type":"gd_unenroll","description":"Guardian - Enrollment complete"}`}},
	"text_flood":         {[]string{`{"type":"gd_send_sms","description":"Guardian - Second factor sms sent"}`}, []string{`{"type":"gd_send_sms"}`}},
	"loose_client":       {[]string{`{"type":"sapi","client_id":"other"}`, `{"type":"SAPI"}`, `{"type":"sapi","client_id":null}`}, []string{`{"type":"sapi","client_id":"dashboard"}`, `{"type":"sapi","client_id":["x","Dashboard"]}`, `{"type":"s","client_id":"other"}`}},
	"grants": {[]string{`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["read:users","delete:users"]}},"response":{"body":{"audience":"https://T.eu.auth0.com/api/v2/","client_id":"c"}}}}`,
		`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":"UPDATE:clients"}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/"}}}}`},
		[]string{`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["undelete:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/"}}}}`,
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["delete:users"]}},"response":{"body":{"audience":"https://{your-tenant-domain}/api/v2/"}}}}`,
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["delete:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/","client_id":"trusted2"}}}}`}},
	"template": {[]string{`{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":{"html":"a {{x}} b\n{{ y | escape }}"}}}}}`},
		[]string{`{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":{"html":"{{ y | escape }}"}}}}}`, `{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":"{{ x }}"}}}}`}},
	"old_name": {[]string{`{"type":"s","hostname":"T.auth0.com"}`}, []string{`{"type":"s","hostname":"login.example.com"}`, `{"type":"s","hostname":"{your-tenant-url}"}`, `{"type":"sapi","hostname":"t.auth0.com"}`}},
	"shields": {[]string{`{"type":"sapi","description":"Update Breached Password Detection settings"}`,
		`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"response":{"body":{"enabled":true,"shields":["block"],"stage":{"pre-user-registration":{"shields":["x"]}}}}}}`},
		[]string{`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"response":{"body":{"shields":"BLOCK","stage":{"pre-user-registration":{"shields":["x","Block"]}}}}}}`}},
	"switched_off": {[]string{`{"type":"sapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":false}},"response":{"statusCode":"200","body":{"enabled":"False"}}}}`,
		`{"type":"sapi","description":"Update Suspicious IP Throttling settings","details":{"request":{"body":[{"enabled":true},{"enabled":"false"}]},"response":{"statusCode":200.0,"body":{"enabled":[false]}}}}`},
		[]string{`{"type":"sapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":null}},"response":{"statusCode":200,"body":{"enabled":false}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":false}},"response":{"statusCode":400,"body":{"enabled":false}}}}`}},
	"policies":     {[]string{`{"type":"sapi","details":{"response":{"body":["x","confidence-score"]}}}`}, []string{`{"type":"sapi","details":{"response":{"body":{"0":"all-applications"}}}}`, `{"type":"sapi","details":{"response":{"body":[]}}}`}},
	"secrets_read": {[]string{`{"type":"mgmt_api_read","details":{"accessedSecrets":["x","client_secret"],"response":{"body":{"client_id":"critical-2"}}}}`}, []string{`{"type":"mgmt_api_read","details":{"accessedSecrets":[],"response":{"body":{"client_id":"critical-2"}}}}`}},
	"explorer":     {[]string{`{"type":"seccft","client_id":"explorer"}`}, []string{`{"type":"seccft","client_id":"{api_explorer_client_id}"}`, `{"type":"seccft"}`}},
	"flagged":      {[]string{`{"type":"s"}`, `{"type":"pla","details":{"requiresVerification":true}}`, `{"type":null}`, `{}`}, []string{`{"type":"pla","details":{"requiresVerification":false}}`, `{"type":""}`}},
	"unverified":   {[]string{`{"type":"sv","user_name":"a@b"}`}, []string{`{"type":"ss","user_name":"@example.com"}`, `{"type":"ss"}`}},
}

// TestManner loads rules in the manner of Auth0's catalog and runs each over its events,
// bare and in the envelope of a log stream.
func TestManner(t *testing.T) {
	set, report := rules.Load(catalogVars, os.DirFS(mannerDir))
	if diff := cmp.Diff(map[string]string{}, unloaded(report)); diff != "" {
		t.Fatalf("with variables (-want +got):\n%s", diff)
	}
	files, err := filepath.Glob(filepath.Join(mannerDir, "*.yml"))
	if err != nil || len(files) != len(manner) {
		t.Errorf("%d files, cases of %d: %v", len(files), len(manner), err)
	}
	for _, r := range set.Rules() {
		if r.Level != "medium" || r.Correlation == nil && r.Prevention == "" {
			t.Errorf("%s lost its keys: %+v", r.File, r)
		}
		if r.Correlation != nil && (!strings.HasSuffix(r.ID, "#1") || len(r.Correlation.Sources) != 1 || set.Rules()[r.Correlation.Sources[0].Rule].File != r.File) {
			t.Errorf("%s: id %s, counts %v", r.File, r.ID, r.Correlation.Sources)
		}
	}

	m := set.Matcher()
	for name, cases := range manner {
		for want, events := range map[bool][]string{true: cases.yes, false: cases.no} {
			for _, event := range events {
				for _, form := range []string{event, `{"log_id":"900","data":` + event + `}`} {
					got := false
					for _, i := range m.Match([]byte(form)) {
						got = got || set.Rules()[i].File == name+".yml"
					}
					if got != want {
						t.Errorf("%s matches %s: %v, want %v", name, form, got, want)
					}
				}
			}
		}
	}
}

// TestMannerUnset has such rules wait, without what their reader is to fill in, and warns
// of what they ask for.
func TestMannerUnset(t *testing.T) {
	_, report := rules.Load(nil, os.DirFS(mannerDir))
	waiting := map[string]string{
		"loose_client.yml detection": "waiting: set the variable global_client_id",
		"grants.yml detection":       "waiting: set the variables trusted-client_id-1, trusted-client_id-2, your-tenant-domain",
		"explorer.yml detection":     "waiting: set the variable api_explorer_client_id",
		"old_name.yml detection":     "waiting: set the variable your-tenant-url",
	}
	if diff := cmp.Diff(waiting, unloaded(report)); diff != "" {
		t.Errorf("without variables (-want +got):\n%s", diff)
	}
	const (
		atOnce  = "the condition is true at the first event"
		noField = "event_count has no use for condition.field"
	)
	want := map[string][]string{
		"template.yml":       {"template.yml:10: RE2 does not support the regular expression, so it backtracks, for at most 50ms an event"},
		"unverified.yml":     {atOnce},
		"token_agents.yml":   {atOnce},
		"token_places.yml":   {atOnce},
		"token_reuse.yml":    {noField, atOnce},
		"throwaway_mail.yml": {"the condition is true without any event; read as gte: 1", atOnce},
		"signup_volume.yml":  {noField, atOnce},
	}
	got := map[string][]string{}
	for _, d := range report.Documents {
		if len(d.Warnings) > 0 {
			got[d.File] = append(got[d.File], d.Warnings...)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}
