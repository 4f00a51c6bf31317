// Package host tests the plugin's binary from Grafana's side of the border, over the real store.
//
// Every test runs the two binaries that users run: QUIVER_BIN and QUIVER_PLUGIN_BIN. A missing one is a failure, for a
// skipped test looks like a passed one. Lines go in by the protocols of services, and what comes out has passed the
// decoders that Grafana uses. Invariant: no test sleeps; each waits for a condition, up to a deadline.
package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/grafana"
	"quiver/tests/host/push"
	"quiver/tests/host/query"
	"quiver/tests/host/store"
)

const (
	// requestTimeout bounds a single call; binaries are debug builds on a shared machine.
	requestTimeout = 30 * time.Second
	// conditionTimeout bounds waiting for something that is expected to come true soon.
	conditionTimeout = 20 * time.Second
)

// plugin is the one process that serves all tests, as one process serves all data sources of a Grafana.
var plugin *grafana.Plugin

func TestMain(m *testing.M) {
	binary, err := binaryFrom("QUIVER_PLUGIN_BIN", "cargo build -p quiver-plugin, then QUIVER_PLUGIN_BIN=…/gpx_quiver_logs")
	if err == nil {
		_, err = binaryFrom("QUIVER_BIN", "cargo build --bin quiver, then QUIVER_BIN=…/quiver")
	}
	if err == nil {
		plugin, err = grafana.Start(binary, pluginLog)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "host test:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := plugin.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "host test:", err)
		code = 1
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "\nlast lines of the plugin's log:\n%s", pluginLog.tail())
	}
	os.Exit(code)
}

func binaryFrom(variable, remedy string) (string, error) {
	path := os.Getenv(variable)
	if path == "" {
		return "", fmt.Errorf("%s is not set; run %s (or `make test`, which does both)", variable, remedy)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join("../..", path) // as typed at the top of the repository
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(absolute); err != nil {
		return "", fmt.Errorf("%s=%s: %w; run %s", variable, path, err, remedy)
	}
	return absolute, nil
}

// pluginLog keeps the newest lines of the plugin's log, for the report of a failure.
var pluginLog = &logTail{}

type logTail struct {
	mutex sync.Mutex
	lines [][]byte
}

const logTailLines = 200

func (l *logTail) Write(line []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.lines = append(l.lines, bytes.Clone(line))
	if len(l.lines) > logTailLines {
		l.lines = l.lines[1:]
	}
	return len(line), nil
}

func (l *logTail) tail() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return string(bytes.Join(l.lines, nil))
}

// host is one store, and a data source of the plugin that reads it.
type host struct {
	t        *testing.T
	dataDir  string
	env      []string
	logs     *logTail
	store    *store.Store
	instance grafana.Instance
}

// newHost starts a store on free ports with an empty data directory; env holds further settings of it.
func newHost(t *testing.T, env ...string) *host {
	t.Helper()
	h := &host{t: t, dataDir: t.TempDir(), env: env, logs: &logTail{}}
	h.start("", "")
	t.Cleanup(func() {
		if h.store != nil {
			if err := h.store.Stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("last lines of the store's log:\n%s", h.logs.tail())
		}
	})
	h.instance = grafana.NewInstance(h.store.GRPC)
	h.instance.UID = newUID(t)
	h.instance.JSONData["traces"] = grafana.Traces{
		DatasourceUID: "jaeger-uid", DatasourceName: "Jaeger", FieldNames: []string{"trace_id"},
		ExternalURL: "http://jaeger.example:16686/trace/${__value.raw}",
	}
	return h
}

var uids atomic.Int64

// newUID is the uid of a data source of its own: under one uid Grafana never sends other settings with the same time.
func newUID(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), uids.Add(1)) }

func (h *host) start(http, grpc string) {
	h.t.Helper()
	binary, err := binaryFrom("QUIVER_BIN", "cargo build --bin quiver")
	if err != nil {
		h.t.Fatal(err)
	}
	h.store, err = store.Start(h.t.Context(), store.Options{
		Binary: binary, DataDir: h.dataDir, HTTP: http, GRPC: grpc, Env: h.env, Logs: h.logs,
	})
	if err != nil {
		h.t.Fatalf("%v\n%s", err, h.logs.tail())
	}
}

// restart stops the store gracefully, which flushes its buffer, and starts it again on the same ports.
func (h *host) restart() {
	h.t.Helper()
	http, grpc := h.store.HTTP, h.store.GRPC
	if err := h.store.Stop(); err != nil {
		h.t.Fatalf("stop: %v", err)
	}
	h.store = nil
	h.start(http, grpc)
}

func (h *host) client() push.Client { return push.Client{HTTP: h.store.HTTP, GRPC: h.store.GRPC} }

// jsonLines pushes JSON objects as lines of the stream {service=…} and waits for the acknowledgement.
func (h *host) jsonLines(lines ...string) {
	h.t.Helper()
	if err := h.client().JSONLines(h.context(), lines...); err != nil {
		h.t.Fatalf("push: %v", err)
	}
}

func (h *host) context() context.Context { return contextOf(h.t) }

func contextOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
	t.Cleanup(cancel)
	return ctx
}

// responses sends the queries as one request of a panel.
func (h *host) responses(headers map[string]string, queries ...backend.DataQuery) backend.Responses {
	h.t.Helper()
	responses, err := plugin.QueryData(h.context(), h.instance, headers, queries...)
	if err != nil {
		h.t.Fatalf("query data: %v", err)
	}
	if len(responses) != len(queries) {
		h.t.Fatalf("%d queries got %d responses", len(queries), len(responses))
	}
	return responses
}

// frames asks one query, which must succeed.
func (h *host) frames(model query.Model, from, to time.Time) data.Frames {
	h.t.Helper()
	return h.framesWith(nil, model, from, to)
}

func (h *host) framesWith(headers map[string]string, model query.Model, from, to time.Time) data.Frames {
	h.t.Helper()
	response, ok := h.responses(headers, model.Over(from, to))[model.RefID]
	if !ok {
		h.t.Fatalf("query %q has no response", model.RefID)
	}
	if response.Error != nil {
		h.t.Fatalf("query %q: %v\nmodel %s", model.RefID, response.Error, model.JSON())
	}
	for _, frame := range response.Frames {
		if frame.RefID != model.RefID {
			h.t.Errorf("frame %q has refId %q, want %q", frame.Name, frame.RefID, model.RefID)
		}
	}
	return response.Frames
}

// frame asks one query that is answered with one frame.
func (h *host) frame(model query.Model, from, to time.Time) *data.Frame {
	h.t.Helper()
	frames := h.frames(model, from, to)
	if len(frames) != 1 {
		h.t.Fatalf("query %q got %d frames, want 1\nmodel %s", model.RefID, len(frames), model.JSON())
	}
	return frames[0]
}

// field is the frame's field of that name.
func field(t *testing.T, frame *data.Frame, name string) *data.Field {
	t.Helper()
	found, _ := frame.FieldByName(name)
	if found == nil {
		t.Fatalf("frame %q has no field %q, only %s", frame.Name, name, strings.Join(fieldNames(frame), ", "))
	}
	return found
}

func fieldNames(frame *data.Frame) []string {
	names := make([]string, 0, len(frame.Fields))
	for _, field := range frame.Fields {
		names = append(names, field.Name)
	}
	return names
}

// texts reads a text field; a null is "".
func texts(t *testing.T, field *data.Field) []string {
	t.Helper()
	values := make([]string, field.Len())
	for row := range values {
		value, ok := field.ConcreteAt(row)
		if !ok {
			continue
		}
		text, ok := value.(string)
		if !ok {
			t.Fatalf("field %q holds %T, want text", field.Name, value)
		}
		values[row] = text
	}
	return values
}

func times(t *testing.T, field *data.Field) []time.Time {
	t.Helper()
	values := make([]time.Time, field.Len())
	for row := range values {
		value, ok := field.ConcreteAt(row)
		if !ok {
			t.Fatalf("field %q is null in row %d", field.Name, row)
		}
		when, ok := value.(time.Time)
		if !ok {
			t.Fatalf("field %q holds %T, want a time", field.Name, value)
		}
		values[row] = when.UTC()
	}
	return values
}

func numbers(t *testing.T, field *data.Field) []float64 {
	t.Helper()
	values := make([]float64, field.Len())
	for row := range values {
		value, err := field.NullableFloatAt(row)
		if err != nil {
			t.Fatalf("field %q row %d: %v", field.Name, row, err)
		}
		if value == nil {
			t.Fatalf("field %q is null in row %d", field.Name, row)
		}
		values[row] = *value
	}
	return values
}

// sum adds up a numeric field; nulls count nothing.
func sum(t *testing.T, field *data.Field) float64 {
	t.Helper()
	var total float64
	for row := range field.Len() {
		value, err := field.NullableFloatAt(row)
		if err != nil {
			t.Fatalf("field %q row %d: %v", field.Name, row, err)
		}
		if value != nil {
			total += *value
		}
	}
	return total
}

// labelsAt reads the labels object of a row as texts.
func labelsAt(t *testing.T, frame *data.Frame, row int) map[string]string {
	t.Helper()
	raw, ok := field(t, frame, "labels").At(row).(json.RawMessage)
	if !ok {
		t.Fatalf("field labels holds %T, want JSON", field(t, frame, "labels").At(row))
	}
	var values map[string]any
	if err := json.Unmarshal(raw, &values); err != nil {
		t.Fatalf("labels of row %d, %q: %v", row, raw, err)
	}
	labels := make(map[string]string, len(values))
	for name, value := range values {
		if text, ok := value.(string); ok {
			labels[name] = text
			continue
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		labels[name] = string(encoded)
	}
	return labels
}

// eventually asks until the condition holds. Between two questions it waits for a tick, never for a fixed time.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(conditionTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("within %s it did not come true that %s", conditionTimeout, what)
		}
	}
}

// noon is a fixed time for lines whose day does not matter; its nanoseconds are not a whole millisecond.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 123_456_789, time.UTC)
