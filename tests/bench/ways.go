package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/load"
	"quiver/tests/bench/process"
	"quiver/tests/bench/records"
)

const (
	// wayBodyBytes of lines are in a body.
	wayBodyBytes = 1 << 20
	// wayBar of issue 6: JSON lines by Loki push in protobuf, CPU-seconds per GB.
	wayBar     = 5.0
	wayTimeout = 5 * time.Minute
)

// noFlush keeps what comes in log and buffer, as long as a way is measured.
var noFlush = []string{
	"QUIVER_MEMORY_MAX=10GiB", "QUIVER_STORAGE_FLUSH_AGE_MAX=1h", "QUIVER_STORAGE_FLUSH_BYTES_MAX=1GiB", "QUIVER_STORAGE_BUFFER_BYTES_MAX=1GiB",
}

// line is one on its way into a body.
type line struct {
	text string
	at   time.Time
}

// way is a protocol by which lines come.
type way struct {
	name, path, contentType string
	// socket is the setting of a listener instead of a path.
	socket string
	encode func(lines []line) []byte
}

// taken is what decoding, parsing and the log cost, up to the acknowledgement.
type taken struct {
	protocol, format string
	cpuPerGB         float64
	megabytesASecond float64
	bar              float64
}

var lokiPush = way{name: "Loki push, protobuf", path: "/loki/api/v1/push", contentType: "application/x-protobuf", encode: lokiBody}

// ways but Loki's protobuf; each is measured with JSON lines.
var ways = []way{
	{name: "Loki push, JSON", path: "/loki/api/v1/push", contentType: "application/json", encode: lokiJSONBody},
	{name: "OTLP, protobuf", path: "/v1/logs", contentType: "application/x-protobuf", encode: otlpBody},
	{name: "OTLP, JSON", path: "/v1/logs", contentType: "application/json", encode: otlpJSONBody},
	{name: "Elasticsearch, own documents", path: "/logs-bench/_bulk", contentType: "application/x-ndjson", encode: bulkBody},
	{name: "Elasticsearch, Filebeat", path: "/logs-bench/_bulk", contentType: "application/x-ndjson", encode: filebeatBody},
	{name: "Splunk's collector", path: "/services/collector/event", contentType: "application/json", encode: splunkBody},
	{name: "Datadog", path: "/api/v2/logs", contentType: "application/json", encode: datadogBody},
	{name: "Firehose", path: "/aws/firehose", contentType: "application/json", encode: firehoseBody},
	{name: "GELF over HTTP", path: "/gelf", contentType: "application/json", encode: gelfBody},
	{name: "JSON lines", path: "/api/v1/ingest", contentType: "application/x-ndjson", encode: plainBody},
	{name: "text lines", path: "/api/v1/ingest", contentType: "text/plain", encode: plainBody},
	{name: "syslog over TCP", socket: "QUIVER_LISTEN_SYSLOG_TCP", encode: syslogBody},
	{name: "Forward", socket: "QUIVER_LISTEN_FORWARD_TCP", encode: forwardBody},
}

// measureWays sends each format by Loki push, and JSON lines by every other way, each to a store of its own.
func measureWays(ctx context.Context, s settings) ([]taken, error) {
	var found []taken
	for _, format := range formats {
		measured, err := measureWay(ctx, s, lokiPush, format)
		if err != nil {
			return nil, err
		}
		if format.name == formats[0].name {
			measured.bar = wayBar
		}
		found = append(found, measured)
	}
	for _, way := range ways {
		measured, err := measureWay(ctx, s, way, formats[0])
		if err != nil {
			return nil, err
		}
		found = append(found, measured)
	}
	return found, nil
}

func measureWay(ctx context.Context, s settings, w way, f format) (taken, error) {
	found := taken{protocol: w.name, format: f.name}
	path := filepath.Join(s.work, "way.bodies")
	defer os.Remove(path)
	job := load.Job{ContentType: w.contentType, Path: path}
	var err error
	if job.Spans, err = writeBodies(path, w, f, s.wayBytes); err != nil {
		return found, err
	}
	environment := noFlush
	address := ""
	if w.socket != "" {
		if address, err = freeAddress(); err != nil {
			return found, err
		}
		environment = append([]string{w.socket + "=" + address}, noFlush...)
	}
	r, err := startFresh(ctx, s, "way", environment...)
	if err != nil {
		return found, err
	}
	defer r.remove()
	before, err := process.CPU(r.Pid())
	if err != nil {
		return found, err
	}
	var outcome load.Outcome
	if w.socket == "" {
		job.URL = "http://" + r.HTTP + w.path
		outcome, err = load.Send(ctx, job)
	} else {
		outcome, err = r.stream(ctx, job, address)
	}
	if err != nil {
		return found, fmt.Errorf("%s by %s: %w", f.name, w.name, err)
	}
	after, err := process.CPU(r.Pid())
	if err != nil {
		return found, err
	}
	if err := r.checkUnflushed(ctx, outcome.Records); err != nil {
		return found, fmt.Errorf("%s by %s: %w", f.name, w.name, err)
	}
	found.cpuPerGB, found.megabytesASecond = cpuPerGigabyte(after-before, outcome), megabytesPerSecond(outcome)
	progress("  %-30s %-20s %6.2f CPU-s/GB  %4.0f MB/s", w.name, f.name, found.cpuPerGB, found.megabytesASecond)
	return found, nil
}

