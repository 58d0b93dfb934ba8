package auth0

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxReset bounds the reset and Retry-After headers. Auth0's longest quota is a day.
const maxReset = time.Hour

// From these values on, a reset is not in seconds: as seconds they are in the year 5138
// or later.
const (
	minMillis = int64(1e11)
	minMicros = int64(1e14)
	minNanos  = int64(1e17)
)

// nextID returns the from parameter of the Link header with rel="next". Nothing else of
// the link is used: the client decides where to call.
func nextID(h http.Header) string {
	for _, link := range h.Values("Link") {
		for part := range strings.SplitSeq(link, ",") {
			target, params, _ := strings.Cut(strings.TrimSpace(part), ">")

			// The quotes around next are optional.
			if !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
				continue
			}
			next, err := url.Parse(strings.TrimPrefix(target, "<"))
			if err != nil {
				continue
			}
			return next.Query().Get("from")
		}
	}
	return ""
}

// limitOf returns the limit of the x-ratelimit headers. Some responses have only the
// reset.
func limitOf(h http.Header) Limit {
	limit := Limit{Reset: resetOf(h)}
	size, sizeErr := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	remaining, remainingErr := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	if sizeErr == nil && remainingErr == nil {
		limit.Known, limit.Limit, limit.Remaining = true, size, remaining
	}
	return limit
}

// resetOf returns the duration until the reset, which is a time of the server's clock
// and so compared with the server's Date. Gateways also write it in milliseconds or as
// text.
func resetOf(h http.Header) time.Duration {
	text := strings.TrimSpace(h.Get("X-RateLimit-Reset"))
	at, ok := resetTime(text)
	if !ok {
		return 0
	}
	return min(max(at.Sub(serverNow(h)), 0), maxReset)
}

func resetTime(text string) (at time.Time, ok bool) {
	if number, err := strconv.ParseFloat(text, 64); err == nil {
		// So that it fits an int64.
		number = min(max(number, 0), 9e18)
		switch whole := int64(number); {
		case whole >= minNanos:
			return time.Unix(0, whole), true
		case whole >= minMicros:
			return time.UnixMicro(whole), true
		case whole >= minMillis:
			return time.UnixMilli(whole), true
		}
		return time.UnixMilli(int64(number * 1000)), true
	}

	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		at, err = http.ParseTime(text)
	}
	return at, err == nil
}

// retryAfter returns the duration in the Retry-After header, which has seconds or a
// date.
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

// serverNow returns the server's time, or ours if the server does not send it.
func serverNow(h http.Header) time.Time {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return date
	}
	return time.Now()
}
