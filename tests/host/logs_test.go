package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/trace"

	"quiver/tests/host/push"
	"quiver/tests/host/query"
)

const traceID = "4bf92f3577b34da6a3ce929d0e0e4736"

// wantLogLines checks the contract of grafana/dataplane, docs/contract/logs.md: names, types, and no null where the
// parser allows none. A frame that breaks it shows no rows at all.
func wantLogLines(t *testing.T, frame *data.Frame) {
	t.Helper()
	if frame.Meta == nil {
		t.Fatal("log frame has no meta")
	}
	if frame.Meta.Type != data.FrameTypeLogLines || frame.Meta.TypeVersion != (data.FrameTypeVersion{0, 0}) {
		t.Errorf("type %q version %v, want log-lines [0 0]", frame.Meta.Type, frame.Meta.TypeVersion)
	}
	if frame.Meta.PreferredVisualization != data.VisTypeLogs {
		t.Errorf("preferred visualisation %q, want logs", frame.Meta.PreferredVisualization)
	}
	types := map[string][]data.FieldType{
		"timestamp": {data.FieldTypeTime},
		"body":      {data.FieldTypeString},
		"severity":  {data.FieldTypeString, data.FieldTypeNullableString},
		"id":        {data.FieldTypeString, data.FieldTypeNullableString},
		"labels":    {data.FieldTypeJSON, data.FieldTypeNullableJSON},
	}
	for name, allowed := range types {
		if found := field(t, frame, name); !slices.Contains(allowed, found.Type()) {
			t.Errorf("field %q has type %s, want one of %v", name, found.Type(), allowed)
		}
	}
	if traces, _ := frame.FieldByName("trace_id"); traces != nil && traces.Type() != data.FieldTypeNullableString {
		t.Errorf("trace_id has type %s: a line without a trace needs a null", traces.Type())
	}
	// A live frame whose first text field is `labels` is taken for another format; time has to stand first.
	if frame.Fields[0].Name != "timestamp" || frame.Fields[1].Name != "body" {
		t.Errorf("fields start with %v, want timestamp, body", fieldNames(frame)[:2])
	}
	if types, _ := frame.FieldByName("labelTypes"); types != nil {
		if types.Config == nil || types.Config.Custom["hidden"] != true {
			t.Errorf("labelTypes is not hidden, and Grafana 12.3 would show it: config %+v", types.Config)
		}
	}
}

func sameText(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s\n got %q\nwant %q", what, got, want)
	}
}

