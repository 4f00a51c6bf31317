"""pyarrow reads the Arrow stream of `POST /api/v1/sql` at argv[1], which holds 100 records, n from 0 to 99."""

import sys
import urllib.request

import pyarrow as pa

request = urllib.request.Request(
    f"http://{sys.argv[1]}/api/v1/sql",
    data=b"SELECT timestamp, level, n, count(*) OVER () AS lines FROM logs ORDER BY n",
    headers={"accept": "application/vnd.apache.arrow.stream"},
)
with urllib.request.urlopen(request) as answer:
    table = pa.ipc.open_stream(answer.read()).read_all()
assert table.column("n").to_pylist() == list(range(100)), table
assert table.column("lines").to_pylist() == [100] * 100, table
types = [str(field.type) for field in table.schema]
assert types == ["timestamp[ns, tz=UTC]", "string", "int64", "int64"], types
