-- Failed Management API calls, by application.
SELECT client_id, client_name, request_method AS method, request_path AS path, status_code, count() AS events,
    any(JSONExtractString(details, 'response', 'body', 'message')) AS message, min(date) AS first, max(date) AS last
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND status_code >= 400
GROUP BY client_id, client_name, method, path, status_code
ORDER BY events DESC
