package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
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
	*scanner.Explanation
}

// Run explains why the rule fires at the event, or does not.
func (c *rulesExplainCmd) Run(ctx context.Context, a *app) error {
	if c.Tenant != "" && len(c.File) > 0 {
		return usageError("--tenant: events in files have no tenant")
	}
	set, doc, rule, err := c.loadRule(a, c.Rule)
	if err != nil {
		return err
	}
	if rule == nil {
		return c.notRunning(a, doc)
	}

	var e *scanner.Explanation
	if len(c.File) > 0 {
		e, err = c.fromFiles(ctx, a, set, rule)
	} else {
		e, err = c.fromClickHouse(ctx, a, set, rule)
	}
	if err != nil {
		return err
	}

	if c.Output == "json" {
		return printObject(a.stdout, explained{doc.Status, e})
	}
	return printExplanation(a.stdout, e)
}

// notRunning prints why the rule does not run.
func (c *rulesExplainCmd) notRunning(a *app, d *rules.Document) error {
	if c.Output == "json" {
		return printObject(a.stdout, notRunning{d.Status, d.ID, d.Title, d.File, d.Line, d.Reason})
	}
	_, err := fmt.Fprintln(a.stdout, printable(fmt.Sprintf("%s (%s, %s:%d) does not run. It is %s: %s",
		cmp.Or(d.Title, "The rule"), d.ID, d.File, d.Line, d.Status, d.Reason)))
	return err
}

// printObject prints a value as indented JSON.
func printObject(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// fromFiles explains an event of the files. They are read twice, first for the event and then for those around
// it, so that only the latter are held in memory.
func (c *rulesExplainCmd) fromFiles(ctx context.Context, a *app, set *rules.Set,
	rule *rules.Rule) (*scanner.Explanation, error) {
	files, err := openSeekable(c.File)
	for _, file := range files {
		defer file.end()
	}
	if err != nil {
		return nil, err
	}

	found, unreadable, err := c.findEvent(ctx, a, files)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("no such event in the files: %s", c.Event)
	}

	x := scanner.NewExplainer(set, rule, scanner.Config{}, found)
	if x.Needs() {
		// What cannot be read has been reported the first time.
		if err := readFiles(ctx, files, x.Keep, func(string, error) {}); err != nil {
			return nil, err
		}
	}
	if unreadable > 0 {
		fmt.Fprintf(a.stderr, "%d events could not be read and are ignored\n", unreadable)
	}
	return x.Explain(), nil
}

// findEvent returns the event of --event, nil if there is none, and the number of events that cannot be read.
func (c *rulesExplainCmd) findEvent(ctx context.Context, a *app, files []seekable) (found *schema.Event,
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
	err = readFiles(ctx, files, keep, reject)
	return found, unreadable, err
}

// readFiles calls yield for each event of the files, from their beginning.
func readFiles(ctx context.Context, files []seekable, yield func(*schema.Event), reject func(string, error)) error {
	each := func(ev *schema.Event, _ string) error { yield(ev); return nil }
	for _, file := range files {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read %s: %w", file.name, err)
		}
		if err := eachEvent(ctx, file.name, file, each, reject); err != nil {
			return err
		}
	}
	return nil
}

// seekable is a file that can be read more than once.
type seekable struct {
	*os.File
	name string
	end  func()
}

// openSeekable opens files. Standard input is copied to a temporary one. The caller ends what is returned, also
// after an error.
func openSeekable(names []string) (list []seekable, err error) {
	for _, name := range names {
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				return list, usageError(err.Error())
			}
			list = append(list, seekable{file, name, func() { file.Close() }})
			continue
		}

		file, err := os.CreateTemp("", "tenantwatch-*.ndjson")
		if err != nil {
			return list, err
		}
		list = append(list, seekable{file, name, func() { file.Close(); os.Remove(file.Name()) }})
		if _, err := io.Copy(file, os.Stdin); err != nil {
			return list, fmt.Errorf("copy the standard input: %w", err)
		}
	}
	return list, nil
}

