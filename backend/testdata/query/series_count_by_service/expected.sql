SELECT date_bin(INTERVAL '60 seconds', timestamp) AS time, service, count(*) AS value
FROM logs
WHERE timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z'
GROUP BY 1, 2
ORDER BY 1
