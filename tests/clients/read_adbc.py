"""ADBC's Flight SQL driver reads the store at argv[1] (its gRPC address), which holds 100 records, n from 0 to 99."""

import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa

with flightsql.connect(f"grpc://{sys.argv[1]}") as connection:
    with connection.cursor() as cursor:
        cursor.execute("SELECT timestamp, level, n FROM logs ORDER BY n")
        table = cursor.fetch_arrow_table()
        assert table.column("n").to_pylist() == list(range(100)), table
        assert table.schema.field("timestamp").type == pa.timestamp("ns", "UTC"), table.schema
        assert table.schema.field("level").type == pa.string(), table.schema
        assert table.schema.field("n").type == pa.int64(), table.schema

        cursor.execute("SELECT level, count(*) FROM logs GROUP BY level ORDER BY level")
        assert cursor.fetchall() == [("error", 10), ("info", 90)]

        cursor.adbc_prepare("SELECT n FROM logs WHERE n >= 98 ORDER BY n")
        cursor.execute("SELECT n FROM logs WHERE n >= 98 ORDER BY n")
        assert cursor.fetchall() == [(98,), (99,)]

        try:
            cursor.execute("SELECT levle FROM logs")
            cursor.fetchall()
        except flightsql.Error as error:
            assert "no field named 'levle'; did you mean 'level'?" in str(error), error
        else:
            raise AssertionError("an unknown column is no error")
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)], "the connection is good after an error"

    objects = connection.adbc_get_objects(depth="columns").read_all().to_pylist()
    tables = {
        table["table_name"]: [column["column_name"] for column in table["table_columns"]]
        for catalog in objects
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }
    assert {"timestamp", "level", "message", "n"} <= set(tables["logs"]), tables
    assert connection.adbc_get_table_types(), "there are table types"
    assert connection.adbc_get_info()["vendor_name"], "the server says its name"
