-- Users and applications of an IP address, by event type.
-- value: ip
SELECT type, any(description) AS description, count() AS events, uniqExact(if(user_name = '', user_id, user_name)) AS users,
    groupUniqArray(10)(if(user_name = '', user_id, user_name)) AS some_users, uniqExact(client_name) AS applications, groupUniqArray(5)(toString(client_name)) AS some_applications,
    uniqExact(user_agent) AS user_agents, min(date) AS first, max(date) AS last
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND ip = {value:String}
GROUP BY type
ORDER BY events DESC
