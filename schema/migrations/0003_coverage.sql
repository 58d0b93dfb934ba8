-- What audits found out, by tenant and hour of the log_ids. One row an hour: the
-- last audit's, with all that audits have ever healed of it.
CREATE TABLE IF NOT EXISTS coverage_stored
(
    tenant       LowCardinality(String),
    hour         DateTime('UTC'),
    expected     UInt64,
    stored       UInt64,
    dead_letters UInt64,
    missing      UInt64,
    healed       UInt64,
    checked_from DateTime64(3, 'UTC'),
    checked_to   DateTime64(3, 'UTC'),
    checked_at   DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(checked_at)
ORDER BY (tenant, hour)
SETTINGS non_replicated_deduplication_window = 1000;

-- Each hour once: expected = stored + dead_letters + missing.
CREATE VIEW IF NOT EXISTS coverage AS
SELECT tenant, hour, expected, stored, dead_letters, missing, healed, checked_from, checked_to, checked_at
FROM coverage_stored FINAL;

-- Times of which Auth0 had dropped events before they were pulled.
CREATE VIEW IF NOT EXISTS gaps AS
SELECT
    tenant, date AS found_at,
    parseDateTime64BestEffort(JSONExtractString(details, 'from'), 3, 'UTC') AS since,
    parseDateTime64BestEffort(JSONExtractString(details, 'until'), 3, 'UTC') AS until,
    JSONExtractFloat(details, 'seconds') AS seconds,
    log_id
FROM events
WHERE type = 'tenantwatch_gap';
