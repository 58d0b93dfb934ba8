package tosql_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
)

const queryRules = `title: Failed login
id: failed
detection:
  s: {type: [fp, fu]}
  condition: s
---
title: Login
id: login
detection:
  s: {type: s}
  condition: s
---
title: Many failed
id: many
level: medium
correlation: {type: event_count, rules: failed, group-by: ip, timespan: 5m, condition: {gte: 3}}
---
title: Broken into
id: into
level: high
correlation: {type: temporal_ordered, rules: [many, login], group-by: ip, timespan: 1h}
---
title: A plain one
id: plain
level: low
detection:
  s: {type|startswith: Limit_}
  t: {type: sapi}
  u: {type: [feacft, É]}
  condition: s or t or u
---
title: "Odd\n*/; DROP TABLE events"
id: odd
level: low
detection:
  s:
    ip|cidr: [10.0.0.0/8, '2001:db8::/32', '::/0']
    details.it's|re: '^a\.b'
    details.x|re|i: '^a.b'
    scope: null
  condition: s
---
title: Backtracks
id: backtracks
level: low
detection:
  s: {ip|re: 'a(?!b)'}
  condition: s
---
title: Counts it
id: counts
level: low
correlation: {type: event_count, rules: backtracks, timespan: 1h, condition: {gte: 3}}
---
title: Parts
id: parts
level: low
x-tenantwatch-correlation: {type: event_ratio, rules: login, among: [login, failed], min: 3, group-by: [who], aliases: {who: {login: ip}}, timespan: 1h, condition: {gte: 0.5}}
`

func queryOf(t *testing.T, id string, q tosql.Range) (string, error) {
	t.Helper()
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(queryRules)}})
	for _, d := range report.Documents {
		if d.Status == rules.StatusRefused {
			t.Fatal(d.Reason)
		}
	}
	for _, r := range set.Rules() {
		if r.ID == id {
			return tosql.Query(set, r, q)
		}
	}
	t.Fatalf("no rule %s", id)
	return "", nil
}

// TestQuery shows what is printed; that ClickHouse takes it, and what it finds, is
// tested in package history.
func TestQuery(t *testing.T) {
	day := tosql.Range{Since: tosql.Time{Ago: 24 * time.Hour}}
	got, err := queryOf(t, "plain", tosql.Range{Tenant: "o'hare", Since: tosql.Time{At: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)}, Until: tosql.Time{Ago: 90 * time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	want := `/* A plain one (plain), detection, r.yml:23
   The events that it matches.
   A few letters, such as the final sigma, have another lower case than in tenantwatch. */
SELECT date, log_id, tenant, type, description, ip, user_id, user_name
FROM events
WHERE date > toDateTime64('2026-01-02 03:04:05.006', 3, 'UTC')
  AND date <= now64(3, 'UTC') - INTERVAL 90 MINUTE
  AND tenant = 'o\'hare'
  AND (startsWith(lower(type), 'limit_')
    OR lower(type) = 'sapi'
    OR (lower(type) = 'feacft' OR lowerUTF8(type) = 'é'))
ORDER BY date, log_id
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	if got, err = queryOf(t, "into", day); err != nil {
		t.Fatal(err)
	}
	_, chain, _ := strings.Cut(got, "  -- the events that matter")
	want = `; place orders them by date and, at the same time, by log_id
  matched AS (
    SELECT tenant,
      date AS at,
      log_id,
      toUnixTimestamp64Milli(date) + least(row_number() OVER (PARTITION BY tenant, date ORDER BY log_id), 255) / 1024 AS place,
      (lower(type) IN ('fp', 'fu')) AS is_failed_login,
      (lower(type) = 's') AS is_login,
      member(ip, raw, 'ip') AS event_ip
    FROM events
    WHERE date > now64(3, 'UTC') - INTERVAL 1505 MINUTE
      AND (is_failed_login OR is_login)
  ),
  -- the events counted for: Many failed
  of_many_failed_counted AS (
    SELECT tenant, at, log_id, place, arrayJoin(arrayDistinct(event_ip)) AS key1
    FROM matched
    WHERE is_failed_login
  ),
  of_many_failed_evaluated AS (
    SELECT *,
      count() OVER w AS value
    FROM of_many_failed_counted
    WINDOW w AS (PARTITION BY tenant, key1 ORDER BY place / 299999.5 RANGE BETWEEN 1 PRECEDING AND CURRENT ROW)
  ),
  -- the events counted for: Broken into
  of_broken_into_counted AS (
    SELECT tenant, at, log_id, place, (tenant, log_id) IN (SELECT tenant, log_id FROM of_many_failed_evaluated WHERE value >= 3) AS source1, is_login AS source2, arrayJoin(arrayDistinct(event_ip)) AS key1
    FROM matched
    WHERE (source1 OR source2)
  ),
  of_broken_into_evaluated AS (
    SELECT *,
      (began1 > toUnixTimestamp64Milli(at) - 3600000) + (began2 > toUnixTimestamp64Milli(at) - 3600000) AS value
    FROM (
      SELECT *, maxIf(began1_before, source2) OVER up_to AS began2, maxIf(began1_before, source2) OVER before AS began2_before FROM (
      SELECT *, maxIf(toUnixTimestamp64Milli(at), source1) OVER up_to AS began1, maxIf(toUnixTimestamp64Milli(at), source1) OVER before AS began1_before FROM of_broken_into_counted
      WINDOW up_to AS (PARTITION BY tenant, key1 ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), before AS (PARTITION BY tenant, key1 ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
      WINDOW up_to AS (PARTITION BY tenant, key1 ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), before AS (PARTITION BY tenant, key1 ORDER BY at, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
  )
SELECT at, log_id, tenant, key1 AS ip, value
FROM of_broken_into_evaluated
WHERE at > now64(3, 'UTC') - INTERVAL 1 DAY AND value >= 2
ORDER BY at, log_id
`
	if diff := cmp.Diff(want, chain); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	if got, err = queryOf(t, "odd", day); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"/* Odd * /; DROP TABLE events (odd), detection",
		"ifNull(toIPv6OrNull(x) BETWEEN toIPv6('::ffff:10.0.0.0') AND toIPv6('::ffff:10.255.255.255'), false) OR ifNull(toIPv6OrNull(x) BETWEEN toIPv6('2001:db8::') AND toIPv6('2001:db8:ffff:ffff:ffff:ffff:ffff:ffff'), false)",
		"toIPv6('ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff') AND NOT toIPv6OrNull(x) BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), false), member(ip, rest, 'ip'))",
		`arrayExists(x -> match(x, '^a\\.b'), texts(details, ['it\'s']))`,
		`arrayExists(x -> match(x, '(?-s)(?i)^a.b'), texts(details, ['x']))`,
		"AND missing(raw, ['scope'])",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nis not in\n%s", want, got)
		}
	}
}

func TestRefuses(t *testing.T) {
	for id, want := range map[string]string{
		"backtracks": "r.yml:43: Backtracks: the regular expression a(?!b): RE2 does not support it, and ClickHouse has no other engine",
		"counts":     "r.yml:50: Counts it: r.yml:43: Backtracks: the regular expression a(?!b): RE2 does not support it, and ClickHouse has no other engine",
	} {
		got, err := queryOf(t, id, tosql.Range{})
		if err == nil || err.Error() != want || got != "" {
			t.Errorf("%s: got %q, %v\nwant %s", id, got, err, want)
		}
	}
}
