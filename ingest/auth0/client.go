// Package auth0 is a tenant's Management API as far as tenantwatch needs it:
// pages of raw log events, the rate limit that came with them, and errors that
// say what to do.
//
// Authentication and requests are go-auth0's; the events never pass through its
// types, which drop what they do not know. There are no retries here: whoever
// calls paces and repeats, and counts every call.
package auth0

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/auth0/go-auth0/management"
	"golang.org/x/oauth2"

	"github.com/tenantwatch/tenantwatch/ingest"
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	// requestTimeout bounds one call with its body. Auth0 answers within a few
	// seconds or not at all.
	requestTimeout = 60 * time.Second
	// maxBody is the largest page that is read: 100 events of 640 KB.
	maxBody = 64 << 20
)

// Config is how to reach a tenant.
type Config struct {
	BaseURL      *url.URL // of the tenant, see ParseDomain
	Audience     string   // of the Management API; empty for BaseURL/api/v2/
	ClientID     string
	ClientSecret string            // or PrivateKey
	PrivateKey   string            // PEM, for private_key_jwt with RS256
	Transport    http.RoundTripper // nil for Go's own
	UserAgent    string
}

// Client calls one tenant's Management API. Its methods may run concurrently.
type Client struct {
	cfg  Config
	host string
	room atomic.Int64 // bytes of the largest page lately, which the next one may need

	mu  sync.Mutex // guards api
	api *management.Management
}

// roomMax is what is set aside for a page before its first byte is there.
const roomMax = 1 << 20

var errTooLarge = fmt.Errorf("the page is larger than %d MB", maxBody>>20)

// ParseDomain reads a tenant's domain: acme.eu.auth0.com or a custom domain,
// with or without https://. Plain http:// is only for loopback addresses. The
// result has one spelling, since the audience is made of it and compared as text:
// small letters, no dot at the end, no port that goes without saying.
func ParseDomain(domain string) (*url.URL, error) {
	text := strings.TrimSuffix(strings.TrimSpace(domain), "/")
	if strings.ContainsAny(text, "\"'`") {
		return nil, fmt.Errorf("%q has quotes in it; they are part of the value in an env file: want acme.eu.auth0.com without them", domain)
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%q is not a domain such as acme.eu.auth0.com", domain)
	}
	host, port := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()
	ip := net.ParseIP(host)
	if host == "" || ip == nil && !hostName.MatchString(host) || strings.HasSuffix(u.Host, ":") {
		return nil, fmt.Errorf("%q is not a domain such as acme.eu.auth0.com", domain)
	}
	if port == map[string]string{"https": "443", "http": "80"}[u.Scheme] {
		port = ""
	}
	if u.Host = host; strings.Contains(host, ":") {
		u.Host = "[" + host + "]"
	}
	if port != "" {
		u.Host = net.JoinHostPort(host, port)
	}
	switch u.Scheme {
	case "https":
		return u, nil
	case "http":
		if host == "localhost" || ip != nil && ip.IsLoopback() {
			return u, nil
		}
		return nil, fmt.Errorf("%q: plain http is only for a simulated tenant on 127.0.0.1; write https", domain)
	}
	return nil, fmt.Errorf("%q: want https", domain)
}

var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// New returns a client. It calls nothing until it is asked to.
func New(cfg Config) (*Client, error) {
	if cfg.Audience == "" {
		cfg.Audience = cfg.BaseURL.String() + "/api/v2/"
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	cfg.Transport = home{cfg.Transport, cfg.BaseURL}
	c := &Client{cfg: cfg, host: cfg.BaseURL.Host}
	var err error
	c.api, err = c.connect()
	return c, err
}

// home calls the tenant's host and no other: a redirect would take the token or
// the secret along. It undoes go-auth0's https for a simulated tenant.
type home struct {
	http.RoundTripper
	base *url.URL
}

func (h home) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != h.base.Host || r.URL.Scheme != "https" && r.URL.Scheme != h.base.Scheme {
		return nil, errors.New("the tenant sends us to another host, where we do not go")
	}
	if r.URL.Scheme != h.base.Scheme {
		r = r.Clone(r.Context())
		r.URL.Scheme = h.base.Scheme
	}
	return h.RoundTripper.RoundTrip(r)
}

// connect makes a go-auth0 client that has no token yet.
func (c *Client) connect() (*management.Management, error) {
	hc := &http.Client{Transport: c.cfg.Transport, Timeout: requestTimeout}
	credentials := management.WithStaticToken("replaced by authorized")
	calls := http.RoundTripper(authorized{c.cfg.Transport, newTokens(hc, c.cfg)})
	if c.cfg.PrivateKey != "" {
		ctx := context.WithValue(context.Background(), oauth2.HTTPClient, hc)
		credentials = management.WithClientCredentialsPrivateKeyJwtAndAudience(ctx, c.cfg.ClientID, c.cfg.PrivateKey, "RS256", c.cfg.Audience)
		calls = c.cfg.Transport
	}
	opts := []management.Option{credentials, management.WithNoRetries(),
		management.WithClient(&http.Client{Transport: calls, Timeout: requestTimeout})}
	if c.cfg.UserAgent != "" {
		opts = append(opts, management.WithUserAgent(c.cfg.UserAgent))
	}
	api, err := management.New(c.host, opts...)
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", c.host, err)
	}
	return api, nil
}

