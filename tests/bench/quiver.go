package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/load"
	"quiver/tests/bench/process"
	"quiver/tests/bench/question"
	"quiver/tests/host/store"
)

const (
	hotRuns = 5
	// The buffer is flushed after a minute at the latest; compaction follows.
	settleTimeout = 20 * time.Minute
	// Nothing may be left to do for this long: compaction looks for work now and then.
	settledFor   = 2 * time.Second
	pollInterval = 200 * time.Millisecond
)

// ingest is what loading has cost.
type ingest struct {
	load.Outcome
	// ServerCPU and Settled count until flush and compaction had nothing more to do.
	ServerCPU time.Duration
	Settled   time.Duration
	DiskBytes int64
	// Peaks of memory: after loading, and after the questions too.
	PeakLoaded, PeakAsked int64
}

// timing of a question, in milliseconds; failed questions have an error instead of an answer.
type timing struct {
	hot, cold float64
	answer    *question.Answer
	err       error
}

// running is a store under measurement.
type running struct {
	*store.Store
	settings settings
	dir      string
	log      *os.File
	http     *http.Client
	body     bytes.Buffer
	// environment holds settings beside the configuration.
	environment []string
}

// startFresh starts a store on an empty directory.
func startFresh(ctx context.Context, s settings, name string, environment ...string) (*running, error) {
	dir := filepath.Join(s.work, "store-"+name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.work, "store-"+name+".log"))
	if err != nil {
		return nil, err
	}
	r := &running{settings: s, dir: dir, log: log, http: &http.Client{}, environment: environment}
	return r, r.start(ctx)
}

// keepAll is the configuration of a store under measurement: the records are of a fixed time, which must not expire.
const keepAll = "[[retention]]\nmatch = \"\"\nkeep = \"forever\"\n"

func (r *running) start(ctx context.Context) error {
	config := filepath.Join(r.settings.work, "quiver.toml")
	if err := os.WriteFile(config, []byte(keepAll), 0o644); err != nil {
		return err
	}
	options := store.Options{Binary: r.settings.binary, DataDir: r.dir, Logs: r.log, Env: append([]string{"QUIVER_CONFIG=" + config}, r.environment...)}
	started, err := store.Start(ctx, options)
	r.Store = started
	return err
}

// remove ends the store for good.
func (r *running) remove() {
	r.Kill()
	r.log.Close()
	os.RemoveAll(r.dir)
}

func measureLines(ctx context.Context, s settings, data *dataset.Dataset, result *result) (*ingest, error) {
	r, err := startFresh(ctx, s, "lines")
	if err != nil {
		return nil, err
	}
	defer r.remove()
	job := load.Job{
		URL: "http://" + r.HTTP + "/api/v1/ingest", ContentType: "application/x-ndjson", Path: data.LinesPath(), Spans: data.Lines,
	}
	measured, err := r.load(ctx, job)
	if err != nil {
		return nil, err
	}
	for _, q := range result.questions {
		asked := r.askHot(ctx, data, q)
		reference, err := result.duckDB.ask(q)
		if err != nil {
			return nil, fmt.Errorf("reference: %w", err)
		}
		progress("  %-42s %9.2f ms of %9.2f ms  %v", q.Name, asked.hot, reference.median, orNothing(asked.err))
		result.timings, result.references = append(result.timings, asked), append(result.references, reference)
		if q.Name == question.NewestName && asked.err == nil {
			result.firstRow = r.firstRowHot(ctx, data, q)
		}
	}
	if measured.PeakAsked, err = process.PeakMemory(r.Pid()); err != nil {
		return nil, err
	}
	if result.viaPlugin, err = r.measurePanels(ctx, data, result.questions); err != nil {
		return nil, fmt.Errorf("through the plugin: %w", err)
	}
	if result.startUp, err = r.restart(ctx, data); err != nil {
		return nil, err
	}
	if s.cold {
		return measured, r.askAllCold(ctx, data, result)
	}
	return measured, r.Stop()
}

func orNothing(err error) any {
	if err == nil {
		return ""
	}
	return err
}

// lokiSpans are the bodies that go to the second store: a third of the records, also when all were made for Loki itself.
func lokiSpans(s settings, data *dataset.Dataset) []dataset.Span {
	if s.loki != "" {
		return data.Loki[:len(data.Loki)/3]
	}
	return data.Loki
}

func measureLoki(ctx context.Context, s settings, data *dataset.Dataset) (*ingest, error) {
	r, err := startFresh(ctx, s, "loki")
	if err != nil {
		return nil, err
	}
	defer r.remove()
	return r.load(ctx, load.Job{
		URL: "http://" + r.HTTP + "/loki/api/v1/push", ContentType: "application/x-protobuf", Path: data.LokiPath(), Spans: lokiSpans(s, data),
	})
}

// load sends the bodies and waits until the store has nothing left to do with them.
func (r *running) load(ctx context.Context, job load.Job) (*ingest, error) {
	cpuBefore, err := process.CPU(r.Pid())
	if err != nil {
		return nil, err
	}
	started := time.Now()
	outcome, err := load.Send(ctx, job)
	if err != nil {
		return nil, err
	}
	progress("loaded %d records, %.1f MB/s, %d refused", outcome.Records, megabytesPerSecond(outcome), outcome.Refused)
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	measured := &ingest{Outcome: outcome, Settled: time.Since(started) - settledFor}
	cpu, err := process.CPU(r.Pid())
	if err != nil {
		return nil, err
	}
	measured.ServerCPU = cpu - cpuBefore
	if measured.PeakLoaded, err = process.PeakMemory(r.Pid()); err != nil {
		return nil, err
	}
	measured.PeakAsked = measured.PeakLoaded
	measured.DiskBytes, err = bytesBelow(filepath.Join(r.dir, "segments"))
	progress("settled after %s: %.2f CPU-s/GB", measured.Settled.Round(time.Millisecond), cpuPerGigabyte(measured.ServerCPU, outcome))
	return measured, err
}

