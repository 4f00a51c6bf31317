package host

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"quiver/tests/host/grafana"
	"quiver/tests/host/query"
)

func startPlugin(t *testing.T, env ...string) *grafana.Plugin {
	t.Helper()
	binary, err := binaryFrom("QUIVER_PLUGIN_BIN", "cargo build -p quiver-plugin")
	if err != nil {
		t.Fatal(err)
	}
	started, err := grafana.Start(binary, pluginLog, env...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = started.Stop() }) // a second Stop of an ended process changes nothing
	return started
}

func TestPluginStopsOnRequest(t *testing.T) {
	started := startPlugin(t)
	if err := started.Ping(); err != nil {
		t.Fatalf("health service: %v", err)
	}
	if started.Exited() {
		t.Fatal("plugin ended by itself")
	}
	if err := started.Stop(); err != nil {
		t.Fatal(err)
	}
	if !started.Exited() {
		t.Fatal("plugin is still there after Stop")
	}
}

func TestPluginStopsOnRequestWhileItStreams(t *testing.T) {
	h := newHost(t)
	started := startPlugin(t)
	model := query.Logs("A")
	model.Purpose = "tail"
	stream, err := started.Run(h.context(), h.instance, "tail/stop", model.JSON())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	h.jsonLines(`{"service":"a","msg":"one line, so that the stream is surely running"}`)
	if _, _, err := stream.Next(); err != nil {
		t.Fatalf("first packet: %v", err)
	}
	if err := started.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestPluginEndsWhenGrafanaSendsSIGTERM(t *testing.T) {
	started := startPlugin(t)
	process, err := os.FindProcess(started.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin has exited", started.Exited)
}

// A person who starts the binary by hand should learn what it is, not watch it hang.
func TestPluginStartedByHandSaysWhatItIs(t *testing.T) {
	binary, err := binaryFrom("QUIVER_PLUGIN_BIN", "cargo build -p quiver-plugin")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, binary)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err == nil {
		t.Errorf("exit code 0, want a failure")
	}
	if !strings.Contains(output.String(), "Grafana") {
		t.Errorf("output does not name Grafana: %q", output.String())
	}
}

func TestManyPluginsRunSideBySide(t *testing.T) {
	h := newHost(t)
	h.jsonLines(`{"ts":"2026-11-20T12:00:00Z","service":"a","msg":"x"}`)
	for range 3 {
		started := startPlugin(t)
		health, err := started.CheckHealth(h.context(), h.instance)
		if err != nil {
			t.Fatal(err)
		}
		if health.Message == "" {
			t.Error("health has no message")
		}
	}
}

// freeAddress is an address nobody listens on: a port that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}
