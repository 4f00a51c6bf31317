package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/question"
)

// Bars of performance.md for what is not a question.
const (
	linesCPUBar     = 12.0 // CPU-seconds per GB
	lokiCPUBar      = 14.0
	wallBar         = 120.0 // MB/s
	diskBar         = 0.13  // bytes per raw byte
	memoryBar       = 400.0 // MB
	firstRowBar     = 10.0  // ms
	startUpBar      = 1000.0
	pluginRatio     = 1.3 // of the time at the store, and
	pluginExtra     = 3.0 // ms
	wideCPUBar      = 5.0 // ms
	reportTimestamp = "2006-01-02"
)

// result is all that a run has found.
type result struct {
	settings       settings
	data           *dataset.Dataset
	machine        machine
	questions      []question.Question
	timings        []timing
	lines, loki    *ingest
	duckDB         *duckDB
	references     []referenced
	others         []other
	formats        []decoded
	ways           []taken
	viaPlugin      *viaPlugin
	firstRow       float64
	startUp        time.Duration
	isCacheDropped bool
	// differences are reasons to fail.
	differences []string
}

// compare holds our answers against the reference's, and the rare lines against what was sent.
func (r *result) compare() {
	differ := func(name string, err error) {
		r.differences = append(r.differences, fmt.Sprintf("%s: %v", name, err))
	}
	for i, q := range r.questions {
		asked := r.timings[i]
		if asked.err != nil {
			differ(q.Name, asked.err)
		} else if err := q.Same(asked.answer, r.references[i].answer); err != nil {
			differ(q.Name, err)
		}
	}
	for _, p := range r.viaPlugin.panels {
		if p.err != nil {
			differ(p.name+", through the plugin", p.err)
		}
	}
	if rare := r.timings[0]; rare.err == nil {
		got, want := slices.Sorted(slices.Values(rare.answer.Texts("_line"))), slices.Sorted(slices.Values(r.data.RareLines))
		if !slices.Equal(got, want) {
			differ("lines as they came", fmt.Errorf("%q instead of %q", got, want))
		}
	}
}

