// Package push writes log lines to the store with the clients that services use: Loki push as Promtail and Alloy send
// it, JSON lines as curl sends them, and OTLP by the OpenTelemetry SDK's own exporters (otlp.go).
//
// It does not know what the lines say. Invariant: a call that returns nil has been acknowledged by the store.
package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/golang/snappy"
	loki "github.com/grafana/loki/pkg/push"
)

// answerBytesMax bounds how much of a refusal is quoted.
const answerBytesMax = 4 << 10

// Client writes to one store.
type Client struct {
	// HTTP and GRPC are addresses, host:port.
	HTTP string
	GRPC string
	// Token goes out as `Authorization: Bearer`, when set.
	Token string
}

// Entry is a line at a time. Metadata is Loki's structured metadata.
type Entry struct {
	Time     time.Time
	Line     string
	Metadata map[string]string
}

// Stream is a set of labels and the lines under it.
type Stream struct {
	Labels  map[string]string
	Entries []Entry
}

// LokiProtobuf sends streams as Promtail does: protobuf, snappy.
func (c Client) LokiProtobuf(ctx context.Context, streams ...Stream) error {
	request := &loki.PushRequest{}
	for _, stream := range streams {
		encoded := loki.Stream{Labels: selector(stream.Labels)}
		for _, entry := range stream.Entries {
			encoded.Entries = append(encoded.Entries, loki.Entry{
				Timestamp: entry.Time, Line: entry.Line, StructuredMetadata: labelAdapters(entry.Metadata),
			})
		}
		request.Streams = append(request.Streams, encoded)
	}
	body, err := request.Marshal()
	if err != nil {
		return err
	}
	return c.post(ctx, "/loki/api/v1/push", "application/x-protobuf", snappy.Encode(nil, body), http.StatusNoContent)
}

// LokiJSON sends streams as Loki's JSON, which scripts and logging libraries use.
func (c Client) LokiJSON(ctx context.Context, streams ...Stream) error {
	type jsonStream struct {
		Stream map[string]string `json:"stream"`
		Values [][]any           `json:"values"`
	}
	request := struct {
		Streams []jsonStream `json:"streams"`
	}{}
	for _, stream := range streams {
		encoded := jsonStream{Stream: stream.Labels}
		for _, entry := range stream.Entries {
			value := []any{strconv.FormatInt(entry.Time.UnixNano(), 10), entry.Line}
			if len(entry.Metadata) > 0 {
				value = append(value, entry.Metadata)
			}
			encoded.Values = append(encoded.Values, value)
		}
		request.Streams = append(request.Streams, encoded)
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return c.post(ctx, "/loki/api/v1/push", "application/json", body, http.StatusNoContent)
}

// JSONLines sends one JSON object or one text per line.
func (c Client) JSONLines(ctx context.Context, lines ...string) error {
	body := []byte(strings.Join(lines, "\n") + "\n")
	return c.post(ctx, "/api/v1/ingest", "application/x-ndjson", body, http.StatusOK)
}

func (c Client) post(ctx context.Context, path, contentType string, body []byte, want int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.HTTP+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentType)
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return err
	}
	if response.StatusCode != want {
		return fmt.Errorf("POST %s: %s: %s", path, response.Status, bytes.TrimSpace(answer))
	}
	if want == http.StatusOK {
		return rejections(answer)
	}
	return nil
}

// rejections reads the answer of /api/v1/ingest, which accepts the good lines of a request and tells the others.
func rejections(answer []byte) error {
	var outcome struct {
		Rejected int
		Errors   []struct {
			Line   int
			Reason string
		}
	}
	if err := json.Unmarshal(answer, &outcome); err != nil {
		return fmt.Errorf("ingest answer %q: %w", answer, err)
	}
	if outcome.Rejected > 0 {
		return fmt.Errorf("%d lines rejected: %+v", outcome.Rejected, outcome.Errors)
	}
	return nil
}

func selector(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for name, value := range labels {
		parts = append(parts, name+"="+strconv.Quote(value))
	}
	sort.Strings(parts)
	return "{" + strings.Join(parts, ", ") + "}"
}

func labelAdapters(labels map[string]string) loki.LabelsAdapter {
	adapters := make(loki.LabelsAdapter, 0, len(labels))
	for name, value := range labels {
		adapters = append(adapters, loki.LabelAdapter{Name: name, Value: value})
	}
	sort.Slice(adapters, func(i, j int) bool { return adapters[i].Name < adapters[j].Name })
	return adapters
}
