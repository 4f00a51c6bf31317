package host

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/grafana/dataplane/sdata/numeric"
	"github.com/grafana/dataplane/sdata/reader"
	"github.com/grafana/dataplane/sdata/timeseries"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/query"
)

// fromAlert is the header by which Grafana's alerting says who asks.
var fromAlert = map[string]string{"FromAlert": "true"}

// wantSeries reads the frames as Grafana's server-side expressions do (pkg/expr/dataplane.go) and returns the series by
// their labels. A frame that this refuses fails an alert rule with "input data must be a wide series".
func wantSeries(t *testing.T, frames data.Frames) map[string]timeseries.MetricRef {
	t.Helper()
	kind, err := reader.CanReadBasedOnMeta(frames)
	if err != nil {
		t.Fatalf("expressions cannot read the frames: %v", err)
	}
	if kind != data.FrameTypeTimeSeriesMulti {
		t.Fatalf("frames are %q, want timeseries-multi", kind)
	}
	series, err := timeseries.CollectionReaderFromFrames(frames)
	if err != nil {
		t.Fatal(err)
	}
	collection, err := series.GetCollection(true)
	if err != nil {
		t.Fatalf("series are not valid: %v", err)
	}
	if collection.Warning != nil {
		t.Errorf("version warning: %v", collection.Warning)
	}
	if len(collection.RemainderIndices) > 0 {
		t.Errorf("parts that expressions ignore: %+v", collection.RemainderIndices)
	}
	byLabels := map[string]timeseries.MetricRef{}
	for _, ref := range collection.Refs {
		byLabels[ref.ValueField.Labels.String()] = ref
	}
	return byLabels
}

// wantNumbers is wantSeries for numbers.
func wantNumbers(t *testing.T, frames data.Frames) map[string]float64 {
	t.Helper()
	kind, err := reader.CanReadBasedOnMeta(frames)
	if err != nil {
		t.Fatalf("expressions cannot read the frames: %v", err)
	}
	if kind != data.FrameTypeNumericMulti {
		t.Fatalf("frames are %q, want numeric-multi", kind)
	}
	found, err := numeric.CollectionReaderFromFrames(frames)
	if err != nil {
		t.Fatal(err)
	}
	collection, err := found.GetCollection(false) // sdata v0.0.9 cannot validate numbers, so what it would check is below
	if err != nil {
		t.Fatalf("numbers are not valid: %v", err)
	}
	if collection.Warning != nil {
		t.Errorf("version warning: %v", collection.Warning)
	}
	byLabels := map[string]float64{}
	for _, ref := range collection.Refs {
		value, _, err := ref.NullableFloat64Value()
		if err != nil || value == nil {
			t.Fatalf("number with labels %v is %v, error %v", ref.GetLabels(), value, err)
		}
		labels := ref.GetLabels().String()
		if _, twice := byLabels[labels]; twice {
			t.Fatalf("two numbers have the labels {%s}", labels)
		}
		byLabels[labels] = *value
	}
	for _, frame := range frames {
		if frame.Rows() > 1 {
			t.Errorf("a number has %d rows", frame.Rows())
		}
	}
	return byLabels
}

var (
	seriesFrom = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	seriesTo   = seriesFrom.Add(10 * time.Minute)
)

// pushSeries writes one line a second for ten minutes: service a answers two thirds, b one third; every tenth line is
// an error; duration_ms counts 0…599.
func pushSeries(h *host) {
	h.t.Helper()
	lines := make([]string, 600)
	for i := range lines {
		service, level := "a", "info"
		if i%3 == 2 {
			service = "b"
		}
		if i%10 == 9 {
			level = "error"
		}
		at := seriesFrom.Add(time.Duration(i) * time.Second)
		lines[i] = fmt.Sprintf(`{"ts":%q,"service":%q,"level":%q,"msg":"request","duration_ms":%d,"user":"u%d"}`,
			at.Format(time.RFC3339Nano), service, level, i, i%7)
	}
	h.jsonLines(lines...)
}

func aggregate(refID string, function query.Aggregate, groupBy ...string) query.Model {
	model := query.Logs(refID)
	model.Builder.Aggregate, model.Builder.GroupBy, model.Builder.Step = &function, groupBy, "1m"
	return model
}

