package web

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is the readiness of a role.
type Check struct {
	Role string

	// Problem returns why the role does not work; empty when it does.
	Problem func(ctx context.Context) string
}

// checkTimeout bounds all checks of one request.
const checkTimeout = 5 * time.Second

// Verdict reports whether a tenant's login works, and if not, why.
type Verdict func() (ok bool, reasons []string)

// Pages is what the handler serves.
type Pages struct {
	Version string
	Metrics *prometheus.Registry
	Checks  []Check            // of /readyz
	Logins  map[string]Verdict // by tenant, of /health/auth0
}

// Handler serves metrics, liveness, readiness, the probes' verdicts and the start page.
func (p *Pages) Handler() http.Handler {
	reg, checks, logins := p.Metrics, p.Checks, p.Logins
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
		answer(w, true, "tenantwatch "+p.Version+"\n\n/metrics\n/livez\n/readyz\n/health/auth0")
	})
	return mux
}

// serveReady answers with a line for each role.
func serveReady(w http.ResponseWriter, r *http.Request, checks []Check) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()

	ready, lines := true, []string{}
	// All checks run, so that the answer names every role that does not work.
	for _, c := range checks {
		problem := c.Problem(ctx)
		ready = ready && problem == ""
		lines = append(lines, c.Role+": "+cmp.Or(problem, "ok"))
	}
	answer(w, ready, strings.Join(lines, "\n"))
}

// serveVerdicts answers OK when the login of each given tenant works, else with the reasons. They name the
// tenant when several are probed.
func serveVerdicts(w http.ResponseWriter, logins map[string]Verdict, tenants ...string) {
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
