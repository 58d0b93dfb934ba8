-- Results of the synthetic login, newest first.
SELECT date, probe, ok, status, error, latency_ms, log_id
FROM probes
WHERE (tenant = {tenant:String} OR {tenant:String} = '') AND date >= {since:DateTime64(3, 'UTC')} AND date <= {until:DateTime64(3, 'UTC')}
ORDER BY date DESC
