SELECT service, max("duration_ms") AS value
FROM logs
WHERE timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z'
GROUP BY 1
ORDER BY 2 DESC
