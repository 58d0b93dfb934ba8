package auth0

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"
)

// tokens fetches access tokens with a client secret. A refused call is made once for
// all waiting callers. x/oauth2 would repeat it with the secret in another place, for
// each of them.
type tokens struct {
	ctx context.Context // carries the HTTP client
	cfg clientcredentials.Config

	calls singleflight.Group

	mu   sync.Mutex // guards last and cfg.AuthStyle
	last *oauth2.Token
}

func newTokens(client *http.Client, cfg Config) *tokens {
	return &tokens{
		ctx: context.WithValue(context.Background(), oauth2.HTTPClient, client),
		cfg: clientcredentials.Config{
			ClientID:       cfg.ClientID,
			ClientSecret:   cfg.ClientSecret,
			TokenURL:       "https://" + cfg.BaseURL.Host + pathToken,
			EndpointParams: url.Values{"audience": {cfg.Audience}},
			AuthStyle:      oauth2.AuthStyleInParams, // the default of a new application
		},
	}
}

// token returns the current token, or a new one.
func (t *tokens) token() (*oauth2.Token, error) {
	t.mu.Lock()
	last := t.last
	t.mu.Unlock()
	if last.Valid() {
		return last, nil
	}

	// Callers that come during the call share its result.
	fetched, err, _ := t.calls.Do("", func() (any, error) { return t.fetch() })
	if err != nil {
		return nil, err
	}
	return fetched.(*oauth2.Token), nil
}

// fetch fetches a new token.
func (t *tokens) fetch() (*oauth2.Token, error) {
	t.mu.Lock()
	cfg := t.cfg
	t.mu.Unlock()

	// Without the lock: the call may take a minute.
	token, err := cfg.Token(t.ctx)

	t.mu.Lock()
	defer t.mu.Unlock()
	var refused *oauth2.RetrieveError
	switch {
	case err == nil:
		t.last = token
	case errors.As(err, &refused) && refused.Response.StatusCode == http.StatusUnauthorized:
		// The application may expect its secret in the other place: try that in the
		// next call.
		t.cfg.AuthStyle = oauth2.AuthStyleInParams
		if cfg.AuthStyle == oauth2.AuthStyleInParams {
			t.cfg.AuthStyle = oauth2.AuthStyleInHeader
		}
	}
	return token, err
}

// authorized adds the token to each request.
type authorized struct {
	http.RoundTripper
	tokens *tokens
}

// RoundTrip implements http.RoundTripper.
func (a authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := a.tokens.token()
	if err != nil {
		return nil, err
	}

	// A RoundTripper must not change the request.
	r = r.Clone(r.Context())
	token.SetAuthHeader(r)
	return a.RoundTripper.RoundTrip(r)
}
