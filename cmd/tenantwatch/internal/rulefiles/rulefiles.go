package rulefiles

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

// Files loads the rules of a running instance, and reloads them when their files change.
type Files struct {
	settings rules.Settings
	sources  []fs.FS // the built-in rules first
	log      *slog.Logger
	byStatus *prometheus.GaugeVec
	reloads  *prometheus.CounterVec
	loaded   [sha256.Size]byte // digest of the files at the last load
}

// New returns the rules of the settings, which Load reads.
func New(c *config.Config, log *slog.Logger, reg prometheus.Registerer) *Files {
	metrics := promauto.With(reg)
	r := &Files{
		settings: c.RuleSettings(), sources: []fs.FS{builtin.FS()}, log: log,
		byStatus: metrics.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tenantwatch_rules_documents",
			Help: "Number of documents in the rule files, by status. Refused documents do not run.",
		}, []string{"status"}),
		reloads: metrics.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_rules_reloads_total",
			Help: "Total number of rule reloads, by result. A refused reload keeps the previous rules.",
		}, []string{"result"}),
	}
	for _, dir := range c.Rules {
		r.sources = append(r.sources, os.DirFS(dir))
	}

	// Start at zero, so that a missing series is not mistaken for one.
	for _, result := range []string{"done", "refused"} {
		r.reloads.WithLabelValues(result)
	}
	return r
}

// Load compiles the built-in rules and those of TENANTWATCH_RULES. Documents that cannot be evaluated are
// logged, and the others run.
func (r *Files) Load() *rules.Set {
	r.loaded = r.digest()
	set, report := r.settings.Load(r.sources...)
	r.publish(report)
	return set
}

// publish logs a load and sets its metrics.
func (r *Files) publish(report *rules.Report) {
	for _, doc := range report.Documents {
		switch doc.Status {
		case rules.StatusRefused, rules.StatusWaiting, rules.StatusDisabled:
			r.log.Warn("rule does not run",
				"status", doc.Status, "file", doc.File, "line", doc.Line, "title", doc.Title, "reason", doc.Reason)
		}
		if doc.Kind == "filter" && len(doc.Warnings) > 0 {
			r.log.Warn("filter does not apply to all of its rules",
				"file", doc.File, "line", doc.Line, "title", doc.Title, "reasons", doc.Warnings)
		}
	}

	// Set every status, so that one which no longer occurs goes to zero.
	for _, status := range []rules.Status{rules.StatusEnabled, rules.StatusTuned, rules.StatusWaiting,
		rules.StatusDisabled, rules.StatusRefused, rules.StatusReplaced, rules.StatusOtherSource} {
		r.byStatus.WithLabelValues(string(status)).Set(float64(report.Count(status)))
	}

	r.log.Info("rules loaded",
		"enabled", report.Count(rules.StatusEnabled, rules.StatusTuned),
		"waiting", report.Count(rules.StatusWaiting),
		"disabled", report.Count(rules.StatusDisabled, rules.StatusReplaced),
		"refused", report.Count(rules.StatusRefused),
		"other_log_source", report.Count(rules.StatusOtherSource))
}

// reloadInterval is how often the files are checked for changes.
const reloadInterval = 2 * time.Second

// Watch reloads the rules when a file has changed, and on SIGHUP, until ctx ends.
func (r *Files) Watch(ctx context.Context, apply func(*rules.Set)) error {
	// SIGHUP reloads at once, also when nothing has changed.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(reloadInterval)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-hangup:
			r.reload(apply)
		case <-tick.C:
			if r.digest() != r.loaded {
				r.reload(apply)
			}
		}
	}
}

// reload applies the rules in the files. If a document is refused, nothing is applied, and the previous rules
// keep running.
func (r *Files) reload(apply func(*rules.Set)) {
	r.loaded = r.digest()
	set, report := r.settings.Load(r.sources...)

	if report.Count(rules.StatusRefused) > 0 {
		for _, doc := range report.Documents {
			if doc.Status == rules.StatusRefused {
				r.log.Error("rule reload rejected; keeping the previous rules",
					"file", doc.File, "line", doc.Line, "reason", doc.Reason)
			}
		}
		r.reloads.WithLabelValues("refused").Inc()
		return
	}

	r.publish(report)
	r.reloads.WithLabelValues("done").Inc()
	// Each partition rebuilds its windows for the new rules; firing alerts continue.
	apply(set)
}

// digest returns a hash of the files' names and content, or of the errors while reading them.
func (r *Files) digest() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, source := range r.sources[1:] { // the built-in rules do not change
		err := rules.Walk(source, func(name string) error {
			data, err := fs.ReadFile(source, name)
			fmt.Fprintf(h, "%q %d\n%s", name, len(data), data)
			return err
		})
		fmt.Fprintf(h, "%v\n", err)
	}
	h.Sum(sum[:0])
	return sum
}