// publish prints the table and writes it below runs. **Errors**: also when answers differ.
func (r *result) publish() error {
	text := r.markdown()
	fmt.Print(text)
	path := filepath.Join(r.settings.runs, fmt.Sprintf("%s-%s.md", r.machine.at.Format(reportTimestamp), strings.TrimSuffix(r.machine.commit, "+")))
	if err := os.MkdirAll(r.settings.runs, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	progress("written to %s", path)
	if len(r.differences) > 0 {
		return fmt.Errorf("%d ANSWERS DIFFER:\n  %s", len(r.differences), strings.Join(r.differences, "\n  "))
	}
	return nil
}

func (r *result) markdown() string {
	var out strings.Builder
	made := r.data.Options.Records
	fmt.Fprintf(&out, "# Bench of %s, %s\n\n", r.machine.commit, r.machine.at.Format(time.RFC3339))
	fmt.Fprintf(&out, "%s; %s; Linux %s; load before: %s. ", r.machine.cpu, r.machine.memory, r.machine.kernel, r.machine.load)
	fmt.Fprintf(&out, "%d records, %.2f GB of lines, %d days until %s, seed %d. DuckDB %s.\n\n",
		made.Records, float64(r.lines.RawBytes)/1e9, r.settings.days, made.End.Format(time.RFC3339), made.Seed, r.duckDB.version)
	if r.machine.isBusy() {
		out.WriteString("**Others computed too when this run began: take its times and ratios as rough.**\n\n")
	}
	r.writeQuestions(&out)
	r.writePanels(&out)
	r.writeCosts(&out)
	r.writeFormats(&out)
	writeWays(&out, r.ways)
	if len(r.differences) > 0 {
		fmt.Fprintf(&out, "\n**%d answers differ:**\n\n- %s\n", len(r.differences), strings.Join(r.differences, "\n- "))
	}
	return out.String()
}

func (r *result) writeQuestions(out *strings.Builder) {
	header := []string{"query", "rows", "ours, ms", "DuckDB, ms", "ratio", "bar", ""}
	if r.settings.cold {
		how := "cold, ms"
		if !r.isCacheDropped {
			how = "restarted (page cache kept), ms"
		}
		header = append(header, how)
	}
	for _, other := range r.others {
		header = append(header, other.name+", ms")
	}
	rows := [][]string{header}
	for i, q := range r.questions {
		asked, reference := r.timings[i], r.references[i]
		ratio := asked.hot / reference.median
		row := []string{q.Name, fmt.Sprint(reference.answer.Rows()), digits(asked.hot), digits(reference.median), digits(ratio), fmt.Sprint(q.Bar), verdict(ratio, q.Bar)}
		if asked.err != nil {
			row[2], row[4], row[6] = "failed", "", "failed"
		}
		if r.settings.cold {
			row = append(row, digits(asked.cold))
		}
		for _, other := range r.others {
			row = append(row, digits(other.times[i]))
		}
		rows = append(rows, row)
	}
	writeTable(out, rows)
}

func (r *result) writePanels(out *strings.Builder) {
	bar := fmt.Sprintf("of %g × + %g ms", pluginRatio, pluginExtra)
	rows := [][]string{{"through the plugin", "rows", "store, ms", "plugin, ms", "ratio", bar, ""}}
	for _, p := range r.viaPlugin.panels {
		ofBar := p.through / (pluginRatio*p.atStore + pluginExtra)
		row := []string{p.name, fmt.Sprint(p.rows), digits(p.atStore), digits(p.through), digits(p.through / p.atStore), digits(ofBar), verdict(ofBar, 1)}
		if p.err != nil {
			row = []string{p.name, "", "", "failed", "", "", "failed"}
		}
		rows = append(rows, row)
	}
	out.WriteByte('\n')
	writeTable(out, rows)
}

func (r *result) writeCosts(out *strings.Builder) {
	rows := [][]string{{"cost", "measured", "bar", ""}}
	add := func(name string, value, bar float64) {
		rows = append(rows, []string{name, digits(value), fmt.Sprint(bar), verdict(value, bar)})
	}
	tell := func(name string, value float64) { rows = append(rows, []string{name, digits(value), "", ""}) }
	cpu := cpuPerGigabyte(r.lines.ServerCPU, r.lines.Outcome)
	add("JSON lines: server CPU-s per GB, until settled", cpu, linesCPUBar)
	wall := megabytesPerSecond(r.lines.Outcome)
	rows = append(rows, []string{"JSON lines: MB/s of wall time, 4 clients", digits(wall), fmt.Sprint(wallBar), verdict(wallBar, wall)})
	add("bytes on disk per raw byte", float64(r.lines.DiskBytes)/float64(r.lines.RawBytes), diskBar)
	add("peak memory, ingest then queries, MB", float64(r.lines.PeakAsked)/1e6, memoryBar)
	if r.loki != nil {
		add("Loki push: server CPU-s per GB, until settled", cpuPerGigabyte(r.loki.ServerCPU, r.loki.Outcome), lokiCPUBar)
		tell("Loki push: MB/s of wall time, 4 clients", megabytesPerSecond(r.loki.Outcome))
		tell("Loki push: bytes on disk per raw byte", float64(r.loki.DiskBytes)/float64(r.loki.RawBytes))
		tell("Loki push: peak memory, MB", float64(r.loki.PeakLoaded)/1e6)
	}
	add("first row of newest 1000, hot, ms", r.firstRow, firstRowBar)
	add("start of the process to the first answer, ms", milliseconds(r.startUp), startUpBar)
	wide := fmt.Sprintf("plugin: CPU-ms of %d lines of %d fields, Flight to frame", wideLines, wideFields)
	add(wide, r.viaPlugin.wideCPU, wideCPUBar)
	tell("peak memory after ingest alone, MB", float64(r.lines.PeakLoaded)/1e6)
	tell("wall time until settled, s", r.lines.Settled.Seconds())
	tell("client CPU-s per GB", cpuPerGigabyte(r.lines.ClientCPU, r.lines.Outcome))
	tell("bodies refused (429, 503) and sent again", float64(r.lines.Refused))
	tell("DuckDB's Parquet file, bytes per raw byte", float64(r.duckDB.parquetBytes)/float64(r.lines.RawBytes))
	for _, other := range r.others {
		tell(other.name+": MB/s of wall time", megabytesPerSecond(other.outcome))
	}
	out.WriteByte('\n')
	writeTable(out, rows)
}

func (r *result) writeFormats(out *strings.Builder) {
	rows := [][]string{{"decoding lines of", "CPU-s per GB", "bytes a line"}}
	for _, format := range r.formats {
		rows = append(rows, []string{format.name, digits(format.cpuPerGB), fmt.Sprint(format.bytesALine)})
	}
	out.WriteByte('\n')
	writeTable(out, rows)
}

func writeWays(out *strings.Builder, ways []taken) {
	rows := [][]string{{"decode, parse, fsynced log: by", "lines of", "CPU-s per GB", "MB/s of wall time", "bar", ""}}
	for _, way := range ways {
		row := []string{way.protocol, way.format, digits(way.cpuPerGB), digits(way.megabytesASecond), "", ""}
		if way.bar > 0 {
			row[4], row[5] = fmt.Sprint(way.bar), verdict(way.cpuPerGB, way.bar)
		}
		rows = append(rows, row)
	}
	out.WriteByte('\n')
	writeTable(out, rows)
}

func verdict(value, bar float64) string {
	if value <= bar {
		return "ok"
	}
	return "**over**"
}

// digits shows three of them; negative: there is no value.
func digits(value float64) string {
	switch {
	case value < 0:
		return "–"
	case value >= 100 || value == 0:
		return fmt.Sprintf("%.0f", value)
	case value >= 10:
		return fmt.Sprintf("%.1f", value)
	case value >= 1:
		return fmt.Sprintf("%.2f", value)
	default:
		return fmt.Sprintf("%.4f", value)
	}
}

// writeTable writes Markdown whose columns also line up in a terminal.
func writeTable(out *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], len([]rune(text)))
		}
	}
	for i, row := range rows {
		for at, text := range row {
			fmt.Fprintf(out, "| %s%s ", text, strings.Repeat(" ", widths[at]-len([]rune(text))))
		}
		out.WriteString("|\n")
		if i == 0 {
			for _, width := range widths {
				fmt.Fprintf(out, "| %s ", strings.Repeat("-", max(width, 3)))
			}
			out.WriteString("|\n")
		}
	}
}