func TestLogsByEveryProtocol(t *testing.T) {
	h := newHost(t)
	client := h.client()
	ctx := h.context()
	span, err := trace.SpanIDFromHex("00f067aa0ba902b7")
	if err != nil {
		t.Fatal(err)
	}
	id, err := trace.TraceIDFromHex(traceID)
	if err != nil {
		t.Fatal(err)
	}
	jsonLine := func(at time.Time, text string) string {
		return fmt.Sprintf(`{"ts":%q,"level":"error","msg":%q,"status":500,"trace_id":%q}`,
			at.Format(time.RFC3339Nano), text, traceID)
	}
	labels := map[string]string{"service": "payments-api", "env": "test"}
	if err := client.LokiProtobuf(ctx, push.Stream{Labels: labels, Entries: []push.Entry{
		{Time: noon, Line: jsonLine(noon, "by loki protobuf"), Metadata: map[string]string{"pod": "p-1"}},
	}}); err != nil {
		t.Fatalf("loki protobuf: %v", err)
	}
	if err := client.LokiJSON(ctx, push.Stream{Labels: labels, Entries: []push.Entry{
		{Time: noon.Add(1), Line: jsonLine(noon.Add(1), "by loki json"), Metadata: map[string]string{"pod": "p-1"}},
	}}); err != nil {
		t.Fatalf("loki json: %v", err)
	}
	line := strings.Replace(jsonLine(noon.Add(2), "by json lines"), "{", `{"service":"payments-api","env":"test","pod":"p-1",`, 1)
	if err := client.JSONLines(ctx, line); err != nil {
		t.Fatalf("json lines: %v", err)
	}
	for i, protocol := range []push.Protocol{push.GRPC, push.HTTP} {
		otlp, err := client.NewOTLP(ctx, "payments-api", protocol)
		if err != nil {
			t.Fatal(err)
		}
		otlp.Emit(ctx, push.Record{
			Time: noon.Add(time.Duration(3 + i)), Severity: log.SeverityError, Body: "by otlp " + string(protocol),
			TraceID: id, SpanID: span,
			Attributes: []log.KeyValue{log.Int("status", 500), log.String("env", "test"), log.String("pod", "p-1")},
		})
		if err := otlp.Flush(ctx); err != nil {
			t.Fatalf("otlp %s: %v", protocol, err)
		}
		if err := otlp.Close(ctx); err != nil {
			t.Fatalf("otlp %s: %v", protocol, err)
		}
	}

	model := query.Logs("A", query.Is("service", "payments-api"))
	model.Builder.Direction = "forward"
	frame := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute))
	wantLogLines(t, frame)
	sameText(t, "bodies", texts(t, field(t, frame, "body")),
		[]string{"by loki protobuf", "by loki json", "by json lines", "by otlp grpc", "by otlp http/protobuf"})
	for row, when := range times(t, field(t, frame, "timestamp")) {
		if want := noon.Add(time.Duration(row)); !when.Equal(want) {
			t.Errorf("row %d is at %s, want %s", row, when.Format(time.RFC3339Nano), want.Format(time.RFC3339Nano))
		}
	}
	for row := range frame.Rows() {
		if severity := texts(t, field(t, frame, "severity"))[row]; severity != "error" {
			t.Errorf("row %d has severity %q", row, severity)
		}
		if got := texts(t, field(t, frame, "trace_id"))[row]; got != traceID {
			t.Errorf("row %d has trace_id %q", row, got)
		}
		labels := labelsAt(t, frame, row)
		for name, want := range map[string]string{"service": "payments-api", "status": "500", "env": "test", "pod": "p-1"} {
			if labels[name] != want {
				t.Errorf("row %d has label %s=%q, want %q; all: %v", row, name, labels[name], want, labels)
			}
		}
	}
}

func TestTraceLinks(t *testing.T) {
	h := newHost(t)
	h.jsonLines(
		`{"ts":"2026-11-20T12:00:01Z","service":"bff","msg":"with a trace","trace_id":"`+traceID+`"}`,
		`{"ts":"2026-11-20T12:00:02Z","service":"bff","msg":"without"}`,
	)
	model := query.Logs("A")
	model.Builder.Direction = "forward"
	frame := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute))
	wantLogLines(t, frame)
	traces := field(t, frame, "trace_id")
	if value, ok := traces.ConcreteAt(0); !ok || value != traceID {
		t.Errorf("trace_id of the line with a trace is %v", value)
	}
	if value, ok := traces.ConcreteAt(1); ok {
		t.Errorf("trace_id of the line without a trace is %q, want null: an empty link would be shown", value)
	}
	if traces.Config == nil {
		t.Fatal("trace_id has no config, so no link")
	}
	if len(traces.Config.Links) != 3 || traces.Config.Links[0].Internal == nil || traces.Config.Links[2].Internal == nil {
		t.Fatalf("links %+v, want one to the trace, one to a page and one to all lines", traces.Config.Links)
	}
	internal, external, lines := traces.Config.Links[0], traces.Config.Links[1], traces.Config.Links[2]
	if lines.Internal.DatasourceUID != h.instance.UID {
		t.Errorf("the lines of a trace are looked for in %q", lines.Internal.DatasourceUID)
	}
	if internal.Internal.DatasourceUID != "jaeger-uid" || internal.Internal.DatasourceName != "Jaeger" {
		t.Errorf("internal link goes to %q %q", internal.Internal.DatasourceUID, internal.Internal.DatasourceName)
	}
	encoded, err := json.Marshal(internal.Internal.Query)
	if err != nil {
		t.Fatal(err)
	}
	// Grafana 12.3 embeds a trace when the query also has a queryType, and asks Jaeger a wrong one for it.
	if got := string(encoded); got != `{"query":"${__value.raw}"}` {
		t.Errorf("query of the internal link is %s", got)
	}
	if internal.Title == "" || external.Title == "" || internal.Title == external.Title {
		t.Errorf("titles %q and %q must be there and differ", internal.Title, external.Title)
	}
	if want := "http://jaeger.example:16686/trace/${__value.raw}"; external.URL != want {
		t.Errorf("external link %q, want %q", external.URL, want)
	}
}

