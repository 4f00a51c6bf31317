package push

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
)

// Protocol is how OTLP travels.
type Protocol string

// The two that SDKs offer.
const (
	GRPC Protocol = "grpc"
	HTTP Protocol = "http/protobuf"
)

// OTLP is a service that logs through the OpenTelemetry SDK.
type OTLP struct {
	exporter *failures
	provider *sdklog.LoggerProvider
	logger   log.Logger
}

// Record is one log record of a service.
type Record struct {
	Time       time.Time
	Severity   log.Severity
	Text       string // severity text; empty: the severity's own name
	Body       string
	Attributes []log.KeyValue
	TraceID    trace.TraceID // zero: no trace
	SpanID     trace.SpanID
}

// NewOTLP starts the SDK for the named service, with the exporter that speaks protocol; further attributes are those of
// its resource.
func (c Client) NewOTLP(ctx context.Context, service string, protocol Protocol, further ...attribute.KeyValue) (*OTLP, error) {
	exporter, err := c.exporter(ctx, protocol)
	if err != nil {
		return nil, fmt.Errorf("otlp exporter %q: %w", protocol, err)
	}
	watched := &failures{Exporter: exporter}
	provider := sdklog.NewLoggerProvider(
		sdklog.WithProcessor(sdklog.NewBatchProcessor(watched,
			sdklog.WithExportInterval(200*time.Millisecond), sdklog.WithMaxQueueSize(16384))),
		sdklog.WithResource(resource.NewSchemaless(append(further,
			attribute.String("service.name", service),
			attribute.String("deployment.environment.name", "demo"),
		)...)),
	)
	return &OTLP{exporter: watched, provider: provider, logger: provider.Logger(service)}, nil
}

func (c Client) exporter(ctx context.Context, protocol Protocol) (sdklog.Exporter, error) {
	headers := map[string]string{}
	if c.Token != "" {
		headers["authorization"] = "Bearer " + c.Token
	}
	if protocol == GRPC {
		return otlploggrpc.New(ctx, otlploggrpc.WithEndpoint(c.GRPC), otlploggrpc.WithInsecure(),
			otlploggrpc.WithHeaders(headers))
	}
	return otlploghttp.New(ctx, otlploghttp.WithEndpoint(c.HTTP), otlploghttp.WithInsecure(),
		otlploghttp.WithHeaders(headers))
}

// Emit hands a record to the SDK, which sends it in a batch soon.
func (o *OTLP) Emit(ctx context.Context, record Record) {
	if record.TraceID.IsValid() {
		ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: record.TraceID, SpanID: record.SpanID, TraceFlags: trace.FlagsSampled,
		}))
	}
	if record.Text == "" {
		record.Text = record.Severity.String()
	}
	var encoded log.Record
	encoded.SetTimestamp(record.Time)
	encoded.SetObservedTimestamp(time.Now())
	encoded.SetSeverity(record.Severity)
	encoded.SetSeverityText(record.Text)
	encoded.SetBody(log.StringValue(record.Body))
	encoded.AddAttributes(record.Attributes...)
	o.logger.Emit(ctx, encoded)
}

// Flush sends what is queued; nil means that the store acknowledged every batch so far.
func (o *OTLP) Flush(ctx context.Context) error {
	err := o.provider.ForceFlush(ctx)
	return errors.Join(err, o.exporter.take())
}

// Close flushes and ends the SDK.
func (o *OTLP) Close(ctx context.Context) error {
	err := o.provider.Shutdown(ctx)
	return errors.Join(err, o.exporter.take())
}
