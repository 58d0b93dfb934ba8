package auth0

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/oauth2"
)

// Error is a call that failed. Its text never has a secret in it.
type Error struct {
	Method     string
	Path       string // /api/v2/logs or /oauth/token
	Status     int    // 0 when there was no answer, or none that can be read
	Code       string // Auth0's errorCode or error
	Message    string // Auth0's message
	RetryAfter time.Duration
	Limit      Limit
	Err        error // without a Status: why
}

// Error says what failed and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)
	if e.Status == 0 {
		b.WriteString(e.Err.Error())
		return b.String()
	}
	fmt.Fprintf(&b, "%d %s", e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		b.WriteString(", " + e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if advice := e.advice(); advice != "" {
		b.WriteString(" (" + advice + ")")
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Kind is the class of the failure, one of Kinds.
func (e *Error) Kind() string {
	switch {
	case e.Path == pathToken:
		return "token"
	case e.Status == http.StatusTooManyRequests:
		return "rate_limit"
	case e.Status == http.StatusUnauthorized:
		return "unauthorized"
	case e.Status == http.StatusForbidden:
		return "forbidden"
	case e.Status >= 500:
		return "server"
	case e.Status >= 400:
		return "client"
	case e.Status != 0:
		return "answer"
	}
	var timeout interface{ Timeout() bool }
	if errors.As(e.Err, &timeout) && timeout.Timeout() || errors.Is(e.Err, context.DeadlineExceeded) {
		return "timeout"
	}
	var network *url.Error
	if errors.As(e.Err, &network) {
		return "network"
	}
	return "answer"
}

// Kinds are the values of Error.Kind, for metrics.
func Kinds() []string {
	return []string{"token", "rate_limit", "unauthorized", "forbidden", "server", "client", "answer", "timeout", "network"}
}

// advice is what the operator can do, empty when waiting is all there is.
func (e *Error) advice() string {
	switch {
	case e.Path == pathToken && (e.Status == http.StatusUnauthorized || e.Code == "invalid_client"):
		return "check AUTH0_CLIENT_ID and AUTH0_CLIENT_SECRET or AUTH0_PRIVATE_KEY_FILE"
	case e.Path == pathToken && e.Status == http.StatusForbidden:
		return "authorize the application for the Management API with the scope read:logs, and check AUTH0_AUDIENCE"
	case e.Path == pathToken && e.Status == http.StatusNotFound, e.Path == pathLogs && e.Status == http.StatusNotFound:
		return "check AUTH0_DOMAIN"
	case e.Status == http.StatusUnauthorized:
		return "check AUTH0_AUDIENCE: with a custom domain it is still https://TENANT.REGION.auth0.com/api/v2/"
	case e.Status == http.StatusForbidden:
		return "grant the application the scope read:logs"
	}
	return ""
}

// maxMessage is how much of an answer's own words is kept.
const maxMessage = 300

// answerError is for an answer other than 200.
func answerError(res *http.Response, body []byte, limit Limit) *Error {
	e := &Error{Method: http.MethodGet, Path: pathLogs, Status: res.StatusCode, Limit: limit, RetryAfter: retryAfter(res.Header)}
	var answer struct{ Error, ErrorCode, Message string }
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch err := json.Unmarshal(body, &answer); {
	case err == nil:
		e.Code, e.Message = answer.ErrorCode, clip(answer.Message)
	case media == "text/plain":
		e.Message = clip(string(body))
	default:
		e.Message = fmt.Sprintf("%d bytes of %s", len(body), media)
	}
	return e
}

// transportError is for a call without an answer, or without a token.
func transportError(err error) *Error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		e := &Error{Method: http.MethodPost, Path: pathToken, Status: refused.Response.StatusCode, Code: refused.ErrorCode,
			Message: clip(refused.ErrorDescription), RetryAfter: retryAfter(refused.Response.Header), Limit: limitOf(refused.Response.Header)}
		if e.Status == http.StatusOK {
			e.Status, e.Err = 0, errors.New("the answer has no token")
		}
		return e
	}
	var failed *url.Error
	if errors.As(err, &failed) {
		path, method := pathLogs, http.MethodGet
		for inner := failed; errors.As(inner.Err, &inner); {
			failed = inner
		}
		if u, perr := url.Parse(failed.URL); perr == nil && u.Path == pathToken {
			path, method = pathToken, http.MethodPost
		}
		// The URL's query and the words of url.Error say nothing that is not here.
		return &Error{Method: method, Path: path, Err: &url.Error{Op: strings.ToLower(method), URL: hostOf(failed.URL), Err: failed.Err}}
	}
	return &Error{Method: http.MethodGet, Path: pathLogs, Err: err}
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "tenant"
	}
	return u.Host
}

// retryAfter reads the Retry-After header, in seconds or as a date.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return min(max(time.Duration(seconds)*time.Second, 0), maxReset)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), maxReset)
	}
	return 0
}

// clip shortens a text to one line.
func clip(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= maxMessage {
		return text
	}
	cut := maxMessage
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
