// Package auth0 is the client of a tenant's Management API: pages of raw log events,
// the rate limit of each response, and errors that say what to do. Page, Limit, LogStream and Error
// are its words; callers declare the interface that they need of it.
//
// go-auth0 does authentication and requests. Events never pass through its types,
// which drop unknown members. The package does not retry: the caller paces, repeats
// and counts the calls.
package auth0

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/auth0/go-auth0/management"
	"golang.org/x/oauth2"

	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	// requestTimeout bounds one call with its body. Auth0 answers within a few
	// seconds or not at all.
	requestTimeout = 60 * time.Second
	// maxBody bounds a page: 100 events of 640 KB.
	maxBody = 64 << 20
	// maxPrealloc bounds the memory that is allocated before a page's first byte.
	maxPrealloc = 1 << 20
)

const (
	pathLogs    = "/api/v2/logs"
	pathStreams = "/api/v2/log-streams"
	pathToken   = "/oauth/token"
)

var errTooLarge = fmt.Errorf("the page is larger than %d MB", maxBody>>20)

// Config describes how to reach a tenant.
type Config struct {
	BaseURL      *url.URL // of the tenant, see ParseDomain
	Audience     string   // of the Management API; empty for BaseURL/api/v2/
	ClientID     string
	ClientSecret string            // or PrivateKey
	PrivateKey   string            // PEM, for private_key_jwt with RS256
	Transport    http.RoundTripper // nil for Go's default
	UserAgent    string
}

// Client calls one tenant's Management API. Its methods may run concurrently.
type Client struct {
	cfg      Config
	host     string
	pageSize atomic.Int64 // bytes of the largest recent page

	mu  sync.Mutex // guards api
	api *management.Management
}

// New returns a client. It makes no call.
func New(cfg Config) (*Client, error) {
	if cfg.Audience == "" {
		cfg.Audience = cfg.BaseURL.String() + "/api/v2/"
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	cfg.Transport = tenantOnly{cfg.Transport, cfg.BaseURL}

	client := &Client{cfg: cfg, host: cfg.BaseURL.Host}
	var err error
	client.api, err = client.connect()
	return client, err
}

// tenantOnly calls only the tenant's host: a redirect to another one would disclose
// the token or the secret. It also reverts go-auth0's https for a simulated tenant.
type tenantOnly struct {
	http.RoundTripper
	base *url.URL
}

// RoundTrip implements http.RoundTripper.
func (t tenantOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != t.base.Host || r.URL.Scheme != "https" && r.URL.Scheme != t.base.Scheme {
		return nil, errors.New("the tenant redirects to another host, which is not followed")
	}
	if r.URL.Scheme != t.base.Scheme {
		r = r.Clone(r.Context())
		r.URL.Scheme = t.base.Scheme
	}
	return t.RoundTripper.RoundTrip(r)
}

// connect returns a go-auth0 client that has no token yet.
func (c *Client) connect() (*management.Management, error) {
	tokenClient := &http.Client{Transport: c.cfg.Transport, Timeout: requestTimeout}

	// With a secret, our own transport adds the token, see tokens. With a private key,
	// go-auth0 does.
	credentials := management.WithStaticToken("replaced by authorized")
	calls := http.RoundTripper(authorized{c.cfg.Transport, newTokens(tokenClient, c.cfg)})
	if c.cfg.PrivateKey != "" {
		ctx := context.WithValue(context.Background(), oauth2.HTTPClient, tokenClient)
		credentials = management.WithClientCredentialsPrivateKeyJwtAndAudience(
			ctx, c.cfg.ClientID, c.cfg.PrivateKey, "RS256", c.cfg.Audience)
		calls = c.cfg.Transport
	}

	opts := []management.Option{
		credentials,
		management.WithNoRetries(),
		management.WithClient(&http.Client{Transport: calls, Timeout: requestTimeout}),
	}
	if c.cfg.UserAgent != "" {
		opts = append(opts, management.WithUserAgent(c.cfg.UserAgent))
	}
	api, err := management.New(c.host, opts...)
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", c.host, err)
	}
	return api, nil
}

// Logs returns up to take events that were stored after the event with the id from,
// which need not exist, in the order of their ids. An empty page means that there are
// none yet.
func (c *Client) Logs(ctx context.Context, from string, take int) (Page, error) {
	return c.page(ctx, url.Values{"from": {from}, "take": {strconv.Itoa(take)}})
}

// Oldest returns some of the oldest events by event time. It finds a first id for a
// tenant that rejects ids that it has not issued.
func (c *Client) Oldest(ctx context.Context) (Page, error) {
	return c.page(ctx, url.Values{"sort": {"date:1"}, "page": {"0"}, "per_page": {strconv.Itoa(MaxTake)}})
}

// LogStreams lists the tenant's log streams. It needs the scope read:log_streams. If
// some items cannot be read, it returns the others with an error that names these.
func (c *Client) LogStreams(ctx context.Context) ([]LogStream, Limit, error) {
	body, _, limit, err := c.get(ctx, pathStreams, nil)
	if err != nil {
		return nil, limit, err
	}
	items, err := schema.SplitArray(body)
	if err != nil {
		err = fmt.Errorf("the answer is not an array of log streams: %w", err)
		return nil, limit, unreadable(pathStreams, limit, KindAnswer, err)
	}

	var list []LogStream
	var faults []string
	for i, item := range items {
		stream, err := readStream(item)
		if err != nil {
			faults = append(faults, fmt.Sprintf("item %d: %v", i+1, err))
			continue
		}
		list = append(list, stream)
	}
	if len(faults) > 0 {
		err := fmt.Errorf("%d of %d log streams cannot be read: %s",
			len(faults), len(items), clip(strings.Join(faults, "; ")))
		return list, limit, unreadable(pathStreams, limit, KindAnswer, err)
	}
	return list, limit, nil
}

