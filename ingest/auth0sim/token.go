package auth0sim

import (
	"cmp"
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

// maxFailures wrong passwords for one user from one IP block that pair, until blockFor
// has passed since the last of them.
const (
	maxFailures = 10
	blockFor    = 30 * 24 * time.Hour
)

// attempt is a user name and the address that tried it.
type attempt struct{ user, ip string }

// failures are the wrong passwords of an attempt.
type failures struct {
	count int
	last  int64 // µs
}

// token serves POST /oauth/token.
func (t *Tenant) token(w http.ResponseWriter, r *http.Request) {
	query, err := tokenParams(r)
	if err != nil {
		oauthFail(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	switch grant := query.Get("grant_type"); grant {
	case grantMachine:
		t.machineGrant(w, r, query)
	case grantPassword, grantRealm:
		t.passwordGrant(w, r, query)
	case "":
		missing(w, "grant_type")
	default:
		oauthFail(w, http.StatusBadRequest, "unsupported_grant_type", "Unsupported grant type: "+grant)
	}
}

// missing answers that a parameter is missing.
func missing(w http.ResponseWriter, name string) {
	oauthFail(w, http.StatusBadRequest, "invalid_request", "Missing required parameter: "+name)
}

// tokenParams reads the parameters from a form or a JSON object. Basic authentication
// sets client_id and client_secret.
func tokenParams(r *http.Request) (url.Values, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxTokenBody))
	if err != nil {
		return nil, errors.New("the body cannot be read")
	}

	var q url.Values
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		var members map[string]any
		if err := json.Unmarshal(body, &members); err != nil {
			return nil, errors.New("the body is not a JSON object")
		}
		q = make(url.Values)
		for name, value := range members {
			if text, ok := value.(string); ok {
				q.Set(name, text)
			}
		}
	} else if q, err = url.ParseQuery(string(body)); err != nil {
		return nil, errors.New("the body is not a form")
	}

	if id, secret, ok := r.BasicAuth(); ok {
		// In RFC 6749, both are form-encoded inside Basic.
		for name, value := range map[string]string{"client_id": id, "client_secret": secret} {
			if plain, err := url.QueryUnescape(value); err == nil {
				value = plain
			}
			q.Set(name, value)
		}
	}
	return q, nil
}

