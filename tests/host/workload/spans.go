package workload

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// spans sends the traces that the lines belong to, so that a link from a line opens something.
type spans struct{ exporter *otlptrace.Exporter }

func openSpans(ctx context.Context, address string) (*spans, error) {
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure())
	if err != nil {
		return nil, fmt.Errorf("trace exporter to %q: %w", address, err)
	}
	return &spans{exporter: exporter}, nil
}

// export sends a span for each line that ends one. Ids and times are those of the lines, which the SDK's tracer would
// choose by itself; hence snapshots.
func (s *spans) export(ctx context.Context, events []event) error {
	var stubs tracetest.SpanStubs
	for _, e := range events {
		if !e.traceID.IsValid() || e.duration == 0 {
			continue
		}
		stub := tracetest.SpanStub{
			Name:        e.message,
			SpanContext: spanContext(e.traceID, e.spanID),
			SpanKind:    trace.SpanKindServer,
			StartTime:   e.at.Add(-e.duration),
			EndTime:     e.at,
			Resource:    resource.NewSchemaless(attribute.String("service.name", e.service)),
		}
		if e.parent.IsValid() {
			stub.Parent = spanContext(e.traceID, e.parent)
		}
		if e.failed {
			stub.Status = sdktrace.Status{Code: codes.Error, Description: e.message}
		}
		stubs = append(stubs, stub)
	}
	if len(stubs) == 0 {
		return nil
	}
	return s.exporter.ExportSpans(ctx, stubs.Snapshots())
}

func spanContext(id trace.TraceID, span trace.SpanID) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled})
}

func (s *spans) close(ctx context.Context) error { return s.exporter.Shutdown(ctx) }
