package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/eventfile"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/explain"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/schema"
)

type rulesExplainCmd struct {
	ruleSources
	Rule   string   `required:"" placeholder:"RULE" help:"Id, name or title of the rule."`
	Event  string   `required:"" placeholder:"LOG_ID" help:"Log_id of the event, or its place (events.ndjson:7)."`
	File   []string `sep:"none" placeholder:"FILE" help:"File of events; - for standard input. Default: ClickHouse."`
	Tenant string   `help:"Tenant of the event, if several have its log_id."`
	Output string   `enum:"table,json" default:"table" help:"table, or json (one object)."`
}

// Help describes the files.
func (*rulesExplainCmd) Help() string {
	return "Files hold the event and those around it, in the formats of rules scan. " +
		"An event in a file that has no log_id is identified by its place."
}

// notRunning is the JSON answer for a rule that does not run.
type notRunning struct {
	Status rules.Status `json:"status"`
	RuleID string       `json:"rule_id"`
	Title  string       `json:"title"`
	File   string       `json:"file"`
	Line   int          `json:"line"`
	Reason string       `json:"reason"`
}

// explained is the JSON answer for a rule that runs.
type explained struct {
	Status rules.Status `json:"status"`
	*explain.Explanation
}

// Run explains why the rule fires at the event, or does not.
func (c *rulesExplainCmd) Run(ctx context.Context, a *app) error {
	if c.Tenant != "" && len(c.File) > 0 {
		return usageError("--tenant: events in files have no tenant")
	}
	set, doc, rule, err := c.find(a, c.Rule)
	if err != nil {
		return err
	}
	if rule == nil {
		return c.notRunning(a, doc)
	}

	var e *explain.Explanation
	if len(c.File) > 0 {
		e, err = c.fromFiles(ctx, a, set, rule)
	} else {
		e, err = c.fromClickHouse(ctx, a, set, rule)
	}
	if err != nil {
		return err
	}

	if c.Output == "json" {
		return output.Object(a.stdout, explained{doc.Status, e})
	}
	return output.Explanation(a.stdout, e)
}

// notRunning prints why the rule does not run.
func (c *rulesExplainCmd) notRunning(a *app, d *rules.Document) error {
	if c.Output == "json" {
		return output.Object(a.stdout, notRunning{d.Status, d.ID, d.Title, d.File, d.Line, d.Reason})
	}
	_, err := fmt.Fprintln(a.stdout, output.Printable(fmt.Sprintf("%s (%s, %s:%d) does not run. It is %s: %s",
		cmp.Or(d.Title, "The rule"), d.ID, d.File, d.Line, d.Status, d.Reason)))
	return err
}

// fromFiles explains an event of the files. They are read twice, first for the event and then for those around
// it, so that only the latter are held in memory.
func (c *rulesExplainCmd) fromFiles(ctx context.Context, a *app, set *rules.Set,
	rule *rules.Rule) (*explain.Explanation, error) {
	files, err := eventfile.Open(c.File, os.Stdin)
	var name eventfile.NameError
	if errors.As(err, &name) {
		return nil, usageError(err.Error())
	}
	if err != nil {
		return nil, err
	}
	defer files.Close()

	found, unreadable, err := c.findEvent(ctx, a, files)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("no such event in the files: %s", c.Event)
	}

	x := explain.New(set, rule, scanner.Config{}, found)
	if x.Needs() {
		// What cannot be read has been reported the first time.
		if err := files.Each(ctx, x.Keep, func(string, error) {}); err != nil {
			return nil, err
		}
	}
	if unreadable > 0 {
		fmt.Fprintf(a.stderr, "%d events could not be read and are ignored\n", unreadable)
	}
	return x.Explain(), nil
}

// findEvent returns the event of --event, nil if there is none, and the number of events that cannot be read.
func (c *rulesExplainCmd) findEvent(ctx context.Context, a *app, files eventfile.Files) (found *schema.Event,
	unreadable int, err error) {
	keep := func(ev *schema.Event) {
		if found == nil && ev.LogID == c.Event {
			// The event is valid during the call only.
			kept := *ev
			kept.Raw = bytes.Clone(ev.Raw)
			found = &kept
		}
	}
	reject := func(place string, err error) {
		unreadable++
		fmt.Fprintf(a.stderr, "%s: %v\n", place, err)
	}
	err = files.Each(ctx, keep, reject)
	return found, unreadable, err
}

// fromClickHouse explains a stored event.
func (c *rulesExplainCmd) fromClickHouse(ctx context.Context, a *app, set *rules.Set,
	rule *rules.Rule) (*explain.Explanation, error) {
	conn, end, err := a.openReader(ctx)
	if err != nil {
		return nil, err
	}
	defer end()

	e, err := history.NewStore(conn).Explain(ctx, set, rule, c.Event, c.Tenant)
	var several history.SeveralTenantsError
	if errors.As(err, &several) {
		return nil, usageError("several tenants have this event, choose one with --tenant: " +
			strings.Join(several, ", "))
	}
	return e, err
}
