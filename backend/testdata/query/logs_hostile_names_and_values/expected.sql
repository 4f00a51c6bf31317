SELECT *, _seq
FROM logs
WHERE timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z'
  AND "a"" OR ""1""=""1" = 'x'' OR ''1''=''1'
  AND "b" IN ('''); DROP TABLE logs; --')
  AND (NOT regexp_like(message, '''') OR message IS NULL)
ORDER BY timestamp DESC, _seq DESC
LIMIT 1000
