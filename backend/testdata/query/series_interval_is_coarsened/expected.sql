SELECT date_bin(INTERVAL '21600 seconds', timestamp) AS time, count(*) AS value
FROM logs
WHERE timestamp >= TIMESTAMP '1970-01-01T00:00:00Z' AND timestamp < TIMESTAMP '1970-01-31T00:00:00Z'
GROUP BY 1
ORDER BY 1
