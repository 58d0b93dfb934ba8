package rules_test

import (
	"os"
	"path/filepath"
	"testing"
)

// conformance is events that rules of Auth0's catalog match as they are written,
// and others that they do not: what is near, and what arrays, null, and the types
// of values may get wrong.
var conformance = map[string]struct{ yes, no []string }{
	"attack_protection_features_turned_off": {
		yes: []string{
			`{"type":"sapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":false}},"response":{"body":{"enabled":false}}}}`,
			`{"type":"sapi","description":"create or update the anomaly detection captcha","details":{"request":{"body":{"enabled":"false"}},"response":{"body":{"enabled":"False"}}}}`,
			`{"type":"sapi","description":"Update Suspicious IP Throttling settings","details":{"request":{"body":[{"enabled":true},{"enabled":false}]},"response":{"body":{"enabled":[false]}}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":false}},"response":{"body":{"enabled":true}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":false}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":null}},"response":{"body":{"enabled":false}}}}`,
			`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"request":{"body":{"enabled":false}},"response":{"body":{"enabled":false}}}}`,
			`{"type":"fapi","description":"Update Brute-force settings","details":{"request":{"body":{"enabled":false}},"response":{"body":{"enabled":false}}}}`,
		}},
	"bot_detection_turned_off": {
		yes: []string{
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"response":{"statusCode":200,"body":{"policy":"off"}}}}`,
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"response":{"statusCode":"200","body":{"policy":"always_on","passwordless_policy":"OFF"}}}}`,
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"response":{"statusCode":200.0,"body":{"password_reset_policy":"off"}}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"response":{"statusCode":200,"body":{"policy":"always_on"}}}}`,
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"response":{"statusCode":400,"body":{"policy":"off"}}}}`,
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"response":{"body":{"policy":"off"}}}}`,
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"response":{"statusCode":200,"body":{"policy":false}}}}`,
		}},
	"breached_password_detection_settings_manipulated": {
		yes: []string{
			`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"response":{"body":{"enabled":false,"shields":["block"],"stage":{"pre-user-registration":{"shields":["block"]}}}}}}`,
			`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"response":{"body":{"enabled":true,"shields":[],"stage":{"pre-user-registration":{"shields":["block"]}}}}}}`,
			`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"response":{"body":{"enabled":true,"shields":["block"],"stage":{"pre-user-registration":{"shields":["admin_notification"]}}}}}}`,
			`{"type":"sapi","description":"Update Breached Password Detection settings"}`,
		},
		no: []string{
			`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"response":{"body":{"enabled":true,"shields":["admin_notification","block"],"stage":{"pre-user-registration":{"shields":["block"]}}}}}}`,
			`{"type":"sapi","description":"Update Breached Password Detection settings","details":{"response":{"body":{"shields":"BLOCK","stage":{"pre-user-registration":{"shields":["x","Block"]}}}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings","details":{"response":{"body":{"enabled":false}}}}`,
		}},
	"brute_force_critical_settings_manipulated": {
		yes: []string{
			`{"type":"sapi","description":"Update Brute-force settings","details":{"response":{"body":{"enabled":false,"shields":["block"]}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings","details":{"response":{"body":{"enabled":true,"shields":["user_notification"]}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings","details":{"response":{"body":{"enabled":true,"shields":null}}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Update Brute-force settings","details":{"response":{"body":{"enabled":true,"shields":["block","user_notification"]}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings","details":{"response":{"body":{"shields":[["block"]]}}}}`,
			`{"type":"sapi","description":"Update Brute-force settings 2","details":{"response":{"body":{"enabled":false}}}}`,
		}},
	"client_with_overpermissive_granted_scopes": {
		yes: []string{`{"type":"sapi","client_id":"other"}`, `{"type":"SAPI"}`, `{"type":"sapi","client_id":null}`},
		no:  []string{`{"type":"sapi","client_id":"dashboard"}`, `{"type":"sapi","client_id":["x","Dashboard"]}`, `{"type":"s","client_id":"other"}`}},
	"credential_stuffing_signals": {
		yes: []string{`{"type":"f"}`, `{"type":"fu"}`, `{"type":"fp"}`, `{"type":"pwd_leak"}`, `{"type":"limit_wc"}`, `{"type":"limit_sul"}`, `{"type":"limit_mu"}`, `{"type":"FCOA"}`},
		no:  []string{`{"type":"s"}`, `{"type":"fs"}`, `{"type":"limit_delegation"}`, `{"type":null}`, `{}`, `{"details":{"type":"fp"}}`}},
	"cross_origin_authentication_enabled": {
		yes: []string{
			`{"type":"sapi","details":{"response":{"body":{"cross_origin_authentication":true}}}}`,
			`{"type":"sapi","details":{"response":{"body":{"cross_origin_authentication":"true"}}}}`,
			`{"type":"sapi","details":{"response":{"body":[{"cross_origin_authentication":false},{"cross_origin_authentication":true}]}}}`,
		},
		no: []string{
			`{"type":"sapi","details":{"response":{"body":{"cross_origin_authentication":false}}}}`,
			`{"type":"sapi","details":{"response":{"body":{"cross_origin_authentication":1}}}}`,
			`{"type":"sapi","details":{"request":{"body":{"cross_origin_authentication":true}}}}`,
		}},
	"grant_mgn_api_scopes": {
		yes: []string{
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["read:users","delete:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/","client_id":"c"}}}}`,
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":"UPDATE:clients"}},"response":{"body":{"audience":"https://T.eu.auth0.com/api/v2/"}}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["read:users","create:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/"}}}}`,
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":[]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/"}}}}`,
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["delete:users"]}},"response":{"body":{"audience":"https://api.example.com/"}}}}`,
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["delete:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/","client_id":"trusted2"}}}}`,
			`{"type":"sapi","description":"Update client grant","details":{"request":{"body":{"scope":["undelete:users"]}},"response":{"body":{"audience":"https://t.eu.auth0.com/api/v2/"}}}}`,
		}},
	"insecure_grants_enabled_for_applications": {
		yes: []string{
			`{"type":"sapi","description":"Update a client","details":{"response":{"statusCode":200,"body":{"grant_types":["authorization_code","implicit"]}}}}`,
			`{"type":"sapi","description":"Update a client","details":{"response":{"statusCode":200,"body":{"grant_types":["password"]}}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Update a client","details":{"response":{"statusCode":200,"body":{"grant_types":["authorization_code"]}}}}`,
			`{"type":"sapi","description":"Update a client","details":{"response":{"statusCode":200,"body":{"grant_types":["http://auth0.com/oauth/grant-type/password-realm"]}}}}`,
			`{"type":"sapi","description":"Update a client","details":{"response":{"statusCode":200,"body":{"grant_types":[]}}}}`,
			`{"type":"sapi","description":"Update a client grant","details":{"response":{"statusCode":200,"body":{"grant_types":["implicit"]}}}}`,
		}},
	"liquidjs_xss_vulnerability": {
		yes: []string{
			`{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":{"html":"<p>{{ error }}</p>"}}}}}`,
			`{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":{"html":"a {{x}} b\n{{ y | escape }}"}}}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":{"html":"<p>{ error }</p>"}}}}}`,
			`{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":{"html":null}}}}}`,
			`{"type":"sapi","description":"Update tenant settings","details":{"response":{"body":{"error_page":"{{ error }}"}}}}`,
		}},
	"logins_from_suspicious_tls_fingerprints": {
		yes: []string{`{"type":"s"}`, `{"type":"scoa"}`},
		no:  []string{`{"type":"ss"}`, `{"type":"fp"}`}},
	"logins_or_signups_from_suspicious_ips": {
		yes: []string{`{"type":"s"}`, `{"type":"pla","details":{"requiresVerification":true}}`, `{"type":null}`, `{}`},
		no:  []string{`{"type":"pla","details":{"requiresVerification":false}}`, `{"type":"pla"}`, `{"type":"ss"}`, `{"type":""}`}},
	"many_failed_authorization_requests": {
		yes: []string{
			`{"type":"f","description":"Callback URL mismatch. https://x is not in the list"}`,
			`{"type":"f","description":"UNKNOWN CLIENT: abc"}`,
			`{"type":"f","description":"Unsupported response type: x"}`,
			`{"type":"f","description":["x","Service not found: y"]}`,
		},
		no: []string{`{"type":"f","description":"Wrong email or password."}`, `{"type":"f"}`, `{"type":"fp","description":"Unknown client: abc"}`, `{"type":"f","description":""}`}},
	"many_unverified_accounts_created": {
		yes: []string{`{"type":"ss","user_name":"a@example.com"}`, `{"type":"sv","user_name":"a@b"}`},
		no:  []string{`{"type":"ss","user_name":"ada"}`, `{"type":"ss","user_name":"@example.com"}`, `{"type":"ss"}`, `{"type":"fs","user_name":"a@example.com"}`}},
	"mfa_donwgrade_risk_assessment_disabled": {
		yes: []string{`{"type":"sapi","description":"Updates risk assessment configs","details":{"response":{"statusCode":200,"body":{"AfterAuthentication":false}}}}`},
		no: []string{
			`{"type":"sapi","description":"Updates risk assessment configs","details":{"response":{"statusCode":200,"body":{"AfterAuthentication":true}}}}`,
			`{"type":"sapi","description":"Updates risk assessment configs","details":{"response":{"statusCode":200,"body":{"afterauthentication":false}}}}`,
			`{"type":"sapi","description":"Updates risk assessment configs","details":{"response":{"statusCode":200,"body":{}}}}`,
		}},
	"mfa_downgrade_detect_disable_factors": {
		yes: []string{`{"type":"sapi","description":"Update multi-factor authentication type","details":{"request":{"body":{"enabled":false}}}}`},
		no: []string{
			`{"type":"sapi","description":"Update multi-factor authentication type","details":{"request":{"body":{"enabled":true}}}}`,
			`{"type":"sapi","description":"Update multi-factor authentication type","details":{"request":{"body":{"enabled":0}}}}`,
			`{"type":"sapi","description":"Update multi-factor authentication type","details":{"request":{"body":null}}}`,
		}},
	"mfa_downgrade_disable_mfa_policies": {
		yes: []string{
			`{"type":"sapi","description":"Update multi-factor authentication policies","details":{"response":{"body":["all-applications"]}}}`,
			`{"type":"sapi","description":"Update multi-factor authentication policies","details":{"response":{"body":["x","confidence-score"]}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Update multi-factor authentication policies","details":{"response":{"body":[]}}}`,
			`{"type":"sapi","description":"Update multi-factor authentication policies","details":{"response":{"body":{"0":"all-applications"}}}}`,
			`{"type":"sapi","description":"Update multi-factor authentication policies","details":{"response":{"body":null}}}`,
		}},
	"multiple_phone_numbers_are_registered_as_mfa": {
		yes: []string{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete (sms)"}`},
		no:  []string{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete"}`, `{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete (sms) "}`}},
	"rapid_creation_of_clients_with_dynamic_registration": {
		yes: []string{`{"type":"sapi","description":"Dynamic client registration"}`},
		no:  []string{`{"type":"sapi","description":"Create a client"}`, `{"type":"sapi","description":null}`}},
	"refresh_token_from_multiple_user_agent": {
		yes: []string{`{"type":"seacft"}`, `{"type":"sertft"}`},
		no:  []string{`{"type":"sepft"}`, `{"type":"fertft"}`}},
	"refresh_token_from_too_many_locations": {
		yes: []string{`{"type":"seacft"}`, `{"type":"sertft"}`},
		no:  []string{`{"type":"feacft"}`, `{"type":"sertf"}`}},
	"refresh_token_reuse": {
		yes: []string{`{"type":"ferrt","description":"Unsuccessful Refresh Token exchange, reused refresh token detected"}`},
		no:  []string{`{"type":"ferrt"}`, `{"type":"fertft","description":"Unsuccessful Refresh Token exchange, reused refresh token detected"}`}},
	"risk_for_mfa_push_fatigue": {
		yes: []string{`{"type":"gd_send_pn","description":"Guardian - Second factor notification sent"}`},
		no:  []string{`{"type":"gd_send_pn_failure","description":"Guardian - Second factor notification sent"}`, `{"type":"gd_send_pn","description":"Guardian - Second factor sms sent"}`}},
	"risk_of_copying_client_credentials": {
		yes: []string{
			`{"type":"mgmt_api_read","description":"Get client by ID","details":{"accessedSecrets":["signing_keys","client_secret"],"response":{"body":{"client_id":"critical-client_id-1"}}}}`,
			`{"type":"mgmt_api_read","description":"Get client by ID","details":{"accessedSecrets":"client_secret","response":{"body":{"client_id":"critical-client_id-etc"}}}}`,
		},
		no: []string{
			`{"type":"mgmt_api_read","description":"Get client by ID","details":{"accessedSecrets":[],"response":{"body":{"client_id":"critical-client_id-1"}}}}`,
			`{"type":"mgmt_api_read","description":"Get client by ID","details":{"accessedSecrets":["client_secret_2"],"response":{"body":{"client_id":"critical-client_id-1"}}}}`,
			`{"type":"mgmt_api_read","description":"Get client by ID","details":{"accessedSecrets":["client_secret"],"response":{"body":{"client_id":"other"}}}}`,
			`{"type":"mgmt_api_read","description":"Get clients","details":{"accessedSecrets":["client_secret"],"response":{"body":[{"client_id":"critical-client_id-1"}]}}}`,
		}},
	"risk_of_copying_the_most_powerful_token": {
		yes: []string{`{"type":"seccft","client_id":"explorer"}`},
		no:  []string{`{"type":"seccft","client_id":"other"}`, `{"type":"seccft"}`, `{"type":"feccft","client_id":"explorer"}`}},
	"risk_of_signup_fraud_by_disposable_domains": {
		yes: []string{`{"type":"ss","user_name":"x@Mailinator.com"}`, `{"type":"ss","user_name":"@getnada.com"}`},
		no:  []string{`{"type":"ss","user_name":"x@mailinator.com.example"}`, `{"type":"ss","user_name":"mailinator.com"}`, `{"type":"fs","user_name":"x@mailinator.com"}`}},
	"risk_of_signup_fraud_by_volume": {
		yes: []string{`{"type":"fs"}`, `{"type":"ss"}`, `{"type":"signup_pwd_leak"}`},
		no:  []string{`{"type":"pwd_leak"}`, `{"type":"sss"}`}},
	"risk_of_tenant_takeover": {
		yes: []string{
			`{"type":"sapi","description":"Create tenant invitations for a given client","details":{"request":{"body":{"roles":["viewer","owner"]}}}}`,
			`{"type":"sapi","description":"Delete tenant member","details":{"request":{"body":{"roles":"Owner"}}}}`,
		},
		no: []string{
			`{"type":"sapi","description":"Delete tenant member"}`,
			`{"type":"sapi","description":"Create tenant invitations for a given client","details":{"request":{"body":{"roles":["co-owner"]}}}}`,
			`{"type":"sapi","description":"Create tenant invitations for a given client","details":{"request":{"body":{"roles":[]}}}}`,
		}},
	"same_guardian_app_is_registered_for_mfa_in_multiple_users": {
		yes: []string{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete"}`},
		no:  []string{`{"type":"gd_enrollment_complete","description":"Guardian - Enrollment complete (sms)"}`, `{"type":"gd_unenroll","description":"Guardian - Enrollment complete"}`}},
	"sms_bombarding": {
		yes: []string{`{"type":"gd_send_sms","description":"Guardian - Second factor sms sent"}`},
		no:  []string{`{"type":"gd_send_sms_failure","description":"Guardian - Second factor sms sent"}`, `{"type":"gd_send_sms"}`}},
	"suspicious_ip_throttling_critical_settings_manipulated": {
		yes: []string{
			`{"type":"sapi","description":"Update Suspicious IP Throttling settings","details":{"response":{"body":{"enabled":true}}}}`,
			`{"type":"s","details":{"response":{"body":{"enabled":false}}}}`, // its "or"
		},
		no: []string{`{"type":"sapi","description":"Update Brute-force settings","details":{"response":{"body":{"enabled":true}}}}`, `{"type":"sapi","details":{"response":{"body":{"enabled":null}}}}`}},
	"unrecognized_ip_in_allowlist": {
		yes: []string{
			`{"type":"sapi","description":"Update Brute-force settings"}`,
			`{"type":"sapi","description":"Create or update the anomaly detection captcha","details":{"request":{"body":{"allowlist":["192.0.2.0/24"]}}}}`, // its path
		},
		no: []string{
			`{"type":"sapi","description":"Update Brute-force settings","request":{"body":{"allowlist":["198.51.100.1","192.0.2.0/24"]}}}`,
			`{"type":"sapi","description":"Update a client"}`,
		}},
	"use_of_auth0_tenant_name_url": {
		yes: []string{`{"type":"s","hostname":"t.auth0.com"}`, `{"type":"fepft","hostname":"T.AUTH0.COM"}`},
		no:  []string{`{"type":"s","hostname":"login.example.com"}`, `{"type":"s"}`, `{"type":"sapi","hostname":"t.auth0.com"}`, `{"type":"s","hostname":"t.auth0.com.example"}`}},
}