// tokenAnswer is the response with a token.
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	IDToken      string `json:"id_token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
	ExpiresIn    int    `json:"expires_in"`
	TokenType    string `json:"token_type"`
}

// machineGrant serves the client credentials grant. It writes seccft or feccft.
func (t *Tenant) machineGrant(w http.ResponseWriter, r *http.Request, query url.Values) {
	id, audience := query.Get("client_id"), query.Get("audience")

	// A refusal is an event of the client.
	fail := func(status int, code, message string) {
		t.recordToken(r, query, "feccft", func(s *scene) { s.message = escaped(message) })
		oauthFail(w, status, code, message)
	}

	// The client: by an assertion, which names it, or by its id and secret.
	switch {
	case query.Get("client_assertion") != "":
		subject, err := t.checkAssertion(r, query)
		if err != nil || id != "" && id != subject {
			fail(http.StatusUnauthorized, "invalid_client", "Client assertion could not be verified.")
			return
		}
		query.Set("client_id", subject)
	case id == "":
		missing(w, "client_id")
		return
	case id == t.cfg.ProbeClientID:
		fail(http.StatusForbidden, "unauthorized_client",
			"Grant type 'client_credentials' not allowed for the client.")
		return
	case id != t.cfg.ClientID || query.Get("client_secret") != t.cfg.ClientSecret:
		fail(http.StatusUnauthorized, "access_denied", "Unauthorized")
		return
	}

	switch {
	case audience == "":
		fail(http.StatusForbidden, "access_denied",
			"No audience parameter was provided, and no default audience has been configured")
		return
	case !t.managementAudience(r, audience):
		fail(http.StatusForbidden, "access_denied", "Service not found: "+audience)
		return
	}

	scope := granted(query.Get("scope"), t.cfg.Scopes)
	access := t.sign(r, t.cfg.ClientID+"@clients", audience, map[string]any{
		"azp": t.cfg.ClientID, "gty": "client-credentials", "scope": scope})
	t.recordToken(r, query, "seccft", func(s *scene) { s.scope = escaped(scope) })
	writeJSON(w, http.StatusOK, authenticationJSON, tokenAnswer{
		AccessToken: access,
		Scope:       scope,
		ExpiresIn:   int(t.cfg.TokenLifetime / time.Second),
		TokenType:   "Bearer",
	})
}

// checkAssertion returns the client of a valid private_key_jwt assertion.
func (t *Tenant) checkAssertion(r *http.Request, query url.Values) (string, error) {
	if query.Get("client_assertion_type") != assertionType {
		return "", errors.New("unknown client_assertion_type")
	}
	if t.cfg.PublicKey == nil {
		return "", errors.New("the client has no key")
	}
	return verifyAssertion(query.Get("client_assertion"), t.cfg.PublicKey, t.cfg.ClientID, t.clock(), t.hosts(r))
}

// hosts returns the names of this tenant in a request.
func (t *Tenant) hosts(r *http.Request) []string { return []string{t.cfg.Domain, r.Host} }

// managementAudience reports whether an audience is this tenant's Management API. http
// is accepted, too, since the simulation may run without TLS.
func (t *Tenant) managementAudience(r *http.Request, audience string) bool {
	for _, host := range t.hosts(r) {
		if audience == "https://"+host+"/api/v2/" || audience == "http://"+host+"/api/v2/" {
			return true
		}
	}
	return false
}

// granted returns the requested scopes that are allowed; all allowed ones if none is
// requested.
func granted(requested string, allowed []string) string {
	if requested == "" {
		return strings.Join(allowed, " ")
	}
	var list []string
	for _, scope := range strings.Fields(requested) {
		if slices.Contains(allowed, scope) {
			list = append(list, scope)
		}
	}
	return strings.Join(list, " ")
}

// refusal is the reason of a failed password login.
type refusal struct {
	status          int
	code, message   string
	legacy          int    // status at /oauth/ro, 0 = the same
	legacyCode      string // error at /oauth/ro, "" = the same
	event, mfaToken string
}

// passwordGrant serves both password grants. It writes sepft, or login writes the event
// of a failure.
func (t *Tenant) passwordGrant(w http.ResponseWriter, r *http.Request, query url.Values) {
	required := []string{"client_id", "username", "password"}
	if query.Get("grant_type") == grantRealm {
		required = append(required, "realm")
	}

	for _, name := range required {
		if query.Get(name) == "" {
			missing(w, name)
			return
		}
	}
	if status := t.outageStatus(); status != 0 {
		failAs(w, r.URL.Path, status)
		return
	}
	if refused := t.login(r, query, query.Get("realm")); refused != nil {
		failure := oauthFailure{refused.code, refused.message, refused.mfaToken}
		writeJSON(w, refused.status, authenticationJSON, failure)
		return
	}

	audience := cmp.Or(query.Get("audience"), baseURL(r)+"/userinfo")
	scope := cmp.Or(query.Get("scope"), "openid profile email")
	answer := tokenAnswer{
		Scope:     scope,
		ExpiresIn: int(t.cfg.TokenLifetime / time.Second),
		TokenType: "Bearer",
		AccessToken: t.sign(r, t.probeUser.id, audience, map[string]any{
			"azp": t.cfg.ProbeClientID, "gty": "password", "scope": scope}),
	}

	// Two scopes ask for further tokens.
	requested := strings.Fields(scope)
	if slices.Contains(requested, "openid") {
		answer.IDToken = t.idToken(r)
	}
	if slices.Contains(requested, "offline_access") {
		answer.RefreshToken = "v1." + nonce()
	}

	t.recordToken(r, query, "sepft", func(s *scene) {
		s.user, s.audience, s.scope = t.probeUser, escaped(audience), escaped(scope)
	})
	writeJSON(w, http.StatusOK, authenticationJSON, answer)
}

// resourceOwner serves the legacy POST /oauth/ro, whose errors have other names. The
// events that it writes are modeled.
func (t *Tenant) resourceOwner(w http.ResponseWriter, r *http.Request) {
	query, err := tokenParams(r)
	if err != nil {
		oauthFail(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}

	for _, name := range []string{"client_id", "username", "password", "connection"} {
		if query.Get(name) == "" {
			oauthFail(w, http.StatusBadRequest, "invalid_request", "missing "+name+" parameter")
			return
		}
	}
	if grant := query.Get("grant_type"); grant != "" && grant != grantPassword {
		oauthFail(w, http.StatusBadRequest, "invalid_request", "grant_type is not supported")
		return
	}

	if status := t.outageStatus(); status != 0 {
		failAs(w, r.URL.Path, status)
		return
	}
	if refused := t.login(r, query, query.Get("connection")); refused != nil {
		status, code := cmp.Or(refused.legacy, refused.status), cmp.Or(refused.legacyCode, refused.code)
		oauthFail(w, status, code, refused.message)
		return
	}

	// The legacy endpoint has no audience.
	access := t.sign(r, t.probeUser.id, baseURL(r)+"/userinfo", map[string]any{
		"azp": t.cfg.ProbeClientID, "gty": "password", "scope": "openid profile email"})
	t.recordToken(r, query, "s", func(s *scene) { s.user = t.probeUser })
	writeJSON(w, http.StatusOK, authenticationJSON, struct {
		IDToken     string `json:"id_token"`
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}{t.idToken(r), access, "bearer"})
}

// login checks a password and writes the event of a failure. Realm "" is the default
// directory. The precedence of several errors is modeled.
func (t *Tenant) login(r *http.Request, query url.Values, realm string) *refusal {
	who := attempt{escaped(query.Get("username")), clientIP(r)}
	known := query.Get("username") == t.cfg.Username
	refused := t.checkLogin(query, realm, who, known)
	if refused == nil || refused.event == "" {
		return refused
	}

	t.recordToken(r, query, refused.event, func(s *scene) {
		s.user = user{name: who.user, email: who.user, conn: t.probeUser.conn}
		if known {
			s.user = t.probeUser
		}
		switch refused.event {
		case "f", "fepft":
			s.message, s.oauthError = escaped(refused.message), refused.code
		}
	})
	return refused
}

// checkLogin checks the client, the connection and the password of a login.
func (t *Tenant) checkLogin(query url.Values, realm string, who attempt, known bool) *refusal {
	id := query.Get("client_id")
	switch {
	case id == t.cfg.ClientID && id != t.cfg.ProbeClientID, id == t.cfg.ProbeClientID && t.cfg.PasswordGrantDisabled:
		return &refusal{status: 403, code: "unauthorized_client", event: "fepft",
			message: "Grant type '" + query.Get("grant_type") + "' not allowed for the client."}
	case id != t.cfg.ProbeClientID:
		return &refusal{status: 401, code: "access_denied", message: "Unauthorized", event: "fepft"}
	case realm != "" && realm != t.cfg.Realm:
		return &refusal{status: 400, code: "invalid_request", message: "the connection was not found", event: "f"}
	}

	if refused := t.checkPassword(who, known, known && query.Get("password") == t.cfg.Password); refused != nil {
		return refused
	}
	switch {
	case t.cfg.PasswordLeaked:
		return &refusal{status: 401, code: "password_leaked", event: "pwd_leak",
			message: "This login has been blocked because your password has been leaked in another website."}
	case t.cfg.MFARequired:
		return &refusal{status: 403, code: "mfa_required", event: "mfar",
			message:  "Multifactor authentication required",
			mfaToken: "Fe26.2*SERVER_1234*" + nonce()}
	}
	return nil
}

// checkPassword counts wrong passwords and blocks the attempt after too many. A correct
// password during the block is refused, too.
func (t *Tenant) checkPassword(who attempt, known, correct bool) *refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	past := t.failures[who]
	if past.count >= maxFailures && now-past.last < blockFor.Microseconds() {
		return &refusal{status: 429, code: "too_many_attempts", message: blockedMessage}
	}
	if correct {
		delete(t.failures, who)
		return nil
	}

	// The event of the last failure is the block that it causes.
	past = failures{past.count%maxFailures + 1, now}
	t.failures[who] = past
	if past.count == maxFailures {
		return &refusal{status: 429, code: "too_many_attempts", message: blockedMessage, event: "limit_wc"}
	}
	event := "fp"
	if !known {
		event = "fu"
	}
	return &refusal{status: 403, code: "invalid_grant", message: wrongPassword,
		legacy: 401, legacyCode: "invalid_user_password", event: event}
}

// outageStatus returns the status that password grants fail with now, 0 if they do not.
func (t *Tenant) outageStatus() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := time.UnixMicro(t.now()).Sub(t.cfg.Anchor)

	// SetProbeOutage overrides the configuration.
	if t.outage != nil {
		return cmp.Or(*t.outage, http.StatusServiceUnavailable)
	}
	for _, outage := range t.cfg.ProbeOutages {
		if outage.From <= since && since < outage.To {
			return cmp.Or(outage.Status, http.StatusServiceUnavailable)
		}
	}
	return 0
}

// recordToken writes the event of a token call.
func (t *Tenant) recordToken(r *http.Request, query url.Values, code string, change func(*scene)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record(code, func(s *scene) {
		s.ip = clientIP(r)

		name := "Unknown"
		switch query.Get("client_id") {
		case t.cfg.ClientID:
			name = "Log Export"
		case t.cfg.ProbeClientID:
			name = "Login Probe"
		}

		s.client = &client{id: escaped(query.Get("client_id")), name: name}
		s.agent = &agent{parsed: "Other 0.0.0 / Other 0.0.0", raw: escaped(r.UserAgent())}
		if audience := query.Get("audience"); audience != "" {
			s.audience = escaped(audience)
		}
		s.scope = escaped(query.Get("scope"))
		change(s)
	})
}
