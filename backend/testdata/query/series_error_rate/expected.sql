SELECT date_bin(INTERVAL '300 seconds', timestamp) AS time, count(*) / 300.0 AS value
FROM logs
WHERE timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z'
  AND level = 'error'
GROUP BY 1
ORDER BY 1