// checkUnflushed fails when a flush was part of what was measured, or records are missing.
func (r *running) checkUnflushed(ctx context.Context, records int64) error {
	buffered, err := r.gauges(ctx, "quiver_storage_buffer_records")
	if err == nil && buffered != float64(records) {
		return fmt.Errorf("%d records were sent, %.0f are in the buffer", records, buffered)
	}
	return err
}

// stream writes all bodies to one connection, as an agent does, and waits until their records are kept.
func (r *running) stream(ctx context.Context, job load.Job, address string) (load.Outcome, error) {
	body, err := os.ReadFile(job.Path)
	if err != nil {
		return load.Outcome{}, err
	}
	var outcome load.Outcome
	for _, span := range job.Spans {
		outcome.RawBytes += span.RawBytes
		outcome.Records += span.Records
	}
	started := time.Now()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return outcome, err
	}
	_, err = connection.Write(body)
	if err := errors.Join(err, connection.Close()); err != nil {
		return outcome, err
	}
	for time.Since(started) < wayTimeout {
		kept, err := r.gauges(ctx, "quiver_storage_buffer_records")
		if err != nil {
			return outcome, err
		}
		if kept >= float64(outcome.Records) {
			outcome.Wall = time.Since(started)
			return outcome, nil
		}
		time.Sleep(pollInterval)
	}
	return outcome, fmt.Errorf("not all of %d records are there after %s", outcome.Records, wayTimeout)
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func writeBodies(path string, w way, f format, bytes int64) ([]dataset.Span, error) {
	bodies, err := dataset.CreateBodies(path)
	if err != nil {
		return nil, err
	}
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	made := 0
	for sent := int64(0); sent < bytes; {
		var lines []line
		var held dataset.Span
		for held.RawBytes < wayBodyBytes {
			at := start.Add(time.Duration(made) * 1234567 * time.Nanosecond)
			text := f.line(made, at)
			lines = append(lines, line{text, at})
			held.Add(len(text))
			made++
		}
		bodies.Write(w.encode(lines), held)
		sent += held.RawBytes
	}
	return bodies.Close()
}

// hosts of a body: lines come from a few instances of a service.
const hosts = 3

func lokiBody(lines []line) []byte {
	var push dataset.Push
	for i, line := range lines {
		record := records.Record{TimeNs: line.at.UnixNano(), Service: "web", Instance: "web-" + strconv.Itoa(i%hosts), Plain: []byte(line.text)}
		push.Add(&record)
	}
	body, _ := push.Take()
	return body
}

// encoded is a value as JSON; those here can all be.
func encoded(value any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(fmt.Sprintf("a body can't be JSON: %v", err))
	}
	return out.Bytes()
}

func lokiJSONBody(lines []line) []byte {
	type stream struct {
		Stream map[string]string `json:"stream"`
		Values [][2]string       `json:"values"`
	}
	streams := make([]stream, hosts)
	for i, line := range lines {
		into := &streams[i%hosts]
		into.Stream = map[string]string{"service": "web", "instance": "web-" + strconv.Itoa(i%hosts)}
		into.Values = append(into.Values, [2]string{strconv.FormatInt(line.at.UnixNano(), 10), line.text})
	}
	return encoded(map[string]any{"streams": streams})
}

// otlpBody writes an ExportLogsServiceRequest of one resource by hand: resource_logs = 1, resource = 1, scope_logs = 2,
// log_records = 2; time_unix_nano = 1 (fixed), body = 5, string_value = 1; attributes = 1 of key = 1 and value = 2.
func otlpBody(lines []line) []byte {
	field := func(out []byte, number byte, value []byte) []byte {
		return append(binary.AppendUvarint(append(out, number<<3|2), uint64(len(value))), value...)
	}
	service := field(field(nil, 1, []byte("service.name")), 2, field(nil, 1, []byte("web")))
	var scope []byte
	for _, line := range lines {
		record := binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, uint64(line.at.UnixNano()))
		scope = field(scope, 2, field(record, 5, field(nil, 1, []byte(line.text))))
	}
	return field(nil, 1, field(field(nil, 1, field(nil, 1, service)), 2, scope))
}

