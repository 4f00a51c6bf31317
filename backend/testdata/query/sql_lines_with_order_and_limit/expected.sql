SELECT timestamp, message, path, _seq FROM logs WHERE (timestamp >= TIMESTAMP '2026-01-01T12:00:00Z' AND timestamp < TIMESTAMP '2026-01-01T13:00:00Z') ORDER BY timestamp DESC, _seq DESC LIMIT 20
