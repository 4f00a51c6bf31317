package torture

// gRPC's health service, asked as an orchestrator's probe does: one unary call over HTTP/2 without TLS.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

// Statuses of grpc.health.v1.HealthCheckResponse.
const (
	serving    = 1
	notServing = 2
)

// Health asks for the status of the whole server.
func (s *Store) Health(ctx context.Context) (int, error) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	// An empty message behind its head: not compressed, four bytes of length.
	body := bytes.NewReader(make([]byte, 5))
	request, err := http.NewRequestWithContext(ctx, "POST", "http://"+s.GRPC+"/grpc.health.v1.Health/Check", body)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	answer, err := (&http.Client{Transport: transport, Timeout: requestMax}).Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	message, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	// Field 1, a number.
	if len(message) != 7 || message[5] != 8 {
		return 0, fmt.Errorf("the health service answered %x, status %q", message, answer.Trailer.Get("Grpc-Status"))
	}
	return int(message[6]), nil
}
