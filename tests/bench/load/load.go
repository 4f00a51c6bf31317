// Package load sends bodies that were made before, from several clients at once, as fast as they are taken.
//
// Invariant: Send returns nil only when every body was acknowledged.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/process"
)

const (
	// Clients send at the same time.
	Clients = 4
	// A refused body (429, 503) is sent again after this pause, as senders do.
	retryPause     = 50 * time.Millisecond
	retriesMax     = 2_000
	answerBytesMax = 4 << 10
)

// Job is what is sent where.
type Job struct {
	URL         string
	ContentType string
	Path        string
	Spans       []dataset.Span
}

// Outcome of a job.
type Outcome struct {
	RawBytes int64
	Records  int64
	Wall     time.Duration
	// ClientCPU is what this process needed for sending.
	ClientCPU time.Duration
	// Refused counts answers 429 and 503.
	Refused int64
}

// Send sends all bodies.
func Send(ctx context.Context, job Job) (Outcome, error) {
	file, err := os.Open(job.Path)
	if err != nil {
		return Outcome{}, err
	}
	defer file.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next, refused atomic.Int64
	var clients sync.WaitGroup
	failures := make([]error, Clients)
	started, ownBefore := time.Now(), process.OwnCPU()
	for i := range Clients {
		clients.Go(func() {
			client := client{job: job, file: file, http: &http.Client{Transport: &http.Transport{WriteBufferSize: 256 << 10}}}
			failures[i] = client.run(ctx, &next, &refused)
			if failures[i] != nil {
				cancel()
			}
			client.http.CloseIdleConnections()
		})
	}
	clients.Wait()
	outcome := Outcome{Wall: time.Since(started), ClientCPU: process.OwnCPU() - ownBefore, Refused: refused.Load()}
	for _, span := range job.Spans {
		outcome.RawBytes += span.RawBytes
		outcome.Records += span.Records
	}
	return outcome, errors.Join(failures...)
}

type client struct {
	job  Job
	file *os.File
	http *http.Client
	body []byte
}

// run sends bodies until none is left that no other client took.
func (c *client) run(ctx context.Context, next, refused *atomic.Int64) error {
	for {
		i := int(next.Add(1) - 1)
		if i >= len(c.job.Spans) {
			return nil
		}
		span := c.job.Spans[i]
		if int64(cap(c.body)) < span.Bytes {
			c.body = make([]byte, span.Bytes, span.Bytes*5/4)
		}
		c.body = c.body[:span.Bytes]
		if _, err := c.file.ReadAt(c.body, span.Offset); err != nil {
			return err
		}
		if err := c.send(ctx, refused); err != nil {
			return fmt.Errorf("body %d: %w", i, err)
		}
	}
}

func (c *client) send(ctx context.Context, refused *atomic.Int64) error {
	for range retriesMax {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.job.URL, bytes.NewReader(c.body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", c.job.ContentType)
		response, err := c.http.Do(request)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
		response.Body.Close()
		switch status := response.StatusCode; {
		case err != nil:
			return err
		case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
			refused.Add(1)
			time.Sleep(retryPause)
		case status >= 300 || bytes.Contains(answer, []byte(`"rejected":`)) && !bytes.Contains(answer, []byte(`"rejected":0`)):
			return fmt.Errorf("POST %s: %s: %s", c.job.URL, response.Status, bytes.TrimSpace(answer))
		default:
			return nil
		}
	}
	return fmt.Errorf("POST %s: refused %d times", c.job.URL, retriesMax)
}
