-- Events of an application, by type, call and status.
-- value: client_id
SELECT type, any(description) AS description, request_method AS method, request_path AS path, status_code, count() AS events,
    uniqExact(ip) AS addresses, groupUniqArray(5)(ip) AS some_addresses, min(date) AS first, max(date) AS last
FROM events
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')} AND client_id = {value:String}
GROUP BY type, method, path, status_code
ORDER BY events DESC
