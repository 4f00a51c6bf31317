package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/question"
)

// duckDB is a running duckdb_reference.py.
type duckDB struct {
	version      string
	parquetBytes int64
	command      *exec.Cmd
	questions    io.WriteCloser
	answers      *json.Decoder
	answerPath   string
}

// referenced is what DuckDB took and answered.
type referenced struct {
	median float64
	answer *question.Answer
}

// startDuckDB runs duckdb_reference.py, which stands beside this module's files, until its Parquet file is there.
func startDuckDB(ctx context.Context, s settings, data *dataset.Dataset) (*duckDB, error) {
	progress("DuckDB's file")
	d := &duckDB{answerPath: filepath.Join(s.work, "reference.arrow")}
	d.command = exec.CommandContext(ctx, s.python, "duckdb_reference.py", "--lines", data.LinesPath(), "--parquet", data.ParquetPath())
	d.command.Stderr = os.Stderr
	var err error
	if d.questions, err = d.command.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := d.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.command.Start(); err != nil {
		return nil, fmt.Errorf("%s (make tests/bench/.venv/.installed): %w", s.python, err)
	}
	d.answers = json.NewDecoder(stdout)
	var ready struct{ Version string }
	if err := d.answers.Decode(&ready); err != nil {
		d.end()
		return nil, fmt.Errorf("duckdb_reference.py does not start: %w", err)
	}
	d.version = ready.Version
	file, err := os.Stat(data.ParquetPath())
	if err != nil {
		d.end()
		return nil, err
	}
	d.parquetBytes = file.Size()
	return d, nil
}

// end closes the script's input, at which it ends.
func (d *duckDB) end() {
	d.questions.Close()
	d.command.Wait() // how it ends does not matter: each answer was checked
	os.Remove(d.answerPath)
}

func (d *duckDB) ask(q question.Question) (referenced, error) {
	asked := map[string]string{"sql": q.DuckDB, "bounds": q.Bounds, "answer": d.answerPath}
	if err := json.NewEncoder(d.questions).Encode(asked); err != nil {
		return referenced{}, err
	}
	var told struct {
		Median float64 `json:"median_ms"`
	}
	if err := d.answers.Decode(&told); err != nil {
		return referenced{}, fmt.Errorf("%s: %w", q.Name, err)
	}
	stream, err := os.ReadFile(d.answerPath)
	if err != nil {
		return referenced{}, err
	}
	answer, err := question.Read(stream)
	return referenced{median: told.Median, answer: answer}, err
}