// fromClickHouse explains a stored event.
func (c *rulesExplainCmd) fromClickHouse(ctx context.Context, a *app, set *rules.Set,
	rule *rules.Rule) (*scanner.Explanation, error) {
	config, err := loadConfig(a.environ, need{})
	if err != nil {
		return nil, err
	}
	conn, end, err := connectReader(ctx, config)
	if err != nil {
		return nil, err
	}
	defer end()

	found, err := c.findStored(ctx, conn)
	if err != nil {
		return nil, err
	}
	x := scanner.NewExplainer(set, rule, scanner.Config{}, found)

	// Alerts that were recorded tell what the scanner saw, for example before a restart.
	past, err := storedAlerts(ctx, conn, x, rule, found.Tenant)
	if err != nil {
		return nil, err
	}
	x.Record(past)

	// Replay the events around it, if the rule counts any.
	if x.Needs() {
		err = eachStored(ctx, conn, x.Query(), func(rows driver.Rows) error {
			ev := schema.Event{Tenant: found.Tenant}
			if err := scanEvent(rows, &ev); err != nil {
				return err
			}
			x.Observe(&ev)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return x.Explain(), nil
}

// findStored returns the stored event of --event. An event of several tenants is refused.
func (c *rulesExplainCmd) findStored(ctx context.Context, conn driver.Conn) (*schema.Event, error) {
	query := "SELECT tenant, log_id, date, type, raw, source, fetched_at FROM events WHERE log_id = " +
		schema.Literal(c.Event)
	if c.Tenant != "" {
		query += " AND tenant = " + schema.Literal(c.Tenant)
	}

	var found []schema.Event
	var tenants []string
	err := eachStored(ctx, conn, query+" LIMIT 100", func(rows driver.Rows) error {
		var ev schema.Event
		if err := scanEvent(rows, &ev, &ev.Tenant); err != nil {
			return err
		}
		found = append(found, ev)
		tenants = append(tenants, ev.Tenant)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no such event in ClickHouse: %s; it may not have been pulled yet", c.Event)
	}

	slices.Sort(tenants)
	if tenants = slices.Compact(tenants); len(tenants) > 1 {
		return nil, usageError("several tenants have this event, choose one with --tenant: " +
			strings.Join(tenants, ", "))
	}
	return &found[0], nil
}

// scanEvent reads a row of log_id, date, type, raw, source and fetched_at, after the given columns.
func scanEvent(rows driver.Rows, ev *schema.Event, before ...any) error {
	var raw, source string
	err := rows.Scan(append(before, &ev.LogID, &ev.Date, &ev.Type, &raw, &source, &ev.FetchedAt)...)
	ev.Raw, ev.Source = []byte(raw), schema.Source(source)
	return err
}

// smallBlocks keeps the blocks of an answer small: an event may be large.
var smallBlocks = clickhouse.Settings{"max_block_size": 1024, "preferred_block_size_bytes": 1 << 20}

// readOnlyCode is ClickHouse's error for a user who may not change settings.
const readOnlyCode = 164

// eachStored calls yield for each row of a query.
func eachStored(ctx context.Context, conn driver.Conn, query string, yield func(driver.Rows) error) error {
	rows, err := conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(smallBlocks)), query)
	var refused *proto.Exception
	if errors.As(err, &refused) && refused.Code == readOnlyCode {
		// Without the setting a large answer takes more memory, no more.
		rows, err = conn.Query(ctx, query)
	}
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	defer rows.Close()

	for rows.Next() {
		if err := yield(rows); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	return nil
}

// maxTransitions bounds the recorded transitions that are read.
const maxTransitions = 200

// transitionsQuery selects the last transitions of alerts, newest first.
const transitionsQuery = "SELECT fingerprint, state, level, starts_at, updated_at, count, group, log_ids " +
	"FROM alert_transitions WHERE tenant = %s AND rule_id = %s AND fingerprint IN (%s) " +
	"AND updated_at <= toDateTime64('%s', 3, 'UTC') ORDER BY updated_at DESC LIMIT %d"

// storedAlerts returns the last recorded transitions of the alerts to which the event may belong.
func storedAlerts(ctx context.Context, conn driver.Conn, x *scanner.Explainer, rule *rules.Rule,
	tenant string) (list []schema.Alert, err error) {
	fingerprints := x.Fingerprints()
	if len(fingerprints) == 0 {
		return nil, nil
	}
	for i, fingerprint := range fingerprints {
		fingerprints[i] = schema.Literal(fingerprint)
	}

	// Transitions after the explained time do not count.
	_, until := x.Span()
	query := fmt.Sprintf(transitionsQuery, schema.Literal(tenant), schema.Literal(rule.ID),
		strings.Join(fingerprints, ", "), until.Format("2006-01-02 15:04:05.000"), maxTransitions)
	err = eachStored(ctx, conn, query, func(rows driver.Rows) error {
		alert := schema.Alert{Tenant: tenant, RuleID: rule.ID}
		var state string
		var group map[string]string
		if err := rows.Scan(&alert.Fingerprint, &state, &alert.Level, &alert.StartsAt, &alert.UpdatedAt, &alert.Count,
			&group, &alert.LogIDs); err != nil {
			return err
		}

		alert.State = schema.AlertState(state)
		if alert.State == schema.Resolved {
			alert.ResolvedAt = alert.UpdatedAt
		}
		for field, value := range group {
			alert.Group = append(alert.Group, schema.GroupValue{Field: field, Value: value})
		}
		list = append(list, alert)
		return nil
	})
	return list, err
}
