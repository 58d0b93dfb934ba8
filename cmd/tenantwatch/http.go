package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// check is the readiness of a role. problem returns why the role does not work; empty when it does.
type check struct {
	role    string
	problem func(ctx context.Context) string
}

// checkTimeout bounds all checks of one request.
const checkTimeout = 5 * time.Second

// stopGrace is how long a stop waits for requests in flight.
const stopGrace = time.Second

// readTimeout bounds the reading of a request with its body, also of clients that have not authenticated.
const readTimeout = 30 * time.Second

// web is an HTTP server on one address.
type web struct {
	listener net.Listener
	server   *http.Server
}

// listenWeb listens on the address of a setting. Port 0 picks a free port, which addr returns.
func listenWeb(setting, addr string) (*web, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w: choose another port, or 0 for a free one", setting, addr, err)
	}
	return &web{listener: listener}, nil
}

func (w *web) addr() string { return w.listener.Addr().String() }

// verdict reports whether a tenant's login works, and if not, why.
type verdict func() (ok bool, reasons []string)

// handler serves metrics, liveness, readiness, the probes' verdicts and the start page.
func handler(reg *prometheus.Registry, checks []check, logins map[string]verdict) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, true, "OK") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { serveReady(w, r, checks) })

	// Polled by Pingdom, New Relic and the like: 200 with OK, or 503 with the reasons.
	mux.HandleFunc("GET /health/auth0", func(w http.ResponseWriter, _ *http.Request) {
		// Without a probe nothing proves that login works.
		if len(logins) == 0 {
			answer(w, false, "no probe: set PROBE_CLIENT_ID, PROBE_USERNAME and PROBE_PASSWORD")
			return
		}
		serveVerdicts(w, logins, slices.Sorted(maps.Keys(logins))...)
	})
	mux.HandleFunc("GET /health/auth0/{tenant}", func(w http.ResponseWriter, r *http.Request) {
		tenant := r.PathValue("tenant")
		if logins[tenant] == nil {
			http.Error(w, "no probe for tenant "+tenant, http.StatusNotFound)
			return
		}
		serveVerdicts(w, logins, tenant)
	})

	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, true, "tenantwatch "+version()+"\n\n/metrics\n/livez\n/readyz\n/health/auth0")
	})
	return mux
}

// serveReady answers with a line for each role.
func serveReady(w http.ResponseWriter, r *http.Request, checks []check) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()

	ready, lines := true, []string{}
	// All checks run, so that the answer names every role that does not work.
	for _, c := range checks {
		problem := c.problem(ctx)
		ready = ready && problem == ""
		lines = append(lines, c.role+": "+cmp.Or(problem, "ok"))
	}
	answer(w, ready, strings.Join(lines, "\n"))
}

// serveVerdicts answers OK when the login of each given tenant works, else with the reasons. They name the
// tenant when several are probed.
func serveVerdicts(w http.ResponseWriter, logins map[string]verdict, tenants ...string) {
	healthy, lines := true, []string{}
	for _, tenant := range tenants {
		ok, reasons := logins[tenant]()
		healthy = healthy && ok
		for _, reason := range reasons {
			if !ok && len(logins) > 1 {
				reason = tenant + ": " + reason
			}
			lines = append(lines, reason)
		}
	}
	if healthy {
		lines = []string{"OK"}
	}
	answer(w, healthy, strings.Join(lines, "\n"))
}

// answer writes a text with status 200 or 503.
func answer(w http.ResponseWriter, ok bool, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, text)
}

// run serves until ctx ends.
func (w *web) run(ctx context.Context, h http.Handler) error {
	w.server = &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: readTimeout, IdleTimeout: time.Minute,
	}

	// Requests in flight are answered within the grace; then their connections are closed.
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if w.server.Shutdown(grace) != nil {
			_ = w.server.Close()
		}
	})
	defer stop()

	if err := w.server.Serve(w.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("web: %w", err)
	}
	return nil
}