// TestConformance runs every rule of the catalog over its cases, bare and in the
// envelope of a log stream.
func TestConformance(t *testing.T) {
	set, _ := catalog(t, catalogVars)
	files, err := filepath.Glob(filepath.Join(catalogDir, "*.yml"))
	if err != nil || len(files) != len(conformance) {
		t.Errorf("%d files, cases of %d: %v", len(files), len(conformance), err)
	}
	m := set.Matcher()
	matches := func(file, event string) bool {
		for _, i := range m.Match([]byte(event)) {
			if set.Rules()[i].File == file {
				return true
			}
		}
		return false
	}
	n := 0
	for name, cases := range conformance {
		if _, err := os.Stat(filepath.Join(catalogDir, name+".yml")); err != nil || len(cases.yes) == 0 || len(cases.no) == 0 {
			t.Errorf("%s: %d to match, %d others, %v", name, len(cases.yes), len(cases.no), err)
		}
		for want, events := range map[bool][]string{true: cases.yes, false: cases.no} {
			for _, event := range events {
				n++
				for _, form := range []string{event, `{"log_id":"900","data":` + event + `}`} {
					if got := matches(name+".yml", form); got != want {
						t.Errorf("%s matches %s: %v, want %v", name, form, got, want)
					}
				}
			}
		}
	}
	if n < 120 {
		t.Errorf("only %d cases", n)
	}
}
