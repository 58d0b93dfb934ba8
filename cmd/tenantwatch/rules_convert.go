package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
)

type rulesConvertCmd struct {
	ruleSources
	Rule   string `required:"" placeholder:"RULE" help:"Id, name or title of the rule."`
	Since  string `default:"24h" help:"Start of the range: a duration before the query runs, or a time."`
	Until  string `help:"End of the range, in the same form. Default: when the query runs."`
	Tenant string `help:"Name of the tenant. Default: all."`
}

// Run prints SQL that finds what the rule finds.
func (c *rulesConvertCmd) Run(a *app) error {
	query, err := c.query(time.Now())
	if err != nil {
		return err
	}
	set, doc, rule, err := c.find(a, c.Rule)
	if err != nil {
		return err
	}
	if rule == nil {
		return fmt.Errorf("%s (%s, %s:%d) does not run. It is %s: %s",
			cmp.Or(doc.Title, "the rule"), doc.ID, doc.File, doc.Line, doc.Status, doc.Reason)
	}

	sql, err := tosql.Query(set, rule, query)
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.stdout, sql)
	return err
}

// query returns the time range and the tenant of the flags.
func (c *rulesConvertCmd) query(now time.Time) (tosql.Range, error) {
	q := tosql.Range{Tenant: c.Tenant}
	var err error
	if q.Since, err = parseSQLTime("--since", c.Since, now); err != nil {
		return q, err
	}
	if c.Until != "" {
		if q.Until, err = parseSQLTime("--until", c.Until, now); err != nil {
			return q, err
		}
	}

	// A mix of a time and a duration is checked for now, although the query may run later.
	start, end := resolveSQLTime(q.Since, now), resolveSQLTime(q.Until, now)
	if !start.Before(end) {
		return q, usageError(fmt.Sprintf("--since %s is not before --until %s",
			start.Format(time.RFC3339), end.Format(time.RFC3339)))
	}
	return q, nil
}

// parseSQLTime parses a time, or a duration before the query runs.
func parseSQLTime(flag, text string, now time.Time) (tosql.Time, error) {
	if ago, err := config.ParseDuration(text); err == nil && ago >= 0 {
		return tosql.Time{Ago: ago}, nil
	}
	at, err := parseTime(text, now)
	if err != nil {
		return tosql.Time{}, usageError(flag + ": " + err.Error())
	}
	return tosql.Time{At: at}, nil
}

// resolveSQLTime returns the time that is meant if the query runs now.
func resolveSQLTime(t tosql.Time, now time.Time) time.Time {
	if t.At.IsZero() {
		return now.Add(-t.Ago).UTC()
	}
	return t.At
}