func TestCountByServiceIsSeries(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	series := wantSeries(t, h.frames(aggregate("A", query.Aggregate{Function: "count"}, "service"), seriesFrom, seriesTo))
	if len(series) != 2 {
		t.Fatalf("%d series, want one for each of 2 services: %v", len(series), series)
	}
	for labels, want := range map[string]float64{"service=a": 400, "service=b": 200} {
		ref, ok := series[labels]
		if !ok {
			t.Fatalf("no series {%s}", labels)
		}
		if got := sum(t, ref.ValueField); got != want {
			t.Errorf("{%s} adds up to %v, want %v", labels, got, want)
		}
		at := times(t, ref.TimeField)
		if len(at) != 10 || !at[0].Equal(seriesFrom) || !at[9].Equal(seriesFrom.Add(9*time.Minute)) {
			t.Errorf("{%s} has times %v, want the 10 minutes from %s", labels, at, seriesFrom)
		}
	}
}

// A minute without errors is a zero: a gap would hold an alert's last value.
func TestCountsOfNothingAreZero(t *testing.T) {
	h := newHost(t)
	h.jsonLines(
		`{"ts":"2026-11-20T12:00:30Z","service":"a","level":"error","msg":"x"}`,
		`{"ts":"2026-11-20T12:05:30Z","service":"a","level":"error","msg":"x"}`,
	)
	model := aggregate("A", query.Aggregate{Function: "count"}, "service")
	series := wantSeries(t, h.frames(model, seriesFrom, seriesTo))
	want := []float64{1, 0, 0, 0, 0, 1, 0, 0, 0, 0}
	if got := numbers(t, series["service=a"].ValueField); !slices.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
}

func TestEveryAggregate(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	cases := []struct {
		function  query.Aggregate
		first     float64 // of the first minute
		tolerance float64
	}{
		{query.Aggregate{Function: "count"}, 60, 0},
		{query.Aggregate{Function: "rate"}, 1, 0},
		{query.Aggregate{Function: "sum", Field: "duration_ms"}, 1770, 0},
		{query.Aggregate{Function: "avg", Field: "duration_ms"}, 29.5, 0},
		{query.Aggregate{Function: "min", Field: "duration_ms"}, 0, 0},
		{query.Aggregate{Function: "max", Field: "duration_ms"}, 59, 0},
		{query.Aggregate{Function: "quantile", Field: "duration_ms", Quantile: 0.95}, 56.5, 1.5},
		{query.Aggregate{Function: "count_distinct", Field: "user"}, 7, 0},
	}
	for _, c := range cases {
		t.Run(c.function.Function, func(t *testing.T) {
			series := wantSeries(t, h.frames(aggregate("A", c.function), seriesFrom, seriesTo))
			if len(series) != 1 {
				t.Fatalf("%d series, want 1", len(series))
			}
			for _, ref := range series {
				if got := numbers(t, ref.ValueField)[0]; math.Abs(got-c.first) > c.tolerance {
					t.Errorf("first minute is %v, want %v", got, c.first)
				}
			}
		})
	}
}

func TestGroupByTwoFields(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	model := aggregate("A", query.Aggregate{Function: "count"}, "service", "level")
	series := wantSeries(t, h.frames(model, seriesFrom, seriesTo))
	got := map[string]float64{}
	for labels, ref := range series {
		got[labels] = sum(t, ref.ValueField)
	}
	want := map[string]float64{
		"level=error, service=a": 40, "level=info, service=a": 360,
		"level=error, service=b": 20, "level=info, service=b": 180,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sums %v, want %v", got, want)
	}
}

// An alert rule asks a builder query without saying "number": one number per group over the range.
func TestNumbersForAlerts(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	model := aggregate("A", query.Aggregate{Function: "count"}, "service")
	got := wantNumbers(t, h.framesWith(fromAlert, model, seriesFrom, seriesTo))
	if want := map[string]float64{"service=a": 400, "service=b": 200}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("numbers %v, want %v", got, want)
	}
}

func TestFormatNumber(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	model := aggregate("A", query.Aggregate{Function: "max", Field: "duration_ms"}, "level")
	model.Format = "number"
	got := wantNumbers(t, h.framesWith(fromAlert, model, seriesFrom, seriesTo))
	if want := map[string]float64{"level=error": 599, "level=info": 598}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("numbers %v, want %v", got, want)
	}
	sql := query.SQL("B", "number", `SELECT service, avg(duration_ms) AS mean FROM logs WHERE $__timeFilter() GROUP BY service`)
	got = wantNumbers(t, h.framesWith(fromAlert, sql, seriesFrom, seriesTo))
	if len(got) != 2 || got["service=b"] != 300.5 {
		t.Errorf("numbers of the SQL query %v, want 2 with service=b 300.5", got)
	}
}

