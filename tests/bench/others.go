package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/load"
	"quiver/tests/bench/question"
)

// visibleTimeout bounds the wait until a store that was just loaded counts all records.
const visibleTimeout = 2 * time.Minute

// other is a store that somebody runs beside ours; its answers are timed, not compared.
type other struct {
	name    string
	outcome load.Outcome
	// times by question; negative: it can't be asked, or failed.
	times []float64
}

// measureOthers loads and asks the stores that the environment names.
func measureOthers(ctx context.Context, s settings, data *dataset.Dataset, questions []question.Question) ([]other, error) {
	var measured []other
	if s.victoriaLogs != "" {
		const path = "/insert/jsonline?_stream_fields=service,instance&_msg_field=msg&_time_field=time"
		job := load.Job{URL: s.victoriaLogs + path, ContentType: "application/stream+json", Path: data.LinesPath(), Spans: data.Lines}
		one, err := measureOther(ctx, "VictoriaLogs", job, questions, func(q question.Question) string {
			return victoriaLogsURL(s.victoriaLogs, data, q)
		})
		if err != nil {
			return nil, err
		}
		measured = append(measured, one)
	}
	if s.loki != "" {
		job := load.Job{URL: s.loki + "/loki/api/v1/push", ContentType: "application/x-protobuf", Path: data.LokiPath(), Spans: data.Loki}
		one, err := measureOther(ctx, "Loki", job, questions, func(q question.Question) string { return lokiURL(s.loki, data, q) })
		if err != nil {
			return nil, err
		}
		measured = append(measured, one)
	}
	return measured, nil
}

func measureOther(ctx context.Context, name string, job load.Job, questions []question.Question, urlOf func(question.Question) string) (other, error) {
	progress("%s", name)
	outcome, err := load.Send(ctx, job)
	if err != nil {
		return other{}, fmt.Errorf("load %s: %w", name, err)
	}
	one := other{name: name, outcome: outcome}
	all := question.Question{LogsQL: "* | stats count() n", LogQL: `sum(count_over_time({service=~".+"}[10d]))`}
	if err := awaitCount(ctx, urlOf(all), outcome.Records); err != nil {
		return other{}, fmt.Errorf("%s: %w", name, err)
	}
	for _, q := range questions {
		one.times = append(one.times, hotOther(ctx, urlOf(q)))
	}
	return one, nil
}

// awaitCount waits until an answer has the number of all records.
func awaitCount(ctx context.Context, address string, count int64) error {
	want := `"` + strconv.FormatInt(count, 10) + `"`
	for deadline := time.Now().Add(visibleTimeout); ; time.Sleep(time.Second) {
		answer, _, err := get(ctx, address)
		if err != nil {
			return err
		}
		if strings.Contains(answer, want) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s records are not there; the answer is %.300s", want, answer)
		}
	}
}

func hotOther(ctx context.Context, address string) float64 {
	if address == "" {
		return -1
	}
	var times []float64
	for range 1 + hotRuns {
		_, took, err := get(ctx, address)
		if err != nil {
			progress("  %v", err)
			return -1
		}
		times = append(times, took)
	}
	return median(times[1:])
}

func get(ctx context.Context, address string) (answer string, took float64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", 0, err
	}
	started := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	took = milliseconds(time.Since(started))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %.300s", address, response.Status, text)
	}
	return string(text), took, err
}

func victoriaLogsURL(base string, data *dataset.Dataset, q question.Question) string {
	made := data.Options.Records
	parameters := url.Values{
		"query": {q.LogsQL},
		"start": {made.End.Add(-made.Span).Format(time.RFC3339)}, "end": {made.End.Format(time.RFC3339)},
	}
	if q.Newest > 0 {
		parameters.Set("limit", strconv.Itoa(q.Newest))
	}
	return base + "/select/logsql/query?" + parameters.Encode()
}

func lokiURL(base string, data *dataset.Dataset, q question.Question) string {
	made := data.Options.Records
	end := strconv.FormatInt(made.End.UnixNano(), 10)
	if q.LogQL == "" {
		return ""
	}
	isLines := strings.HasPrefix(q.LogQL, "{")
	if !isLines && q.Step == 0 {
		return base + "/loki/api/v1/query?" + url.Values{"query": {q.LogQL}, "time": {end}}.Encode()
	}
	parameters := url.Values{
		"query": {q.LogQL}, "end": {end}, "limit": {"1000"}, "direction": {"backward"},
		"start": {strconv.FormatInt(made.End.Add(-made.Span).UnixNano(), 10)},
	}
	if q.Step > 0 {
		parameters.Set("step", strconv.Itoa(int(q.Step.Seconds())))
	}
	return base + "/loki/api/v1/query_range?" + parameters.Encode()
}
