SELECT service, count(*) FROM logs WHERE (timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z') AND level = 'error' GROUP BY 1
