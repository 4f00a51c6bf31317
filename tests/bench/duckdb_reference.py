"""The reference of `make bench`: DuckDB over one Parquet file of the same records, asked the same questions.

Not a client of Quiver: it reads the file of JSON lines that the bench wrote, makes the Parquet file when it is not there
yet (sorted by time, zstd level 3, row groups of 131,072 rows), and writes each answer as an Arrow stream beside its times.
Invariant: two threads, whole answers; a time is the median of five after one warm-up.
"""

import argparse
import json
import os
import statistics
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


def ask(connection, sql):
    """Gives the answer and the milliseconds until all of it was there."""
    started = time.perf_counter()
    answer = connection.sql(sql).to_arrow_table()
    return answer, 1000 * (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", required=True, help="the records as JSON lines")
    parser.add_argument("--parquet", required=True, help="the file to read, made when it is not there")
    parser.add_argument("--questions", required=True, help="JSON list of SQL texts over `logs`")
    parser.add_argument("--answers", required=True, help="directory for N.arrow and times.json")
    arguments = parser.parse_args()

    connection = duckdb.connect(config={"threads": THREADS})
    if not os.path.exists(arguments.parquet):
        write_parquet(connection, arguments.lines, arguments.parquet)
    connection.execute(f"CREATE VIEW logs AS SELECT * FROM read_parquet('{arguments.parquet}')")
    with open(arguments.questions, encoding="utf-8") as file:
        questions = json.load(file)
    medians = []
    for number, sql in enumerate(questions):
        answer, _ = ask(connection, sql)
        medians.append(statistics.median(ask(connection, sql)[1] for _ in range(HOT_RUNS)))
        path = os.path.join(arguments.answers, f"{number}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, answer.schema) as writer:
            writer.write_table(answer)
    with open(os.path.join(arguments.answers, "times.json"), "w", encoding="utf-8") as file:
        json.dump({"version": duckdb.__version__, "medians_ms": medians}, file)


if __name__ == "__main__":
    main()
