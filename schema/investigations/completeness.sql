-- Gaps, audits and errors that kept events from arriving, newest first.
SELECT date, type, description, details, log_id
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND (type IN ('tenantwatch_gap', 'tenantwatch_audit', 'tenantwatch_log_stream', 'tenantwatch_api_error')
    OR (type = 'tenantwatch_health' AND description != 'Events come in'))
ORDER BY date DESC
