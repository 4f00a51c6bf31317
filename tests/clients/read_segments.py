"""pyarrow and DuckDB read the segment files below argv[1] and find the rows of argv[2], the NDJSON of
`SELECT _seq, CAST(timestamp AS BIGINT) AS ns, level, service, message, n FROM logs`."""

import json
import pathlib
import sys

import duckdb
import pyarrow.parquet as parquet

directory, rows = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
names = ["level", "service", "message", "n"]
expected = sorted(
    (row["_seq"], row["ns"], *(row.get(name) for name in names)) for row in map(json.loads, rows.open())
)
assert expected, "there are rows to compare with"
files = sorted(directory.rglob("*.parquet"))

by_pyarrow = []
for file in files:
    for row in parquet.ParquetFile(file).read().to_pylist():
        time = row["timestamp"]
        ns = time.value if hasattr(time, "value") else round(time.timestamp()) * 1_000_000_000
        by_pyarrow.append((row["_seq"], ns, *(row.get(name) for name in names)))
assert sorted(by_pyarrow) == expected, (sorted(by_pyarrow)[:3], expected[:3])

by_duckdb = duckdb.sql(
    f"SELECT _seq, epoch_ns(timestamp), level, service, message, n"
    f" FROM read_parquet({[str(file) for file in files]}, union_by_name = true)"
).fetchall()
assert sorted(by_duckdb) == expected, (sorted(by_duckdb)[:3], expected[:3])
