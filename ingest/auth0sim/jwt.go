package auth0sim

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// signer holds the tenant's key. The key's id changes with RevokeTokens.
type signer struct{ key *rsa.PrivateKey }

func newSigner(key *rsa.PrivateKey) signer {
	if key == nil {
		var err error
		if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			// crypto/rand never fails.
			panic(err)
		}
	}
	return signer{key}
}

// with returns a key as a JWK. epoch is the number of revocations before it.
func (s signer) with(key any, epoch int) jwk.Key {
	webKey, err := jwk.FromRaw(key)
	if err == nil {
		err = errors.Join(
			webKey.Set(jwk.KeyIDKey, fmt.Sprintf("sim-key-%d", epoch+1)),
			webKey.Set(jwk.AlgorithmKey, jwa.RS256),
			webKey.Set(jwk.KeyUsageKey, "sig"),
		)
	}
	if err != nil {
		// An RSA key always has this form.
		panic(err)
	}
	return webKey
}

func (t *Tenant) epoch() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keyEpoch
}

// published returns the set of keys that tokens are verified with.
func (t *Tenant) published() jwk.Set {
	signer := t.keys()
	set := jwk.NewSet()
	if err := set.AddKey(signer.with(signer.key.Public(), t.epoch())); err != nil {
		// The set is empty.
		panic(err)
	}
	return set
}

// sign returns an access token or an id token.
func (t *Tenant) sign(r *http.Request, subject, audience string, claims map[string]any) string {
	now := t.clock()
	builder := jwt.NewBuilder().
		Issuer(baseURL(r) + "/").
		Subject(subject).
		Audience([]string{audience}).
		IssuedAt(now).
		Expiration(now.Add(t.cfg.TokenLifetime)).
		JwtID(nonce())
	for name, value := range claims {
		builder = builder.Claim(name, value)
	}
	token, err := builder.Build()
	if err != nil {
		// All claims are plain values.
		panic(err)
	}

	signer := t.keys()

	signed, err := jwt.Sign(token, jwt.WithKey(jwa.RS256, signer.with(signer.key, t.epoch())))
	if err != nil {
		// The key is an RSA key.
		panic(err)
	}
	return string(signed)
}

// idToken returns an id token of the probe's user.
func (t *Tenant) idToken(r *http.Request) string {
	return t.sign(r, t.probeUser.id, t.cfg.ProbeClientID, map[string]any{
		"email": t.cfg.Username, "email_verified": true, "name": t.cfg.Username})
}

// nonce returns a text with at least 128 random bits.
func nonce() string { return rand.Text() }

// bearer returns the valid token of a request, or the message of a 401.
func (t *Tenant) bearer(r *http.Request) (jwt.Token, string) {
	kind, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if kind == "" {
		return nil, "Missing authentication"
	}
	if !strings.EqualFold(kind, "bearer") {
		return nil, "Invalid token"
	}

	token, problem := t.verified(raw)
	if problem != "" {
		return nil, problem
	}

	// The expiry is checked at each call, the signature only once.
	err := jwt.Validate(token, jwt.WithClock(jwt.ClockFunc(t.clock)))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired()):
		return nil, "Expired token received for JSON Web Token validation"
	case err != nil:
		return nil, "Invalid token"
	}
	return token, ""
}

// verified returns the token of a text with a valid signature, or the message of a
// 401. The last one is cached, since a client sends the same token in each call.
func (t *Tenant) verified(raw string) (jwt.Token, string) {
	epoch := t.epoch()
	t.mu.Lock()
	last := t.lastToken
	t.mu.Unlock()
	if last.raw == raw && last.epoch == epoch {
		return last.token, ""
	}

	// Text that is not a token gets another message than a wrong signature.
	if _, err := jwt.ParseInsecure([]byte(raw)); err != nil {
		return nil, "Invalid token"
	}

	token, err := jwt.Parse([]byte(raw), jwt.WithKeySet(t.published()), jwt.WithValidate(false))
	if err != nil {
		return nil, "Invalid signature received for JSON Web Token validation"
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastToken = verifiedToken{raw, epoch, token}
	return token, ""
}

// verifiedToken is a token signed with the key of an epoch.
type verifiedToken struct {
	raw   string
	epoch int
	token jwt.Token
}

// authorized calls a handler if the request has a token with one of the scopes.
func (t *Tenant) authorized(h http.HandlerFunc, scopes ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, problem := t.bearer(r)
		if problem != "" {
			apiFail(w, http.StatusUnauthorized, "", problem)
			return
		}

		if !slices.ContainsFunc(token.Audience(), func(a string) bool { return t.managementAudience(r, a) }) {
			apiFail(w, http.StatusUnauthorized, "", "Bad audience: "+strings.Join(token.Audience(), " "))
			return
		}

		scope, _ := token.Get("scope")
		text, _ := scope.(string)

		if !slices.ContainsFunc(strings.Fields(text), func(s string) bool { return slices.Contains(scopes, s) }) {
			failAs(w, r.URL.Path, http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

// userinfo serves GET /userinfo: the profile of the probe's user.
func (t *Tenant) userinfo(w http.ResponseWriter, r *http.Request) {
	token, problem := t.bearer(r)

	// A machine's token is valid but has no profile.
	if problem != "" || token.Subject() != t.probeUser.id {
		w.Header().Set("WWW-Authenticate", "Bearer")
		writeBody(w, http.StatusUnauthorized, "text/plain; charset=utf-8", []byte("Unauthorized"))
		return
	}
	writeJSON(w, http.StatusOK, managementJSON, map[string]any{
		"sub": t.probeUser.id, "name": t.cfg.Username, "email": t.cfg.Username, "email_verified": true})
}

// jwks serves GET /.well-known/jwks.json.
func (t *Tenant) jwks(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(t.published())
	if err != nil {
		// A set of one public key.
		panic(err)
	}
	writeBody(w, http.StatusOK, managementJSON, body)
}

// discovery serves GET /.well-known/openid-configuration.
func (t *Tenant) discovery(w http.ResponseWriter, r *http.Request) {
	base := baseURL(r)
	writeJSON(w, http.StatusOK, managementJSON, map[string]any{
		"issuer":                                base + "/",
		"token_endpoint":                        base + "/oauth/token",
		"userinfo_endpoint":                     base + "/userinfo",
		"jwks_uri":                              base + "/.well-known/jwks.json",
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"response_types_supported":              []string{"token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"token_endpoint_auth_methods_supported": []string{
			"client_secret_basic", "client_secret_post", "private_key_jwt",
		},
	})
}

// verifyAssertion returns the client of a valid private_key_jwt assertion.
func verifyAssertion(raw string, key *rsa.PublicKey, client string, now time.Time, hosts []string) (string, error) {
	token, err := jwt.Parse([]byte(raw), jwt.WithKey(jwa.RS256, key), jwt.WithValidate(true),
		jwt.WithClock(jwt.ClockFunc(func() time.Time { return now })),
		jwt.WithIssuer(client), jwt.WithSubject(client), jwt.WithRequiredClaim(jwt.ExpirationKey))
	if err != nil {
		return "", err
	}

	// The audience is the tenant or its token endpoint, with or without a scheme.
	for _, audience := range token.Audience() {
		audience = strings.TrimPrefix(strings.TrimPrefix(audience, "https://"), "http://")
		for _, host := range hosts {
			if audience == host || audience == host+"/" || audience == host+"/oauth/token" {
				return client, nil
			}
		}
	}
	return "", errors.New("the assertion has another audience")
}
