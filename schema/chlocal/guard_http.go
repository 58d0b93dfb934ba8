package chlocal

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// The headers with which a client of the HTTP interface logs in.
const (
	userHeader = "X-ClickHouse-User"
	keyHeader  = "X-ClickHouse-Key"
)

// openPaths need no password: they show nothing of the data.
var openPaths = map[string]bool{"/ping": true, "/play": true, "/favicon.ico": true}

// droppedParams are settings that would let pages of other sites read answers.
var droppedParams = []string{"add_http_cors_header", "http_response_headers"}

// credentialHeaders are the headers that the engine must not get from a client: its own login replaces them.
var credentialHeaders = []string{
	"Authorization", userHeader, keyHeader, "Origin", "Referer", "X-ClickHouse-SSL-Certificate-Auth",
}

// loginKey is the context key of a request's login.
type loginKey struct{}

// errStarting is the answer while the engine restarts.
var errStarting = errors.New("the embedded ClickHouse is restarting; try again in a moment")

func (g *guard) newWeb() *http.Server {
	proxy := &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		ModifyResponse: protectResponse,
		FlushInterval:  -1, // an answer is a stream

		// A connection for each query, so that the query ends with its client.
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: helloTimeout}).DialContext,
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			switch {
			case errors.Is(err, errFileFunction):
				http.Error(w, err.Error(), http.StatusForbidden)
			case errors.Is(err, context.Canceled):
				w.WriteHeader(http.StatusBadGateway) // the client has gone
			default:
				http.Error(w, errStarting.Error(), http.StatusBadGateway)
			}
		},
	}

	return &http.Server{
		Handler:           g.check(proxy),
		ReadHeaderTimeout: helloTimeout,
		IdleTimeout:       time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers could fill the log
	}
}

// check passes on a request that comes from this machine, not from a page of another site, and that has a
// password or needs none.
func (g *guard) check(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The engine may answer before it has read the whole query. By default the server then closes the
		// query's body, which ends the engine's answer as well.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}

		// Pages in a browser of this machine reach loopback too.
		if !isLoopbackHost(r.Host) {
			http.Error(w, "the Host header is not a loopback address of this machine", http.StatusForbidden)
			return
		}
		if isCrossSite(r) {
			http.Error(w, "requests of other sites' pages are refused", http.StatusForbidden)
			return
		}

		withLogin := func(l login) *http.Request {
			return r.WithContext(context.WithValue(r.Context(), loginKey{}, l))
		}
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		// The query page needs no password to load; its queries do.
		if openPaths[r.URL.Path] && reads {
			r.URL.RawQuery = "" // it could hold a query
			next.ServeHTTP(w, withLogin(login{}))
			return
		}

		l, err := g.authenticate(r)
		if err == nil {
			next.ServeHTTP(w, withLogin(l))
			return
		}

		// A wrong password makes a browser ask again; other reasons do not.
		status := http.StatusForbidden
		if errors.Is(err, errRefused) {
			w.Header().Set("WWW-Authenticate", `Basic realm="ClickHouse server HTTP API"`)
			status = http.StatusUnauthorized
		}
		http.Error(w, err.Error(), status)
	})
}

// authenticate returns the login of a request, or why it is refused.
func (g *guard) authenticate(r *http.Request) (login, error) {
	user, password, err := credentials(r)
	if err != nil {
		return login{}, err
	}
	l, err := g.admit(user, password)
	if err == nil && l.tenant != "" {
		err = checkTenantRequest(r)
	}
	return l, err
}

// isLoopbackHost reports whether a Host header names this machine. A page of a name that was made to resolve to
// this machine (DNS rebinding) sends its own name.
func isLoopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return loopbackHost(strings.Trim(host, "[]"))
}

// isCrossSite reports whether a browser sent a request for a page of another site.
func isCrossSite(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return true
	}
	origin := r.Header.Get("Origin")
	return origin != "" && origin != "http://"+r.Host
}

// credentials returns the user and the password of a request, which are in exactly one of three places.
func credentials(r *http.Request) (user, password string, err error) {
	type pair struct{ user, password string }
	var found []pair
	if basicUser, basicPassword, ok := r.BasicAuth(); ok {
		found = append(found, pair{basicUser, basicPassword})
	}
	if r.Header.Get(userHeader) != "" || r.Header.Get(keyHeader) != "" {
		found = append(found, pair{r.Header.Get(userHeader), r.Header.Get(keyHeader)})
	}
	params := r.URL.Query()
	if params.Get("user") != "" || params.Get("password") != "" {
		found = append(found, pair{params.Get("user"), params.Get("password")})
	}

	// As in ClickHouse, more than one is an error.
	switch len(found) {
	case 0:
		return "", "", errRefused
	case 1:
		return found[0].user, found[0].password, nil
	}
	return "", "", errors.New("credentials in more than one place: " +
		"use one of Authorization, " + userHeader + " and the parameter user")
}

// rewrite turns a client's request into one to the engine, with the engine's own login.
func (g *guard) rewrite(p *httputil.ProxyRequest) {
	at := g.server.direct
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", at.http, at.http

	// Remove the client's credentials, and what would open the answer to other sites.
	params := p.Out.URL.Query()
	for _, name := range append([]string{"user", "password"}, droppedParams...) {
		params.Del(name)
	}
	p.Out.URL.RawQuery = params.Encode()
	for _, name := range credentialHeaders {
		p.Out.Header.Del(name)
	}

	l, _ := p.In.Context().Value(loginKey{}).(login)
	if l.name == "" {
		return // an open path
	}
	p.Out.Header.Set(userHeader, l.name)
	p.Out.Header.Set(keyHeader, l.password)

	// checkTenantRequest has checked the parameters; the body is filtered on its way.
	if l.tenant != "" && p.Out.Body != nil {
		p.Out.Body = struct {
			io.Reader
			io.Closer
		}{&fileFilter{r: p.Out.Body}, p.Out.Body}
	}
}

// protectResponse removes the headers that would let a page of another site read the answer.
func protectResponse(r *http.Response) error {
	for name := range r.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			r.Header.Del(name)
		}
	}
	r.Header.Set("X-Content-Type-Options", "nosniff")
	r.Header.Set("Cache-Control", "no-store")
	return nil
}

// checkTenantRequest refuses a request that the filter cannot read, and checks the parameters.
func checkTenantRequest(r *http.Request) error {
	params := r.URL.Query()
	multipart := strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/")
	if multipart || r.Header.Get("Content-Encoding") != "" || params.Has("decompress") {
		return errors.New("the reader of one tenant must send queries as plain text, not compressed and not in parts")
	}

	for _, values := range params {
		for _, value := range values {
			if mentionsFileFunction(value) {
				return errFileFunction
			}
		}
	}

	// Query skips what it cannot parse, but the engine may not.
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return err
	}
	return nil
}
