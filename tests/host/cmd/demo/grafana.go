package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"quiver/tests/host/grafana"
	"quiver/tests/host/terminal"
)

const (
	grafanaStartTimeout = 2 * time.Minute // its first start makes a database
	grafanaStopTimeout  = 20 * time.Second
)

// server is a Grafana that the demo started.
type server struct {
	url     string
	command *exec.Cmd
	ended   chan struct{}
}

// findGrafana is the home of an installed Grafana and its program: GRAFANA_HOME, or `grafana` on the PATH.
func findGrafana() (home, program string, found bool) {
	if home = os.Getenv("GRAFANA_HOME"); home != "" {
		program = filepath.Join(home, "bin", "grafana")
		if _, err := os.Stat(program); err == nil {
			return home, program, true
		}
	}
	program, err := exec.LookPath("grafana")
	if err != nil {
		return "", "", false
	}
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	// A tarball has bin/grafana under its home; the packages for Debian and Red Hat keep their home elsewhere.
	for _, home := range []string{filepath.Dir(filepath.Dir(program)), "/usr/share/grafana"} {
		if _, err := os.Stat(filepath.Join(home, "conf", "defaults.ini")); err == nil {
			return home, program, true
		}
	}
	return "", "", false
}

// pluginFolder checks that the directory is what Grafana loads: manifest, frontend and backend side by side.
func pluginFolder(directory string) error {
	for _, name := range []string{"plugin.json", "module.js"} {
		if _, err := os.Stat(filepath.Join(directory, name)); err != nil {
			return fmt.Errorf("%q has no %s yet", directory, name)
		}
	}
	return nil
}

// startGrafana starts Grafana on loopback with the plugin and the provisioning, its data in work, and waits for it.
func startGrafana(ctx context.Context, work, pluginDirectory, provisioning string, environment map[string]string) (*server, error) {
	home, program, found := findGrafana()
	if !found {
		return nil, nil
	}
	plugins := filepath.Join(work, "plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return nil, err
	}
	// Only the built folder: Grafana loads every plugin.json below its plugin path.
	if err := os.Symlink(pluginDirectory, filepath.Join(plugins, grafana.PluginID)); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:3000")
	if err != nil {
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	if err := listener.Close(); err != nil {
		return nil, err
	}
	logs, err := os.Create(filepath.Join(work, "grafana.log"))
	if err != nil {
		return nil, err
	}
	defer logs.Close()
	command := exec.Command(program, "server", "--homepath", home)
	command.Dir = home
	command.Stdout, command.Stderr = logs, logs
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Env = append(os.Environ(),
		"GF_PATHS_DATA="+filepath.Join(work, "grafana"), "GF_PATHS_LOGS="+filepath.Join(work, "grafana-logs"),
		"GF_PATHS_PLUGINS="+plugins, "GF_PATHS_PROVISIONING="+provisioning,
		"GF_PLUGINS_ALLOW_LOADING_UNSIGNED_PLUGINS="+grafana.PluginID, "GF_PLUGINS_PREINSTALL_DISABLED=true",
		"GF_SERVER_HTTP_ADDR=127.0.0.1", "GF_SERVER_HTTP_PORT="+port,
		"GF_AUTH_ANONYMOUS_ENABLED=true", "GF_AUTH_ANONYMOUS_ORG_ROLE=Admin",
		"GF_ANALYTICS_REPORTING_ENABLED=false", "GF_ANALYTICS_CHECK_FOR_UPDATES=false",
		"GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES=false", "GF_NEWS_NEWS_FEED_ENABLED=false",
		"GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH="+filepath.Join(provisioning, "dashboards", dashboardFile),
	)
	for name, value := range environment {
		command.Env = append(command.Env, name+"="+value)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start grafana %q: %w", program, err)
	}
	started := &server{url: "http://127.0.0.1:" + port, command: command, ended: make(chan struct{})}
	go func() { _ = command.Wait(); close(started.ended) }()
	if err := started.await(ctx); err != nil {
		started.stop()
		return nil, fmt.Errorf("%w; its log is %s", err, logs.Name())
	}
	return started, nil
}

// await waits until Grafana says it is well.
func (s *server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, grafanaStartTimeout)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/health", nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.ended:
			return fmt.Errorf("grafana ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("grafana is not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// stop ends Grafana, which ends its plugin processes.
func (s *server) stop() {
	_ = s.command.Process.Signal(syscall.SIGTERM) // already gone is what we want
	select {
	case <-s.ended:
	case <-time.After(grafanaStopTimeout):
		_ = s.command.Process.Kill()
		<-s.ended
	}
}

// explain prints how to see the same in a Grafana of one's own.
func explain(screen *terminal.Screen, pluginDirectory, provisioning, grpc string, ready error) {
	screen.Line("  Open it in your own Grafana (12.3 or later):")
	screen.Line("")
	step := 1
	tell := func(text string, commands ...string) {
		screen.Line("  %d. %s", step, text)
		for _, command := range commands {
			screen.Line("       %s", screen.Paint(terminal.Cyan, command))
		}
		step++
	}
	if ready != nil {
		tell("Build the plugin's folder ("+ready.Error()+"):", "make dist")
	}
	tell("Copy the plugin's folder to Grafana's plugins, and allow it unsigned:",
		"cp -r "+pluginDirectory+" /var/lib/grafana/plugins/"+grafana.PluginID,
		"GF_PLUGINS_ALLOW_LOADING_UNSIGNED_PLUGINS="+grafana.PluginID)
	tell("Provision data sources, dashboard and alert rule, and start Grafana:",
		"GF_PATHS_PROVISIONING="+provisioning,
		"QUIVER_URL=http://"+grpc+"  JAEGER_URL="+jaegerURL+"  JAEGER_EXTERNAL_URL="+jaegerURL,
		"or: Connections → Add data source → Quiver Logs → URL http://"+grpc)
	tell("Open the dashboard:", "http://localhost:3000/d/quiver-service-logs-traces")
	screen.Line("")
	screen.Line("  With Docker: %s   With a Grafana here: %s", screen.Paint(terminal.Cyan, "docker compose up"),
		screen.Paint(terminal.Cyan, "GRAFANA_HOME=/path/to/grafana make demo"))
}
