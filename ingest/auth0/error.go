package auth0

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/oauth2"
)

// Error is a failed call. Its text contains no secret.
type Error struct {
	Method     string
	Path       string
	Status     int    // 0 if there was no answer, or none that can be read
	Code       string // Auth0's errorCode or error
	Message    string // Auth0's message
	Kind       Kind
	Advice     string // for the operator; empty if there is nothing to do but wait
	RetryAfter time.Duration
	Limit      Limit
	Whole      bool  // the answer is complete, but cannot be read
	Err        error // the cause, if there is no Status
}

// RejectsCursor reports whether the tenant itself rejects the cursor. A 400 without its
// errorCode is temporary: it comes from a proxy.
func (e *Error) RejectsCursor() bool {
	return e.Status == http.StatusBadRequest && e.Code == "invalid_query_string"
}

// Kind is the class of a failed call.
type Kind string

// The kinds of failed calls.
const (
	KindToken        Kind = "token"        // no access token
	KindRateLimit    Kind = "rate_limit"   // 429
	KindUnauthorized Kind = "unauthorized" // 401 with a fresh token
	KindForbidden    Kind = "forbidden"    // 403
	KindClient       Kind = "client"       // other 4xx
	KindServer       Kind = "server"       // 5xx
	KindAnswer       Kind = "answer"       // incomplete, or of another form
	KindTooLarge     Kind = "too_large"    // larger than the limit for an answer
	KindTimeout      Kind = "timeout"
	KindNetwork      Kind = "network"
)

// Kinds lists the kinds, for metrics.
var Kinds = [...]Kind{KindToken, KindRateLimit, KindUnauthorized, KindForbidden, KindClient, KindServer,
	KindAnswer, KindTooLarge, KindTimeout, KindNetwork}

// Error returns the call, the cause and the advice.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)

	// Without an answer, the cause takes the place of its status.
	if e.Status == 0 {
		fmt.Fprint(&b, e.Err)
	} else {
		fmt.Fprintf(&b, "%d %s", e.Status, http.StatusText(e.Status))
	}

	if e.Code != "" {
		b.WriteString(", " + e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Advice != "" {
		b.WriteString(" (" + e.Advice + ")")
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// maxMessage bounds how much text of a response is kept, in bytes.
const maxMessage = 300

// answerError returns the error of a response with a status other than 200.
func answerError(path string, res *http.Response, body []byte, limit Limit) *Error {
	failure := &Error{
		Method:     http.MethodGet,
		Path:       path,
		Status:     res.StatusCode,
		Limit:      limit,
		RetryAfter: retryAfter(res.Header),
	}

	// A gateway's response is not JSON.
	var answer struct{ Error, ErrorCode, Message string }
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch err := json.Unmarshal(body, &answer); {
	case err == nil:
		failure.Code, failure.Message = answer.ErrorCode, clip(answer.Message)
	case media == "text/plain":
		failure.Message = clip(string(body))
	default:
		failure.Message = fmt.Sprintf("%d bytes of %s", len(body), media)
	}
	return classify(failure)
}

// unreadable returns the error of a response that came with 200 or that broke off.
func unreadable(path string, limit Limit, kind Kind, err error) *Error {
	return &Error{Method: http.MethodGet, Path: path, Kind: kind, Limit: limit, Err: err}
}

// transportError returns the error of a call without a response or without a token.
func transportError(path string, err error) *Error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		header := refused.Response.Header
		return classify(&Error{
			Method:     http.MethodPost,
			Path:       pathToken,
			Status:     refused.Response.StatusCode,
			Code:       refused.ErrorCode,
			Message:    clip(refused.ErrorDescription),
			RetryAfter: retryAfter(header),
			Limit:      limitOf(header),
		})
	}

	failure := &Error{Method: http.MethodGet, Path: path, Err: err}
	var outer *url.Error
	if errors.As(err, &outer) {
		// The error of the call for the token is inside the other one.
		failed := outer
		for inner := outer; errors.As(inner.Err, &inner); {
			failed = inner
		}

		host := ""

		// Only the host is kept: a URL may carry secrets.
		if u, err := url.Parse(failed.URL); err == nil {
			host = u.Host
			if u.Path == pathToken {
				failure.Method, failure.Path = http.MethodPost, pathToken
			}
		}
		failure.Err = fmt.Errorf("%s: %w", host, failed.Err)
	}
	return classify(failure)
}

// redact removes our secrets from the text of a response: some proxies repeat the
// request.
func (c *Client) redact(e *Error, token string) error {
	for _, secret := range []string{c.cfg.ClientSecret, token} {
		if secret != "" {
			e.Code = strings.ReplaceAll(e.Code, secret, "***")
			e.Message = strings.ReplaceAll(e.Message, secret, "***")
		}
	}
	return e
}

// classify sets Kind and Advice.
func classify(e *Error) *Error {
	token := e.Path == pathToken

	// The status says most; of the token's endpoint it means something else.
	switch {
	case e.Status == http.StatusTooManyRequests:
		e.Kind = KindRateLimit
	case e.Status >= 500:
		e.Kind = KindServer
	case e.Status == http.StatusNotFound:
		e.Kind, e.Advice = KindClient, "check AUTH0_DOMAIN"
	case token && e.Status == http.StatusForbidden:
		e.Kind = KindToken
		e.Advice = "authorize the application for the Management API with the scope read:logs, " +
			"and check AUTH0_AUDIENCE"
	case token && e.Status != 0:
		e.Kind = KindToken
		e.Advice = "check AUTH0_CLIENT_ID and AUTH0_CLIENT_SECRET or AUTH0_PRIVATE_KEY_FILE"
	case e.Status == http.StatusUnauthorized:
		e.Kind = KindUnauthorized
		e.Advice = "check AUTH0_AUDIENCE: behind a custom domain it is still https://TENANT.REGION.auth0.com/api/v2/"
	case e.Status == http.StatusForbidden:
		e.Kind, e.Advice = KindForbidden, "grant the application the scope "+scopeOf(e.Path)
	case e.Status >= 400:
		e.Kind = KindClient
	case e.Status != 0:
		e.Kind = KindAnswer
	default:
		// No response.
		var timeout interface{ Timeout() bool }
		e.Kind = KindNetwork
		if errors.As(e.Err, &timeout) && timeout.Timeout() || errors.Is(e.Err, context.DeadlineExceeded) {
			e.Kind = KindTimeout
		}
	}
	return e
}

// scopeOf returns the scope that an endpoint needs.
func scopeOf(path string) string {
	if path == pathStreams {
		return "read:log_streams"
	}
	return "read:logs"
}

// clip shortens a text to one line.
func clip(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= maxMessage {
		return text
	}

	// Never cut a rune in two.
	cut := maxMessage
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
