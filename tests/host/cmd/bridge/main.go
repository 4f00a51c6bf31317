// Bridge stands between a page in a browser and the plugin: Grafana's HTTP calls for queries, resources and health come
// in, the plugin's gRPC protocol goes out, to the real plugin and a real store with half an hour of lines.
//
//	bridge --quiver BIN --plugin BIN --files DIR
//
// It is not Grafana: one data source, no login, no dashboards. It prints its address once it serves, and ends, with
// all it started, when its standard input is closed or it is told to.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"quiver/tests/host/grafana"
	"quiver/tests/host/push"
	"quiver/tests/host/store"
	"quiver/tests/host/workload"
)

const (
	history     = 30 * time.Minute
	seed        = 20261120
	askTimeout  = time.Minute
	bodyBytes   = 16 << 20
	intervalMin = time.Second
)

func main() {
	quiver := flag.String("quiver", "", "the store's binary")
	plugin := flag.String("plugin", "", "the plugin's binary")
	files := flag.String("files", "", "directory of files to serve under /")
	flag.Parse()
	if err := run(*quiver, *plugin, *files); err != nil {
		fmt.Fprintln(os.Stderr, "bridge:", err)
		os.Exit(1)
	}
}

func run(quiver, plugin, files string) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	work, err := os.MkdirTemp("", "quiver-bridge-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	running, err := store.Start(ctx, store.Options{Binary: quiver, DataDir: filepath.Join(work, "data"), Logs: io.Discard})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.Stop()) }()
	if err := fill(ctx, push.Client{HTTP: running.HTTP, GRPC: running.GRPC}); err != nil {
		return err
	}
	started, err := grafana.Start(plugin, io.Discard)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, started.Stop()) }()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	instance := grafana.NewInstance(running.GRPC)
	instance.JSONData = map[string]any{"tenants": []string{"team-a", "team-b"}}
	border := bridge{plugin: started, instance: instance}
	server := http.Server{Handler: border.routes(files), ReadHeaderTimeout: askTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("http://%s %s\n", listener.Addr(), running.GRPC)
	// The one who started it holds the other end.
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	<-ctx.Done()
	return errors.Join(server.Close(), ended(<-served))
}

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func fill(ctx context.Context, client push.Client) error {
	shop, err := workload.Open(ctx, client, workload.Options{Seed: seed})
	if err != nil {
		return err
	}
	return errors.Join(shop.History(ctx, history), shop.Close(ctx))
}

type bridge struct {
	plugin   *grafana.Plugin
	instance grafana.Instance
}

func (b bridge) routes(files string) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("POST /api/ds/query", b.query)
	routes.HandleFunc("/api/datasources/uid/quiver/resources/", b.resource)
	routes.HandleFunc("POST /api/datasources/uid/quiver/health", b.health)
	routes.Handle("/", http.FileServer(http.Dir(files)))
	return routes
}

// query is Grafana's /api/ds/query for queries of one data source.
func (b bridge) query(response http.ResponseWriter, request *http.Request) {
	var asked struct {
		From, To string
		Queries  []json.RawMessage
	}
	if err := json.NewDecoder(io.LimitReader(request.Body, bodyBytes)).Decode(&asked); err != nil {
		fail(response, http.StatusBadRequest, err)
		return
	}
	from, to, err := timeRange(asked.From, asked.To)
	if err != nil {
		fail(response, http.StatusBadRequest, err)
		return
	}
	queries := make([]backend.DataQuery, 0, len(asked.Queries))
	for _, model := range asked.Queries {
		var known struct {
			RefID         string `json:"refId"`
			IntervalMS    int64  `json:"intervalMs"`
			MaxDataPoints int64  `json:"maxDataPoints"`
		}
		if err := json.Unmarshal(model, &known); err != nil {
			fail(response, http.StatusBadRequest, err)
			return
		}
		queries = append(queries, backend.DataQuery{
			RefID: known.RefID, JSON: model, MaxDataPoints: known.MaxDataPoints,
			Interval:  max(intervalMin, time.Duration(known.IntervalMS)*time.Millisecond),
			TimeRange: backend.TimeRange{From: from, To: to},
		})
	}
	ctx, cancel := context.WithTimeout(request.Context(), askTimeout)
	defer cancel()
	responses, err := b.plugin.QueryData(ctx, b.instance, nil, queries...)
	if err != nil {
		fail(response, http.StatusBadGateway, err)
		return
	}
	answer(response, http.StatusOK, backend.QueryDataResponse{Responses: responses})
}

func timeRange(from, to string) (start, end time.Time, err error) {
	for text, at := range map[string]*time.Time{from: &start, to: &end} {
		var ms int64
		if _, err := fmt.Sscanf(text, "%d", &ms); err != nil {
			return start, end, fmt.Errorf("%q is not a time in milliseconds", text)
		}
		*at = time.UnixMilli(ms)
	}
	return start, end, nil
}

func (b bridge) resource(response http.ResponseWriter, request *http.Request) {
	_, path, _ := strings.Cut(request.URL.RequestURI(), "/resources/")
	body, err := io.ReadAll(io.LimitReader(request.Body, bodyBytes))
	if err != nil {
		fail(response, http.StatusBadRequest, err)
		return
	}
	called, err := b.plugin.CallResource(request.Context(), b.instance, request.Method, path, body)
	if err != nil {
		fail(response, http.StatusBadGateway, err)
		return
	}
	response.Header().Set("Content-Type", "application/json")
	response.WriteHeader(called.Status)
	_, _ = response.Write(called.Body) // the page may have gone
}

// health is "Save & test" for the settings in the body, as the form has them.
func (b bridge) health(response http.ResponseWriter, request *http.Request) {
	var form struct {
		URL            string            `json:"url"`
		BasicAuth      bool              `json:"basicAuth"`
		BasicAuthUser  string            `json:"basicAuthUser"`
		JSONData       map[string]any    `json:"jsonData"`
		SecureJSONData map[string]string `json:"secureJsonData"`
	}
	if err := json.NewDecoder(io.LimitReader(request.Body, bodyBytes)).Decode(&form); err != nil {
		fail(response, http.StatusBadRequest, err)
		return
	}
	instance := grafana.Instance{
		UID: "form", Name: "Form", URL: form.URL, JSONData: form.JSONData, Secrets: form.SecureJSONData,
		BasicAuth: form.BasicAuth, BasicAuthUser: form.BasicAuthUser, Updated: time.Now(),
	}
	checked, err := b.plugin.CheckHealth(request.Context(), instance)
	if err != nil {
		fail(response, http.StatusBadGateway, err)
		return
	}
	answer(response, http.StatusOK, map[string]string{"status": checked.Status.String(), "message": checked.Message})
}

func fail(response http.ResponseWriter, status int, err error) {
	answer(response, status, map[string]string{"message": err.Error()})
}

func answer(response http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"message":"the answer is not JSON"}`)
	}
	response.Header().Set("Content-Type", "application/json")
	response.WriteHeader(status)
	_, _ = response.Write(text) // the page may have gone
}
