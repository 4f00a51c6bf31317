// Workload runs the demo's services against a store that runs elsewhere; docker-compose.yaml uses it.
//
//	workload --http HOST:PORT --grpc HOST:PORT [--traces HOST:PORT] [--history 30m]
//
// It starts nothing. Invariant: it goes on until it is told to end; a store that is away is tried again.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"quiver/tests/host/push"
	"quiver/tests/host/workload"
)

const (
	seed       = 20261120
	retryEvery = 2 * time.Second
)

func main() {
	http := flag.String("http", "127.0.0.1:3100", "the store's HTTP address")
	grpc := flag.String("grpc", "127.0.0.1:4317", "the store's gRPC address")
	token := flag.String("token", "", "bearer token, where the store wants one")
	traces := flag.String("traces", "", "host:port of an OTLP gRPC endpoint that takes the spans, such as Jaeger's")
	history := flag.Duration("history", 30*time.Minute, "how much of the past to log first")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client := push.Client{HTTP: *http, GRPC: *grpc, Token: *token}
	if err := run(ctx, client, *traces, *history); err != nil && ctx.Err() == nil {
		slog.Error("workload ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, client push.Client, traces string, history time.Duration) error {
	shop, err := workload.Open(ctx, client, workload.Options{Seed: seed, Traces: traces})
	if err != nil {
		return err
	}
	for {
		err := shop.History(ctx, history)
		if err == nil {
			break
		}
		slog.Warn("the store does not take lines yet", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryEvery):
		}
	}
	slog.Info("history is in", "lines", shop.Lines())
	shop.Live(ctx, func(err error) { slog.Warn("a push failed", "error", err) })
	closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return shop.Close(closing)
}
