package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/grafana"
	"quiver/tests/host/query"
	"quiver/tests/host/terminal"
	"quiver/tests/host/workload"
)

// The panels of the dashboard "Service → Logs + Traces" that are drawn.
const (
	dashboardFile = "service-logs-traces.json"
	panelVolume   = 5
	panelLatency  = 7
	panelLines    = 9
	linesShown    = 6
)

// panels asks what the provisioned dashboard asks.
type panels struct {
	plugin    *grafana.Plugin
	instance  grafana.Instance
	dashboard grafana.Dashboard
	from, to  time.Time
}

func openPanels(plugin *grafana.Plugin, instance grafana.Instance, provisioning string) (*panels, error) {
	dashboard, err := grafana.ReadDashboard(filepath.Join(provisioning, "dashboards", dashboardFile))
	if err != nil {
		return nil, err
	}
	return &panels{plugin: plugin, instance: instance, dashboard: dashboard}, nil
}

// ask sends the panel's first query with the variables chosen so, at one point a minute.
func (p *panels) ask(ctx context.Context, id int, values grafana.Values) (data.Frames, error) {
	panel, err := p.dashboard.Panel(id)
	if err != nil {
		return nil, err
	}
	model, err := grafana.Interpolate(panel.Targets[0], values, grafana.Values{"service": workload.Services()})
	if err != nil {
		return nil, fmt.Errorf("panel %q: %w", panel.Title, err)
	}
	request := query.Raw("A", model, p.from, p.to)
	request.Interval, request.MaxDataPoints = time.Minute, int64(p.to.Sub(p.from)/time.Minute)
	responses, err := p.plugin.QueryData(ctx, p.instance, map[string]string{
		"X-Dashboard-Uid": p.dashboard.UID, "X-Dashboard-Title": p.dashboard.Title, "X-Panel-Id": fmt.Sprint(id), "X-Panel-Title": panel.Title,
	}, request)
	if err != nil {
		return nil, fmt.Errorf("panel %q: %w", panel.Title, err)
	}
	if err := responses["A"].Error; err != nil {
		return nil, fmt.Errorf("panel %q: %w", panel.Title, err)
	}
	return responses["A"].Frames, nil
}

// errEmpty says that a panel shows nothing.
type errEmpty struct{ panel string }

func (e errEmpty) Error() string { return fmt.Sprintf("panel %q is empty", e.panel) }

// draw asks and draws all three. Every panel is drawn, whatever becomes of the others.
func (p *panels) draw(ctx context.Context, screen *terminal.Screen) []error {
	p.to = time.Now()
	p.from = p.to.Add(-history).Truncate(time.Minute)
	all := grafana.Values{"service": grafana.All, "level": grafana.All, "search": {""}, "trace": {""}}
	errors := grafana.Values{"service": grafana.All, "level": {"error", "fatal"}, "search": {""}, "trace": {""}}
	var failures []error
	for _, panel := range []struct {
		title  string
		id     int
		values grafana.Values
		draw   func(*terminal.Screen, data.Frames) bool
	}{
		{"Newest error lines", panelLines, errors, drawLines},
		{"Volume by level", panelVolume, all, drawVolume},
		{"p95 latency by service", panelLatency, all, drawLatency},
	} {
		frames, err := p.ask(ctx, panel.id, panel.values)
		screen.Title(panel.title, cost(frames))
		if err == nil && !panel.draw(screen, frames) {
			err = errEmpty{panel.title}
		}
		if err != nil {
			screen.Line("  %s", screen.Paint(terminal.Red, err.Error()))
			failures = append(failures, err)
		}
	}
	return failures
}

// cost is what the store says it read.
func cost(frames data.Frames) string {
	if len(frames) == 0 || frames[0].Meta == nil {
		return ""
	}
	var parts []string
	for _, stat := range frames[0].Meta.Stats {
		name := strings.ToLower(strings.TrimPrefix(stat.DisplayName, "Summary: "))
		switch {
		case strings.Contains(name, "rows"), strings.Contains(name, "lines"):
			parts = append(parts, terminal.Number(stat.Value)+" rows read")
		case strings.Contains(name, "time") || strings.Contains(name, "elapsed"):
			parts = append(parts, elapsed(stat.Value, stat.Unit))
		}
	}
	return strings.Join(parts, " · ")
}

func elapsed(value float64, unit string) string {
	if unit == "s" {
		value *= 1000
	}
	return fmt.Sprintf("%.0f ms", value)
}

