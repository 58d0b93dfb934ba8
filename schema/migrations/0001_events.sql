-- Events as pulled, one row each. See schema.Row for what goes where. The table
-- may hold an event more than once until parts are merged; readers use the view
-- events, which never shows one twice.
CREATE TABLE IF NOT EXISTS events_stored
(
    tenant            LowCardinality(String),
    date              DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    type              LowCardinality(String),
    log_id            String CODEC(ZSTD(1)),
    members           UInt32 CODEC(ZSTD(1)),
    tenant_name       LowCardinality(String),
    environment_name  LowCardinality(String),
    description       String CODEC(ZSTD(1)),
    client_id         LowCardinality(String),
    client_name       LowCardinality(String),
    connection        LowCardinality(String),
    connection_id     LowCardinality(String),
    ip                String CODEC(ZSTD(1)),
    client_ip         String CODEC(ZSTD(1)),
    user_id           String CODEC(ZSTD(1)),
    user_name         String CODEC(ZSTD(1)),
    identity_user_id  String CODEC(ZSTD(1)),
    user_agent        LowCardinality(String),
    hostname          LowCardinality(String),
    strategy          LowCardinality(String),
    strategy_type     LowCardinality(String),
    organization_id   LowCardinality(String),
    organization_name LowCardinality(String),
    audience          LowCardinality(String),
    scope             LowCardinality(String),
    details           String CODEC(ZSTD(1)),
    rest              String CODEC(ZSTD(1)),
    status_code       UInt16 MATERIALIZED toUInt16(least(JSONExtractUInt(details, 'response', 'statusCode'), 65535)) CODEC(ZSTD(1)),
    request_method    LowCardinality(String) MATERIALIZED JSONExtractString(details, 'request', 'method'),
    request_path      LowCardinality(String) MATERIALIZED JSONExtractString(details, 'request', 'path'),
    limit_bucket      LowCardinality(String) MATERIALIZED JSONExtractString(details, 'limit', 'bucket'),
    source            LowCardinality(String),
    fetched_at        DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    inserted_at       DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1)),

    INDEX by_log_id log_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_user_id user_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_user_name user_name TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_ip ip TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(inserted_at)
PARTITION BY toYYYYMM(date)
ORDER BY (tenant, date, log_id)
SETTINGS non_replicated_deduplication_window = 10000,
    min_age_to_force_merge_seconds = 3600, min_age_to_force_merge_on_partition_only = 1;

-- The events, each once. raw is the event rebuilt as equal JSON; it costs
-- nothing unless it is asked for. A log_id has one date and therefore lies in
-- one partition, so duplicates need not be looked for across partitions.
CREATE VIEW IF NOT EXISTS events AS
SELECT
    tenant, date, type, log_id, description, client_id, client_name, connection, connection_id, ip, client_ip,
    user_id, user_name, identity_user_id, user_agent, hostname, strategy, strategy_type,
    organization_id, organization_name, audience, scope, tenant_name, environment_name,
    status_code, request_method, request_path, limit_bucket,
    details, rest, source, fetched_at, inserted_at,
    concat('{', arrayStringConcat(arrayFilter(x -> x != '', [
        if(bitTest(members, 0), concat('"_id":', toJSONString(log_id)), ''),
        if(bitTest(members, 1), concat('"log_id":', toJSONString(log_id)), ''),
        if(bitTest(members, 2), concat('"date":"', replaceOne(toString(date), ' ', 'T'), 'Z"'), ''),
        if(bitTest(members, 3), concat('"type":', toJSONString(toString(type))), ''),
        if(bitTest(members, 4), concat('"tenant_name":', toJSONString(toString(tenant_name))), ''),
        if(bitTest(members, 5), concat('"environment_name":', toJSONString(toString(environment_name))), ''),
        if(bitTest(members, 6), concat('"description":', toJSONString(description)), ''),
        if(bitTest(members, 7), concat('"client_id":', toJSONString(toString(client_id))), ''),
        if(bitTest(members, 8), concat('"client_name":', toJSONString(toString(client_name))), ''),
        if(bitTest(members, 9), concat('"connection":', toJSONString(toString(connection))), ''),
        if(bitTest(members, 10), concat('"connection_id":', toJSONString(toString(connection_id))), ''),
        if(bitTest(members, 11), concat('"ip":', toJSONString(ip)), ''),
        if(bitTest(members, 12), concat('"client_ip":', toJSONString(client_ip)), ''),
        if(bitTest(members, 13), concat('"user_id":', toJSONString(user_id)), ''),
        if(bitTest(members, 14), concat('"user_name":', toJSONString(user_name)), ''),
        if(bitTest(members, 15), concat('"identity_user_id":', toJSONString(identity_user_id)), ''),
        if(bitTest(members, 16), concat('"user_agent":', toJSONString(toString(user_agent))), ''),
        if(bitTest(members, 17), concat('"hostname":', toJSONString(toString(hostname))), ''),
        if(bitTest(members, 18), concat('"strategy":', toJSONString(toString(strategy))), ''),
        if(bitTest(members, 19), concat('"strategy_type":', toJSONString(toString(strategy_type))), ''),
        if(bitTest(members, 20), concat('"organization_id":', toJSONString(toString(organization_id))), ''),
        if(bitTest(members, 21), concat('"organization_name":', toJSONString(toString(organization_name))), ''),
        if(bitTest(members, 22), concat('"audience":', toJSONString(toString(audience))), ''),
        if(bitTest(members, 23), concat('"scope":', toJSONString(toString(scope))), ''),
        if(details != '', concat('"details":', details), ''),
        if(rest != '', substring(rest, 2, length(rest) - 2), '')
    ]), ','), '}') AS raw
FROM events_stored FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- The probes' results, which are events of our own.
CREATE VIEW IF NOT EXISTS probes AS
SELECT
    tenant, date,
    JSONExtractString(details, 'probe') AS probe,
    JSONExtractBool(details, 'ok') AS ok,
    JSONExtractUInt(details, 'status') AS status,
    JSONExtractString(details, 'error') AS error,
    JSONExtractFloat(details, 'latency_ms') AS latency_ms,
    log_id
FROM events
WHERE type = 'tenantwatch_probe';
