package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
)

type rulesConvertCmd struct {
	ruleSources
	Rule   string `required:"" placeholder:"RULE" help:"The rule's id, name or title."`
	Since  string `default:"24h" help:"From when on: a time before the query runs such as 24h or 7d, or a time such as 2026-11-20T10:00:00Z."`
	Until  string `help:"Up to when, in the same way. Default: when the query runs."`
	Tenant string `help:"The tenant's name. Default: all that there are."`
}

// Run prints SQL that finds what the rule finds.
func (c *rulesConvertCmd) Run(a *app) error {
	query, err := c.query(time.Now())
	if err != nil {
		return err
	}
	set, doc, rule, err := c.one(a, c.Rule)
	if err != nil {
		return err
	}
	if rule == nil {
		return fmt.Errorf("%s (%s, %s:%d) does not run. It is %s: %s", cmp.Or(doc.Title, "the rule"), doc.ID, doc.File, doc.Line, doc.Status, doc.Reason)
	}
	text, err := set.SQL(rule, query)
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.stdout, text)
	return err
}

// query is what the flags say of the events.
func (c *rulesConvertCmd) query(now time.Time) (rules.SQLQuery, error) {
	q := rules.SQLQuery{Tenant: c.Tenant}
	var err error
	if q.Since, err = sqlTimeOf("--since", c.Since, now); err != nil {
		return q, err
	}
	if c.Until != "" {
		if q.Until, err = sqlTimeOf("--until", c.Until, now); err != nil {
			return q, err
		}
	}
	begin, end := atTime(q.Since, now), atTime(q.Until, now)
	if !begin.Before(end) {
		return q, usageError(fmt.Sprintf("--since %s is not before --until %s", begin.Format(time.RFC3339), end.Format(time.RFC3339)))
	}
	return q, nil
}

// sqlTimeOf reads a time, or how long before the query runs one is.
func sqlTimeOf(flag, text string, now time.Time) (rules.SQLTime, error) {
	if d, err := parseDuration(text); err == nil && d >= 0 {
		return rules.SQLTime{Ago: d}, nil
	}
	at, err := parseTime(text, now)
	if err != nil {
		return rules.SQLTime{}, usageError(flag + ": " + err.Error())
	}
	return rules.SQLTime{At: at}, nil
}

// atTime is what a time is if the query runs now.
func atTime(t rules.SQLTime, now time.Time) time.Time {
	if t.At.IsZero() {
		return now.Add(-t.Ago).UTC()
	}
	return t.At
}
