// Demo runs the whole of Quiver on this machine: the store, services that log to it, and the plugin, started the way
// Grafana does, whose answers are drawn in the terminal.
//
//	demo --quiver BIN --plugin BIN [--once] [--data-dir DIR] [--provisioning DIR] [--traces HOST:PORT]
//
// It is not a benchmark and not a test double: every process is the real one, on loopback. Invariant: whatever ends the
// demo, every process it started has ended before it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"quiver/tests/host/grafana"
	"quiver/tests/host/push"
	"quiver/tests/host/store"
	"quiver/tests/host/terminal"
	"quiver/tests/host/workload"
)

const (
	history = 30 * time.Minute
	seed    = 20261120
	// jaegerURL is where Jaeger's pages are by default; the links point there whether or not one runs.
	jaegerURL  = "http://localhost:16686"
	askTimeout = time.Minute
)

type options struct {
	quiver, plugin, dataDir, provisioning, traces string
	once                                          bool
}

func main() {
	var o options
	flag.StringVar(&o.quiver, "quiver", "", "the store's binary")
	flag.StringVar(&o.plugin, "plugin", "", "the plugin's binary; its folder is the plugin's folder")
	flag.StringVar(&o.dataDir, "data-dir", "", "where the store keeps its data (default: a directory that is removed at the end)")
	flag.StringVar(&o.provisioning, "provisioning", "provisioning", "Grafana's provisioning directory")
	flag.StringVar(&o.traces, "traces", "", "host:port of an OTLP gRPC endpoint that takes the spans, such as Jaeger's")
	flag.BoolVar(&o.once, "once", false, "end after the three panels; fail when one is empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, o, terminal.New(os.Stdout))
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, screen *terminal.Screen) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "quiver-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if o.dataDir == "" {
		o.dataDir = filepath.Join(work, "data")
	}

	running, err := startStore(ctx, o, work, screen)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.Stop()) }()
	screen.Line("  %s   http %s · grpc %s · data %s", screen.Paint(terminal.Bold, "Quiver"), running.HTTP, running.GRPC, o.dataDir)

	client := push.Client{HTTP: running.HTTP, GRPC: running.GRPC}
	shop, err := workload.Open(ctx, client, workload.Options{Seed: seed, Traces: o.traces})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeShop(shop)) }()
	screen.Status("eight services log the last %.0f minutes …", history.Minutes())
	started := time.Now()
	if err := shop.History(ctx, history); err != nil {
		return err
	}
	screen.EndStatus()
	screen.Line("  %s lines of the last %.0f minutes taken in %.1f s: Loki push, OTLP over gRPC and HTTP, JSON lines",
		terminal.Number(float64(shop.Lines())), history.Minutes(), time.Since(started).Seconds())

	live, stopLive := startLive(ctx, shop, screen)
	defer stopLive()
	return o.show(live, running, shop, work, screen)
}

func (o *options) check() error {
	for name, path := range map[string]*string{"--quiver": &o.quiver, "--plugin": &o.plugin, "--provisioning": &o.provisioning} {
		if *path == "" {
			return fmt.Errorf("%s is missing; call it by `make demo`, or see --help", name)
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(absolute); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*path = absolute
	}
	return nil
}

// startStore starts the store on its default ports, or on free ones where those are taken.
func startStore(ctx context.Context, o options, work string, screen *terminal.Screen) (*store.Store, error) {
	logs, err := os.Create(filepath.Join(work, "store.log"))
	if err != nil {
		return nil, err
	}
	defer logs.Close()
	running, err := store.Start(ctx, store.Options{
		Binary: o.quiver, DataDir: o.dataDir, Logs: logs,
		HTTP: freePort(screen, "127.0.0.1:3100"), GRPC: freePort(screen, "127.0.0.1:4317"),
	})
	if err != nil {
		tail, _ := os.ReadFile(logs.Name())
		return nil, fmt.Errorf("%w\n%s", err, tail[max(0, len(tail)-4096):])
	}
	return running, nil
}

func freePort(screen *terminal.Screen, address string) string {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		screen.Line("  %s is taken; the store gets a free port instead", address)
		return "127.0.0.1:0"
	}
	if err := listener.Close(); err != nil {
		return "127.0.0.1:0"
	}
	return address
}

