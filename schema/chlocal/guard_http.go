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

type loginKey struct{}

func (g *guard) newWeb() *http.Server {
	proxy := &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		ModifyResponse: closeToOthers,
		FlushInterval:  -1, // an answer is a stream
		// A connection for each query, so that the end of the client ends it.
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: (&net.Dialer{Timeout: helloTimeout}).DialContext},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			switch {
			case errors.Is(err, errFileFunction):
				http.Error(w, err.Error(), http.StatusForbidden)
			case errors.Is(err, context.Canceled):
				w.WriteHeader(http.StatusBadGateway) // nobody reads it
			default:
				http.Error(w, "the embedded ClickHouse is starting again; try in a moment", http.StatusBadGateway)
			}
		},
	}
	return &http.Server{
		Handler:           g.check(proxy),
		ReadHeaderTimeout: helloTimeout,
		IdleTimeout:       time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // of what strangers send
	}
}

// check lets a request through that comes from this machine, from no other site's
// page, and has a password.
func (g *guard) check(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The engine may answer before it has read the whole query. By default the
		// server closes the query's body then, which ends the engine's answer as well.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}

		if !ownHost(r.Host) {
			http.Error(w, "the Host header is not an address of this machine's loopback", http.StatusForbidden)
			return
		}
		if foreignPage(r) {
			http.Error(w, "pages of other sites are not served", http.StatusForbidden)
			return
		}
		if openPaths[r.URL.Path] && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			r.URL.RawQuery = ""
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), loginKey{}, login{})))
			return
		}

		user, password, err := credentials(r)
		if err == nil {
			var l login
			if l, err = g.admit(user, password); err == nil && l.tenant != "" {
				err = checkTenantRequest(r)
			}
			if err == nil {
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), loginKey{}, l)))
				return
			}
		}
		status := http.StatusForbidden
		if errors.Is(err, errRefused) {
			w.Header().Set("WWW-Authenticate", `Basic realm="ClickHouse server HTTP API"`)
			status = http.StatusUnauthorized
		}
		http.Error(w, err.Error(), status)
	})
}

// ownHost reports whether a Host header names this machine: a page whose name was
// made to point to it sends another.
func ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return loopbackHost(strings.Trim(host, "[]"))
}

// foreignPage reports whether a browser sent a request for another site's page.
func foreignPage(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return true
	}
	origin := r.Header.Get("Origin")
	return origin != "" && origin != "http://"+r.Host
}

// credentials are those of a request, which may be in one of three places.
func credentials(r *http.Request) (user, password string, err error) {
	query := r.URL.Query()
	type pair struct{ user, password string }
	var found []pair
	if u, p, ok := r.BasicAuth(); ok {
		found = append(found, pair{u, p})
	}
	if r.Header.Get(userHeader) != "" || r.Header.Get(keyHeader) != "" {
		found = append(found, pair{r.Header.Get(userHeader), r.Header.Get(keyHeader)})
	}
	if query.Get("user") != "" || query.Get("password") != "" {
		found = append(found, pair{query.Get("user"), query.Get("password")})
	}
	switch len(found) {
	case 0:
		return "", "", errRefused
	case 1:
		return found[0].user, found[0].password, nil
	}
	return "", "", errors.New("credentials in more than one place: use one of Authorization, " + userHeader + " and the parameter user")
}

// rewrite makes a request of a client one to the engine.
func (g *guard) rewrite(p *httputil.ProxyRequest) {
	at := g.server.direct
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", at.http, at.http
	params := p.Out.URL.Query()
	for _, name := range append([]string{"user", "password"}, droppedParams...) {
		params.Del(name)
	}
	p.Out.URL.RawQuery = params.Encode()
	for _, name := range []string{"Authorization", userHeader, keyHeader, "Origin", "Referer", "X-ClickHouse-SSL-Certificate-Auth"} {
		p.Out.Header.Del(name)
	}

	l, _ := p.In.Context().Value(loginKey{}).(login)
	if l.name == "" {
		return // an open path
	}
	p.Out.Header.Set(userHeader, l.name)
	p.Out.Header.Set(keyHeader, l.password)
	if l.tenant != "" && p.Out.Body != nil {
		p.Out.Body = struct {
			io.Reader
			io.Closer
		}{&fileFilter{r: p.Out.Body}, p.Out.Body}
	}
}

// closeToOthers removes what would let a page of another site read the answer.
func closeToOthers(r *http.Response) error {
	for name := range r.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			r.Header.Del(name)
		}
	}
	r.Header.Set("X-Content-Type-Options", "nosniff")
	r.Header.Set("Cache-Control", "no-store")
	return nil
}

// checkTenantRequest refuses what the filter cannot see through, and looks at the
// parameters; the body is looked at on its way.
func checkTenantRequest(r *http.Request) error {
	if r.Header.Get("Content-Encoding") != "" || r.URL.Query().Has("decompress") ||
		strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/") {
		return errors.New("the reader of one tenant sends queries as plain text: not compressed, not in parts")
	}
	for _, values := range r.URL.Query() {
		for _, value := range values {
			if mentionsFileFunction(value) {
				return errFileFunction
			}
		}
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return err
	}
	return nil
}
