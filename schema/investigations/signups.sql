-- Signups, by address and mail domain.
SELECT ip, domain(concat('//', splitByChar('@', user_name)[-1])) AS mail_domain, countIf(type = 'ss') AS signups, countIf(type IN ('fs', 'signup_pwd_leak')) AS failures,
    countIf(type = 'sv') AS verified, groupUniqArray(5)(user_name) AS some_users, any(user_agent) AS user_agent, min(date) AS first, max(date) AS last
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND type IN ('ss', 'fs', 'sv', 'signup_pwd_leak')
GROUP BY ip, mail_domain
ORDER BY signups + failures DESC
