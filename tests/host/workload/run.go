package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"quiver/tests/host/push"
)

// sendTimeout bounds one push; the store answers in milliseconds.
const sendTimeout = 10 * time.Second

// historyBatch is how much of the past goes into one push.
const historyBatch = time.Minute

// Shop is the running services.
type Shop struct {
	shop   shop
	client push.Client
	otlp   map[string]*push.OTLP
	spans  *spans // nil: traces go nowhere
	next   time.Time

	lines atomic.Int64
}

// Lines is how many lines have been acknowledged. It may be asked while Live runs.
func (s *Shop) Lines() int64 { return s.lines.Load() }

// Options of the services.
type Options struct {
	Seed uint64
	// Traces is host:port of an OTLP gRPC endpoint that takes the spans, such as Jaeger's; empty: none.
	Traces string
}

// routes tells how each service's lines travel.
var (
	byLoki = map[string]func(event) string{
		"payments-api": zapLine, "telemetry-processing": tskvLine, "scheduler": logfmtLine, "nginx": accessLine,
	}
	byLokiJSON = map[string]func(event) string{"inventory": pinoLine}
	byIngest   = map[string]func(event) string{"bff": winstonLine}
	byOTLP     = map[string]push.Protocol{"worker": push.GRPC, "ledger": push.HTTP}
)

// namespaces are those of Kubernetes. Loki's agents name them as labels, OpenTelemetry's as attributes of the resource.
var namespaces = map[string]string{
	"nginx": "edge", "bff": "edge", "payments-api": "shop", "inventory": "shop", "ledger": "shop", "worker": "shop",
	"telemetry-processing": "devices", "scheduler": "platform",
}

// Services are the names of all services, sorted.
func Services() []string { return slices.Sorted(maps.Keys(namespaces)) }

// Open connects the services to the store.
func Open(ctx context.Context, client push.Client, options Options) (*Shop, error) {
	opened := &Shop{shop: shop{seed: options.Seed}, client: client, otlp: map[string]*push.OTLP{}}
	for service, protocol := range byOTLP {
		otlp, err := client.NewOTLP(ctx, service, protocol,
			attribute.String("k8s.namespace.name", namespaces[service]),
			attribute.String("k8s.pod.name", service+"-1"),
			attribute.String("k8s.container.name", service),
		)
		if err != nil {
			return nil, err
		}
		opened.otlp[service] = otlp
	}
	if options.Traces != "" {
		var err error
		if opened.spans, err = openSpans(ctx, options.Traces); err != nil {
			return nil, err
		}
	}
	return opened, nil
}

// History logs everything from so long ago until now.
func (s *Shop) History(ctx context.Context, length time.Duration) error {
	now := time.Now()
	for from := now.Add(-length); from.Before(now); from = from.Add(historyBatch) {
		until := from.Add(historyBatch)
		if until.After(now) {
			until = now
		}
		if err := s.log(ctx, from, until); err != nil {
			return fmt.Errorf("history of %s: %w", from.Format(time.TimeOnly), err)
		}
	}
	return nil
}

// Live logs every second what happened in it, until ctx ends. A push that fails is told by the callback, and its seconds
// are sent again: what had been acknowledged of them comes twice then, as with every client that tries again.
func (s *Shop) Live(ctx context.Context, failed func(error)) {
	if s.next.IsZero() {
		s.next = time.Now().Truncate(time.Second)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := s.log(ctx, s.next, now); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	}
}

// Close ends the SDKs.
func (s *Shop) Close(ctx context.Context) error {
	var errs []error
	for _, otlp := range s.otlp {
		errs = append(errs, otlp.Close(ctx))
	}
	if s.spans != nil {
		errs = append(errs, s.spans.close(ctx))
	}
	return errors.Join(errs...)
}

// log sends the events of the whole seconds in [from, until).
func (s *Shop) log(ctx context.Context, from, until time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var events []event
	second := from.Truncate(time.Second)
	if second.Before(s.next) {
		second = s.next
	}
	for ; second.Before(until.Truncate(time.Second)); second = second.Add(time.Second) {
		events = append(events, s.shop.second(second)...)
	}
	if len(events) == 0 {
		return nil
	}
	sort.SliceStable(events, func(i, j int) bool { return events[i].at.Before(events[j].at) })
	if err := s.send(ctx, events); err != nil {
		return err
	}
	s.next = second
	s.lines.Add(int64(len(events)))
	return nil
}

func (s *Shop) send(ctx context.Context, events []event) error {
	streams := map[string]*push.Stream{}
	jsonStreams := map[string]*push.Stream{}
	var ingest []string
	for _, e := range events {
		if line := byLoki[e.service]; line != nil {
			add(streams, e, line(e))
		} else if line := byLokiJSON[e.service]; line != nil {
			add(jsonStreams, e, line(e))
		} else if line := byIngest[e.service]; line != nil {
			ingest = append(ingest, line(e))
		} else if otlp := s.otlp[e.service]; otlp != nil {
			otlp.Emit(ctx, push.Record{
				Time: e.at, Severity: severities[e.level], Body: e.message, Attributes: attributes(e.fields),
				TraceID: e.traceID, SpanID: e.spanID,
			})
		}
	}
	var errs []error
	// A second may pass in which a service says nothing.
	if len(streams) > 0 {
		errs = append(errs, s.client.LokiProtobuf(ctx, ordered(streams)...))
	}
	if len(jsonStreams) > 0 {
		errs = append(errs, s.client.LokiJSON(ctx, ordered(jsonStreams)...))
	}
	if len(ingest) > 0 {
		errs = append(errs, s.client.JSONLines(ctx, ingest...))
	}
	for _, otlp := range s.otlp {
		errs = append(errs, otlp.Flush(ctx))
	}
	if s.spans != nil {
		errs = append(errs, s.spans.export(ctx, events))
	}
	return errors.Join(errs...)
}

func add(streams map[string]*push.Stream, e event, line string) {
	release := version(e.service, e.at)
	stream := streams[e.service+release]
	if stream == nil {
		stream = &push.Stream{Labels: map[string]string{
			"service": e.service, "env": "demo", "version": release,
			"namespace": namespaces[e.service], "container": e.service,
		}}
		streams[e.service+release] = stream
	}
	stream.Entries = append(stream.Entries, push.Entry{Time: e.at, Line: line, Metadata: map[string]string{"pod": e.service + "-1"}})
}

func ordered(streams map[string]*push.Stream) []push.Stream {
	list := make([]push.Stream, 0, len(streams))
	for _, stream := range streams {
		list = append(list, *stream)
	}
	sort.Slice(list, func(i, j int) bool {
		if one, other := list[i].Labels, list[j].Labels; one["service"] != other["service"] {
			return one["service"] < other["service"]
		}
		return list[i].Labels["version"] < list[j].Labels["version"]
	})
	return list
}
