-- Logins, failures and blocks, in ten-minute intervals.
SELECT toStartOfTenMinutes(date) AS at, countIf(type IN ('s', 'scoa', 'sepft')) AS logins, countIf(type IN ('f', 'fp', 'fu', 'fcoa', 'fepft', 'pwd_leak')) AS failures,
    round(100 * failures / (logins + failures), 1) AS failed_percent, countIf(type = 'fu') AS unknown_users, countIf(type IN ('limit_wc', 'limit_sul', 'limit_mu')) AS blocks,
    uniqExactIf(ip, type IN ('f', 'fp', 'fu', 'fcoa', 'fepft')) AS failing_addresses, uniqExactIf(user_name, type IN ('f', 'fp', 'fu', 'fcoa', 'fepft')) AS failing_users
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND type IN ('s', 'scoa', 'sepft', 'f', 'fp', 'fu', 'fcoa', 'fepft', 'pwd_leak', 'limit_wc', 'limit_sul', 'limit_mu')
GROUP BY at
ORDER BY at DESC
