// Package dataset keeps the bench's records on disk in the forms in which they are sent: bodies of JSON lines, one after
// another in one file, which is also what DuckDB reads; and bodies of Loki push.
//
// It sends nothing. Invariant: a directory with a manifest is whole, and was made from the options in the manifest.
package dataset

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"quiver/tests/bench/records"
)

const (
	linesName    = "records.ndjson"
	lokiName     = "loki-push.bodies"
	manifestName = "manifest.json"
	// bodyBytes of lines are sent at once, as Promtail (1 MiB) and Fluent Bit do.
	bodyBytes = 1 << 20
	// layout is raised when files are written in another way than before.
	layout = 1
)

// Options of a dataset.
type Options struct {
	Records records.Options
	// LokiRecords are also there as Loki push: the first ones.
	LokiRecords int64
}

// Span is where a body lies in its file, and what it holds.
type Span struct {
	Offset, Bytes int64
	// RawBytes of the lines alone: without line ends, labels and times.
	RawBytes, Records int64
}

// Manifest describes a dataset.
type Manifest struct {
	Layout  int
	Options Options
	Lines   []Span
	Loki    []Span
	// RareLines are the lines with records.RareToken.
	RareLines []string
	// TraceID is one from the middle; it has several lines.
	TraceID string
}

// Dataset is a dataset on disk.
type Dataset struct {
	Manifest
	dir string
}

// LinesPath is the file of all lines.
func (d *Dataset) LinesPath() string { return filepath.Join(d.dir, linesName) }

// LokiPath is the file of the bodies of Loki push.
func (d *Dataset) LokiPath() string { return filepath.Join(d.dir, lokiName) }

// ParquetPath is where DuckDB's file belongs.
func (d *Dataset) ParquetPath() string { return filepath.Join(d.dir, "reference.parquet") }

// Open gives the dataset in a directory; it is made first when there is none, or one from other options.
func Open(dir string, options Options) (*Dataset, error) {
	opened := &Dataset{dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err == nil && json.Unmarshal(text, &opened.Manifest) == nil && opened.Layout == layout &&
		reflect.DeepEqual(opened.Options, options) {
		return opened, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	opened.Manifest = Manifest{Layout: layout, Options: options}
	if err := opened.make(); err != nil {
		return nil, err
	}
	text, err = json.Marshal(opened.Manifest)
	if err != nil {
		return nil, err
	}
	return opened, os.WriteFile(filepath.Join(dir, manifestName), text, 0o644)
}

func (d *Dataset) make() error {
	lines, err := CreateBodies(d.LinesPath())
	if err != nil {
		return err
	}
	loki, err := CreateBodies(d.LokiPath())
	if err != nil {
		return err
	}
	generator, record := records.New(d.Options.Records), records.Record{}
	var agents [agentCount]Push
	var body []byte
	var inBody Span
	for made := int64(0); generator.Next(&record); made++ {
		body = append(append(body, record.Line...), '\n')
		inBody.Add(len(record.Line))
		if len(body) >= bodyBytes {
			lines.Write(body, inBody)
			body, inBody = body[:0], Span{}
		}
		if made < d.Options.LokiRecords {
			agent := &agents[agentOf(record.Instance)]
			agent.Add(&record)
			if agent.held.RawBytes >= bodyBytes {
				loki.Write(agent.Take())
			}
		}
		if record.IsRare {
			d.RareLines = append(d.RareLines, string(record.Line))
		}
		if made >= d.Options.Records.Records/2 && d.TraceID == "" {
			d.TraceID = string(record.TraceID)
		}
	}
	lines.Write(body, inBody)
	for i := range agents {
		loki.Write(agents[i].Take())
	}
	var linesErr, lokiErr error
	d.Lines, linesErr = lines.Close()
	d.Loki, lokiErr = loki.Close()
	return errors.Join(linesErr, lokiErr)
}

// Add counts a line.
func (s *Span) Add(lineBytes int) {
	s.RawBytes += int64(lineBytes)
	s.Records++
}

// Bodies writes a file of bodies. The first error is kept and given by Close.
type Bodies struct {
	file  *os.File
	out   *bufio.Writer
	err   error
	spans []Span
	end   int64
}

// CreateBodies starts a file of bodies.
func CreateBodies(path string) (*Bodies, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &Bodies{file: file, out: bufio.NewWriterSize(file, 1<<20)}, nil
}

// Write adds a body and what it holds.
func (b *Bodies) Write(body []byte, span Span) {
	if span.Records == 0 || b.err != nil {
		return
	}
	span.Offset, span.Bytes = b.end, int64(len(body))
	_, b.err = b.out.Write(body)
	b.end += span.Bytes
	b.spans = append(b.spans, span)
}

// Close writes through to the disk, so that no later measurement pays for it, and tells where the bodies lie.
func (b *Bodies) Close() ([]Span, error) {
	return b.spans, errors.Join(b.err, b.out.Flush(), b.file.Sync(), b.file.Close())
}