// settle flushes, compacts, and waits until nothing is left to do.
func (r *running) settle(ctx context.Context) error {
	response, err := r.http.Post("http://"+r.HTTP+"/api/v1/admin/compact", "", nil)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode >= 300 {
		return fmt.Errorf("compact: %s", response.Status)
	}
	deadline, quietSince := time.Now().Add(settleTimeout), time.Time{}
	for {
		left, err := r.leftToDo(ctx)
		switch {
		case err != nil:
			return err
		case left > 0:
			quietSince = time.Time{}
		case quietSince.IsZero():
			quietSince = time.Now()
		case time.Since(quietSince) >= settledFor:
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%v records or compactions are left to do after %s", left, settleTimeout)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

// leftToDo adds up the gauges of work that waits.
func (r *running) leftToDo(ctx context.Context) (float64, error) {
	return r.gauges(ctx, "quiver_storage_compaction_pending", "quiver_storage_buffer_records")
}

// gauges adds up metrics without labels.
func (r *running) gauges(ctx context.Context, names ...string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.HTTP+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := r.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	sum := 0.0
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if slices.Contains(names, name) {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			sum += number
		}
	}
	return sum, lines.Err()
}

func bytesBelow(dir string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // swept meanwhile
		}
		total += info.Size()
		return err
	})
	return total, err
}

// post sends a statement over the whole range of the data.
func (r *running) post(ctx context.Context, data *dataset.Dataset, sql string) (*http.Response, error) {
	made := data.Options.Records
	parameters := url.Values{
		"from": {strconv.FormatInt(made.End.Add(-made.Span).UnixNano(), 10)}, "to": {strconv.FormatInt(made.End.UnixNano(), 10)},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.HTTP+"/api/v1/sql?"+parameters.Encode(), strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/vnd.apache.arrow.stream")
	response, err := r.http.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		response.Body.Close()
		return nil, fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(answer))
	}
	return response, err
}

// ask gives the milliseconds until the whole answer was there; the answer lies in r.body.
func (r *running) ask(ctx context.Context, data *dataset.Dataset, sql string) (float64, error) {
	started := time.Now()
	response, err := r.post(ctx, data, sql)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	r.body.Reset()
	_, err = r.body.ReadFrom(response.Body)
	return milliseconds(time.Since(started)), err
}

// askHot takes the median after a warm-up.
func (r *running) askHot(ctx context.Context, data *dataset.Dataset, q question.Question) timing {
	if _, err := r.ask(ctx, data, q.Quiver); err != nil {
		return timing{err: err}
	}
	times := make([]float64, hotRuns)
	for i := range times {
		var err error
		if times[i], err = r.ask(ctx, data, q.Quiver); err != nil {
			return timing{err: err}
		}
	}
	answer, err := question.Read(r.body.Bytes())
	return timing{hot: median(times), answer: answer, err: err}
}

// firstRowHot is the time until a first batch of rows could be used; negative: it could not be measured.
func (r *running) firstRowHot(ctx context.Context, data *dataset.Dataset, q question.Question) float64 {
	times := make([]float64, hotRuns)
	for i := range times {
		started := time.Now()
		response, err := r.post(ctx, data, q.Quiver)
		if err != nil {
			return -1
		}
		reader, err := ipc.NewReader(response.Body)
		if err != nil || !reader.Next() {
			response.Body.Close()
			return -1
		}
		times[i] = milliseconds(time.Since(started))
		io.Copy(io.Discard, response.Body)
		reader.Release()
		response.Body.Close()
	}
	return median(times)
}

// restart gives the time from the start of the process to its first answer.
func (r *running) restart(ctx context.Context, data *dataset.Dataset) (time.Duration, error) {
	if err := r.Stop(); err != nil {
		return 0, err
	}
	started := time.Now()
	if err := r.start(ctx); err != nil {
		return 0, err
	}
	_, err := r.ask(ctx, data, "SELECT timestamp, message FROM logs ORDER BY timestamp DESC LIMIT 1")
	return time.Since(started), err
}

// askAllCold asks each question of a store that was just started, over files that are not in the page cache.
func (r *running) askAllCold(ctx context.Context, data *dataset.Dataset, result *result) error {
	for i, q := range result.questions {
		if err := r.Stop(); err != nil {
			return err
		}
		result.isCacheDropped = dropPageCache()
		if err := r.start(ctx); err != nil {
			return err
		}
		if result.timings[i].err == nil {
			result.timings[i].cold, result.timings[i].err = r.ask(ctx, data, q.Quiver)
		}
	}
	return r.Stop()
}

func median(times []float64) float64 {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func megabytesPerSecond(o load.Outcome) float64 { return float64(o.RawBytes) / 1e6 / o.Wall.Seconds() }

func cpuPerGigabyte(cpu time.Duration, o load.Outcome) float64 {
	return cpu.Seconds() / (float64(o.RawBytes) / 1e9)
}
