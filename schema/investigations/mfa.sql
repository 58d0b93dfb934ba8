-- Second-factor activity, by user.
SELECT user_id, any(user_name) AS user_name, countIf(type = 'gd_send_pn') AS pushes, countIf(type IN ('gd_send_sms', 'gd_send_voice')) AS messages,
    countIf(type = 'gd_auth_succeed') AS succeeded, countIf(type = 'gd_auth_failed') AS failed, countIf(type = 'gd_auth_rejected') AS rejected,
    countIf(type LIKE '%rate_limit_exceed') AS limited, countIf(type = 'gd_enrollment_complete') AS enrolled, countIf(type = 'gd_unenroll') AS removed,
    groupUniqArray(5)(ip) AS some_addresses, min(date) AS first, max(date) AS last
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND type LIKE 'gd\\_%'
GROUP BY user_id
ORDER BY pushes + messages + failed + rejected + limited DESC
