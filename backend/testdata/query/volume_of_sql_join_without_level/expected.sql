SELECT date_bin(INTERVAL '30 seconds', timestamp) AS time, 'unknown' AS level, count(*) AS value
FROM (SELECT a.timestamp, b.message FROM logs a JOIN logs b ON a.trace_id = b.trace_id) AS lines
WHERE timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z'
GROUP BY 1, 2
ORDER BY 1
