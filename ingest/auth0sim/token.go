package auth0sim

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	grantMachine   = "client_credentials"
	grantPassword  = "password"
	grantRealm     = "http://auth0.com/oauth/grant-type/password-realm"
	assertionType  = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	maxTokenBody   = 1 << 20
	wrongPassword  = "Wrong email or password."
	blockedMessage = "Your account has been blocked after multiple consecutive login attempts."
)

// maxFailures wrong passwords of one user from one IP block that pair, until
// blockFor has passed since the last of them.
const (
	maxFailures = 10
	blockFor    = 30 * 24 * time.Hour
)

type attempt struct{ user, ip string }

type failures struct {
	n    int
	last int64 // µs
}

// token serves POST /oauth/token.
func (t *Tenant) token(w http.ResponseWriter, r *http.Request) {
	q, err := tokenParams(r)
	if err != nil {
		oauthFail(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	switch grant := q.Get("grant_type"); grant {
	case grantMachine:
		t.machineGrant(w, r, q)
	case grantPassword, grantRealm:
		t.passwordGrant(w, r, q)
	case "":
		missing(w, "grant_type")
	default:
		oauthFail(w, http.StatusBadRequest, "unsupported_grant_type", "Unsupported grant type: "+grant)
	}
}

func missing(w http.ResponseWriter, name string) {
	oauthFail(w, http.StatusBadRequest, "invalid_request", "Missing required parameter: "+name)
}

// tokenParams reads a form or a JSON object. Basic authentication becomes
// client_id and client_secret.
func tokenParams(r *http.Request) (url.Values, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxTokenBody))
	if err != nil {
		return nil, errors.New("the body cannot be read")
	}
	var q url.Values
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		var members map[string]any
		if err := json.Unmarshal(body, &members); err != nil {
			return nil, errors.New("the body is no JSON object")
		}
		q = make(url.Values)
		for name, v := range members {
			if s, ok := v.(string); ok {
				q.Set(name, s)
			}
		}
	} else if q, err = url.ParseQuery(string(body)); err != nil {
		return nil, errors.New("the body is no form")
	}
	if id, secret, ok := r.BasicAuth(); ok {
		// RFC 6749 has both form-encoded inside Basic.
		for name, v := range map[string]string{"client_id": id, "client_secret": secret} {
			if plain, err := url.QueryUnescape(v); err == nil {
				v = plain
			}
			q.Set(name, v)
		}
	}
	return q, nil
}