// Logs returns up to take events that were stored after the event with the id
// from, which need not exist, in the order of their ids. An empty page means
// that there are none yet.
func (c *Client) Logs(ctx context.Context, from string, take int) (ingest.Page, error) {
	return c.page(ctx, url.Values{"from": {from}, "take": {strconv.Itoa(take)}})
}

// Oldest returns some of the oldest events by event time. It is the way in for
// a tenant that refuses ids that it has not issued itself.
func (c *Client) Oldest(ctx context.Context) (ingest.Page, error) {
	return c.page(ctx, url.Values{"sort": {"date:1"}, "page": {"0"}, "per_page": {strconv.Itoa(ingest.MaxTake)}})
}

// LogStreams lists the tenant's log streams. It needs the scope read:log_streams.
// Where some items cannot be read, the others come with an error that says so.
func (c *Client) LogStreams(ctx context.Context) ([]ingest.LogStream, ingest.Limit, error) {
	body, _, limit, err := c.get(ctx, pathStreams, nil)
	if err != nil {
		return nil, limit, err
	}
	items, err := schema.SplitArray(body)
	if err != nil {
		return nil, limit, unreadable(pathStreams, limit, ingest.KindAnswer, fmt.Errorf("the answer is not an array of log streams: %w", err))
	}
	var list []ingest.LogStream
	var odd []string
	for i, item := range items {
		stream, err := readStream(item)
		if err != nil {
			odd = append(odd, fmt.Sprintf("item %d: %v", i+1, err))
			continue
		}
		list = append(list, stream)
	}
	if len(odd) > 0 {
		return list, limit, unreadable(pathStreams, limit, ingest.KindAnswer,
			fmt.Errorf("%d of %d log streams cannot be read: %s", len(odd), len(items), clip(strings.Join(odd, "; "))))
	}
	return list, limit, nil
}

// readStream reads one log stream. Of an odd name or type the rest is still of use.
func readStream(item []byte) (ingest.LogStream, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(item, &members); err != nil || members == nil {
		return ingest.LogStream{}, errors.New("it is not an object")
	}
	text := func(name string) string {
		var value string
		if json.Unmarshal(members[name], &value) != nil {
			return ""
		}
		return value
	}
	stream := ingest.LogStream{ID: text("id"), Name: text("name"), Type: text("type"), Status: text("status")}
	if stream.ID == "" || stream.Status == "" {
		return stream, errors.New("its id or its status is not a text")
	}
	return stream, nil
}

// page calls GET /api/v2/logs.
func (c *Client) page(ctx context.Context, query url.Values) (ingest.Page, error) {
	var came time.Time
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { came = time.Now() }})
	body, header, limit, err := c.get(ctx, pathLogs, query)
	alone := query.Get("take") == "1"
	if failed := new(ingest.CallError); errors.As(err, &failed) && failed.Kind == ingest.KindTooLarge && alone && nextID(header) != "" {
		// An event that is larger than any page. Its beginning is kept, as what it is: no JSON.
		date, _ := http.ParseTime(header.Get("Date"))
		body = bytes.TrimLeft(body[:maxBody], " \t\r\n[")
		return ingest.Page{Events: [][]byte{body}, Next: nextID(header), Date: date, Came: came, Limit: limit}, nil
	}
	if err != nil {
		return ingest.Page{}, err
	}
	date, _ := http.ParseTime(header.Get("Date"))
	page := ingest.Page{Next: nextID(header), Date: date, Came: came, Limit: limit}
	if page.Events, err = schema.SplitArray(body); err == nil {
		return page, nil
	}

	// An event whose own brackets or quotes do not match hides where the next begins.
	// Asked for alone it is all there is between the array's brackets.
	text := bytes.TrimSpace(body)
	whole := page.Next != "" && len(text) > 2 && text[0] == '[' && text[len(text)-1] == ']'
	if whole && alone {
		page.Events = [][]byte{bytes.TrimSpace(text[1 : len(text)-1])}
		return page, nil
	}
	e := unreadable(pathLogs, limit, ingest.KindAnswer, fmt.Errorf("the answer (200, %s) is not an array of events: %w", header.Get("Content-Type"), err))
	e.Whole = whole
	return ingest.Page{}, e
}

// get calls one endpoint. A token that is refused is replaced once.
func (c *Client) get(ctx context.Context, path string, query url.Values) ([]byte, http.Header, ingest.Limit, error) {
	c.mu.Lock()
	api := c.api
	c.mu.Unlock()
	body, header, limit, err := c.getWith(ctx, api, path, query)
	var refused *ingest.CallError
	if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized || refused.Path != path {
		return body, header, limit, err
	}
	if api, err = c.renew(api); err != nil {
		return nil, nil, limit, err
	}
	return c.getWith(ctx, api, path, query)
}

