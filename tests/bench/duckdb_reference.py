"""The reference of `make bench`: DuckDB over one Parquet file of the same records, asked the same questions.

Not a client of Quiver: it reads the file of JSON lines that the bench wrote, and makes the Parquet file when it is not there
yet (sorted by time, zstd level 3, row groups of 131,072 rows). Then it says its version, and answers one question per line of
stdin: {"sql": …, "bounds": …, "answer": PATH} in; the answer as an Arrow stream at PATH, and {"median_ms": …} out. So the bench
can ask both stores in turn, and what else the machine does falls on both.
Invariant: two threads, whole answers; a time is the median of five after one warm-up.
"""

import argparse
import json
import os
import statistics
import sys
import time

import duckdb
import pyarrow as pa

THREADS = 2
HOT_RUNS = 5
COLUMNS = {
    "time": "TIMESTAMP", "level": "VARCHAR", "service": "VARCHAR", "instance": "VARCHAR", "msg": "VARCHAR",
    "trace_id": "VARCHAR", "span_id": "VARCHAR", "request_id": "VARCHAR", "user_id": "BIGINT", "device_id": "VARCHAR",
    "method": "VARCHAR", "path": "VARCHAR", "status": "BIGINT", "region": "VARCHAR", "duration_ms": "DOUBLE",
}
# Named as in Quiver.
RENAMED = {"time": "timestamp", "msg": "message"}


def write_parquet(connection, lines, parquet):
    """Writes the file whole or not at all."""
    columns = ", ".join(f"{name} AS {RENAMED.get(name, name)}" for name in COLUMNS)
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
    part = parquet + ".part"
    connection.execute(
        f"COPY (SELECT {columns} FROM read_json('{lines}', format='newline_delimited', columns={{{types}}}) ORDER BY timestamp) "
        f"TO '{part}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE 131072)"
    )
    os.replace(part, parquet)
    os.sync()  # what follows is measured


def ask(connection, sql):
    """Gives the answer and the milliseconds until all of it was there."""
    started = time.perf_counter()
    answer = connection.sql(sql).to_arrow_table()
    return answer, 1000 * (time.perf_counter() - started)


def answer_question(connection, question):
    """Gives the median time; the answer, or that of `bounds`, is written to its file."""
    answer, _ = ask(connection, question["sql"])
    times = [ask(connection, question["sql"])[1] for _ in range(HOT_RUNS)]
    if question.get("bounds"):
        answer, _ = ask(connection, question["bounds"])
    with pa.OSFile(question["answer"], "wb") as sink, pa.ipc.new_stream(sink, answer.schema) as writer:
        writer.write_table(answer)
    return {"median_ms": statistics.median(times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", required=True, help="the records as JSON lines")
    parser.add_argument("--parquet", required=True, help="the file to read, made when it is not there")
    arguments = parser.parse_args()

    connection = duckdb.connect(config={"threads": THREADS})
    if not os.path.exists(arguments.parquet):
        write_parquet(connection, arguments.lines, arguments.parquet)
    connection.execute(f"CREATE VIEW logs AS SELECT * FROM read_parquet('{arguments.parquet}')")
    print(json.dumps({"version": duckdb.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer_question(connection, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
