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

	"github.com/tenantwatch/tenantwatch/ingest"
)

// answerError is for an answer other than 200.
func answerError(path string, res *http.Response, body []byte, limit ingest.Limit) *ingest.CallError {
	e := &ingest.CallError{Method: http.MethodGet, Path: path, Status: res.StatusCode, Limit: limit, RetryAfter: retryAfter(res.Header)}
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
	return classify(e)
}

// unreadable is for an answer that came with 200 or broke off.
func unreadable(path string, limit ingest.Limit, kind ingest.Kind, err error) *ingest.CallError {
	return &ingest.CallError{Method: http.MethodGet, Path: path, Kind: kind, Limit: limit, Err: err}
}

// transportError is for a call without an answer, or without a token.
func transportError(path string, err error) *ingest.CallError {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		return classify(&ingest.CallError{Method: http.MethodPost, Path: pathToken, Status: refused.Response.StatusCode, Code: refused.ErrorCode,
			Message: clip(refused.ErrorDescription), RetryAfter: retryAfter(refused.Response.Header), Limit: limitOf(refused.Response.Header)})
	}
	e := &ingest.CallError{Method: http.MethodGet, Path: path, Err: err}
	var failed *url.Error
	if errors.As(err, &failed) {
		for inner := failed; errors.As(inner.Err, &inner); { // the token call's error lies within the other's
			failed = inner
		}
		host := ""
		if u, perr := url.Parse(failed.URL); perr == nil {
			host = u.Host
			if u.Path == pathToken {
				e.Method, e.Path = http.MethodPost, pathToken
			}
		}
		e.Err = fmt.Errorf("%s: %w", host, failed.Err)
	}
	return classify(e)
}

// redact takes our secrets out of an answer's own words: some proxies repeat
// what they were sent.
func (c *Client) redact(e *ingest.CallError, token string) error {
	for _, secret := range []string{c.cfg.ClientSecret, token} {
		if secret != "" {
			e.Code = strings.ReplaceAll(e.Code, secret, "***")
			e.Message = strings.ReplaceAll(e.Message, secret, "***")
		}
	}
	return e
}

// classify fills in Kind and Advice.
func classify(e *ingest.CallError) *ingest.CallError {
	token := e.Path == pathToken
	switch {
	case e.Status == http.StatusTooManyRequests:
		e.Kind = ingest.KindRateLimit
	case e.Status >= 500:
		e.Kind = ingest.KindServer
	case e.Status == http.StatusNotFound:
		e.Kind, e.Advice = ingest.KindClient, "check AUTH0_DOMAIN"
	case token && e.Status == http.StatusForbidden:
		e.Kind, e.Advice = ingest.KindToken, "authorize the application for the Management API with the scope read:logs, and check AUTH0_AUDIENCE"
	case token && e.Status != 0:
		e.Kind, e.Advice = ingest.KindToken, "check AUTH0_CLIENT_ID and AUTH0_CLIENT_SECRET or AUTH0_PRIVATE_KEY_FILE"
	case e.Status == http.StatusUnauthorized:
		e.Kind, e.Advice = ingest.KindUnauthorized, "check AUTH0_AUDIENCE: behind a custom domain it is still https://TENANT.REGION.auth0.com/api/v2/"
	case e.Status == http.StatusForbidden:
		e.Kind, e.Advice = ingest.KindForbidden, "grant the application the scope "+scopeOf(e.Path)
	case e.Status >= 400:
		e.Kind = ingest.KindClient
	case e.Status != 0:
		e.Kind = ingest.KindAnswer
	default:
		var timeout interface{ Timeout() bool }
		e.Kind = ingest.KindNetwork
		if errors.As(e.Err, &timeout) && timeout.Timeout() || errors.Is(e.Err, context.DeadlineExceeded) {
			e.Kind = ingest.KindTimeout
		}
	}
	return e
}

// scopeOf is what an endpoint needs.
func scopeOf(path string) string {
	if path == pathStreams {
		return "read:log_streams"
	}
	return "read:logs"
}

// retryAfter reads the Retry-After header, in seconds or as a date.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), int(maxReset/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(serverNow(h)), 0), maxReset)
	}
	return 0
}

// maxMessage is how much of an answer's own words is kept, in bytes.
const maxMessage = 300

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
