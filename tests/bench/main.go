// The bench of `make bench`: one day of logs into a fresh store, the questions of performance.md to it, at once
// and through the plugin, the same to DuckDB over Parquet, and one table of it all.
//
// Invariant: it fails when answers differ; a bar that is not met is told, and is no failure.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/question"
	"quiver/tests/bench/records"
)

// recordsMin of a day: with fewer, ten minutes of a service are too few values to compare percentiles.
const recordsMin = 300_000

// settings are the flags, as validated.
type settings struct {
	binary, plugin, python, work, runs string
	data                               dataset.Options
	days                               int
	cold, onlyWays                     bool
	wayBytes                           int64
	victoriaLogs, loki                 string
}

func parseFlags() (settings, error) {
	var s settings
	flag.StringVar(&s.binary, "quiver", "../../target/debug/quiver", "the store's binary")
	flag.StringVar(&s.plugin, "plugin", "../../target/debug/gpx_quiver_logs", "the plugin's binary")
	flag.StringVar(&s.python, "python", ".venv/bin/python", "a Python with requirements.txt installed")
	flag.StringVar(&s.work, "work", "../../target/bench", "directory of data, kept for the next run; stores in it are removed")
	flag.StringVar(&s.runs, "runs", "runs", "directory that the table is written to")
	flag.BoolVar(&s.cold, "cold", false, "ask each question also after a restart, and with a dropped page cache where that is allowed")
	flag.BoolVar(&s.onlyWays, "only-ways", false, "measure only what taking lines in costs, by format and protocol: decode, parse, fsynced log; no flush, no DuckDB")
	wayMegabytes := flag.Int64("way-mib", 128, "MiB of lines by each way; with few, learning forms and the 10 ms ticks of CPU time count")
	perDay := flag.Int64("records", 3_000_000, "records of a day")
	flag.IntVar(&s.days, "days", 1, "days")
	lokiShare := flag.Float64("loki-share", 1.0/3, "part of the records that is sent by Loki push to a second store; 0: none")
	end := flag.String("end", "", "time after the last record, RFC 3339 (default: midnight UTC, two days ago)")
	flag.Parse()
	s.wayBytes = *wayMegabytes << 20
	until := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -2)
	if *end != "" {
		given, err := time.Parse(time.RFC3339, *end)
		if err != nil {
			return s, err
		}
		until = given.UTC()
	}
	if flag.NArg() > 0 || s.days < 1 || *perDay < recordsMin || *lokiShare < 0 || *lokiShare > 1 || *wayMegabytes < 1 {
		return s, fmt.Errorf("arguments %q: at least one day and %d records are needed, and a share from 0 to 1", os.Args[1:], recordsMin)
	}
	s.victoriaLogs, s.loki = os.Getenv("VICTORIALOGS_URL"), os.Getenv("LOKI_URL")
	all := *perDay * int64(s.days)
	s.data = dataset.Options{
		Records:     records.Options{Seed: 1, Records: all, End: until, Span: time.Duration(s.days) * 24 * time.Hour},
		LokiRecords: int64(*lokiShare * float64(all)),
	}
	if s.loki != "" {
		s.data.LokiRecords = all
	}
	return s, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parseFlags()
	if err == nil {
		err = run(ctx, s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	machine := describeMachine() // before we compute ourselves
	if s.onlyWays {
		return runWays(ctx, s, machine)
	}
	progress("records: %d over %d days, until %s", s.data.Records.Records, s.days, s.data.Records.End.Format(time.RFC3339))
	data, err := dataset.Open(filepath.Join(s.work, "dataset"), s.data)
	if err != nil {
		return fmt.Errorf("make records: %w", err)
	}
	runtime.GC() // what making them needed; not during the measurement
	result := result{settings: s, data: data, machine: machine, questions: question.All(data)}
	if result.duckDB, err = startDuckDB(ctx, s, data); err != nil {
		return err
	}
	defer result.duckDB.end()
	if result.lines, err = measureLines(ctx, s, data, &result); err != nil {
		return fmt.Errorf("store with JSON lines: %w", err)
	}
	result.compare()
	if len(lokiSpans(s, data)) > 0 {
		if result.loki, err = measureLoki(ctx, s, data); err != nil {
			return fmt.Errorf("store with Loki push: %w", err)
		}
	}
	if result.others, err = measureOthers(ctx, s, data, result.questions); err != nil {
		return err
	}
	if result.formats, err = measureFormats(ctx, s); err != nil {
		return err
	}
	if result.ways, err = measureWays(ctx, s); err != nil {
		return err
	}
	return result.publish()
}

// runWays prints the table of ways alone; it is not written below runs.
func runWays(ctx context.Context, s settings, machine machine) error {
	if err := os.MkdirAll(s.work, 0o755); err != nil {
		return err
	}
	measured, err := measureWays(ctx, s)
	if err != nil {
		return err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s; load before: %s\n", machine.cpu, machine.load)
	writeWays(&out, measured)
	fmt.Print(out.String())
	return nil
}

func progress(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, arguments...))
}
