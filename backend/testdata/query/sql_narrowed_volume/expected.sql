SELECT date_bin(INTERVAL '30 seconds', timestamp) AS time, level, count(*) AS value
FROM logs
WHERE timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z'
  AND ((service = 'a' OR service = 'b') AND level = 'error')
GROUP BY 1, 2
ORDER BY 1
