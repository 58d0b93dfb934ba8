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
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/auth0/go-auth0/management"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/oauth2"

	"github.com/tenantwatch/tenantwatch/ingest"
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
// with or without https://. Plain http:// is only for loopback addresses.
func ParseDomain(domain string) (*url.URL, error) {
	text := strings.TrimSuffix(strings.TrimSpace(domain), "/")
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%q is not a domain such as acme.eu.auth0.com", domain)
	}
	switch u.Scheme {
	case "https":
		return u, nil
	case "http":
		host := u.Hostname()
		if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
			return u, nil
		}
		return nil, fmt.Errorf("%q: plain http is only for a simulated tenant on 127.0.0.1; write https", domain)
	}
	return nil, fmt.Errorf("%q: want https", domain)
}

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
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, hc)
	credentials := management.WithClientCredentialsAndAudience(ctx, c.cfg.ClientID, c.cfg.ClientSecret, c.cfg.Audience)
	if c.cfg.PrivateKey != "" {
		credentials = management.WithClientCredentialsPrivateKeyJwtAndAudience(ctx, c.cfg.ClientID, c.cfg.PrivateKey, "RS256", c.cfg.Audience)
	}
	opts := []management.Option{credentials, management.WithNoRetries(),
		management.WithClient(&http.Client{Transport: c.cfg.Transport, Timeout: requestTimeout})}
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
func (c *Client) LogStreams(ctx context.Context) ([]ingest.LogStream, ingest.Limit, error) {
	body, _, limit, err := c.get(ctx, pathStreams, nil)
	if err != nil {
		return nil, limit, err
	}
	var list []ingest.LogStream
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, limit, unreadable(pathStreams, limit, ingest.KindAnswer, fmt.Errorf("the answer is not an array of log streams: %w", err))
	}
	return list, limit, nil
}

// page calls GET /api/v2/logs.
func (c *Client) page(ctx context.Context, query url.Values) (ingest.Page, error) {
	body, header, limit, err := c.get(ctx, pathLogs, query)
	if err != nil {
		return ingest.Page{}, err
	}
	events, err := splitArray(body)
	if err != nil {
		return ingest.Page{}, unreadable(pathLogs, limit, ingest.KindAnswer, fmt.Errorf("the answer (200, %s) is not an array of events: %w", header.Get("Content-Type"), err))
	}
	return ingest.Page{Events: events, Next: nextID(header), Limit: limit}, nil
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
		return nil, nil, limit, unreadable(path, limit, ingest.KindTooLarge, errTooLarge)
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

// splitArray cuts a JSON array into its elements without changing a byte of
// them. Names that repeat and text that is not Unicode are the events' affair.
func splitArray(body []byte) ([][]byte, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if tok, err := dec.ReadToken(); err != nil {
		return nil, err
	} else if tok.Kind() != '[' {
		return nil, errors.New("it begins with " + tok.Kind().String())
	}
	events := make([][]byte, 0, ingest.MaxTake)
	for dec.PeekKind() != ']' {
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		end := int(dec.InputOffset())
		events = append(events, body[end-len(value):end:end])
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, errors.New("more text follows it")
	}
	return events, nil
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

// limitOf reads the x-ratelimit headers. The reset is a time of the server's
// clock, so it is held against the server's Date.
func limitOf(h http.Header) ingest.Limit {
	size, err1 := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	remaining, err2 := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	if err1 != nil || err2 != nil {
		return ingest.Limit{}
	}
	l := ingest.Limit{Known: true, Limit: size, Remaining: remaining}
	if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		now := time.Now()
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		reset = min(max(reset, 0), 1<<40) // far beyond any date, and what time.Unix can take
		l.Reset = min(max(time.Unix(reset, 0).Sub(now), 0), maxReset)
	}
	return l
}

// maxReset bounds what we believe of a reset header; a day is Auth0's longest quota.
const maxReset = time.Hour
