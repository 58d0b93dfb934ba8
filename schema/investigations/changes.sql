-- Changes to the tenant and their callers, newest first.
SELECT date, description, request_method AS method, request_path AS path, status_code,
    JSONExtractString(details, 'request', 'auth', 'user', 'email') AS user, client_id, client_name, ip, JSONExtractRaw(details, 'request', 'body') AS body, log_id
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND type = 'sapi'
ORDER BY date DESC
