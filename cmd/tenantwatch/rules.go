package main

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/timeline"
	"github.com/tenantwatch/tenantwatch/schema"
)

type rulesCmd struct {
	Convert  rulesConvertCmd  `cmd:"" help:"Print a rule as SQL for ClickHouse, which finds what the rule finds without tenantwatch."`
	Explain  rulesExplainCmd  `cmd:"" help:"Say what a rule makes of an event, and why it fires or does not."`
	Lint     rulesLintCmd     `cmd:"" help:"Look for mistakes in rules, such as thresholds that Auth0's own limits keep out of reach."`
	List     rulesListCmd     `cmd:"" help:"List the rules and what became of each: loaded, disabled, refused or replaced, and why."`
	Scan     rulesScanCmd     `cmd:"" help:"Run rules over files of events, without Kafka and ClickHouse."`
	Test     rulesTestCmd     `cmd:"" help:"Run the timeline tests that lie beside the rules, as x.test.yml beside x.yml."`
	Backtest rulesBacktestCmd `cmd:"" help:"Tell what rules would have done over the events that are kept."`
}

// AfterApply lifts the limit of memory, which is for what runs for ever: with it,
// much of a large scan would be garbage collection.
func (rulesCmd) AfterApply() error {
	debug.SetMemoryLimit(math.MaxInt64)
	return nil
}

// ruleSources are the rules that a command is about.
type ruleSources struct {
	Rules   []string          `placeholder:"DIR" help:"Folders with Sigma rules, besides those of TENANTWATCH_RULES."`
	Builtin bool              `default:"true" negatable:"" help:"The built-in rules."`
	Var     map[string]string `placeholder:"NAME=VALUE,…" mapsep:"none" help:"A variable of the rules: one value, or several separated by commas."`

	AllLogSources bool `help:"Run rules for other products than Auth0, too."`
}

// read finds the settings and the folders.
func (s *ruleSources) read(a *app) (rules.Settings, []fs.FS, error) {
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return rules.Settings{}, nil, err
	}
	var sources []fs.FS
	if s.Builtin {
		sources = append(sources, builtin.FS())
	}
	for _, dir := range append(c.Rules, s.Rules...) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return rules.Settings{}, nil, usageError(fmt.Sprintf("--rules: %s is not a folder", dir))
		}
		sources = append(sources, os.DirFS(dir))
	}
	settings := c.ruleSettings()
	for name, values := range s.Var {
		settings.Vars[name] = strings.Split(values, ",")
	}
	settings.AllLogSources = settings.AllLogSources || s.AllLogSources
	return settings, sources, nil
}

// load compiles the rules.
func (s *ruleSources) load(a *app) (*rules.Set, *rules.Report, []fs.FS, error) {
	settings, sources, err := s.read(a)
	if err != nil {
		return nil, nil, nil, err
	}
	set, report := settings.Load(sources...)
	return set, report, sources, nil
}

type rulesListCmd struct {
	ruleSources
	Output string `enum:"table,json,csv" default:"table" help:"table, json (an array of objects) or csv (with a header)."`
}

// Run lists the documents in the order read.
func (l *rulesListCmd) Run(a *app) error {
	_, report, _, err := l.load(a)
	if err != nil {
		return err
	}
	rows, err := newPrinter(a.stdout, l.Output, []string{"status", "kind", "id", "title", "file", "line", "reason"})
	if err != nil {
		return err
	}
	for _, d := range report.Documents {
		reason := d.Reason
		if reason == "" {
			reason = strings.Join(d.Warnings, "; ")
		}
		if err := rows.row([]any{string(d.Status), d.Kind, d.ID, d.Title, d.File, d.Line, reason}); err != nil {
			return err
		}
	}
	return rows.end()
}

