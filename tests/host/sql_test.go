package host

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/query"
)

func TestSQLTable(t *testing.T) {
	h := newHost(t)
	h.jsonLines(
		`{"ts":"2026-11-20T12:00:01.000000001Z","service":"a","level":"info","msg":"one","n":1,"x":1.5,"ok":true,"note":"n"}`,
		`{"ts":"2026-11-20T12:00:02Z","service":"b","level":"info","msg":"two","n":-2,"x":2.5,"ok":false}`,
	)
	frame := h.frame(query.SQL("A", "table",
		`SELECT service, n, x, ok, note, timestamp AS seen, count(*) AS "how many" FROM logs
		 WHERE $__timeFilter(timestamp) GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY service`), noon.Add(-time.Minute), noon.Add(time.Minute))
	if got := strings.Join(fieldNames(frame), ","); got != "service,n,x,ok,note,seen,how many" {
		t.Fatalf("fields %s", got)
	}
	for name, want := range map[string]data.FieldType{
		"service": data.FieldTypeNullableString, "n": data.FieldTypeNullableInt64, "x": data.FieldTypeNullableFloat64,
		"ok": data.FieldTypeNullableBool, "note": data.FieldTypeNullableString, "seen": data.FieldTypeNullableTime,
		"how many": data.FieldTypeNullableInt64,
	} {
		if got := field(t, frame, name).Type(); got.NullableType() != want {
			t.Errorf("field %q has type %s, want %s", name, got, want)
		}
	}
	row, ok := frame.RowLen()
	if ok != nil || row != 2 {
		t.Fatalf("%d rows, want 2", row)
	}
	if got := times(t, field(t, frame, "seen"))[0]; got.Nanosecond() != 1 {
		t.Errorf("time %s lost its nanosecond", got.Format(time.RFC3339Nano))
	}
	if value, ok := field(t, frame, "note").ConcreteAt(1); ok {
		t.Errorf("note of the second row is %q, want null", value)
	}
	if value, _ := field(t, frame, "n").ConcreteAt(1); value != int64(-2) {
		t.Errorf("n of the second row is %v", value)
	}
	if frame.Meta == nil || frame.Meta.ExecutedQueryString == "" || strings.Contains(frame.Meta.ExecutedQueryString, "$__") {
		t.Errorf("meta %+v does not show the SQL with its macros replaced", frame.Meta)
	}
}

func TestMacros(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	from, to := seriesFrom.Add(2*time.Minute), seriesFrom.Add(5*time.Minute)
	cases := map[string]string{
		"time filter of a column":     "SELECT count(*) AS n FROM logs WHERE $__timeFilter(timestamp)",
		"time filter alone":           "SELECT count(*) AS n FROM logs WHERE $__timeFilter()",
		"from and to":                 "SELECT count(*) AS n FROM logs WHERE timestamp >= $__from AND timestamp < $__to",
		"milliseconds":                "SELECT count(*) AS n FROM logs WHERE timestamp >= to_timestamp_millis($__fromMs) AND timestamp < to_timestamp_millis($__toMs)",
		"in a comment":                "SELECT count(*) AS n -- $__nonsense\nFROM logs WHERE $__timeFilter(timestamp)",
		"in a subquery":               "SELECT count(*) AS n FROM (SELECT * FROM logs WHERE $__timeFilter(timestamp)) AS x",
		"of a column with an alias":   "SELECT count(*) AS n FROM logs AS l WHERE $__timeFilter(l.timestamp)",
		"in upper and lower case":     "select COUNT(*) as n from LOGS where $__timeFilter(timestamp)",
		"with a semicolon at its end": "SELECT count(*) AS n FROM logs WHERE $__timeFilter(timestamp);",
	}
	for name, sql := range cases {
		t.Run(name, func(t *testing.T) {
			frame := h.frame(query.SQL("A", "table", sql), from, to)
			if got := numbers(t, field(t, frame, "n"))[0]; got != 180 {
				t.Errorf("counts %v lines of three minutes, want 180", got)
			}
		})
	}
	groups := map[string]string{
		"time group":             "SELECT $__timeGroup(timestamp, '1m') AS time, count(*) AS n FROM logs WHERE $__timeFilter() GROUP BY 1 ORDER BY 1",
		"time group, bare":       "SELECT $__timeGroup(timestamp, 1m) AS time, count(*) AS n FROM logs WHERE $__timeFilter() GROUP BY 1 ORDER BY 1",
		"date_bin":               "SELECT date_bin(INTERVAL '1 minute', timestamp) AS time, count(*) AS n FROM logs WHERE $__timeFilter() GROUP BY 1 ORDER BY 1",
		"time group of interval": "SELECT $__timeGroup(timestamp, $__interval) AS time, count(*) AS n FROM logs WHERE $__timeFilter() GROUP BY 1 ORDER BY 1",
		"time group alone":       "SELECT $__timeGroup(timestamp) AS time, count(*) AS n FROM logs WHERE $__timeFilter() GROUP BY 1 ORDER BY 1",
		"interval in a literal":  "SELECT date_bin(INTERVAL '$__interval', timestamp) AS time, count(*) AS n FROM logs WHERE $__timeFilter() GROUP BY 1 ORDER BY 1",
		"interval in ms":         "SELECT to_timestamp_millis(($__interval_ms) * (1000 * EXTRACT(EPOCH FROM timestamp)::bigint / $__interval_ms)) AS time, count(*) AS n FROM logs WHERE $__timeFilter() GROUP BY 1 ORDER BY 1",
	}
	for name, sql := range groups {
		t.Run(name, func(t *testing.T) {
			request := query.SQL("A", "auto", sql).Over(from, to)
			request.Interval = time.Minute
			response := h.responses(nil, request)["A"]
			if response.Error != nil {
				t.Fatal(response.Error)
			}
			series := wantSeries(t, response.Frames)
			if len(series) != 1 {
				t.Fatalf("%d series, want 1", len(series))
			}
			for _, ref := range series {
				if got := fmt.Sprint(numbers(t, ref.ValueField)); got != "[60 60 60]" {
					t.Errorf("counts per minute %s, want [60 60 60]", got)
				}
			}
		})
	}
}