// One click on a trace id shows the lines of every service, also where no data source for traces is set.
func TestLinesOfOneTraceOfAllServices(t *testing.T) {
	h := newHost(t)
	delete(h.instance.JSONData, "traces")
	h.jsonLines(
		`{"ts":"2026-11-20T12:00:01Z","service":"bff","msg":"first","trace_id":"`+traceID+`"}`,
		`{"ts":"2026-11-20T12:30:01Z","service":"api","msg":"half an hour later","trace_id":"`+traceID+`"}`,
		`{"ts":"2026-11-20T12:00:01Z","service":"api","msg":"of another","trace_id":"00"}`,
	)
	frame := h.frame(query.Logs("A", query.Is("service", "bff")), noon.Add(-time.Minute), noon.Add(time.Minute))
	links := field(t, frame, "trace_id").Config.Links
	if len(links) != 1 || links[0].Internal == nil {
		t.Fatalf("links %+v, want the one to all lines", links)
	}
	encoded, err := json.Marshal(links[0].Internal.Query)
	if err != nil {
		t.Fatal(err)
	}
	filled := bytes.ReplaceAll(encoded, []byte("${__value.raw}"), []byte(traceID))
	response := h.responses(nil, query.Raw("A", filled, noon.Add(-time.Minute), noon.Add(time.Minute)))["A"]
	if response.Error != nil {
		t.Fatal(response.Error)
	}
	if got := texts(t, field(t, response.Frames[0], "body")); !slices.Equal(got, []string{"first", "half an hour later"}) {
		t.Errorf("lines %q", got)
	}
}

