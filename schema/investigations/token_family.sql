-- Uses of the tokens of a refresh token family, oldest first.
-- value: details.familyId
SELECT date, type, description, ip, JSONExtractString(rest, 'location_info', 'country_code') AS country, user_agent, user_id, client_name, log_id
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND JSONExtractString(details, 'familyId') = {value:String}
ORDER BY date
