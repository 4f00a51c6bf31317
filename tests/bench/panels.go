package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	sdk "github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/process"
	"quiver/tests/bench/question"
	"quiver/tests/host/grafana"
	"quiver/tests/host/query"
)

const (
	// panelRuns of a query each way, in turn, after a warm-up.
	panelRuns = 15
	// A process's CPU time is counted in ticks of 10 ms: so many answers make their error one of less than 1 %.
	wideRuns   = 500
	wideLines  = 1000
	wideFields = 30
	wideTenant = "wide"
)

// panel is a query as Grafana asks it, and what it takes at the store and through the plugin, in milliseconds.
type panel struct {
	name             string
	query            backend.DataQuery
	rows             int
	atStore, through float64
	err              error
}

// viaPlugin is what the plugin has cost.
type viaPlugin struct {
	panels []panel
	// wideCPU is the plugin's CPU time for one answer of a thousand wide lines, in milliseconds.
	wideCPU float64
}

// panels are the bench's questions as SQL of a panel, and the builder's own forms.
func panels(data *dataset.Dataset, questions []question.Question) []panel {
	made := data.Options.Records
	var asked []panel
	add := func(name string, model query.Model) {
		asked = append(asked, panel{name: name, query: model.Over(made.End.Add(-made.Span), made.End)})
	}
	for _, q := range questions {
		add(q.Name, query.SQL("A", "auto", q.Quiver))
	}
	lines := query.Logs("A", query.Is("service", "payments-api"), query.Is("level", "error"))
	lines.Builder.Limit = 1000
	add("builder: newest 1000 errors of a service", lines)
	counts := query.Logs("A")
	counts.Builder.Aggregate, counts.Builder.GroupBy = &query.Aggregate{Function: "count"}, []string{"service"}
	add("builder: count by service over time", counts)
	number := counts
	number.Format = "number"
	add("builder: count by service", number)
	volume := query.Logs("A")
	volume.Purpose = "log-volume"
	add("builder: log volume", volume)
	return asked
}

// measurePanels asks a loaded store, at once and through the plugin.
func (r *running) measurePanels(ctx context.Context, data *dataset.Dataset, questions []question.Question) (*viaPlugin, error) {
	log, err := os.Create(filepath.Join(r.settings.work, "plugin.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	plugin, err := grafana.Start(r.settings.plugin, log)
	if err != nil {
		return nil, err
	}
	measured := &viaPlugin{panels: panels(data, questions)}
	instance := grafana.NewInstance(r.GRPC)
	for i := range measured.panels {
		p := &measured.panels[i]
		p.err = r.measurePanel(ctx, data, plugin, instance, p)
		progress("  %-42s %9.2f ms of %9.2f ms  %v", p.name, p.through, p.atStore, orNothing(p.err))
	}
	measured.wideCPU, err = r.measureWideLines(ctx, plugin)
	return measured, errors.Join(err, plugin.Stop())
}

// measurePanel sends the store the very statement that the plugin sends, the two ways in turn: what else the machine does
// falls on both. Decoding the frames is Grafana's work, and not in it.
func (r *running) measurePanel(ctx context.Context, data *dataset.Dataset, plugin *grafana.Plugin, instance grafana.Instance, p *panel) error {
	first, err := frames(plugin.Ask(ctx, instance, nil, p.query))
	if err != nil {
		return err
	}
	for _, frame := range first {
		p.rows += frame.Rows()
	}
	statement := first[0].Meta.ExecutedQueryString
	if _, err := r.ask(ctx, data, statement); err != nil {
		return err
	}
	var atStore, through [panelRuns]float64
	for i := range panelRuns {
		if atStore[i], err = r.ask(ctx, data, statement); err != nil {
			return err
		}
		started := time.Now()
		answer, err := plugin.Ask(ctx, instance, nil, p.query)
		through[i] = milliseconds(time.Since(started))
		if _, err := frames(answer, err); err != nil {
			return err
		}
	}
	p.atStore, p.through = median(atStore[:]), median(through[:])
	return nil
}

// frames decodes an answer to the one query "A".
func frames(answer grafana.Answer, err error) (sdk.Frames, error) {
	if err != nil {
		return nil, err
	}
	responses, err := answer.Decode()
	if err != nil {
		return nil, err
	}
	response := responses["A"]
	if response.Error == nil && len(response.Frames) == 0 {
		return nil, errors.New("an answer without frames")
	}
	return response.Frames, response.Error
}

// measureWideLines gives the plugin's CPU time for one answer of a thousand lines with thirty fields each, in milliseconds.
func (r *running) measureWideLines(ctx context.Context, plugin *grafana.Plugin) (float64, error) {
	now := time.Now().UTC().Truncate(time.Second)
	if err := r.sendWideLines(ctx, now); err != nil {
		return 0, err
	}
	instance := grafana.NewInstance(r.GRPC)
	instance.UID, instance.JSONData["tenant"] = wideTenant, wideTenant
	model := query.Logs("A")
	model.Builder.Limit = wideLines
	ask := model.Over(now.Add(-time.Minute), now.Add(time.Minute))
	first, err := frames(plugin.Ask(ctx, instance, nil, ask))
	if err != nil {
		return 0, err
	}
	if rows := first[0].Rows(); rows != wideLines {
		return 0, fmt.Errorf("%d wide lines instead of %d", rows, wideLines)
	}
	before, err := process.CPU(plugin.Pid())
	if err != nil {
		return 0, err
	}
	for range wideRuns {
		if _, err := plugin.Ask(ctx, instance, nil, ask); err != nil {
			return 0, err
		}
	}
	after, err := process.CPU(plugin.Pid())
	return milliseconds(after-before) / wideRuns, err
}

// sendWideLines sends the lines of a tenant of their own: time, level, service, message, trace id, and as many texts,
// whole numbers, fractions and truth values as make thirty fields.
func (r *running) sendWideLines(ctx context.Context, now time.Time) error {
	var body bytes.Buffer
	lines := json.NewEncoder(&body)
	for i := range wideLines {
		line := map[string]any{
			"timestamp": now.Add(time.Duration(i) * time.Millisecond), "level": "info", "service": "checkout",
			"message": fmt.Sprintf("order %d was paid by card", i), "trace_id": fmt.Sprintf("%032x", i+1),
		}
		for at := len(line); at < wideFields; at++ {
			name := fmt.Sprintf("field.%02d", at)
			switch at % 5 {
			case 0:
				line[name] = i * at
			case 1:
				line[name] = float64(i*at) / 7
			case 2:
				line[name] = (i+at)%3 == 0
			default:
				line[name] = fmt.Sprintf("/api/v2/orders/%d/items?page=%d", i, at)
			}
		}
		if err := lines.Encode(line); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.HTTP+"/api/v1/ingest", &body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("X-Scope-OrgID", wideTenant)
	response, err := r.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		told, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("wide lines: %s: %s", response.Status, told)
	}
	return nil
}