// startLive logs on in the background. The returned function stops it and waits.
func startLive(ctx context.Context, shop *workload.Shop, screen *terminal.Screen) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		shop.Live(ctx, func(err error) { screen.Status("%s", terminal.Cut("a push failed: "+err.Error(), terminal.Width-4)) })
	})
	return ctx, func() { cancel(); running.Wait() }
}

func closeShop(shop *workload.Shop) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return shop.Close(ctx)
}

// show starts the plugin, draws the panels, and goes on until Ctrl-C unless it is to be done once.
func (o options) show(ctx context.Context, running *store.Store, shop *workload.Shop, work string, screen *terminal.Screen) (err error) {
	environment := map[string]string{
		"QUIVER_URL": "http://" + running.GRPC, "JAEGER_URL": jaegerURL, "JAEGER_EXTERNAL_URL": jaegerURL,
		"GF_PATHS_PROVISIONING": o.provisioning,
	}
	provisioned, err := grafana.ReadProvisioning(o.provisioning, environment)
	if err != nil {
		return err
	}
	instance, err := quiverOf(provisioned)
	if err != nil {
		return err
	}
	pluginLogs, err := os.Create(filepath.Join(work, "plugin.log"))
	if err != nil {
		return err
	}
	defer pluginLogs.Close()
	plugin, err := grafana.Start(o.plugin, pluginLogs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plugin.Stop()) }()
	asked, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	message, err := healthy(asked, plugin, instance)
	if err != nil {
		return err
	}
	screen.Line("  The plugin runs as Grafana %s starts it and says: %s", grafana.Version, message)
	asking, err := openPanels(plugin, instance, o.provisioning)
	if err != nil {
		return err
	}
	failures := asking.draw(asked, screen)
	screen.Line("")
	if o.once || len(failures) > 0 {
		return errors.Join(failures...)
	}
	return o.open(ctx, running, shop, work, environment, screen)
}

func quiverOf(provisioned grafana.Provisioning) (grafana.Instance, error) {
	for _, datasource := range provisioned.Datasources {
		if datasource.Type == grafana.PluginID {
			return datasource.Instance(), nil
		}
	}
	return grafana.Instance{}, fmt.Errorf("no data source of type %q is provisioned", grafana.PluginID)
}

// open tells how to see it in Grafana, starts one that is installed, and waits for Ctrl-C.
func (o options) open(ctx context.Context, running *store.Store, shop *workload.Shop, work string, environment map[string]string, screen *terminal.Screen) error {
	pluginDirectory := filepath.Dir(o.plugin)
	ready := pluginFolder(pluginDirectory)
	if _, _, found := findGrafana(); found && ready == nil {
		screen.Status("starting Grafana …")
		server, err := startGrafana(ctx, work, pluginDirectory, o.provisioning, environment)
		screen.EndStatus()
		if err != nil {
			return err
		}
		defer server.stop()
		screen.Line("  Grafana runs, with data sources, dashboard and alert rule: %s",
			screen.Paint(terminal.Bold, server.url+"/d/quiver-service-logs-traces"))
	} else {
		explain(screen, pluginDirectory, o.provisioning, running.GRPC, ready)
	}
	screen.Line("")
	screen.Line("  Push a line of your own:")
	screen.Line("       %s", screen.Paint(terminal.Cyan, strings.ReplaceAll(
		`curl -d '{"service":"me","level":"error","msg":"hello"}' http://HTTP/api/v1/ingest`, "HTTP", running.HTTP)))
	screen.Line("")
	screen.Line("  The services go on logging. Ctrl-C ends everything.")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			screen.EndStatus()
			return nil
		case <-tick.C:
			screen.Status("%s lines so far", terminal.Number(float64(shop.Lines())))
		}
	}
}
