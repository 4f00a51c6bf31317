// Package workload is a small shop of services that log: the same requests pass through several of them and share a
// trace, and each service writes its own format over its own protocol, as in shared/product.md.
//
// It is not a load generator; tests/bench is. Invariant: what is logged depends only on the seed and the time asked
// for, so two demos show the same picture.
package workload

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/trace"
)

// event is one thing a service logs.
type event struct {
	service  string
	at       time.Time
	level    string // info, warn, error …; empty: the format has none
	message  string
	fields   []pair
	traceID  trace.TraceID // zero: no trace
	spanID   trace.SpanID
	duration time.Duration // of the span that ends with this line; zero: no span
	parent   trace.SpanID
	failed   bool
}

// pair is a named value; order is kept, as services keep it.
type pair struct {
	name  string
	value any
}

// object writes JSON with the members in order.
func object(pairs ...pair) string {
	var text strings.Builder
	text.WriteByte('{')
	for i, pair := range pairs {
		if i > 0 {
			text.WriteByte(',')
		}
		name, _ := json.Marshal(pair.name)
		value, err := json.Marshal(pair.value)
		if err != nil {
			value = []byte("null") // only plain values are used
		}
		text.Write(name)
		text.WriteByte(':')
		text.Write(value)
	}
	text.WriteByte('}')
	return text.String()
}

func (e event) stamp() string { return e.at.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// zapLine is what a Go service with zap writes.
func zapLine(e event) string {
	pairs := []pair{{"ts", e.stamp()}, {"level", e.level}, {"service", e.service}}
	if e.traceID.IsValid() {
		pairs = append(pairs, pair{"trace_id", e.traceID.String()}, pair{"span_id", e.spanID.String()})
	}
	return object(append(append(pairs, e.fields...), pair{"msg", e.message})...)
}

// winstonLine is what a Node service with winston writes.
func winstonLine(e event) string {
	pairs := []pair{{"level", e.level}, {"message", e.message}, {"timestamp", e.stamp()}, {"service", e.service}}
	if e.traceID.IsValid() {
		pairs = append(pairs, pair{"traceId", e.traceID.String()}, pair{"spanId", e.spanID.String()})
	}
	return object(append(pairs, e.fields...)...)
}

// pinoLine is what a Node service with pino writes: levels are numbers, time is milliseconds.
func pinoLine(e event) string {
	levels := map[string]int{"debug": 20, "info": 30, "warn": 40, "error": 50, "fatal": 60}
	pairs := []pair{{"level", levels[e.level]}, {"time", e.at.UnixMilli()}, {"pid", 7}, {"hostname", e.service + "-1"}}
	if e.traceID.IsValid() {
		pairs = append(pairs, pair{"trace_id", e.traceID.String()})
	}
	return object(append(append(pairs, e.fields...), pair{"msg", e.message})...)
}

// tskvLine is the quoted key='value' form of a Python service with structlog.
func tskvLine(e event) string {
	pairs := []pair{{"timestamp", e.stamp()}, {"level", e.level}, {"logger", e.service}, {"event", e.message}}
	if e.traceID.IsValid() {
		pairs = append(pairs, pair{"trace_id", e.traceID.String()})
	}
	parts := make([]string, 0, len(pairs)+len(e.fields))
	for _, pair := range append(pairs, e.fields...) {
		if text, ok := pair.value.(string); ok {
			parts = append(parts, fmt.Sprintf("%s='%s'", pair.name, text))
		} else {
			parts = append(parts, fmt.Sprintf("%s=%v", pair.name, pair.value))
		}
	}
	return strings.Join(parts, " ")
}

// logfmtLine is what a Go service with go-kit's logger writes.
func logfmtLine(e event) string {
	parts := []string{"level=" + e.level, "ts=" + e.stamp(), "caller=main.go:112", fmt.Sprintf("msg=%q", e.message)}
	for _, pair := range e.fields {
		parts = append(parts, fmt.Sprintf("%s=%v", pair.name, pair.value))
	}
	if e.traceID.IsValid() {
		parts = append(parts, "traceID="+e.traceID.String())
	}
	return strings.Join(parts, " ")
}

// accessLine is nginx's combined format: plain text, without a level.
func accessLine(e event) string {
	return e.message
}

// severities of OpenTelemetry by level.
var severities = map[string]log.Severity{
	"debug": log.SeverityDebug, "info": log.SeverityInfo, "warn": log.SeverityWarn,
	"error": log.SeverityError, "fatal": log.SeverityFatal,
}

func attributes(fields []pair) []log.KeyValue {
	values := make([]log.KeyValue, 0, len(fields))
	for _, field := range fields {
		switch value := field.value.(type) {
		case int:
			values = append(values, log.Int(field.name, value))
		case float64:
			values = append(values, log.Float64(field.name, value))
		case bool:
			values = append(values, log.Bool(field.name, value))
		default:
			values = append(values, log.String(field.name, fmt.Sprint(value)))
		}
	}
	return values
}
