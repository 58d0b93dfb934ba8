-- What alerts went through, one row for each transition. Its identity is
-- fingerprint, start, state and level, so a transition that is delivered twice
-- is one row.
CREATE TABLE IF NOT EXISTS alerts_stored
(
    tenant         LowCardinality(String),
    starts_at      DateTime64(3, 'UTC'),
    fingerprint    String,
    state          LowCardinality(String),
    level          LowCardinality(String),
    rule_id        LowCardinality(String),
    title          String,
    updated_at     DateTime64(3, 'UTC'),
    resolved_at    Nullable(DateTime64(3, 'UTC')),
    group          Map(String, String),
    count          UInt64,
    threshold      UInt64,
    window_seconds Float64,
    summary        String,
    log_ids        Array(String),
    query          String,
    tags           Array(String),
    prevention     String,
    inserted_at    DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(inserted_at)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (tenant, starts_at, fingerprint, state, level)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every transition, each once.
CREATE VIEW IF NOT EXISTS alert_transitions AS
SELECT * FROM alerts_stored FINAL;

-- Every alert as it stands, each once.
CREATE VIEW IF NOT EXISTS alerts AS
SELECT * FROM alert_transitions
ORDER BY updated_at DESC, state = 'resolved' DESC
LIMIT 1 BY tenant, fingerprint, starts_at;