type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	IDToken      string `json:"id_token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
	ExpiresIn    int    `json:"expires_in"`
	TokenType    string `json:"token_type"`
}

// machineGrant serves the client credentials grant: seccft or feccft.
func (t *Tenant) machineGrant(w http.ResponseWriter, r *http.Request, q url.Values) {
	id, audience := q.Get("client_id"), q.Get("audience")
	fail := func(status int, code, message string) {
		t.recordToken(r, q, "feccft", func(s *scene) { s.message = escaped(message) })
		oauthFail(w, status, code, message)
	}
	if q.Get("client_assertion") != "" {
		// The assertion names the client; client_id may be left out.
		sub, err := t.checkAssertion(r, q)
		if err != nil || id != "" && id != sub {
			fail(http.StatusUnauthorized, "invalid_client", "Client assertion could not be verified.")
			return
		}
		q.Set("client_id", sub)
	} else {
		switch {
		case id == "":
			missing(w, "client_id")
			return
		case id == t.cfg.ProbeClientID:
			fail(http.StatusForbidden, "unauthorized_client", "Grant type 'client_credentials' not allowed for the client.")
			return
		case id != t.cfg.ClientID || q.Get("client_secret") != t.cfg.ClientSecret:
			fail(http.StatusUnauthorized, "access_denied", "Unauthorized")
			return
		}
	}
	switch {
	case audience == "":
		fail(http.StatusForbidden, "access_denied", "No audience parameter was provided, and no default audience has been configured")
		return
	case !t.managementAudience(r, audience):
		fail(http.StatusForbidden, "access_denied", "Service not found: "+audience)
		return
	}
	scope := granted(q.Get("scope"), t.cfg.Scopes)
	access := t.sign(r, t.cfg.ClientID+"@clients", audience, map[string]any{
		"azp": t.cfg.ClientID, "gty": "client-credentials", "scope": scope})
	t.recordToken(r, q, "seccft", func(s *scene) { s.scope = escaped(scope) })
	writeJSON(w, http.StatusOK, authenticationJSON, tokenAnswer{AccessToken: access, Scope: scope,
		ExpiresIn: int(t.cfg.TokenLifetime / time.Second), TokenType: "Bearer"})
}

// checkAssertion is the client that a private_key_jwt assertion proves.
func (t *Tenant) checkAssertion(r *http.Request, q url.Values) (string, error) {
	if q.Get("client_assertion_type") != assertionType {
		return "", errors.New("unknown client_assertion_type")
	}
	if t.cfg.PublicKey == nil {
		return "", errors.New("the client has no key")
	}
	return verifyAssertion(q.Get("client_assertion"), t.cfg.PublicKey, t.cfg.ClientID, t.clock(), t.hosts(r))
}

// hosts are the names under which the request may mean this tenant.
func (t *Tenant) hosts(r *http.Request) []string { return []string{t.cfg.Domain, r.Host} }

// managementAudience says whether the audience is this tenant's Management API.
// http is accepted as well, since the simulation may run without TLS.
func (t *Tenant) managementAudience(r *http.Request, audience string) bool {
	for _, host := range t.hosts(r) {
		if audience == "https://"+host+"/api/v2/" || audience == "http://"+host+"/api/v2/" {
			return true
		}
	}
	return false
}

// granted is what of the asked scopes may be given; all if none is asked for.
func granted(asked string, allowed []string) string {
	if asked == "" {
		return strings.Join(allowed, " ")
	}
	var out []string
	for _, s := range strings.Fields(asked) {
		if slices.Contains(allowed, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

// A refusal is why a password login failed.
type refusal struct {
	status          int
	code, message   string
	legacy          int    // status at /oauth/ro, 0 = the same
	legacyCode      string // error at /oauth/ro, "" = the same
	event, mfaToken string
}

// passwordGrant serves both password grants: sepft, or what login has written.
func (t *Tenant) passwordGrant(w http.ResponseWriter, r *http.Request, q url.Values) {
	required := []string{"client_id", "username", "password"}
	if q.Get("grant_type") == grantRealm {
		required = append(required, "realm")
	}
	for _, name := range required {
		if q.Get(name) == "" {
			missing(w, name)
			return
		}
	}
	if status := t.outageStatus(); status != 0 {
		failAs(w, r.URL.Path, status)
		return
	}
	if no := t.login(r, q, q.Get("realm")); no != nil {
		writeJSON(w, no.status, authenticationJSON, oauthFailure{no.code, no.message, no.mfaToken})
		return
	}
	audience := q.Get("audience")
	if audience == "" {
		audience = baseURL(r) + "/userinfo"
	}
	scope := q.Get("scope")
	if scope == "" {
		scope = "openid profile email"
	}
	asked := strings.Fields(scope)
	answer := tokenAnswer{Scope: scope, ExpiresIn: int(t.cfg.TokenLifetime / time.Second), TokenType: "Bearer",
		AccessToken: t.sign(r, t.probeUser.id, audience, map[string]any{
			"azp": t.cfg.ProbeClientID, "gty": "password", "scope": scope})}
	if slices.Contains(asked, "openid") {
		answer.IDToken = t.idToken(r)
	}
	if slices.Contains(asked, "offline_access") {
		answer.RefreshToken = "v1." + nonce()
	}
	t.recordToken(r, q, "sepft", func(s *scene) {
		s.user, s.audience, s.scope = t.probeUser, escaped(audience), escaped(scope)
	})
	writeJSON(w, http.StatusOK, authenticationJSON, answer)
}

// resourceOwner serves the legacy POST /oauth/ro, whose errors have other names.
// Which events it writes is modelled.
func (t *Tenant) resourceOwner(w http.ResponseWriter, r *http.Request) {
	q, err := tokenParams(r)
	if err != nil {
		oauthFail(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	for _, name := range []string{"client_id", "username", "password", "connection"} {
		if q.Get(name) == "" {
			oauthFail(w, http.StatusBadRequest, "invalid_request", "missing "+name+" parameter")
			return
		}
	}
	if grant := q.Get("grant_type"); grant != "" && grant != grantPassword {
		oauthFail(w, http.StatusBadRequest, "invalid_request", "grant_type is not supported")
		return
	}
	if status := t.outageStatus(); status != 0 {
		failAs(w, r.URL.Path, status)
		return
	}
	if no := t.login(r, q, q.Get("connection")); no != nil {
		if no.legacy != 0 {
			no.status = no.legacy
		}
		if no.legacyCode != "" {
			no.code = no.legacyCode
		}
		oauthFail(w, no.status, no.code, no.message)
		return
	}
	access := t.sign(r, t.probeUser.id, baseURL(r)+"/userinfo", map[string]any{
		"azp": t.cfg.ProbeClientID, "gty": "password", "scope": "openid profile email"})
	t.recordToken(r, q, "s", func(s *scene) { s.user = t.probeUser })
	writeJSON(w, http.StatusOK, authenticationJSON, struct {
		IDToken     string `json:"id_token"`
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}{t.idToken(r), access, "bearer"})
}

// login checks a password and writes the event of a failure. Realm "" is the
// default directory. Which error wins where several apply is modelled.
func (t *Tenant) login(r *http.Request, q url.Values, realm string) *refusal {
	who := attempt{escaped(q.Get("username")), clientIP(r)}
	known := q.Get("username") == t.cfg.Username
	no := t.judge(q, realm, who, known)
	if no == nil || no.event == "" {
		return no
	}
	t.recordToken(r, q, no.event, func(s *scene) {
		s.user = user{name: who.user, email: who.user, conn: t.probeUser.conn}
		if known {
			s.user = t.probeUser
		}
		switch no.event {
		case "f", "fepft":
			s.message, s.oauthError = escaped(no.message), no.code
		}
	})
	return no
}

func (t *Tenant) judge(q url.Values, realm string, who attempt, known bool) *refusal {
	if q.Get("client_id") != t.cfg.ProbeClientID {
		if q.Get("client_id") == t.cfg.ClientID {
			return &refusal{status: 403, code: "unauthorized_client", event: "fepft",
				message: "Grant type '" + q.Get("grant_type") + "' not allowed for the client."}
		}
		return &refusal{status: 401, code: "access_denied", message: "Unauthorized", event: "fepft"}
	}
	if t.cfg.PasswordGrantDisabled {
		return &refusal{status: 403, code: "unauthorized_client", event: "fepft",
			message: "Grant type '" + q.Get("grant_type") + "' not allowed for the client."}
	}
	if realm != "" && realm != t.cfg.Realm {
		return &refusal{status: 400, code: "invalid_request", message: "the connection was not found", event: "f"}
	}

	right := known && q.Get("password") == t.cfg.Password
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	f := t.failures[who]
	if f.n >= maxFailures && now-f.last < blockFor.Microseconds() {
		return &refusal{status: 429, code: "too_many_attempts", message: blockedMessage}
	}
	if !right {
		// The tenth failure is told as the block that it causes.
		f = failures{f.n%maxFailures + 1, now}
		t.failures[who] = f
		if f.n == maxFailures {
			return &refusal{status: 429, code: "too_many_attempts", message: blockedMessage, event: "limit_wc"}
		}
		event := "fp"
		if !known {
			event = "fu"
		}
		return &refusal{status: 403, code: "invalid_grant", message: wrongPassword,
			legacy: 401, legacyCode: "invalid_user_password", event: event}
	}
	delete(t.failures, who)
	switch {
	case t.cfg.PasswordLeaked:
		return &refusal{status: 401, code: "password_leaked", event: "pwd_leak",
			message: "This login has been blocked because your password has been leaked in another website."}
	case t.cfg.MFARequired:
		return &refusal{status: 403, code: "mfa_required", message: "Multifactor authentication required", event: "mfar",
			mfaToken: "Fe26.2*SERVER_1234*" + nonce()}
	}
	return nil
}

// outageStatus is the status password grants fail with now, 0 if they do not.
func (t *Tenant) outageStatus() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := time.UnixMicro(t.now()).Sub(t.cfg.Anchor)
	status := -1
	if t.outage != nil {
		status = *t.outage
	} else if i := slices.IndexFunc(t.cfg.ProbeOutages, func(o Outage) bool { return o.From <= since && since < o.To }); i >= 0 {
		status = t.cfg.ProbeOutages[i].Status
	}
	switch status {
	case -1:
		return 0
	case 0:
		return http.StatusServiceUnavailable
	}
	return status
}

// recordToken writes the event of a token call.
func (t *Tenant) recordToken(r *http.Request, q url.Values, code string, change func(*scene)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record(code, func(s *scene) {
		s.ip = clientIP(r)
		name := "Unknown"
		switch q.Get("client_id") {
		case t.cfg.ClientID:
			name = "Log Export"
		case t.cfg.ProbeClientID:
			name = "Login Probe"
		}
		s.client = &client{id: escaped(q.Get("client_id")), name: name}
		s.agent = &agent{parsed: "Other 0.0.0 / Other 0.0.0", raw: escaped(r.UserAgent())}
		if a := q.Get("audience"); a != "" {
			s.audience = escaped(a)
		}
		s.scope = escaped(q.Get("scope"))
		change(s)
	})
}
