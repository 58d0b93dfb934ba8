-- Activity of a user and attempts against them, newest first.
-- value: user_id, user_name
SELECT date, type, description, ip, user_agent, JSONExtractString(rest, 'security_context', 'ja4') AS ja4,
    JSONExtractString(rest, 'location_info', 'country_code') AS country, client_name, connection, log_id
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND (user_id = {value:String} OR user_name = {value:String})
ORDER BY date DESC