// renew drops the token of a client that was refused. Of several callers with
// the same client only the first makes a new one.
func (c *Client) renew(refused *management.Management) (*management.Management, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api == refused {
		api, err := c.connect()
		if err != nil {
			return nil, err
		}
		c.api = api
	}
	return c.api, nil
}

const (
	pathLogs    = "/api/v2/logs"
	pathStreams = "/api/v2/log-streams"
	pathToken   = "/oauth/token"
)

func (c *Client) getWith(ctx context.Context, api *management.Management, path string, query url.Values) ([]byte, http.Header, ingest.Limit, error) {
	none := ingest.Limit{}
	uri := api.URI(strings.TrimPrefix(path, "/api/v2/"))
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	req, err := api.NewRequest(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, nil, none, unreadable(path, none, ingest.KindClient, err)
	}
	res, err := do(api, req)
	if err != nil {
		return nil, nil, none, c.redact(transportError(path, err), "")
	}
	defer res.Body.Close()
	limit := limitOf(res.Header)
	room := min(c.room.Load(), roomMax)
	buf := bytes.NewBuffer(make([]byte, 0, room+room/8+4<<10))
	_, err = buf.ReadFrom(io.LimitReader(res.Body, maxBody+1))
	body := buf.Bytes()
	if err != nil {
		return nil, nil, limit, unreadable(path, limit, ingest.KindAnswer, fmt.Errorf("the answer broke off after %d bytes: %w", len(body), err))
	}
	c.room.Store(max(int64(len(body)), c.room.Load()*15/16))
	if res.StatusCode != http.StatusOK {
		_, token, _ := strings.Cut(res.Request.Header.Get("Authorization"), " ")
		return nil, nil, limit, c.redact(answerError(path, res, body, limit), token)
	}
	if len(body) > maxBody {
		return body, res.Header, limit, unreadable(path, limit, ingest.KindTooLarge, errTooLarge)
	}
	return body, res.Header, limit, nil
}

// do ends with the request's context. The token's own call knows no context, so
// it is left to its timeout then.
func do(api *management.Management, req *http.Request) (*http.Response, error) {
	type answer struct {
		res *http.Response
		err error
	}
	came := make(chan answer, 1)
	go func() {
		res, err := api.Do(req)
		came <- answer{res, err}
	}()
	select {
	case a := <-came:
		return a.res, a.err
	case <-req.Context().Done():
		go func() {
			if a := <-came; a.err == nil {
				a.res.Body.Close()
			}
		}()
		return nil, req.Context().Err()
	}
}

// nextID is the from parameter of the Link header with rel="next". Only the id
// is taken from it: where we call is up to us.
func nextID(h http.Header) string {
	for _, link := range h.Values("Link") {
		for part := range strings.SplitSeq(link, ",") {
			target, params, _ := strings.Cut(strings.TrimSpace(part), ">")
			if !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
				continue
			}
			u, err := url.Parse(strings.TrimPrefix(target, "<"))
			if err != nil {
				continue
			}
			return u.Query().Get("from")
		}
	}
	return ""
}

// limitOf reads the x-ratelimit headers. Some answers tell only the reset.
func limitOf(h http.Header) ingest.Limit {
	l := ingest.Limit{Reset: resetOf(h)}
	size, err1 := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	remaining, err2 := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	if err1 == nil && err2 == nil {
		l.Known, l.Limit, l.Remaining = true, size, remaining
	}
	return l
}

// Above these a reset is not in seconds: those are of the year 5138.
const (
	leastMillis = int64(1e11)
	leastMicros = int64(1e14)
	leastNanos  = int64(1e17)
)

// resetOf is how long it takes until the reset. That is a time of the server's
// clock, so it is compared with the server's Date. Gateways write milliseconds, or
// a time as text.
func resetOf(h http.Header) time.Duration {
	text := strings.TrimSpace(h.Get("X-RateLimit-Reset"))
	var at time.Time
	if number, err := strconv.ParseFloat(text, 64); err == nil {
		number = min(max(number, 0), 9e18)
		switch n := int64(number); {
		case n >= leastNanos:
			at = time.Unix(0, n)
		case n >= leastMicros:
			at = time.UnixMicro(n)
		case n >= leastMillis:
			at = time.UnixMilli(n)
		default:
			at = time.UnixMilli(int64(number * 1000))
		}
	} else if at, err = time.Parse(time.RFC3339Nano, text); err != nil {
		if at, err = http.ParseTime(text); err != nil {
			return 0
		}
	}
	return min(max(at.Sub(serverNow(h)), 0), maxReset)
}

// serverNow is the server's time, or ours where it does not say.
func serverNow(h http.Header) time.Time {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return date
	}
	return time.Now()
}

// maxReset bounds what we believe of a reset header; a day is Auth0's longest quota.
const maxReset = time.Hour