// A day's busiest nanosecond: many lines at one time. Ids must tell them apart, and stay when the lines move from
// memory to a segment and when the store starts anew, for Grafana's permalinks and paging rest on them.
func TestIdsAreUniqueAndStable(t *testing.T) {
	h := newHost(t)
	lines := make([]string, 500)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"ts":"2026-11-20T12:00:00.000000001Z","service":"s","msg":"line %d"}`, i)
	}
	h.jsonLines(lines...)
	ids := func() map[string]string {
		frame := h.frame(query.Logs("A"), noon.Add(-time.Minute), noon.Add(time.Minute))
		bodies, ids := texts(t, field(t, frame, "body")), texts(t, field(t, frame, "id"))
		byBody := map[string]string{}
		distinct := map[string]bool{}
		for row, body := range bodies {
			byBody[body] = ids[row]
			distinct[ids[row]] = true
		}
		if len(byBody) != len(lines) || len(distinct) != len(lines) || distinct[""] {
			t.Fatalf("%d rows, %d bodies, %d ids; want %d of each", frame.Rows(), len(byBody), len(distinct), len(lines))
		}
		return byBody
	}
	first := ids()
	same := func(when string) {
		t.Helper()
		for body, id := range ids() {
			if first[body] != id {
				t.Fatalf("%s the id of %q is %q, was %q", when, body, id, first[body])
			}
		}
	}
	same("at the second query")
	h.restart()
	same("after a flush and a restart")
	h.jsonLines(`{"ts":"2026-11-20T12:00:30Z","service":"other","msg":"after the restart"}`)
	frame := h.frame(query.Logs("A", query.Is("service", "other")), noon.Add(-time.Minute), noon.Add(time.Minute))
	for _, id := range first {
		if id == texts(t, field(t, frame, "id"))[0] {
			t.Fatalf("a line after the restart got the id %q of one before", id)
		}
	}
}

func TestSeverityOfEveryLevel(t *testing.T) {
	h := newHost(t)
	// What services write, and what Grafana colours.
	levels := []struct{ written, severity string }{
		{`"trace"`, "trace"}, {`"DEBUG"`, "debug"}, {`"Information"`, "info"}, {`"warning"`, "warn"},
		{`"err"`, "error"}, {`"critical"`, "fatal"}, {`30`, "info"}, {`60`, "fatal"},
	}
	var lines, want []string
	for i, level := range levels {
		lines = append(lines, fmt.Sprintf(`{"ts":"2026-11-20T12:00:%02dZ","service":"s","level":%s,"msg":"m"}`, i, level.written))
		want = append(want, level.severity)
	}
	lines = append(lines, `{"ts":"2026-11-20T12:00:50Z","service":"s","msg":"no level"}`)
	want = append(want, "unknown")
	h.jsonLines(lines...)
	model := query.Logs("A")
	model.Builder.Direction = "forward"
	frame := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute))
	sameText(t, "severities", texts(t, field(t, frame, "severity")), want)
}

func TestLogFrameSaysWhatWasAsked(t *testing.T) {
	h := newHost(t)
	h.jsonLines(
		`{"ts":"2026-11-20T12:00:01Z","service":"a","level":"error","msg":"card_declined (1)"}`,
		`{"ts":"2026-11-20T12:00:02Z","service":"a","level":"error","msg":"other"}`,
	)
	model := query.Logs("A", query.Is("level", "error"))
	model.Builder.Search = []query.Search{{Op: "contains", Text: "card_declined (1)"}, {Op: "!contains", Text: "never"}}
	model.Builder.Limit = 77
	frame := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute))
	wantLogLines(t, frame)
	sameText(t, "bodies", texts(t, field(t, frame, "body")), []string{"card_declined (1)"})

	if sql := frame.Meta.ExecutedQueryString; !strings.Contains(sql, "FROM logs") || !strings.Contains(sql, "card_declined") {
		t.Errorf("executedQueryString is %q, want the SQL", sql)
	}
	custom, ok := frame.Meta.Custom.(map[string]any)
	if !ok {
		t.Fatalf("meta.custom is %T", frame.Meta.Custom)
	}
	// Grafana takes search words for regular expressions.
	if words := fmt.Sprint(custom["searchWords"]); words != `[card_declined \(1\)]` {
		t.Errorf("searchWords is %s", words)
	}
	if fmt.Sprint(custom["limit"]) != "77" {
		t.Errorf("limit is %v, want 77", custom["limit"])
	}
	if len(frame.Meta.Stats) == 0 {
		t.Fatal("frame has no stats")
	}
	stats := map[string]float64{}
	for _, stat := range frame.Meta.Stats {
		stats[strings.ToLower(stat.DisplayName)] = stat.Value
	}
	rows, bytes := 0.0, 0.0
	for name, value := range stats {
		if strings.Contains(name, "rows") {
			rows += value
		}
		if strings.Contains(name, "bytes") {
			bytes += value
		}
	}
	if rows < 1 || bytes < 1 {
		t.Errorf("stats %v do not tell the rows and bytes scanned", stats)
	}
}

func TestNoLinesIsAnEmptyFrameNotAnError(t *testing.T) {
	h := newHost(t)
	frames := h.frames(query.Logs("A", query.Is("service", "nobody")), noon.Add(-time.Minute), noon)
	for _, frame := range frames {
		if frame.Rows() != 0 {
			t.Errorf("got %d rows of nothing", frame.Rows())
		}
	}
}

func TestTextThatIsNotPlainText(t *testing.T) {
	h := newHost(t)
	bodies := []string{`it's "quoted" \ and {braced}`, "snow ☃ and 🦀", "two\nlines\twith a tab", "", " padded "}
	var lines []string
	for i, body := range bodies {
		encoded, err := json.Marshal(map[string]any{
			"ts": noon.Add(time.Duration(i) * time.Second).Format(time.RFC3339Nano), "service": "it's", "msg": body,
			"odd name": body, "nested": map[string]any{"deep": []int{1, 2}},
		})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(encoded))
	}
	h.jsonLines(lines...)
	model := query.Logs("A", query.Is("service", "it's"))
	model.Builder.Direction = "forward"
	frame := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute))
	wantLogLines(t, frame)
	sameText(t, "bodies", texts(t, field(t, frame, "body")), bodies)
	for row, body := range bodies {
		if got := labelsAt(t, frame, row)["odd name"]; got != body {
			t.Errorf("label of row %d is %q, want %q", row, got, body)
		}
	}
	for i, body := range bodies[:3] {
		model := query.Logs("A", query.Is("odd name", body))
		if rows := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute)).Rows(); rows != 1 {
			t.Errorf("filter on text %d finds %d rows, want 1", i, rows)
		}
	}
}