type rulesScanCmd struct {
	ruleSources
	Output    string   `enum:"table,json" default:"table" help:"table, or json: an object a line."`
	FailLevel string   `enum:"informational,low,medium,high,critical" default:"low" help:"From which level on a finding makes the exit code 3: informational, low, medium, high or critical."`
	Files     []string `arg:"" name:"file" help:"Events, an object a line or an array of them, as the Management API or a log stream has them; - for the standard input."`
}

// scanSamples is how many log_ids a found alert has at most.
const scanSamples = 1000

// matched is an event that a detection matches, as a line of rules scan.
type matched struct {
	Kind   string `json:"kind"`
	RuleID string `json:"rule_id"`
	Title  string `json:"title"`
	Level  string `json:"level"`
	LogID  string `json:"log_id"`
	Date   string `json:"date"`
}

// alerted is an alert of a correlation, as a line of rules scan.
type alerted struct {
	Kind   string            `json:"kind"`
	RuleID string            `json:"rule_id"`
	Title  string            `json:"title"`
	Level  string            `json:"level"`
	Group  map[string]string `json:"group"`
	At     string            `json:"at"` // of the event that made the condition true
	Count  float64           `json:"count"`
	LogIDs []string          `json:"log_ids"`
}

// scan is one run of rules over files.
type scan struct {
	cmd   *rulesScanCmd
	batch *scanner.Batch
	json  *json.Encoder // nil for a table
	table rowPrinter
	warn  io.Writer
	found int // at the fail level or above
	bad   int // what could not be read
}

// Run prints matches in the order of the files and then alerts by time.
func (c *rulesScanCmd) Run(ctx context.Context, a *app) error {
	set, report, _, err := c.load(a)
	if err != nil {
		return err
	}
	s := &scan{cmd: c, batch: scanner.NewBatch(set, scanSamples), warn: a.stderr}
	out := bufio.NewWriter(a.stdout)
	if c.Output == "json" {
		s.json = json.NewEncoder(out)
		s.json.SetEscapeHTML(false)
	} else {
		s.table = newTableRows(out, []string{"kind", "level", "rule", "at", "about"})
	}
	left := tellLeft(a.stderr, report)
	for _, file := range c.Files {
		if err := s.file(ctx, file); err != nil {
			return err
		}
	}
	if err := s.alerts(); err != nil {
		return err
	}
	if s.table != nil {
		if err := s.table.end(); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if n := s.batch.Timeouts(); n > 0 {
		fmt.Fprintf(a.stderr, "%d times a regular expression took too long and counted as no match\n", n)
	}
	broken := s.batch.Broken()
	for _, id := range slices.Sorted(maps.Keys(broken)) {
		fmt.Fprintf(a.stderr, "rule %s failed and was left out from then on; this is a fault of tenantwatch, please report it: %s\n", id, broken[id])
	}
	switch {
	case s.found > 0:
		return foundError(fmt.Sprintf("%d findings of level %s or above", s.found, c.FailLevel))
	case s.bad > 0:
		return fmt.Errorf("%d events could not be read", s.bad)
	case len(broken) > 0:
		return fmt.Errorf("%d rules failed", len(broken))
	}
	return left
}

// tellLeft names the rules that are to run but cannot, each on a line, and what filters do
// not fit. The error counts the former; it is nil where there are none.
func tellLeft(w io.Writer, report *rules.Report) error {
	for _, d := range report.Documents {
		switch d.Status {
		case rules.StatusRefused:
			fmt.Fprintf(w, "rule refused: %s\n", d.Reason)
		case rules.StatusWaiting:
			fmt.Fprintf(w, "rule waits: %s:%d: %s: %s\n", d.File, d.Line, d.Title, d.Reason)
		}
		if d.Kind == "filter" {
			for _, warning := range d.Warnings {
				fmt.Fprintf(w, "filter: %s\n", warning)
			}
		}
	}
	refused, waiting := report.Count(rules.StatusRefused), report.Count(rules.StatusWaiting)
	switch {
	case refused > 0 && waiting > 0:
		return fmt.Errorf("%d rules were refused, %d wait", refused, waiting)
	case refused > 0:
		return fmt.Errorf("%d rules were refused", refused)
	case waiting > 0:
		return fmt.Errorf("%d rules wait for variables", waiting)
	}
	return nil
}

// file scans one file.
func (s *scan) file(ctx context.Context, name string) error {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return usageError(err.Error())
		}
		defer f.Close()
		in = f
	}
	return eachEvent(ctx, name, in, s.event, s.unreadable)
}

