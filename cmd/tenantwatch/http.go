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

// check tells why a part of the process does not do its work; nothing when it does.
type check struct {
	role    string
	trouble func(ctx context.Context) string
}

// checkTimeout bounds all checks of one request.
const checkTimeout = 5 * time.Second

// stopGrace is how long a stop waits for requests that are under way.
const stopGrace = time.Second

// readTimeout bounds a request with its body, also of those who are not let in.
const readTimeout = 30 * time.Second

// web is what an address serves.
type web struct {
	listener net.Listener
	server   *http.Server
}

// listenWeb takes the address of a setting. Port 0 takes any; the address says which.
func listenWeb(setting, addr string) (*web, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w: choose another port, or 0 for any", setting, addr, err)
	}
	return &web{listener: l}, nil
}

func (w *web) addr() string { return w.listener.Addr().String() }

// verdict is the probe's: whether login works, and if not, why.
type verdict func() (ok bool, reasons []string)

// handler serves metrics, health and the place of the page.
func handler(reg *prometheus.Registry, checks []check, logins map[string]verdict) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, true, "OK") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		all, lines := true, []string{}
		for _, c := range checks {
			trouble := c.trouble(ctx)
			all = all && trouble == ""
			lines = append(lines, c.role+": "+cmp.Or(trouble, "ok"))
		}
		answer(w, all, strings.Join(lines, "\n"))
	})
	health := func(w http.ResponseWriter, tenants ...string) {
		all, lines := true, []string{}
		for _, tenant := range tenants {
			ok, reasons := logins[tenant]()
			all = all && ok
			for _, reason := range reasons {
				if !ok && len(logins) > 1 {
					reason = tenant + ": " + reason
				}
				lines = append(lines, reason)
			}
		}
		if all {
			lines = []string{"OK"}
		}
		answer(w, all, strings.Join(lines, "\n"))
	}
	mux.HandleFunc("GET /health/auth0", func(w http.ResponseWriter, _ *http.Request) {
		if len(logins) == 0 {
			answer(w, false, "no probe: set PROBE_CLIENT_ID, PROBE_USERNAME and PROBE_PASSWORD")
			return
		}
		health(w, slices.Sorted(maps.Keys(logins))...)
	})
	mux.HandleFunc("GET /health/auth0/{tenant}", func(w http.ResponseWriter, r *http.Request) {
		tenant := r.PathValue("tenant")
		if logins[tenant] == nil {
			http.Error(w, "no probe of a tenant "+tenant, http.StatusNotFound)
			return
		}
		health(w, tenant)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, true, "tenantwatch "+version()+"\n\n/metrics\n/livez\n/readyz\n/health/auth0")
	})
	return mux
}

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
	w.server = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: readTimeout, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() {
		// Those who have sent something get their answer.
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
