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
	"github.com/agext/levenshtein"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

type rulesExplainCmd struct {
	ruleSources
	Rule   string   `required:"" placeholder:"RULE" help:"The rule's id, name or title."`
	Event  string   `required:"" placeholder:"LOG_ID" help:"The event's log_id; of an event in a file that has none, its place, such as events.ndjson:7."`
	File   []string `sep:"none" placeholder:"FILE" help:"A file with the event and those around it, as rules scan reads them; - for the standard input. Default: ClickHouse."`
	Tenant string   `help:"The tenant of the event, where several have its log_id."`
	Output string   `enum:"table,json" default:"table" help:"table, or json: one object."`
}

// notRunning is the answer where a rule does not run.
type notRunning struct {
	Status rules.Status `json:"status"`
	RuleID string       `json:"rule_id"`
	Title  string       `json:"title"`
	File   string       `json:"file"`
	Line   int          `json:"line"`
	Reason string       `json:"reason"`
}

// explained is the answer where it does.
type explained struct {
	Status rules.Status `json:"status"`
	*scanner.Explanation
}

// Run says why the rule fires at the event, or does not.
func (c *rulesExplainCmd) Run(ctx context.Context, a *app) error {
	if c.Tenant != "" && len(c.File) > 0 {
		return usageError("--tenant: files tell of no tenant")
	}
	set, doc, rule, err := c.one(a, c.Rule)
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

func (c *rulesExplainCmd) notRunning(a *app, d *rules.Document) error {
	if c.Output == "json" {
		return printObject(a.stdout, notRunning{d.Status, d.ID, d.Title, d.File, d.Line, d.Reason})
	}
	_, err := fmt.Fprintln(a.stdout, printable(fmt.Sprintf("%s (%s, %s:%d) does not run. It is %s: %s", cmp.Or(d.Title, "The rule"), d.ID, d.File, d.Line, d.Status, d.Reason)))
	return err
}

func printObject(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Bounds of what is proposed in place of a rule that is not there.
const (
	mostNear  = 5
	leastNear = 0.5 // of the letters
)

// one loads the rules and finds the one that is called so; nil where its document
// does not run.
func (s *ruleSources) one(a *app, name string) (*rules.Set, *rules.Document, *rules.Rule, error) {
	set, report, _, err := s.load(a)
	if err != nil {
		return nil, nil, nil, err
	}
	doc, err := findRule(set, report, name)
	if err != nil || !doc.Runs() {
		return set, doc, nil, err
	}
	for _, r := range set.Rules() {
		if r.ID == doc.ID {
			return set, doc, r, nil
		}
	}
	return set, doc, nil, nil
}

// findRule finds the one document that is called so. Where a detection and what
// counts it have the same title, the one that alerts is meant.
func findRule(set *rules.Set, report *rules.Report, name string) (*rules.Document, error) {
	var all, found []*rules.Document
	for i := range report.Documents {
		if d := &report.Documents[i]; d.ID != "" && d.Kind != "filter" {
			all = append(all, d)
		}
	}
	for _, of := range []func(*rules.Document) string{func(d *rules.Document) string { return d.ID }, func(d *rules.Document) string { return d.Name }, func(d *rules.Document) string { return d.Title }} {
		if len(found) > 0 {
			break
		}
		for _, d := range all {
			if text := of(d); strings.EqualFold(text, name) || rules.SameID(text, name) {
				found = append(found, d)
			}
		}
	}
	alerts := func(d *rules.Document) bool {
		return slices.ContainsFunc(set.Rules(), func(r *rules.Rule) bool { return r.ID == d.ID && r.Alert != nil })
	}
	for _, better := range []func(*rules.Document) bool{(*rules.Document).Runs, alerts} {
		if narrowed := slices.DeleteFunc(slices.Clone(found), func(d *rules.Document) bool { return !better(d) }); len(narrowed) > 0 {
			found = narrowed
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		text := fmt.Sprintf("--rule: no rule is called %q", name)
		if near := nearRules(all, name); len(near) > 0 {
			text += "; there is " + strings.Join(near, ", ")
		}
		return nil, usageError(text)
	}
	var list []string
	for _, d := range found {
		list = append(list, fmt.Sprintf("%s (%s:%d)", d.ID, d.File, d.Line))
	}
	return nil, usageError(fmt.Sprintf("--rule: several rules are called %q, give the id: %s", name, strings.Join(list, ", ")))
}

// nearRules are rules that may be meant.
func nearRules(all []*rules.Document, name string) []string {
	type near struct {
		text  string
		score float64
	}
	var found []near
	name = strings.ToLower(name)
	for _, d := range all {
		n := near{text: fmt.Sprintf("%q (%s)", d.Title, d.ID)}
		for _, known := range []string{d.ID, d.Name, d.Title} {
			known = strings.ToLower(known)
			n.score = max(n.score, levenshtein.Similarity(name, known, nil))
			if name != "" && strings.Contains(known, name) {
				n.score = max(n.score, 0.9)
			}
		}
		if n.score >= leastNear {
			found = append(found, n)
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return cmp.Compare(b.score, a.score) })
	var texts []string
	for _, n := range found[:min(len(found), mostNear)] {
		texts = append(texts, n.text)
	}
	return texts
}

// fromFiles explains an event of the files. They are read twice: once for the event,
// and once for those around it, so that no more than those need be kept.
func (c *rulesExplainCmd) fromFiles(ctx context.Context, a *app, set *rules.Set, rule *rules.Rule) (*scanner.Explanation, error) {
	files, err := openTwice(c.File)
	for _, f := range files {
		defer f.end()
	}
	if err != nil {
		return nil, err
	}
	each := func(yield func(*schema.Event), bad func(string, error)) error {
		for _, f := range files {
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return fmt.Errorf("read %s: %w", f.name, err)
			}
			if err := eachEvent(ctx, f.name, f, func(ev *schema.Event, _ string) error { yield(ev); return nil }, bad); err != nil {
				return err
			}
		}
		return nil
	}
	var found *schema.Event
	unreadable := 0
	err = each(func(ev *schema.Event) {
		if found == nil && ev.LogID == c.Event {
			kept := *ev
			kept.Raw = bytes.Clone(ev.Raw)
			found = &kept
		}
	}, func(place string, err error) {
		unreadable++
		fmt.Fprintf(a.stderr, "%s: %v\n", place, err)
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("no such event in the files: %s", c.Event)
	}
	x := scanner.NewExplainer(set, rule, scanner.Config{}, found)
	if x.Needs() {
		if err := each(x.Keep, func(string, error) {}); err != nil {
			return nil, err
		}
	}
	if unreadable > 0 {
		fmt.Fprintf(a.stderr, "%d events could not be read and are left out\n", unreadable)
	}
	return x.Explain(), nil
}

// twice is a file that can be read again.
type twice struct {
	*os.File
	name string
	end  func()
}

// openTwice opens files; the standard input is copied into one. What is returned is
// to be ended, also beside an error.
func openTwice(names []string) (list []twice, err error) {
	for _, name := range names {
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return list, usageError(err.Error())
			}
			list = append(list, twice{f, name, func() { f.Close() }})
			continue
		}
		f, err := os.CreateTemp("", "tenantwatch-*.ndjson")
		if err != nil {
			return list, err
		}
		list = append(list, twice{f, name, func() { f.Close(); os.Remove(f.Name()) }})
		if _, err := io.Copy(f, os.Stdin); err != nil {
			return list, fmt.Errorf("copy the standard input: %w", err)
		}
	}
	return list, nil
}

// fromClickHouse explains an event that is stored.
func (c *rulesExplainCmd) fromClickHouse(ctx context.Context, a *app, set *rules.Set, rule *rules.Rule) (*scanner.Explanation, error) {
	config, err := loadConfig(a.environ, need{})
	if err != nil {
		return nil, err
	}
	conn, end, err := connectReader(ctx, config)
	if err != nil {
		return nil, err
	}
	defer end()
	query := "SELECT tenant, log_id, date, type, raw, source, fetched_at FROM events WHERE log_id = " + schema.Literal(c.Event)
	if c.Tenant != "" {
		query += " AND tenant = " + schema.Literal(c.Tenant)
	}
	var found []schema.Event
	err = eachStored(ctx, conn, query+" LIMIT 100", func(rows driver.Rows) error {
		var ev schema.Event
		if err := scanEvent(rows, &ev, &ev.Tenant); err != nil {
			return err
		}
		found = append(found, ev)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("no such event in ClickHouse: %s; it may not have been pulled yet", c.Event)
	case len(found) > 1:
		var tenants []string
		for _, ev := range found {
			tenants = append(tenants, ev.Tenant)
		}
		slices.Sort(tenants)
		if tenants = slices.Compact(tenants); len(tenants) > 1 {
			return nil, usageError("several tenants have this event, choose one with --tenant: " + strings.Join(tenants, ", "))
		}
	}
	x := scanner.NewExplainer(set, rule, scanner.Config{}, &found[0])
	past, err := storedAlerts(ctx, conn, x, rule, found[0].Tenant)
	if err != nil {
		return nil, err
	}
	x.Record(past)
	if x.Needs() {
		err = eachStored(ctx, conn, x.Query(), func(rows driver.Rows) error {
			ev := schema.Event{Tenant: found[0].Tenant}
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

// scanEvent reads a row of log_id, date, type, raw, source and fetched_at, with what
// comes before.
func scanEvent(rows driver.Rows, ev *schema.Event, before ...any) error {
	var raw, source string
	err := rows.Scan(append(before, &ev.LogID, &ev.Date, &ev.Type, &raw, &source, &ev.FetchedAt)...)
	ev.Raw, ev.Source = []byte(raw), schema.Source(source)
	return err
}

// smallBlocks keeps what is read at once small: an event may be large.
var smallBlocks = clickhouse.Settings{"max_block_size": 1024, "preferred_block_size_bytes": 1 << 20}

// readOnlyCode is ClickHouse's error for a user who may not even choose settings.
const readOnlyCode = 164

// eachStored calls yield for each row of a query.
func eachStored(ctx context.Context, conn driver.Conn, query string, yield func(driver.Rows) error) error {
	rows, err := conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(smallBlocks)), query)
	var refused *proto.Exception
	if errors.As(err, &refused) && refused.Code == readOnlyCode {
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

// mostTransitions bounds what is read of an alert's past.
const mostTransitions = 200

// storedAlerts are the last transitions of the alerts that the event could be of.
func storedAlerts(ctx context.Context, conn driver.Conn, x *scanner.Explainer, rule *rules.Rule, tenant string) (list []schema.Alert, err error) {
	fingerprints := x.Fingerprints()
	if len(fingerprints) == 0 {
		return nil, nil
	}
	for i, f := range fingerprints {
		fingerprints[i] = schema.Literal(f)
	}
	_, until := x.Span()
	query := fmt.Sprintf("SELECT fingerprint, state, level, starts_at, updated_at, count, group, log_ids FROM alert_transitions WHERE tenant = %s AND rule_id = %s AND fingerprint IN (%s) AND updated_at <= toDateTime64('%s', 3, 'UTC') ORDER BY updated_at DESC LIMIT %d",
		schema.Literal(tenant), schema.Literal(rule.ID), strings.Join(fingerprints, ", "), until.Format("2006-01-02 15:04:05.000"), mostTransitions)
	err = eachStored(ctx, conn, query, func(rows driver.Rows) error {
		a := schema.Alert{Tenant: tenant, RuleID: rule.ID}
		var state string
		var group map[string]string
		if err := rows.Scan(&a.Fingerprint, &state, &a.Level, &a.StartsAt, &a.UpdatedAt, &a.Count, &group, &a.LogIDs); err != nil {
			return err
		}
		a.State = schema.AlertState(state)
		if a.State == schema.Resolved {
			a.ResolvedAt = a.UpdatedAt
		}
		for field, value := range group {
			a.Group = append(a.Group, schema.GroupValue{Field: field, Value: value})
		}
		list = append(list, a)
		return nil
	})
	return list, err
}
