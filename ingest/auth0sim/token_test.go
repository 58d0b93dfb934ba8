package auth0sim

import (
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

const audience = "https://demo.eu.auth0.com/api/v2/"

func machineForm() url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {"sim-client"}, "client_secret": {"sim-secret"}, "audience": {audience}}
}

func with(form url.Values, name, value string) url.Values {
	form.Set(name, value)
	if value == "" {
		form.Del(name)
	}
	return form
}

func TestMachineGrant(t *testing.T) {
	sim := newTenant(t, Config{Scopes: []string{"read:logs", "read:users"}})
	basic := func(r *http.Request) { r.SetBasicAuth("sim-client", "sim-secret") }
	form := "application/x-www-form-urlencoded"
	withoutClient := with(with(machineForm(), "client_id", ""), "client_secret", "").Encode()
	asJSON, err := json.Marshal(map[string]string{"grant_type": "client_credentials", "client_id": "sim-client",
		"client_secret": "sim-secret", "audience": audience})
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"form":  postForm(sim, "/oauth/token", machineForm()),
		"basic": post(sim, "/oauth/token", form, withoutClient, basic),
		"json":  post(sim, "/oauth/token", "application/json", string(asJSON), nil),
		"host":  postForm(sim, "/oauth/token", with(machineForm(), "audience", "https://example.com/api/v2/")),
		"less":  postForm(sim, "/oauth/token", with(machineForm(), "scope", "read:logs write:all")),
	} {
		var a tokenAnswer
		decode(t, w, &a)
		scope := "read:logs read:users"
		if name == "less" {
			scope = "read:logs"
		}
		if w.Code != 200 || a.ExpiresIn != 86400 || a.TokenType != "Bearer" || a.Scope != scope ||
			w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if w := get(sim, "/api/v2/logs?take=1", a.AccessToken); w.Code != 200 {
			t.Errorf("%s: logs: %d %s", name, w.Code, w.Body)
		}
	}
	if n := sim.Total(); n != 5 {
		t.Errorf("%d events, want 5", n)
	}
	if e := lastEvent(t, sim); e["type"] != "seccft" || e["client_id"] != "sim-client" || e["ip"] != "192.0.2.1" {
		t.Errorf("event is %v", e)
	}
}

func TestMachineGrantRefused(t *testing.T) {
	for _, c := range []struct {
		name, param, value string
		status             int
		code, message      string
		event              string
	}{
		{"secret", "client_secret", "guess", 401, "access_denied", "Unauthorized", "feccft"},
		{"client", "client_id", "nobody\"\n", 401, "access_denied", "Unauthorized", "feccft"},
		{"probe client", "client_id", "probe-client", 403, "unauthorized_client", "not allowed for the client", "feccft"},
		{"audience", "audience", "https://x/", 403, "access_denied", "Service not found: https://x/", "feccft"},
		{"no audience", "audience", "", 403, "access_denied", "No audience", "feccft"},
		{"no client", "client_id", "", 400, "invalid_request", "Missing required parameter: client_id", ""},
		{"no grant", "grant_type", "", 400, "invalid_request", "Missing required parameter: grant_type", ""},
		{"other grant", "grant_type", "implicit", 400, "unsupported_grant_type", "implicit", ""},
		{"assertion", "client_assertion", "a.b.c", 401, "invalid_client", "could not be verified", "feccft"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sim := newTenant(t, Config{})
			wantFailure(t, postForm(sim, "/oauth/token", with(machineForm(), c.param, c.value)), c.status, c.code, c.message)
			if c.event == "" {
				if sim.Total() != 0 {
					t.Errorf("event is %v", lastEvent(t, sim))
				}
			} else if e := lastEvent(t, sim); e["type"] != c.event {
				t.Errorf("event is %v", e)
			}
		})
	}
	sim := newTenant(t, Config{})
	wantFailure(t, post(sim, "/oauth/token", "application/json", "[]", nil), 400, "invalid_request", "not a JSON object")
}

func TestPrivateKeyJWT(t *testing.T) {
	key := testKey()
	sim := newTenant(t, Config{PublicKey: &key.PublicKey})
	for _, c := range []struct {
		name, audience string
		expires        time.Duration
		alg            jwa.SignatureAlgorithm
		status         int
	}{
		{"good", "https://demo.eu.auth0.com/", time.Minute, jwa.RS256, 200},
		{"token endpoint", "http://example.com/oauth/token", time.Minute, jwa.RS256, 200},
		{"expired", "https://demo.eu.auth0.com/", -time.Minute, jwa.RS256, 401},
		{"elsewhere", "https://other.auth0.com/", time.Minute, jwa.RS256, 401},
		{"algorithm", "https://demo.eu.auth0.com/", time.Minute, jwa.PS256, 401},
	} {
		token, err := jwt.NewBuilder().Issuer("sim-client").Subject("sim-client").Audience([]string{c.audience}).
			IssuedAt(noon().Add(-time.Hour)).Expiration(noon().Add(c.expires)).Build()
		if err != nil {
			t.Fatal(err)
		}
		signed, err := jwt.Sign(token, jwt.WithKey(c.alg, key))
		if err != nil {
			t.Fatal(err)
		}
		w := postForm(sim, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "audience": {audience},
			"client_assertion_type": {assertionType}, "client_assertion": {string(signed)}})
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
}