// readStream reads one log stream. A name or type that is not text is left empty.
func readStream(item []byte) (LogStream, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(item, &members); err != nil || members == nil {
		return LogStream{}, errors.New("it is not an object")
	}
	text := func(name string) string {
		var value string
		if json.Unmarshal(members[name], &value) != nil {
			return ""
		}
		return value
	}

	stream := LogStream{ID: text("id"), Name: text("name"), Type: text("type"), Status: text("status")}
	if stream.ID == "" || stream.Status == "" {
		return stream, errors.New("its id or its status is not a text")
	}
	return stream, nil
}

// page calls GET /api/v2/logs.
func (c *Client) page(ctx context.Context, query url.Values) (Page, error) {
	// The first byte may come in the moment in which a canceled call returns.
	var first atomic.Pointer[time.Time]
	trace := &httptrace.ClientTrace{GotFirstResponseByte: func() {
		now := time.Now()
		first.Store(&now)
	}}
	body, header, limit, err := c.get(httptrace.WithClientTrace(ctx, trace), pathLogs, query)

	date, _ := http.ParseTime(header.Get("Date"))
	page := Page{Next: nextID(header), Date: date, Limit: limit}
	if came := first.Load(); came != nil {
		page.Came = *came
	}
	alone := query.Get("take") == "1"

	// An event larger than any page. Its beginning is returned as it is: not JSON.
	var failed *Error
	tooLarge := errors.As(err, &failed) && failed.Kind == KindTooLarge
	if tooLarge && alone && page.Next != "" {
		page.Events = [][]byte{bytes.TrimLeft(body[:maxBody], " \t\r\n[")}
		return page, nil
	}
	if err != nil {
		return Page{}, err
	}
	if page.Events, err = schema.SplitArray(body); err == nil {
		return page, nil
	}

	// An event with unbalanced brackets or quotes hides where the next one begins. If
	// it was requested alone, it is everything between the brackets of the array.
	text := bytes.TrimSpace(body)
	whole := page.Next != "" && len(text) > 2 && text[0] == '[' && text[len(text)-1] == ']'
	if whole && alone {
		page.Events = [][]byte{bytes.TrimSpace(text[1 : len(text)-1])}
		return page, nil
	}

	err = fmt.Errorf("the answer (200, %s) is not an array of events: %w", header.Get("Content-Type"), err)
	unread := unreadable(pathLogs, limit, KindAnswer, err)
	unread.Whole = whole
	return Page{}, unread
}

// get calls an endpoint. If the token is refused, it repeats the call once with a new
// one.
func (c *Client) get(ctx context.Context, path string, query url.Values) ([]byte, http.Header, Limit, error) {
	c.mu.Lock()
	api := c.api
	c.mu.Unlock()

	body, header, limit, err := c.getWith(ctx, api, path, query)
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized || refused.Path != path {
		return body, header, limit, err
	}

	// The token may have been revoked, or its key replaced.
	if api, err = c.renew(api); err != nil {
		return nil, nil, limit, err
	}
	return c.getWith(ctx, api, path, query)
}

// renew replaces a client whose token was refused. Of several callers with the same
// client, only the first replaces it.
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

// getWith calls an endpoint with a go-auth0 client. With KindTooLarge it returns the
// beginning of the body, too.
func (c *Client) getWith(
	ctx context.Context, api *management.Management, path string, query url.Values,
) ([]byte, http.Header, Limit, error) {
	none := Limit{}
	uri := api.URI(strings.TrimPrefix(path, "/api/v2/"))
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	req, err := api.NewRequest(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, nil, none, unreadable(path, none, KindClient, err)
	}
	res, err := do(api, req)
	if err != nil {
		return nil, nil, none, c.redact(transportError(path, err), "")
	}
	defer res.Body.Close()

	limit := limitOf(res.Header)
	body, err := c.readBody(res.Body)
	if err != nil {
		err = fmt.Errorf("the answer broke off after %d bytes: %w", len(body), err)
		return nil, nil, limit, unreadable(path, limit, KindAnswer, err)
	}

	if res.StatusCode != http.StatusOK {
		// A proxy may repeat the token in its error page.
		_, token, _ := strings.Cut(res.Request.Header.Get("Authorization"), " ")
		return nil, nil, limit, c.redact(answerError(path, res, body, limit), token)
	}
	if len(body) > maxBody {
		return body, res.Header, limit, unreadable(path, limit, KindTooLarge, errTooLarge)
	}
	return body, res.Header, limit, nil
}

// readBody reads up to maxBody+1 bytes into a buffer that fits the recent pages.
func (c *Client) readBody(r io.Reader) ([]byte, error) {
	size := min(c.pageSize.Load(), maxPrealloc)
	buf := bytes.NewBuffer(make([]byte, 0, size+size/8+4<<10))
	if _, err := buf.ReadFrom(io.LimitReader(r, maxBody+1)); err != nil {
		return buf.Bytes(), err
	}

	// One large page is forgotten after some smaller ones.
	c.pageSize.Store(max(int64(buf.Len()), c.pageSize.Load()*15/16))
	return buf.Bytes(), nil
}

// do sends a request and returns when its context ends, at the latest. The call for
// the token does not know the context; it then continues until its timeout.
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
	case got := <-came:
		return got.res, got.err
	case <-req.Context().Done():
		// Close the body of a response that still arrives.
		go func() {
			if late := <-came; late.err == nil {
				late.res.Body.Close()
			}
		}()
		return nil, req.Context().Err()
	}
}
