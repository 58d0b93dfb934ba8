-- Users with a phone number or device as second factor, newest first.
-- value: details.authenticator.phone_number, details.enrollment.identifier
SELECT date, type, user_id, user_name, ip, user_agent, JSONExtractString(details, 'authenticator', 'type') AS factor, log_id
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND type IN ('gd_enrollment_complete', 'gd_unenroll')
    AND (JSONExtractString(details, 'authenticator', 'phone_number') = {value:String} OR JSONExtractString(details, 'enrollment', 'identifier') = {value:String})
ORDER BY date DESC
