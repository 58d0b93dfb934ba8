-- Addresses and users of a TLS fingerprint (JA4), by address.
-- value: security_context.ja4
SELECT ip, count() AS events, countIf(type IN ('s', 'scoa', 'sepft')) AS logins, countIf(type IN ('f', 'fp', 'fu', 'fcoa', 'fepft')) AS failures,
    uniqExact(if(user_name = '', user_id, user_name)) AS users, groupUniqArray(10)(if(user_name = '', user_id, user_name)) AS some_users,
    any(user_agent) AS user_agent, min(date) AS first, max(date) AS last
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND JSONExtractString(rest, 'security_context', 'ja4') = {value:String}
GROUP BY ip
ORDER BY events DESC
