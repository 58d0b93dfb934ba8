package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/explain"
	"github.com/tenantwatch/tenantwatch/schema"
)

// SeveralTenantsError reports that events of several tenants have the same log_id.
type SeveralTenantsError []string

// Error lists the tenants.
func (e SeveralTenantsError) Error() string {
	return "several tenants have this event: " + strings.Join(e, ", ")
}

// Explain explains why a rule of a set fires at a stored event, or does not. tenant is empty for any; the
// error is SeveralTenantsError if there is more than one.
func (s *Store) Explain(
	ctx context.Context, set *rules.Set, rule *rules.Rule, logID, tenant string,
) (*explain.Explanation, error) {
	found, err := s.find(ctx, logID, tenant)
	if err != nil {
		return nil, err
	}
	x := explain.New(set, rule, scanner.Config{}, found)

	// Alerts that were recorded tell what the scanner saw, for example before a restart.
	past, err := s.alerts(ctx, x, rule, found.Tenant)
	if err != nil {
		return nil, err
	}
	x.Record(past)

	// Replay the events around it, if the rule counts any.
	if x.Needs() {
		err = s.each(ctx, x.Query(), func(rows driver.Rows) error {
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

// find returns the stored event with a log_id.
func (s *Store) find(ctx context.Context, logID, tenant string) (*schema.Event, error) {
	query := "SELECT tenant, log_id, date, type, raw, source, fetched_at FROM events WHERE log_id = " +
		schema.Literal(logID)
	if tenant != "" {
		query += " AND tenant = " + schema.Literal(tenant)
	}

	var found []schema.Event
	var tenants []string
	err := s.each(ctx, query+" LIMIT 100", func(rows driver.Rows) error {
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
		return nil, fmt.Errorf("no such event in ClickHouse: %s; it may not have been pulled yet", logID)
	}

	slices.Sort(tenants)
	if tenants = slices.Compact(tenants); len(tenants) > 1 {
		return nil, SeveralTenantsError(tenants)
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

// each calls yield for each row of a query.
func (s *Store) each(ctx context.Context, query string, yield func(driver.Rows) error) error {
	rows, err := s.conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(smallBlocks)), query)
	var refused *clickhouse.Exception
	if errors.As(err, &refused) && refused.Code == readOnlyCode {
		// Without the setting a large answer takes more memory, no more.
		rows, err = s.conn.Query(ctx, query)
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
	"AND updated_at <= %s ORDER BY updated_at DESC LIMIT %d"

// alerts returns the last recorded transitions of the alerts to which the event may belong.
func (s *Store) alerts(
	ctx context.Context, x *explain.Explainer, rule *rules.Rule, tenant string,
) (list []schema.Alert, err error) {
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
		strings.Join(fingerprints, ", "), tosql.DateTime(until), maxTransitions)
	err = s.each(ctx, query, func(rows driver.Rows) error {
		alert := schema.Alert{Tenant: tenant, RuleID: rule.ID}
		var state string
		var group map[string]string
		if err := rows.Scan(&alert.Fingerprint, &state, &alert.Level, &alert.StartsAt, &alert.UpdatedAt, &alert.Count,
			&group, &alert.LogIDs); err != nil {
			return err
		}

		alert.State = schema.AlertState(state)
		if alert.State == schema.StateResolved {
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