func TestEveryFilter(t *testing.T) {
	h := newHost(t)
	h.jsonLines(
		`{"ts":"2026-11-20T12:00:01Z","service":"a","msg":"one","status":200,"path":"/api/v1","user_id":"7"}`,
		`{"ts":"2026-11-20T12:00:02Z","service":"b","msg":"two","status":404,"path":"/api/v2"}`,
		`{"ts":"2026-11-20T12:00:03Z","service":"c","msg":"three","status":500,"path":"/health"}`,
	)
	cases := []struct {
		filter query.Filter
		want   string
	}{
		{query.Filter{Field: "service", Op: "=", Value: "b"}, "two"},
		{query.Filter{Field: "service", Op: "!=", Value: "b"}, "one three"},
		{query.Filter{Field: "path", Op: "contains", Value: "/api"}, "one two"},
		{query.Filter{Field: "path", Op: "!contains", Value: "/api"}, "three"},
		{query.Filter{Field: "path", Op: "=~", Value: "^/api/v[2-9]$"}, "two"},
		{query.Filter{Field: "path", Op: "!~", Value: "^/api"}, "three"},
		{query.Filter{Field: "status", Op: "=", Value: "404"}, "two"},
		{query.Filter{Field: "status", Op: "<", Value: "404"}, "one"},
		{query.Filter{Field: "status", Op: "<=", Value: "404"}, "one two"},
		{query.Filter{Field: "status", Op: ">", Value: "404"}, "three"},
		{query.Filter{Field: "status", Op: ">=", Value: "404"}, "two three"},
		{query.Filter{Field: "user_id", Op: "exists"}, "one"},
		{query.Filter{Field: "user_id", Op: "!exists"}, "two three"},
		{query.Filter{Field: "user_id", Op: "!=", Value: "7"}, "two three"},
		{query.Filter{Field: "service", Op: "in", Values: []string{"a", "c"}}, "one three"},
		{query.Filter{Field: "service", Op: "!in", Values: []string{"a", "c"}}, "two"},
		{query.Filter{Field: "status", Op: "in", Values: []string{"200", "500"}}, "one three"},
		{query.Filter{Field: "message", Op: "contains", Value: "t"}, "two three"},
	}
	for _, c := range cases {
		model := query.Logs("A", c.filter)
		model.Builder.Direction = "forward"
		frame := h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute))
		if got := strings.Join(texts(t, field(t, frame, "body")), " "); got != c.want {
			t.Errorf("%+v finds %q, want %q", c.filter, got, c.want)
		}
	}
}

// A trace is over in milliseconds, and its lines lie around it: the correlation from Jaeger widens the range.
func TestWidenedRangeOfACorrelation(t *testing.T) {
	h := newHost(t)
	h.jsonLines(
		`{"ts":"2026-11-20T11:30:00Z","service":"a","msg":"before","trace_id":"`+traceID+`"}`,
		`{"ts":"2026-11-20T12:40:00Z","service":"a","msg":"after","trace_id":"`+traceID+`"}`,
		`{"ts":"2026-11-20T12:40:00Z","service":"a","msg":"another","trace_id":"00000000000000000000000000000001"}`,
	)
	raw := fmt.Sprintf(`{"builder":{"filters":[{"field":"trace_id","op":"=","value":%q}]},"widen":"1h"}`, traceID)
	response := h.responses(nil, query.Raw("A", json.RawMessage(raw), noon, noon.Add(5*time.Millisecond)))["A"]
	if response.Error != nil {
		t.Fatal(response.Error)
	}
	sameText(t, "bodies", texts(t, field(t, response.Frames[0], "body")), []string{"after", "before"})
}
