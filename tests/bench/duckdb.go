package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/question"
)

// reference is what DuckDB took and answered.
type reference struct {
	version      string
	medians      []float64
	answers      []*question.Answer
	parquetBytes int64
}

// askDuckDB runs duckdb_reference.py, which stands beside this module's files.
func askDuckDB(ctx context.Context, s settings, data *dataset.Dataset, questions []question.Question) (*reference, error) {
	dir := filepath.Join(s.work, "reference")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	statements := make([]string, len(questions))
	for i, q := range questions {
		statements[i] = q.DuckDB
	}
	text, err := json.Marshal(statements)
	if err != nil {
		return nil, err
	}
	asked := filepath.Join(dir, "questions.json")
	if err := os.WriteFile(asked, text, 0o644); err != nil {
		return nil, err
	}
	progress("DuckDB")
	command := exec.CommandContext(ctx, s.python, "duckdb_reference.py",
		"--lines", data.LinesPath(), "--parquet", data.ParquetPath(), "--questions", asked, "--answers", dir)
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s duckdb_reference.py: %w", s.python, err)
	}
	return readReference(dir, data.ParquetPath(), len(questions))
}

func readReference(dir, parquet string, count int) (*reference, error) {
	text, err := os.ReadFile(filepath.Join(dir, "times.json"))
	if err != nil {
		return nil, err
	}
	var times struct {
		Version string
		Medians []float64 `json:"medians_ms"`
	}
	if err := json.Unmarshal(text, &times); err != nil {
		return nil, err
	}
	r := &reference{version: times.Version, medians: times.Medians}
	for i := range count {
		stream, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.arrow", i)))
		if err != nil {
			return nil, err
		}
		answer, err := question.Read(stream)
		if err != nil {
			return nil, err
		}
		r.answers = append(r.answers, answer)
	}
	file, err := os.Stat(parquet)
	if err != nil {
		return nil, err
	}
	r.parquetBytes = file.Size()
	return r, nil
}
