package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// grantRealm is Auth0's password grant against a named connection.
const grantRealm = "http://auth0.com/oauth/grant-type/password-realm"

// login is a probe that logs in by password, as a user would.
type login struct {
	grant   clientcredentials.Config
	http    *http.Client
	timeout time.Duration
	refused string // error code of the refusal of the password; empty for none
}

func newLogin(cfg *Config) *login {
	return &login{
		grant: clientcredentials.Config{
			ClientID:       cfg.ClientID,
			ClientSecret:   cfg.ClientSecret,
			TokenURL:       cfg.BaseURL.String() + "/oauth/token",
			AuthStyle:      oauth2.AuthStyleInParams,
			EndpointParams: cfg.params(),
		},
		http:    &http.Client{Transport: cfg.Transport, CheckRedirect: stopAtRedirect},
		timeout: cfg.Timeout,
	}
}

// params returns the parameters of the password grant.
func (c *Config) params() url.Values {
	params := url.Values{
		"grant_type": {"password"},
		"username":   {c.Username},
		"password":   {c.Password},
		"scope":      {"openid"},
	}
	if c.Realm != "" {
		params.Set("grant_type", grantRealm)
		params.Set("realm", c.Realm)
	}
	if c.Audience != "" {
		params.Set("audience", c.Audience)
	}
	return params
}

// stopAtRedirect returns the redirect as the response: the password must be sent to
// this tenant only, and once.
func stopAtRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// run logs in once.
func (l *login) run(ctx context.Context) Result {
	result := Result{At: time.Now()}
	if l.refused != "" {
		result.Error = l.refused
		result.Message = "not tried again, so that brute-force protection does not lock the user: " +
			"correct PROBE_USERNAME and PROBE_PASSWORD and start again"
		return result
	}

	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	observed := &responseObserver{RoundTripper: l.http.Transport}

	// A client for each run, since the observer is of one response.
	client := &http.Client{Transport: observed, CheckRedirect: l.http.CheckRedirect}

	token, err := l.grant.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	result.Latency = time.Since(result.At)

	var failure *oauth2.RetrieveError
	switch {
	case err == nil && token.AccessToken != "":
		result.OK, result.Status = true, http.StatusOK
	case err == nil:
		result.Status, result.Error = http.StatusOK, "no_token"
	case errors.As(err, &failure):
		l.setFailure(&result, failure)
	case observed.status == http.StatusOK && ctx.Err() == nil:
		// The page of a proxy, or JSON without a token.
		result.Status, result.Error = http.StatusOK, "no_token"
		result.Message = "the response (200, " + observed.media + ") has no access token"
	case errors.Is(err, context.DeadlineExceeded):
		result.Error, result.Message = "timeout", fmt.Sprintf("no answer within %s", l.timeout)
	default:
		result.Error, result.Message = "no_answer", networkError(err)
	}
	return result
}

// setFailure sets the result of a response with an error.
func (l *login) setFailure(result *Result, failure *oauth2.RetrieveError) {
	result.Status = failure.Response.StatusCode
	result.Error, result.Message = failure.ErrorCode, failure.ErrorDescription
	if result.Error == "" {
		result.Error = http.StatusText(result.Status)
	}

	if result.Status == http.StatusTooManyRequests || result.Status == http.StatusServiceUnavailable {
		result.Wait = min(retryAfter(failure.Response.Header), maxWait)
	}
	if refusesPassword(*result) {
		l.refused = result.Error
	}
}

// responseObserver keeps the status and the media type of the last response. x/oauth2
// hides them if a 200 has no token.
type responseObserver struct {
	http.RoundTripper
	status int
	media  string
}

// RoundTrip implements http.RoundTripper.
func (o *responseObserver) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := o.RoundTripper.RoundTrip(r)
	if err == nil {
		o.status = response.StatusCode
		o.media, _, _ = mime.ParseMediaType(response.Header.Get("Content-Type"))
		o.media = cmp.Or(o.media, "no media type")
	}
	return response, err
}

// maxWait bounds how long a response can delay the next run. Without a run, it is
// unknown whether login works.
const maxWait = 2 * time.Minute

// retryAfter returns the duration in the Retry-After header, which has seconds or a
// date by the server's clock.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")

	// Out of range numbers are clamped before the conversion.
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(min(max(seconds, 0), maxWait.Seconds()) * float64(time.Second))
	}

	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}

	// A date is compared with the server's own, so that our clock does not matter.
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(at.Sub(now), 0)
}

// refusesPassword reports whether a response says that user or password is wrong, or
// that the user is locked.
func refusesPassword(r Result) bool {
	switch r.Error {
	case "invalid_grant", "invalid_user_password", "too_many_attempts", "password_leaked", "unauthorized":
		return r.Status < 500
	}
	return false
}

// networkError returns an error's text without the request, whose body has the password.
func networkError(err error) string {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return err.Error()
}