func probeForm() url.Values {
	return url.Values{"grant_type": {"password"}, "client_id": {"probe-client"}, "username": {"probe@example.com"}, "password": {"probe-password"}}
}

func realmForm() url.Values {
	return with(with(probeForm(), "grant_type", grantRealm), "realm", "Username-Password-Authentication")
}

func TestPasswordGrant(t *testing.T) {
	sim := newTenant(t, Config{})
	w := postForm(sim, "/oauth/token", with(realmForm(), "scope", "openid offline_access"))
	var a tokenAnswer
	decode(t, w, &a)
	if w.Code != 200 || a.AccessToken == "" || a.IDToken == "" || a.RefreshToken == "" || a.ExpiresIn != 86400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if e := lastEvent(t, sim); e["type"] != "sepft" || e["user_name"] != "probe@example.com" || e["client_id"] != "probe-client" {
		t.Errorf("event is %v", e)
	}
	keys, err := jwk.Parse(get(sim, "/.well-known/jwks.json", "").Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	id, err := jwt.Parse([]byte(a.IDToken), jwt.WithKeySet(keys), jwt.WithAudience("probe-client"),
		jwt.WithIssuer("http://example.com/"), jwt.WithClock(jwt.ClockFunc(noon)))
	if err != nil || id.Subject() != sim.probeUser.id {
		t.Errorf("id token: %v %v", id, err)
	}
	if w := get(sim, "/userinfo", a.AccessToken); w.Code != 200 || !strings.Contains(w.Body.String(), id.Subject()) {
		t.Errorf("userinfo: %d %s", w.Code, w.Body)
	}
	// A login is no right to read logs.
	if w := get(sim, "/api/v2/logs", a.AccessToken); w.Code != 401 {
		t.Errorf("logs: %d %s", w.Code, w.Body)
	}

	w = postForm(sim, "/oauth/token", probeForm())
	a = tokenAnswer{}
	decode(t, w, &a)
	if w.Code != 200 || a.RefreshToken != "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	var doc map[string]any
	decode(t, get(sim, "/.well-known/openid-configuration", ""), &doc)
	if doc["issuer"] != "http://example.com/" || doc["token_endpoint"] != "http://example.com/oauth/token" {
		t.Errorf("discovery is %v", doc)
	}
}

func TestPasswordGrantRefused(t *testing.T) {
	for _, c := range []struct {
		name, param, value string
		cfg                Config
		status             int
		code, message      string
		event              string
		legacyStatus       int
		legacyCode         string
	}{
		{"password", "password", "no", Config{}, 403, "invalid_grant", wrongPassword, "fp", 401, "invalid_user_password"},
		{"user", "username", "who\"\xff", Config{}, 403, "invalid_grant", wrongPassword, "fu", 401, "invalid_user_password"},
		{"client", "client_id", "x", Config{}, 401, "access_denied", "Unauthorized", "fepft", 401, "access_denied"},
		{"machine", "client_id", "sim-client", Config{}, 403, "unauthorized_client", "not allowed", "fepft", 403, "unauthorized_client"},
		{"disabled", "", "", Config{PasswordGrantDisabled: true}, 403, "unauthorized_client", "not allowed", "fepft", 403, "unauthorized_client"},
		{"mfa", "", "", Config{MFARequired: true}, 403, "mfa_required", "Multifactor authentication required", "mfar", 403, "mfa_required"},
		{"leaked", "", "", Config{PasswordLeaked: true}, 401, "password_leaked", "leaked", "pwd_leak", 401, "password_leaked"},
		{"no password", "password", "", Config{}, 400, "invalid_request", "password", "", 400, "invalid_request"},
		{"realm", "realm", "x", Config{}, 400, "invalid_request", "not found", "f", 0, ""},
		{"no realm", "realm", "", Config{}, 400, "invalid_request", "realm", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := func(form url.Values) url.Values {
				if c.param == "" {
					return form
				}
				return with(form, c.param, c.value)
			}
			sim := newTenant(t, c.cfg)
			wantFailure(t, postForm(sim, "/oauth/token", change(realmForm())), c.status, c.code, c.message)
			if c.event == "" {
				if sim.Total() != 0 {
					t.Errorf("event is %v", lastEvent(t, sim))
				}
			} else if e := lastEvent(t, sim); e["type"] != c.event {
				t.Errorf("event is %v", e)
			}
			if c.legacyStatus != 0 {
				sim := newTenant(t, c.cfg)
				form := change(with(probeForm(), "connection", "Username-Password-Authentication"))
				wantFailure(t, postForm(sim, "/oauth/ro", form), c.legacyStatus, c.legacyCode, "")
			}
		})
	}
	sim := newTenant(t, Config{})
	w := postForm(sim, "/oauth/ro", with(probeForm(), "connection", "Username-Password-Authentication"))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"token_type":"bearer"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestBruteForceBlock(t *testing.T) {
	clock := newClock(noon())
	sim := newTenant(t, Config{Now: clock.Now})
	for range 9 {
		wantFailure(t, postForm(sim, "/oauth/token", with(probeForm(), "password", "no")), 403, "invalid_grant", wrongPassword)
	}
	wantFailure(t, postForm(sim, "/oauth/token", with(probeForm(), "password", "no")), 429, "too_many_attempts", "blocked")
	if e := lastEvent(t, sim); e["type"] != "limit_wc" {
		t.Errorf("event is %v", e)
	}
	// Now the right password is no help, and no further event is written.
	wantFailure(t, postForm(sim, "/oauth/token", probeForm()), 429, "too_many_attempts", "blocked")
	if n := sim.Total(); n != 10 {
		t.Errorf("%d events, want 10", n)
	}
	other := post(sim, "/oauth/token", "application/x-www-form-urlencoded", probeForm().Encode(),
		func(r *http.Request) { r.RemoteAddr = "[2001:db8::1]:99" })
	if other.Code != 200 {
		t.Errorf("from another IP: %d %s", other.Code, other.Body)
	}
	clock.advance(blockFor)
	if w := postForm(sim, "/oauth/token", probeForm()); w.Code != 200 {
		t.Errorf("after the block: %d %s", w.Code, w.Body)
	}
}

func TestOutages(t *testing.T) {
	clock := newClock(noon())
	sim := newTenant(t, Config{Now: clock.Now, ProbeOutages: []Outage{
		{From: 10 * time.Second, To: 20 * time.Second}, {From: 30 * time.Second, To: 40 * time.Second, Status: 500}}})
	want := func(status int) {
		t.Helper()
		for _, form := range []url.Values{probeForm(), realmForm()} {
			if w := postForm(sim, "/oauth/token", form); w.Code != status {
				t.Errorf("after %v: %d %s, want %d", clock.Now().Sub(noon()), w.Code, w.Body, status)
			}
		}
	}
	for _, status := range []int{200, 503, 200, 500, 200} {
		want(status)
		clock.advance(10 * time.Second)
	}
	sim.SetProbeOutage(true, 0)
	want(503)
	sim.SetProbeOutage(true, 502)
	want(502)
	if w := postForm(sim, "/oauth/token", machineForm()); w.Code != 200 {
		t.Errorf("client credentials: %d %s", w.Code, w.Body)
	}
	sim.SetProbeOutage(false, 0)
	want(200)
}

func TestTokenChecks(t *testing.T) {
	clock := newClock(noon())
	sim := newTenant(t, Config{Now: clock.Now})
	s := login(t, sim)
	wantFailure(t, get(sim, "/api/v2/logs", ""), 401, "", "Missing authentication")
	wantFailure(t, get(sim, "/api/v2/logs", "x"), 401, "", "Invalid token")

	forge := func(change func(*jwt.Builder)) string {
		b := jwt.NewBuilder().Audience([]string{audience}).Claim("scope", "read:logs").Expiration(clock.Now().Add(time.Hour))
		change(b)
		token, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		return signWith(t, token, sim.keys().key, "sim-key-1")
	}
	if w := get(sim, "/api/v2/logs", forge(func(*jwt.Builder) {})); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantFailure(t, get(sim, "/api/v2/logs", forge(func(b *jwt.Builder) { b.Claim("scope", "read:users") })),
		403, "insufficient_scope", "Insufficient scope, expected any of: read:logs,read:logs_users")
	wantFailure(t, get(sim, "/api/v2/logs", forge(func(b *jwt.Builder) { b.Audience([]string{"x"}) })), 401, "", "Bad audience: x")
	wantFailure(t, get(sim, "/api/v2/logs", s.token[:len(s.token)-6]+"AAAAAA"), 401, "", "Invalid signature")

	sim.RevokeTokens()
	wantFailure(t, s.get("/api/v2/logs"), 401, "", "Invalid signature")
	s = login(t, sim)
	if w := s.get("/api/v2/logs"); w.Code != 200 {
		t.Errorf("with a new token: %d %s", w.Code, w.Body)
	}
	clock.advance(24 * time.Hour)
	w := s.get("/api/v2/logs")
	const want = `{"statusCode":401,"error":"Unauthorized","message":"Expired token received for JSON Web Token validation",` +
		`"attributes":{"error":"Expired token received for JSON Web Token validation"}}`
	if w.Body.String() != want {
		t.Errorf("%s, want %s", w.Body, want)
	}
}

func signWith(t *testing.T, token jwt.Token, key *rsa.PrivateKey, id string) string {
	t.Helper()
	k, err := jwk.FromRaw(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Set(jwk.KeyIDKey, id); err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.RS256, k))
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}