func (s *scan) unreadable(place string, err error) {
	s.bad++
	fmt.Fprintf(s.warn, "%s: %v\n", place, err)
}

// event scans one event, whose own log_id may be missing.
func (s *scan) event(ev *schema.Event, logID string) error {
	for _, r := range s.batch.Observe(ev) {
		m := matched{"match", r.ID, r.Title, r.Level, logID, rfc3339(ev.Date)}
		if err := s.tell(r.Level, m, []any{m.Kind, m.Level, m.Title, m.Date, m.LogID}); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) alerts() error {
	for _, alert := range s.batch.Alerts() {
		a := alerted{"alert", alert.RuleID, alert.Title, alert.Level, map[string]string{}, rfc3339(alert.UpdatedAt), alert.Count, alert.LogIDs}
		for _, g := range alert.Group {
			a.Group[g.Field] = g.Value
		}
		if err := s.tell(a.Level, a, []any{a.Kind, a.Level, a.Title, a.At, alert.Summary}); err != nil {
			return err
		}
	}
	return nil
}

// tell prints a finding, as JSON or as a row.
func (s *scan) tell(level string, line any, row []any) error {
	if rules.CompareLevels(level, s.cmd.FailLevel) >= 0 {
		s.found++
	}
	if s.json != nil {
		return s.json.Encode(line)
	}
	return s.table.row(row)
}

type rulesTestCmd struct {
	ruleSources
	JUnit string `name:"junit" placeholder:"FILE" help:"Write the results as JUnit XML, too."`
}

// Run runs every case and says which failed.
func (c *rulesTestCmd) Run(a *app) error {
	set, report, sources, err := c.load(a)
	if err != nil {
		return err
	}
	left := tellLeft(a.stderr, report)
	var all []timeline.Result
	for _, source := range sources {
		results, err := timeline.Run(set, source)
		if err != nil {
			return fmt.Errorf("read tests: %w", err)
		}
		all = append(all, results...)
	}
	files, failed := map[string]bool{}, 0
	for _, r := range all {
		files[r.File] = true
		if r.Failure != "" {
			failed++
			fmt.Fprintf(a.stdout, "FAIL %s: %s\n%s\n", r.File, r.Case, strings.TrimRight(r.Failure, "\n"))
		}
	}
	fmt.Fprintf(a.stdout, "%d of %d cases in %d files passed\n", len(all)-failed, len(all), len(files))
	if c.JUnit != "" {
		if err := writeJUnit(c.JUnit, all); err != nil {
			return fmt.Errorf("--junit: %w", err)
		}
	}
	if failed > 0 {
		return foundError(fmt.Sprintf("%d cases failed", failed))
	}
	return left
}

// The elements of JUnit's XML.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     float64     `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    float64       `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes a suite for each file.
func writeJUnit(name string, results []timeline.Result) error {
	var all junitSuites
	for _, r := range results {
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != r.File {
			all.Suites = append(all.Suites, junitSuite{Name: r.File})
		}
		s := &all.Suites[len(all.Suites)-1]
		c := junitCase{Name: r.Case, Class: r.File, Time: r.Took.Seconds()}
		if r.Failure != "" {
			s.Failures++
			c.Failure = &junitFailure{"other alerts than expected", r.Failure}
		}
		s.Tests++
		s.Time += c.Time
		s.Cases = append(s.Cases, c)
	}
	out, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(append([]byte(xml.Header), out...), '\n'), 0o644)
}

// rfc3339 writes a time with milliseconds.
func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
