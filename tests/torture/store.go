package torture

// A store process: started on port 0, asked over HTTP, killed by its own pid.
// Invariant: a store that Start returned has said that it is ready, and Kill or Stop end it.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	readyMax   = 60 * time.Second
	stopMax    = 60 * time.Second
	requestMax = 60 * time.Second
	// logTailLines is how much of a store's log a failure shows.
	logTailLines = 12
)

var readyLine = regexp.MustCompile(`^quiver is ready: http=(\S+) grpc=(\S+) data=(.+)$`)

// Store is a store process.
type Store struct {
	HTTP    string
	GRPC    string
	DataDir string

	command *exec.Cmd
	client  *http.Client
	logPath string
	ready   chan [2]string // gets the addresses of HTTP and gRPC
	ended   chan struct{}
	exit    error // of the process; read after ended is closed
}

// Ended is why a store did not become ready: it ended first, with an exit status and a last word.
type Ended struct {
	Exit error
	Log  string
}

func (e *Ended) Error() string {
	return fmt.Sprintf("the store ended before it was ready (%v): %s", e.Exit, e.Log)
}

// Spawn starts a store without waiting for it. Settings are `section.name=value`; env comes on top of ours.
func (r *Run) Spawn(dataDir string, settings, env []string) (*Store, error) {
	logFile, err := os.CreateTemp(r.tempDir, "store-*.log")
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	arguments := []string{"serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--log-format", "json", "--data-dir", dataDir}
	for _, setting := range append([]string{"query.rows_max=20000000"}, settings...) {
		arguments = append(arguments, "--set", setting)
	}
	command := exec.Command(r.Binary, arguments...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "QUIVER_") && !strings.HasPrefix(variable, "LD_PRELOAD=") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(command.Env, env...)
	command.Stderr = logFile
	// Its own process group: a Ctrl-C in the terminal reaches only us, and we end our children.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", r.Binary, err)
	}
	store := &Store{DataDir: dataDir, command: command, logPath: logFile.Name(), ready: make(chan [2]string, 1), ended: make(chan struct{})}
	store.client = &http.Client{Timeout: requestMax, Transport: &http.Transport{MaxIdleConnsPerHost: writers + 1}}
	r.track(store)
	go func() {
		defer close(store.ended)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if match := readyLine.FindStringSubmatch(lines.Text()); match != nil {
				store.ready <- [2]string{match[1], match[2]}
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		store.exit = command.Wait()
	}()
	return store, nil
}

// Start starts a store and waits until it is ready; the error is an *Ended when it refused.
func (r *Run) Start(dataDir string, settings, env []string) (*Store, error) {
	store, err := r.Spawn(dataDir, settings, env)
	if err != nil {
		return nil, err
	}
	return store, store.awaitReady()
}

func (s *Store) awaitReady() error {
	select {
	case addresses := <-s.ready:
		s.HTTP, s.GRPC = addresses[0], addresses[1]
		return nil
	case <-s.ended:
		return &Ended{Exit: s.exit, Log: s.logTail()}
	case <-time.After(readyMax):
		s.Kill()
		return fmt.Errorf("the store said nothing within %s: %s", readyMax, s.logTail())
	}
}

// Kill ends the process as a crash would.
func (s *Store) Kill() {
	_ = s.command.Process.Kill() // already gone is what we want
	<-s.ended
	s.client.CloseIdleConnections()
}

// Stop sends SIGTERM and waits; anything but exit code 0 is an error.
func (s *Store) Stop() error {
	_ = s.command.Process.Signal(syscall.SIGTERM) // gone: the exit status tells
	select {
	case <-s.ended:
		return s.exit
	case <-time.After(stopMax):
		s.Kill()
		return fmt.Errorf("the store did not end within %s of SIGTERM", stopMax)
	}
}

// Log is what the store wrote to stderr so far.
func (s *Store) Log() string {
	text, _ := os.ReadFile(s.logPath)
	return string(text)
}

func (s *Store) logTail() string {
	lines := strings.Split(strings.TrimSpace(s.Log()), "\n")
	return strings.Join(lines[max(0, len(lines)-logTailLines):], "\n  ")
}

// Answer is a whole answer.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Good says whether the request was done.
func (a Answer) Good() bool { return a.Status/100 == 2 }

// Do sends a request and reads all of the answer; it is an error when that did not come.
func (s *Store) Do(ctx context.Context, method, target, contentType string, body []byte) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.HTTP+target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Accept", "application/x-ndjson")
	response, err := s.client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Body: string(text)}, nil
}

// Row is a line as a query gives it back.
type Row struct {
	Notice string `json:"notice"`
	N      *int64 `json:"n"`
	Line   string `json:"_line"`
	// Error stands in a row of its own when the query fails half way.
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Rows asks for all lines.
func (s *Store) Rows(ctx context.Context) ([]Row, Answer, error) {
	answer, err := s.Do(ctx, "POST", "/api/v1/sql", "text/plain", []byte("SELECT n, _line FROM logs"))
	if err != nil {
		return nil, answer, err
	}
	if !answer.Good() {
		return nil, answer, fmt.Errorf("the query was answered %d: %s", answer.Status, strings.TrimSpace(answer.Body))
	}
	var rows []Row
	for decoder := json.NewDecoder(strings.NewReader(answer.Body)); ; {
		var row Row
		switch err := decoder.Decode(&row); {
		case errors.Is(err, io.EOF):
			return rows, answer, nil
		case err != nil:
			return nil, answer, fmt.Errorf("a row is no JSON: %w", err)
		case row.Error != nil:
			return nil, answer, fmt.Errorf("the query failed half way: %s", row.Error.Message)
		case row.Notice != "":
			continue // noticeOf looks at it
		}
		rows = append(rows, row)
	}
}

// Count asks how many lines there are.
func (s *Store) Count(ctx context.Context) (int64, error) {
	answer, err := s.Do(ctx, "POST", "/api/v1/sql", "text/plain", []byte("SELECT count(*) AS n FROM logs"))
	if err != nil {
		return 0, err
	}
	var row Row
	if err := json.Unmarshal([]byte(answer.Body), &row); err != nil || row.N == nil {
		return 0, fmt.Errorf("count(*) was answered %d: %s", answer.Status, strings.TrimSpace(answer.Body))
	}
	return *row.N, nil
}

// Metric is the value of a metric without labels. OpenMetrics adds `_total` to the names of counters.
func (s *Store) Metric(ctx context.Context, name string) (float64, error) {
	answer, err := s.Do(ctx, "GET", "/metrics", "", nil)
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(answer.Body, "\n") {
		found, value, _ := strings.Cut(line, " ")
		if found == name || found == name+"_total" {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %q", name)
}

// copyDir copies a data directory whose store has ended.
func copyDir(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, below)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
}
