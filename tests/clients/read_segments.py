"""pyarrow and DuckDB read the segment files below argv[1] and find the rows of argv[2], the NDJSON of
`SELECT _seq, CAST(timestamp AS BIGINT) AS ns, level, service, message, n, trace_id, request FROM logs`.
How they are read stands in docs/format.md."""

import json
import pathlib
import sys
import uuid

import duckdb
import pyarrow
import pyarrow.parquet as parquet

directory, rows = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
names = ["level", "service", "message", "n", "trace_id", "request"]
expected = sorted(
    ((row["_seq"], row["ns"], *(row.get(name) for name in names)) for row in map(json.loads, rows.open())),
    key=lambda row: row[0],
)
assert expected, "there are rows to compare with"
files = sorted(directory.rglob("*.parquet"))


def text(form, value):
    """An id as it came."""
    if value is None or form is None:
        return value
    return str(uuid.UUID(bytes=value)) if form == "uuid" else value.hex()


by_pyarrow, units = [], set()
for path in files:
    file = parquet.ParquetFile(path)
    assert file.metadata.metadata[b"quiver.format"] == b"2"
    ids = json.loads(file.metadata.metadata[b"quiver.ids"])
    table = file.read()
    units.add(table.schema.field("timestamp").type.unit)
    times = table["timestamp"].cast(pyarrow.timestamp("ns", "UTC")).cast(pyarrow.int64()).to_pylist()
    if "with ids" in table["message"].to_pylist():
        assert ids == {"trace_id": {"hex": 16}, "request": "uuid"}, ids
        assert table.schema.field("trace_id").type == pyarrow.binary(16)
        assert table.schema.field("request").type == pyarrow.binary(16)
    # Python's own datetime has no nanoseconds.
    for ns, row in zip(times, table.drop_columns(["timestamp"]).to_pylist()):
        by_pyarrow.append((row["_seq"], ns, *(text(ids.get(name), row.get(name)) for name in names)))
by_pyarrow.sort(key=lambda row: row[0])
assert by_pyarrow == expected, (by_pyarrow[:3], expected[:3])
assert units == {"ms", "us", "ns"}, units

by_duckdb = duckdb.sql(
    "SELECT _seq, epoch_ns(timestamp), level, service, message, n, lower(hex(trace_id)),"
    " CAST(CAST(hex(request) AS UUID) AS VARCHAR)"
    f" FROM read_parquet({[str(file) for file in files]}, union_by_name = true) ORDER BY _seq"
).fetchall()
assert by_duckdb == expected, (by_duckdb[:3], expected[:3])
