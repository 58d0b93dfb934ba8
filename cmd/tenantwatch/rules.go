package main

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"strings"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

type rulesCmd struct {
	Convert  rulesConvertCmd  `cmd:"" help:"Print a rule as SQL for ClickHouse."`
	Explain  rulesExplainCmd  `cmd:"" help:"Explain why a rule fires at an event, or does not."`
	Lint     rulesLintCmd     `cmd:"" help:"Check rules for mistakes, such as thresholds that cannot be reached."`
	List     rulesListCmd     `cmd:"" help:"List the rules with their status: enabled, disabled, refused and so on."`
	Scan     rulesScanCmd     `cmd:"" help:"Run rules over files of events, without Kafka and ClickHouse."`
	Test     rulesTestCmd     `cmd:"" help:"Run the timeline tests beside the rules: x.test.yml beside x.yml."`
	Backtest rulesBacktestCmd `cmd:"" help:"Run rules over the stored events, and suggest thresholds."`
}

// AfterApply lifts the memory limit of the process that runs forever: with it, a large scan would mostly
// collect garbage.
func (rulesCmd) AfterApply() error {
	debug.SetMemoryLimit(math.MaxInt64)
	return nil
}

// ruleSources is the flags for the rules of a command.
type ruleSources struct {
	Rules   []string          `placeholder:"DIR" help:"Folders with Sigma rules, in addition to TENANTWATCH_RULES."`
	Builtin bool              `default:"true" negatable:"" help:"Load the built-in rules."`
	Var     map[string]string `placeholder:"NAME=VALUE,…" mapsep:"none" help:"Variable of the rules and its values."`

	AllLogSources bool `help:"Also run rules for other products than Auth0."`
}

// sources returns the settings and the folders of the rules.
func (s *ruleSources) sources(a *app) (rules.Settings, []fs.FS, error) {
	c, err := a.settings()
	if err != nil {
		return rules.Settings{}, nil, err
	}

	var sources []fs.FS
	if s.Builtin {
		sources = append(sources, builtin.FS())
	}

	// Later folders replace rules of earlier ones.
	for _, dir := range append(c.Rules, s.Rules...) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return rules.Settings{}, nil, usageError(fmt.Sprintf("--rules: %s is not a folder", dir))
		}
		sources = append(sources, os.DirFS(dir))
	}

	// Flags extend the settings of the environment.
	settings := c.RuleSettings()
	for name, values := range s.Var {
		// A flag replaces the variable of the settings.
		settings.Vars[name] = strings.Split(values, ",")
	}
	settings.AllLogSources = settings.AllLogSources || s.AllLogSources
	return settings, sources, nil
}

// load compiles the rules.
func (s *ruleSources) load(a *app) (*rules.Set, *rules.Report, []fs.FS, error) {
	settings, sources, err := s.sources(a)
	if err != nil {
		return nil, nil, nil, err
	}
	set, report := settings.Load(sources...)
	return set, report, sources, nil
}

// find loads the rules and returns the named one. The rule is nil when its document does not run.
func (s *ruleSources) find(a *app, name string) (*rules.Set, *rules.Document, *rules.Rule, error) {
	set, report, _, err := s.load(a)
	if err != nil {
		return nil, nil, nil, err
	}
	doc, rule, err := findRule(set, report, name)
	return set, doc, rule, err
}

// findRule returns the rule that --rule names. The rule is nil when its document does not run.
func findRule(set *rules.Set, report *rules.Report, name string) (*rules.Document, *rules.Rule, error) {
	doc, rule, err := rules.Find(set, report, name)
	if err != nil {
		return nil, nil, usageError("--rule: " + err.Error())
	}
	return doc, rule, nil
}

type rulesListCmd struct {
	ruleSources
	output.Format
}

// Run lists the documents in the order in which they were read.
func (l *rulesListCmd) Run(a *app) error {
	_, report, _, err := l.load(a)
	if err != nil {
		return err
	}
	rows, err := l.Rows(a.stdout, "status", "kind", "id", "title", "file", "line", "reason")
	if err != nil {
		return err
	}

	for _, doc := range report.Documents {
		// A rule that runs may still have warnings.
		reason := doc.Reason
		if reason == "" {
			reason = strings.Join(doc.Warnings, "; ")
		}
		values := []any{string(doc.Status), doc.Kind, doc.ID, doc.Title, doc.File, doc.Line, reason}
		if err := rows.Row(values...); err != nil {
			return err
		}
	}
	return rows.End()
}

// warnNotRunning prints the rules that should run but cannot, and the warnings of filters, one a line. Its
// error counts the rules; it is nil without any.
func warnNotRunning(w io.Writer, report *rules.Report) error {
	for _, doc := range report.Documents {
		switch doc.Status {
		case rules.StatusRefused:
			fmt.Fprintf(w, "rule refused: %s\n", doc.Reason)
		case rules.StatusWaiting:
			fmt.Fprintf(w, "rule waits: %s:%d: %s: %s\n", doc.File, doc.Line, doc.Title, doc.Reason)
		}
		if doc.Kind == "filter" {
			for _, warning := range doc.Warnings {
				fmt.Fprintf(w, "filter: %s\n", warning)
			}
		}
	}

	// A rule that is disabled on purpose is no error.
	refused, waiting := report.Count(rules.StatusRefused), report.Count(rules.StatusWaiting)
	switch {
	case refused > 0 && waiting > 0:
		return fmt.Errorf("%d rules were refused, %d wait for variables", refused, waiting)
	case refused > 0:
		return fmt.Errorf("%d rules were refused", refused)
	case waiting > 0:
		return fmt.Errorf("%d rules wait for variables", waiting)
	}
	return nil
}
