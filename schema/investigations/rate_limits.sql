-- Rate limits reached or nearly reached, by caller, in ten-minute intervals.
SELECT toStartOfTenMinutes(date) AS at, type, limit_bucket AS bucket, client_id, client_name, ip, request_path AS path, count() AS events, any(description) AS description
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND (type IN ('api_limit', 'api_limit_warning', 'appi', 'limit_delegation', 'limit_mu', 'limit_sul', 'limit_wc') OR type LIKE '%rate_limit_exceed'
    OR (type = 'tenantwatch_api_error' AND status_code = 429))
GROUP BY at, type, bucket, client_id, client_name, ip, path
ORDER BY at DESC, events DESC
