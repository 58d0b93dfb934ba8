package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/eventfile"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

type rulesScanCmd struct {
	ruleSources
	Output    string   `enum:"table,json" default:"table" help:"table, or json (one object a line)."`
	FailLevel string   `enum:"informational,low,medium,high,critical" default:"low" help:"Level for exit code 3."`
	Files     []string `arg:"" name:"file" help:"Files of events; - for standard input."`
}

// Help describes the files and the exit code.
func (*rulesScanCmd) Help() string {
	return "A file has one event a line or one array of events, as the Management API or a log stream sends them. " +
		"The exit code is 3 when there are findings of --fail-level " +
		"(informational, low, medium, high or critical) or above."
}

// maxScanSamples is the maximum number of log_ids of an alert.
const maxScanSamples = 1000

// match is an event that matches a detection, as a line of rules scan.
type match struct {
	Kind   string `json:"kind"`
	RuleID string `json:"rule_id"`
	Title  string `json:"title"`
	Level  string `json:"level"`
	LogID  string `json:"log_id"`
	Date   string `json:"date"`
}

// firedAlert is an alert of a correlation, as a line of rules scan.
type firedAlert struct {
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
	cmd        *rulesScanCmd
	batch      *scanner.Batch
	json       *json.Encoder // nil for a table
	table      output.Rows   // nil for json
	warn       io.Writer
	found      int // findings of the fail level or above
	unreadable int
}

// Run prints matches in the order of the files, and then alerts by time.
func (c *rulesScanCmd) Run(ctx context.Context, a *app) error {
	set, report, _, err := c.load(a)
	if err != nil {
		return err
	}

	s := &scan{cmd: c, batch: scanner.NewBatch(set, maxScanSamples), warn: a.stderr}
	// Buffered: there may be a line for each event.
	out := bufio.NewWriter(a.stdout)
	if c.Output == "json" {
		s.json = json.NewEncoder(out)
		s.json.SetEscapeHTML(false)
	} else {
		s.table = output.NewTable(out, "kind", "level", "rule", "at", "about")
	}

	notRunning := warnNotRunning(a.stderr, report)
	for _, file := range c.Files {
		if err := s.file(ctx, file); err != nil {
			return err
		}
	}

	// Alerts come last: their windows are evaluated in event time, over all files together.
	if err := s.alerts(); err != nil {
		return err
	}
	if s.table != nil {
		if err := s.table.End(); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return s.outcome(notRunning)
}

// outcome prints the rules that failed, and returns the error of the scan.
func (s *scan) outcome(notRunning error) error {
	if n := s.batch.Timeouts(); n > 0 {
		fmt.Fprintf(s.warn, "%d times a regular expression took too long and counted as no match\n", n)
	}

	// A rule that panicked was skipped; the others continued.
	broken := s.batch.Broken()
	for _, id := range slices.Sorted(maps.Keys(broken)) {
		fmt.Fprintf(s.warn, "rule %s failed and was skipped from then on; "+
			"this is a bug in tenantwatch, please report it: %s\n", id, broken[id])
	}

	switch {
	case s.found > 0:
		return foundError(fmt.Sprintf("%d findings of level %s or above", s.found, s.cmd.FailLevel))
	case s.unreadable > 0:
		return fmt.Errorf("%d events could not be read", s.unreadable)
	case len(broken) > 0:
		return fmt.Errorf("%d rules failed", len(broken))
	}
	return notRunning
}

// file scans one file.
func (s *scan) file(ctx context.Context, name string) error {
	in := io.Reader(os.Stdin)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return usageError(err.Error())
		}
		defer file.Close()
		in = file
	}
	return eventfile.Each(ctx, name, in, s.event, s.reject)
}

// reject reports what cannot be read.
func (s *scan) reject(place string, err error) {
	s.unreadable++
	fmt.Fprintf(s.warn, "%s: %v\n", place, err)
}

// event scans one event. logID is empty for an event without an id.
func (s *scan) event(ev *schema.Event, logID string) error {
	for _, rule := range s.batch.Observe(ev) {
		m := match{"match", rule.ID, rule.Title, rule.Level, logID, output.Time(ev.Date)}
		if err := s.print(rule.Level, m, []any{m.Kind, m.Level, m.Title, m.Date, m.LogID}); err != nil {
			return err
		}
	}
	return nil
}

// alerts prints the alerts.
func (s *scan) alerts() error {
	for _, alert := range s.batch.Alerts() {
		fired := firedAlert{
			Kind: "alert", RuleID: alert.RuleID, Title: alert.Title, Level: alert.Level,
			Group: schema.GroupMap(alert.Group), At: output.Time(alert.UpdatedAt), Count: alert.Count,
			LogIDs: alert.LogIDs,
		}
		row := []any{fired.Kind, fired.Level, fired.Title, fired.At, alert.Summary}
		if err := s.print(fired.Level, fired, row); err != nil {
			return err
		}
	}
	return nil
}

// print prints a finding, as JSON or as a row.
func (s *scan) print(level string, object any, row []any) error {
	if rules.CompareLevels(level, s.cmd.FailLevel) >= 0 {
		s.found++
	}
	if s.json != nil {
		return s.json.Encode(object)
	}
	return s.table.Row(row...)
}