// The same rule in SQL and as series, which Grafana then reduces.
func TestSeriesForAlerts(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	sql := `SELECT $__timeGroup(timestamp, '1m') AS time, service,
	               100.0 * count(*) FILTER (WHERE level = 'error') / count(*) AS percent
	        FROM logs WHERE $__timeFilter(timestamp) GROUP BY 1, 2 ORDER BY 1`
	series := wantSeries(t, h.framesWith(fromAlert, query.SQL("A", "series", sql), seriesFrom, seriesTo))
	for _, labels := range []string{"service=a", "service=b"} {
		ref, ok := series[labels]
		if !ok {
			t.Fatalf("no series {%s} in %v", labels, series)
		}
		if got := numbers(t, ref.ValueField); len(got) != 10 || math.Abs(got[0]-10) > 0.001 {
			t.Errorf("{%s} is %v, want 10 values of 10 %%", labels, got)
		}
	}
}

// No line at all must be "no data" to an alert rule, not an error. Grafana takes no frames for no data; a typed frame
// has to be one that its reader accepts.
func TestNoDataForAlerts(t *testing.T) {
	h := newHost(t)
	for _, format := range []string{"auto", "series", "number"} {
		model := aggregate("A", query.Aggregate{Function: "max", Field: "level"}, "service")
		model.Builder.Filters = []query.Filter{query.Is("service", "nobody")}
		model.Format = format
		frames := h.framesWith(fromAlert, model, seriesFrom, seriesTo)
		if len(frames) == 0 {
			continue
		}
		kind, err := reader.CanReadBasedOnMeta(frames)
		if err != nil {
			t.Fatalf("format %s: expressions cannot read the empty frames: %v", format, err)
		}
		if kind.Kind() == data.KindTimeSeries {
			if refs := wantSeries(t, frames); len(refs) != 0 {
				t.Errorf("format %s: %d series of nothing", format, len(refs))
			}
			continue
		}
		if refs := wantNumbers(t, frames); len(refs) != 0 {
			t.Errorf("format %s: %d numbers of nothing", format, len(refs))
		}
	}
}

// A log query in an alert rule is a mistake that the message should put right.
func TestLogQueryInAnAlertRuleSaysWhatToDo(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	response := h.responses(fromAlert, query.Logs("A").Over(seriesFrom, seriesTo))["A"]
	if response.Error != nil {
		if len(response.Error.Error()) < 20 {
			t.Errorf("error %q does not help", response.Error)
		}
		return
	}
	// The other good answer: how many lines there are.
	for labels, value := range wantNumbers(t, response.Frames) {
		if value != 600 {
			t.Errorf("{%s} is %v, want the 600 lines", labels, value)
		}
	}
}

func TestLogVolumeOfEveryQueryForm(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	h.jsonLines(`{"ts":"2026-11-20T12:03:00Z","service":"a","msg":"no level"}`)
	builder := query.Logs("A")
	builder.Builder.Limit = 5 // the volume counts all lines, not those of the page
	sql := query.SQL("A", "auto", "SELECT * FROM logs WHERE $__timeFilter(timestamp) ORDER BY timestamp DESC LIMIT 5")
	columns := query.SQL("A", "logs", "SELECT timestamp, level, message FROM logs WHERE $__timeFilter() AND service <> 'x'")
	for name, model := range map[string]query.Model{"builder": builder, "sql": sql, "sql with columns": columns} {
		t.Run(name, func(t *testing.T) {
			model.RefID, model.Purpose = "log-volume-A", "log-volume"
			frames := h.frames(model, seriesFrom, seriesTo)
			got := map[string]float64{}
			for _, frame := range frames {
				if len(frame.Fields) != 2 || frame.Fields[0].Type() != data.FieldTypeTime && frame.Fields[0].Type() != data.FieldTypeNullableTime {
					t.Fatalf("volume frame has fields %v, want a time and a number", fieldNames(frame))
				}
				level := frame.Fields[1].Labels["level"]
				got[level] += sum(t, frame.Fields[1])
				at := times(t, frame.Fields[0])
				if !slices.IsSortedFunc(at, time.Time.Compare) || len(at) < 5 || len(at) > 1000 {
					t.Errorf("level %s has %d buckets, sorted or not, want 5 to 1000 in order", level, len(at))
				}
				if at[0].After(seriesFrom) {
					t.Errorf("the first bucket of level %s starts at %s, after the range", level, at[0])
				}
			}
			if want := map[string]float64{"error": 60, "info": 540, "unknown": 1}; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("volume %v, want %v", got, want)
			}
		})
	}
}

func TestSampleOfAMetricQuery(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	model := aggregate("log-sample-A", query.Aggregate{Function: "count"}, "service")
	model.Builder.Filters = []query.Filter{query.Is("service", "b")}
	model.Builder.Limit, model.Purpose, model.Format = 25, "logs-sample", "logs"
	frame := h.frame(model, seriesFrom, seriesTo)
	wantLogLines(t, frame)
	if frame.Rows() != 25 {
		t.Errorf("%d lines, want the 25 newest", frame.Rows())
	}
}
