package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

// allLogSources has rules for other products run, too.
type allLogSources bool

// UnmarshalText takes a setting.
func (s *allLogSources) UnmarshalText(text []byte) error {
	on, err := strconv.ParseBool(string(text))
	if err != nil {
		return fmt.Errorf("TENANTWATCH_ALL_LOG_SOURCES: %q is neither true nor false", text)
	}
	*s = allLogSources(on)
	return nil
}

// ruleSettings is how rules are loaded.
func (c *Config) ruleSettings() rules.Settings {
	return rules.Settings{Vars: c.ruleVars(), AllLogSources: bool(c.AllRules)}
}

// ruleFiles are the rules of a running instance and where they come from.
type ruleFiles struct {
	settings rules.Settings
	sources  []fs.FS
	log      *slog.Logger
	byState  *prometheus.GaugeVec
	reloads  *prometheus.CounterVec
	read     [sha256.Size]byte // what the sources were when last read
}

func newRuleFiles(c *Config, log *slog.Logger, reg prometheus.Registerer) *ruleFiles {
	f := promauto.With(reg)
	r := &ruleFiles{settings: c.ruleSettings(), sources: []fs.FS{builtin.FS()}, log: log,
		byState: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantwatch_rules_documents", Help: "Documents of the rules' files, by what became of them; those that are refused do not run."}, []string{"status"}),
		reloads: f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_rules_reloads_total", Help: "Times that the rules were read anew while running; refused ones left the old rules in force."}, []string{"result"})}
	for _, dir := range c.Rules {
		r.sources = append(r.sources, os.DirFS(dir))
	}
	for _, result := range []string{"done", "refused"} {
		r.reloads.WithLabelValues(result)
	}
	return r
}

// load compiles the built-in rules and those of TENANTWATCH_RULES. What cannot be
// evaluated is said, and the rest runs.
func (r *ruleFiles) load() *rules.Set {
	r.read = r.digest()
	set, report := r.settings.Load(r.sources...)
	r.tell(report)
	return set
}

func (r *ruleFiles) tell(report *rules.Report) {
	for _, d := range report.Documents {
		if d.Status == rules.StatusRefused || d.Status == rules.StatusWaiting || d.Status == rules.StatusDisabled {
			r.log.Warn("rule does not run", "status", d.Status, "file", d.File, "line", d.Line, "title", d.Title, "reason", d.Reason)
		}
		if d.Kind == "filter" && len(d.Warnings) > 0 {
			r.log.Warn("filter does not fit all of its rules", "file", d.File, "line", d.Line, "title", d.Title, "reasons", d.Warnings)
		}
	}
	for _, s := range []rules.Status{rules.StatusEnabled, rules.StatusTuned, rules.StatusWaiting, rules.StatusDisabled, rules.StatusRefused, rules.StatusReplaced, rules.StatusOtherSource} {
		r.byState.WithLabelValues(string(s)).Set(float64(report.Count(s)))
	}
	r.log.Info("rules loaded", "enabled", report.Count(rules.StatusEnabled, rules.StatusTuned), "waiting", report.Count(rules.StatusWaiting),
		"disabled", report.Count(rules.StatusDisabled, rules.StatusReplaced), "refused", report.Count(rules.StatusRefused), "other_log_source", report.Count(rules.StatusOtherSource))
}

// lookEvery is how often the files are looked at.
const lookEvery = 2 * time.Second

// watch reads the rules anew when a file has changed, and on SIGHUP, until ctx
// ends.
func (r *ruleFiles) watch(ctx context.Context, apply func(*rules.Set)) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	defer signal.Stop(asked)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-asked:
			r.reload(apply)
		case <-tick.C:
			if r.digest() != r.read {
				r.reload(apply)
			}
		}
	}
}

// reload puts the rules in force as the files have them now: all of them, or, when
// a document is refused, none. The old ones go on then.
func (r *ruleFiles) reload(apply func(*rules.Set)) {
	r.read = r.digest()
	set, report := r.settings.Load(r.sources...)
	if refused := report.Count(rules.StatusRefused); refused > 0 {
		for _, d := range report.Documents {
			if d.Status == rules.StatusRefused {
				r.log.Error("the rules are not read anew, the old ones stay in force: a rule is refused", "file", d.File, "line", d.Line, "reason", d.Reason)
			}
		}
		r.reloads.WithLabelValues("refused").Inc()
		return
	}
	r.tell(report)
	r.reloads.WithLabelValues("done").Inc()
	apply(set)
}

// digest tells one state of the files from another.
func (r *ruleFiles) digest() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, source := range r.sources[1:] { // those that we ship do not change
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
