SELECT *, _seq
FROM logs
WHERE timestamp >= TIMESTAMP '2026-01-01T11:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T14:00:00Z'
  AND trace_id = 'abc'
ORDER BY timestamp DESC, _seq DESC
LIMIT 1000
