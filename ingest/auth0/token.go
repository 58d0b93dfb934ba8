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

// tokens gets access tokens with a client secret. A refused call is made once,
// whoever waits for it: x/oauth2 by itself would repeat it with the secret in
// another place, and so would each waiting caller.
type tokens struct {
	ctx context.Context // has the HTTP client
	cfg clientcredentials.Config

	calls singleflight.Group

	mu   sync.Mutex // guards what follows
	last *oauth2.Token
}

func newTokens(client *http.Client, cfg Config) *tokens {
	return &tokens{
		ctx: context.WithValue(context.Background(), oauth2.HTTPClient, client),
		cfg: clientcredentials.Config{
			ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret,
			TokenURL:       "https://" + cfg.BaseURL.Host + pathToken,
			EndpointParams: url.Values{"audience": {cfg.Audience}},
			AuthStyle:      oauth2.AuthStyleInParams, // what an application has that was just created
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

	got, err, _ := t.calls.Do("", func() (any, error) {
		t.mu.Lock()
		cfg := t.cfg
		t.mu.Unlock()
		token, err := cfg.Token(t.ctx)

		t.mu.Lock()
		defer t.mu.Unlock()
		var refused *oauth2.RetrieveError
		switch {
		case err == nil:
			t.last = token
		case errors.As(err, &refused) && refused.Response.StatusCode == http.StatusUnauthorized:
			// The application may want its secret in the other place: the next call tries that.
			if t.cfg.AuthStyle = oauth2.AuthStyleInParams; cfg.AuthStyle == oauth2.AuthStyleInParams {
				t.cfg.AuthStyle = oauth2.AuthStyleInHeader
			}
		}
		return token, err
	})
	if err != nil {
		return nil, err
	}
	return got.(*oauth2.Token), nil
}

// authorized puts the token on each request.
type authorized struct {
	http.RoundTripper
	tokens *tokens
}

func (a authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := a.tokens.token()
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	token.SetAuthHeader(r)
	return a.RoundTripper.RoundTrip(r)
}