func TestSQLLines(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	for name, sql := range map[string]string{
		"star":       "SELECT * FROM logs WHERE $__timeFilter() AND level = 'error'",
		"with _seq":  "SELECT *, _seq FROM logs WHERE $__timeFilter() AND level = 'error' ORDER BY timestamp DESC",
		"columns":    "SELECT timestamp, level, message, duration_ms, trace_id FROM logs WHERE $__timeFilter() AND level = 'error' ORDER BY timestamp DESC",
		"with limit": "SELECT * FROM logs WHERE $__timeFilter() AND level = 'error' LIMIT 60",
	} {
		t.Run(name, func(t *testing.T) {
			frame := h.frame(query.SQL("A", "auto", sql), seriesFrom, seriesTo)
			wantLogLines(t, frame)
			if frame.Rows() != 60 {
				t.Fatalf("%d lines, want the 60 errors", frame.Rows())
			}
			distinct := map[string]bool{}
			for row, id := range texts(t, field(t, frame, "id")) {
				distinct[id] = true
				if severity := texts(t, field(t, frame, "severity"))[row]; severity != "error" {
					t.Errorf("severity %q", severity)
				}
			}
			if len(distinct) != 60 || distinct[""] {
				t.Errorf("%d different ids, want 60", len(distinct))
			}
			if got := labelsAt(t, frame, 0)["duration_ms"]; got != "599" {
				t.Errorf("label duration_ms of the newest line is %q, want 599", got)
			}
		})
	}
}

func TestWholeLinesInThePlaceOfMessages(t *testing.T) {
	h := newHost(t)
	line := `{"ts":"2026-11-20T12:00:01Z","service":"a","level":"info","msg":"paid","order_id":17}`
	h.jsonLines(line)
	text := "SELECT * EXCEPT (message), _line AS message FROM logs WHERE $__timeFilter(timestamp)"
	frame := h.frame(query.SQL("A", "logs", text), noon, noon.Add(time.Minute))
	if got := texts(t, field(t, frame, "body")); len(got) != 1 || got[0] != line {
		t.Errorf("bodies %q, want the line as it was sent", got)
	}
	if got := texts(t, field(t, frame, "id")); len(got) != 1 || len(got[0]) == 16 {
		t.Errorf("ids %q, want a number of the log", got)
	}
}

// The cursor works for lines that SQL selects as it does for the builder.
func TestPagingOfSQLLines(t *testing.T) {
	h := newHost(t)
	pushSameMillisecond(h)
	seen := map[string]bool{}
	var cursor *query.Cursor
	for page := range 4 {
		model := query.SQL("A", "auto", "SELECT * FROM logs WHERE $__timeFilter() AND service = 's' ORDER BY timestamp DESC LIMIT 1500")
		model.Cursor = cursor
		frame := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute))
		for _, body := range texts(t, field(t, frame, "body")) {
			if seen[body] {
				t.Fatalf("line %s came again on page %d", body, page)
			}
			seen[body] = true
		}
		cursor = cursorAfter(t, frame, "backward")
	}
	if len(seen) != pagedLines {
		t.Errorf("%d lines came, want %d", len(seen), pagedLines)
	}
}

func TestEmptyTableKeepsItsColumns(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	frame := h.frame(query.SQL("A", "table", "SELECT service, message FROM logs WHERE false"), seriesFrom, seriesTo)
	if got := strings.Join(fieldNames(frame), ","); frame.Rows() != 0 || got != "service,message" {
		t.Errorf("%d rows, fields %s", frame.Rows(), got)
	}
}

// What the store's SQL gives in other types must arrive in types that Grafana reads: a LargeUtf8, a list or a decimal
// anywhere makes it answer 500 for the whole panel.
func TestTypesThatGrafanaCannotRead(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	for name, expression := range map[string]string{
		"decimal": "CAST(1.25 AS DECIMAL(10,2))", "date": "CAST(TIMESTAMP '2026-11-20T12:00:00Z' AS DATE)",
		"list": "[1, 2]", "interval": "INTERVAL '1 hour'", "null": "NULL", "unsigned": "CAST(1 AS BIGINT UNSIGNED)",
		"seconds": "to_timestamp_seconds(1)", "struct": "named_struct('a', 1)",
		"binary": "CAST('x' AS BYTEA)", "view": "arrow_cast('x', 'Utf8View')", "dictionary": "arrow_cast('x', 'Dictionary(Int32, Utf8)')",
	} {
		t.Run(name, func(t *testing.T) {
			frame := h.frame(query.SQL("A", "table", "SELECT "+expression+" AS v FROM logs WHERE $__timeFilter() LIMIT 1"), seriesFrom, seriesTo)
			if frame.Rows() != 1 {
				t.Errorf("%d rows, want 1", frame.Rows())
			}
			if name == "seconds" {
				if got := times(t, field(t, frame, "v"))[0]; got.Unix() != 1 {
					t.Errorf("second 1 became %s", got)
				}
			}
		})
	}
}