// drawLines shows the newest lines of the frame, each with the link that Grafana would draw.
func drawLines(screen *terminal.Screen, frames data.Frames) bool {
	if len(frames) == 0 || frames[0].Rows() == 0 {
		return false
	}
	frame := frames[0]
	var rows []terminal.Row
	for row := range min(frame.Rows(), linesShown) {
		line := terminal.Row{Level: text(frame, "severity", row), Text: text(frame, "body", row)}
		if at, ok := frame.Fields[0].ConcreteAt(row); ok {
			line.Time, _ = at.(time.Time)
		}
		line.Service = label(frame, row, "service")
		if trace, _ := frame.FieldByName("trace_id"); trace != nil && trace.Config != nil {
			if id, ok := trace.ConcreteAt(row); ok {
				line = linked(line, trace.Config.Links, fmt.Sprint(id))
			}
		}
		rows = append(rows, line)
	}
	screen.Rows(rows)
	return true
}

// linked follows the links of the field with this value, as Grafana's ${__value.raw} does.
func linked(row terminal.Row, links []data.DataLink, id string) terminal.Row {
	for _, link := range links {
		if link.Internal != nil {
			row.LinkTitle, row.LinkTo = link.Title, link.Internal.DatasourceName
		} else {
			row.LinkURL = strings.ReplaceAll(link.URL, "${__value.raw}", id)
		}
	}
	if row.LinkURL == "" {
		row.LinkURL = id
	}
	return row
}

func text(frame *data.Frame, name string, row int) string {
	field, _ := frame.FieldByName(name)
	if field == nil {
		return ""
	}
	value, _ := field.ConcreteAt(row)
	text, _ := value.(string)
	return text
}

func label(frame *data.Frame, row int, name string) string {
	field, _ := frame.FieldByName("labels")
	if field == nil {
		return ""
	}
	value, _ := field.ConcreteAt(row)
	raw, _ := value.(json.RawMessage)
	var labels map[string]any
	if err := json.Unmarshal(raw, &labels); err != nil || labels[name] == nil {
		return ""
	}
	return fmt.Sprint(labels[name])
}

// levelOrder is from the bottom of a bar to its top.
var levelOrder = []string{"fatal", "error", "warn", "info", "debug", "trace", "unknown"}

func drawVolume(screen *terminal.Screen, frames data.Frames) bool {
	times := timesOf(frames)
	var stacks []terminal.Stack
	for _, frame := range frames {
		if len(frame.Fields) < 2 {
			continue
		}
		level := frame.Fields[1].Labels["level"]
		if level == "" {
			level = "unknown"
		}
		counts := valuesAt(frame, times)
		for i, count := range counts {
			if math.IsNaN(count) {
				counts[i] = 0
			}
		}
		stacks = append(stacks, terminal.Stack{Name: level, Counts: counts})
	}
	slices.SortStableFunc(stacks, func(a, b terminal.Stack) int {
		return slices.Index(levelOrder, a.Name) - slices.Index(levelOrder, b.Name)
	})
	screen.StackedBars(stacks, times)
	return len(stacks) > 0 && len(times) > 0
}

func drawLatency(screen *terminal.Screen, frames data.Frames) bool {
	times := timesOf(frames)
	var curves []terminal.Curve
	for _, frame := range frames {
		if len(frame.Fields) >= 2 {
			curves = append(curves, terminal.Curve{Name: frame.Fields[1].Labels["service"], Values: valuesAt(frame, times)})
		}
	}
	slices.SortStableFunc(curves, func(a, b terminal.Curve) int { return int(b.Peak()*1000) - int(a.Peak()*1000) })
	screen.Curves(curves, "ms")
	return len(curves) > 0
}

// timesOf is every time of the frames, once and in order.
func timesOf(frames data.Frames) []time.Time {
	var times []time.Time
	for _, frame := range frames {
		for row := range frame.Rows() {
			if at, ok := frame.Fields[0].ConcreteAt(row); ok {
				if at, ok := at.(time.Time); ok {
					times = append(times, at)
				}
			}
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return slices.CompactFunc(times, time.Time.Equal)
}

func valuesAt(frame *data.Frame, times []time.Time) []float64 {
	values := make([]float64, len(times))
	for i := range values {
		values[i] = math.NaN()
	}
	for row := range frame.Rows() {
		at, _ := frame.Fields[0].ConcreteAt(row)
		when, ok := at.(time.Time)
		if !ok {
			continue
		}
		value, err := frame.Fields[1].NullableFloatAt(row)
		if i, found := slices.BinarySearchFunc(times, when, time.Time.Compare); found && err == nil && value != nil {
			values[i] = *value
		}
	}
	return values
}

// healthy is "Save & test" of the data source.
func healthy(ctx context.Context, plugin *grafana.Plugin, instance grafana.Instance) (string, error) {
	result, err := plugin.CheckHealth(ctx, instance)
	if err != nil {
		return "", err
	}
	if result.Status != backend.HealthStatusOk {
		return "", fmt.Errorf("data source is not healthy: %s", result.Message)
	}
	return result.Message, nil
}
