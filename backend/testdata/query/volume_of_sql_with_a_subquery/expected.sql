SELECT date_bin(INTERVAL '30 seconds', timestamp) AS time, level, count(*) AS value
FROM (SELECT * FROM (SELECT timestamp, level, message FROM logs WHERE service = 'bff') AS x WHERE message LIKE '%a%') AS lines
WHERE timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z'
GROUP BY 1, 2
ORDER BY 1