func otlpJSONBody(lines []line) []byte {
	type text struct {
		StringValue string `json:"stringValue"`
	}
	type record struct {
		TimeUnixNano string `json:"timeUnixNano"`
		Body         text   `json:"body"`
	}
	made := make([]record, len(lines))
	for i, line := range lines {
		made[i] = record{strconv.FormatInt(line.at.UnixNano(), 10), text{line.text}}
	}
	attributes := []any{map[string]any{"key": "service.name", "value": text{"web"}}}
	return encoded(map[string]any{"resourceLogs": []any{map[string]any{
		"resource": map[string]any{"attributes": attributes}, "scopeLogs": []any{map[string]any{"logRecords": made}},
	}}})
}

// each joins what is made of every line.
func each(lines []line, one func(out []byte, line line) []byte) []byte {
	var out []byte
	for _, line := range lines {
		out = one(out, line)
	}
	return out
}

func bulkBody(lines []line) []byte {
	return each(lines, func(out []byte, line line) []byte {
		return append(append(append(out, "{\"create\":{}}\n"...), line.text...), '\n')
	})
}

func filebeatBody(lines []line) []byte {
	return each(lines, func(out []byte, line line) []byte {
		document := map[string]any{
			"@timestamp": line.at.Format("2006-01-02T15:04:05.000Z"), "message": line.text, "host": map[string]string{"name": "web-1"},
			"log": map[string]any{"file": map[string]string{"path": "/var/log/web.log"}}, "agent": map[string]string{"type": "filebeat", "version": "8.17.0"},
		}
		return append(append(out, "{\"create\":{}}\n"...), encoded(document)...)
	})
}

func splunkBody(lines []line) []byte {
	return each(lines, func(out []byte, line line) []byte {
		event := map[string]any{"time": float64(line.at.UnixMilli()) / 1000, "host": "web-1", "sourcetype": "web", "event": line.text}
		return append(out, encoded(event)...)
	})
}

func datadogBody(lines []line) []byte {
	logs := make([]map[string]any, len(lines))
	for i, line := range lines {
		logs[i] = map[string]any{
			"message": line.text, "status": "info", "timestamp": line.at.UnixMilli(), "hostname": "web-1", "service": "web", "ddtags": "env:bench",
		}
	}
	return encoded(logs)
}

func firehoseBody(lines []line) []byte {
	delivered := make([]map[string]string, len(lines))
	for i, line := range lines {
		delivered[i] = map[string]string{"data": base64.StdEncoding.EncodeToString([]byte(line.text + "\n"))}
	}
	return encoded(map[string]any{"requestId": "bench", "timestamp": lines[0].at.UnixMilli(), "records": delivered})
}

func gelfBody(lines []line) []byte {
	return each(lines, func(out []byte, line line) []byte {
		return append(out, encoded(map[string]any{
			"version": "1.1", "host": "web-1", "short_message": line.text, "timestamp": float64(line.at.UnixMilli()) / 1000, "_service": "web",
		})...)
	})
}

func plainBody(lines []line) []byte {
	return each(lines, func(out []byte, line line) []byte { return append(append(out, line.text...), '\n') })
}

func syslogBody(lines []line) []byte {
	return each(lines, func(out []byte, line line) []byte {
		return fmt.Appendf(out, "<134>1 %s web-1 web 7 - - %s\n", line.at.Format("2006-01-02T15:04:05.000000Z"), line.text)
	})
}

// forwardBody writes a message in Forward's packed mode, `[tag, entries]`, of entries `[seconds, {"log": line}]`.
func forwardBody(lines []line) []byte {
	entries := each(lines, func(out []byte, line line) []byte {
		out = binary.BigEndian.AppendUint32(append(out, 0x92, 0xce), uint32(line.at.Unix()))
		out = append(out, 0x81, 0xa3, 'l', 'o', 'g', 0xda)
		return append(binary.BigEndian.AppendUint16(out, uint16(len(line.text))), line.text...)
	})
	head := binary.BigEndian.AppendUint32([]byte{0x92, 0xa3, 'w', 'e', 'b', 0xc6}, uint32(len(entries)))
	return append(head, entries...)
}
