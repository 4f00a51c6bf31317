// Package store runs the `quiver` binary as a child process and knows its addresses.
//
// It is not a client: package push writes to the store, the plugin reads from it.
// Invariant: a Store that Start returned has said it is ready, and Stop or Kill end it.
package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 30 * time.Second
)

// readyLine is what `quiver serve` prints on stdout, once, when both ports accept requests.
var readyLine = regexp.MustCompile(`^quiver is ready: http=(\S+) grpc=(\S+) data=(.+)$`)

// Options of a store. Addresses default to port 0 of the loopback interface.
type Options struct {
	Binary  string
	DataDir string
	HTTP    string
	GRPC    string
	// Env holds additional settings, such as QUIVER_SERVER_AUTH_TOKENS=secret.
	Env []string
	// Logs receives the store's own log, which it writes to stderr.
	Logs io.Writer
}

// Store is a running store.
type Store struct {
	HTTP    string
	GRPC    string
	DataDir string

	command *exec.Cmd
	ended   chan struct{}
	err     error // of the process; read after ended is closed
}

// Start starts the store and waits until it is ready.
func Start(ctx context.Context, options Options) (*Store, error) {
	if options.HTTP == "" {
		options.HTTP = "127.0.0.1:0"
	}
	if options.GRPC == "" {
		options.GRPC = "127.0.0.1:0"
	}
	command := exec.Command(options.Binary, "serve",
		"--data-dir", options.DataDir, "--http", options.HTTP, "--grpc", options.GRPC)
	command.Env = append(os.Environ(), options.Env...)
	command.Stderr = options.Logs
	// Its own process group: a Ctrl-C in the terminal reaches only us, and we end our children in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start store %q: %w", options.Binary, err)
	}
	store := &Store{DataDir: options.DataDir, command: command, ended: make(chan struct{})}
	ready := make(chan [2]string, 1)
	go func() {
		defer close(store.ended)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if match := readyLine.FindStringSubmatch(lines.Text()); match != nil {
				select {
				case ready <- [2]string{match[1], match[2]}:
				default:
				}
			}
		}
		store.err = command.Wait()
	}()
	return store, store.awaitReady(ctx, ready)
}

func (s *Store) awaitReady(ctx context.Context, ready <-chan [2]string) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	var err error
	select {
	case addresses := <-ready:
		s.HTTP, s.GRPC = addresses[0], addresses[1]
		return nil
	case <-s.ended:
		return fmt.Errorf("store ended before it was ready: %w", orExited(s.err))
	case <-timeout.C:
		err = fmt.Errorf("store printed no line like %q within %s", readyLine, startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Kill()
	return err
}

func orExited(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}

// Pid is the store's process id.
func (s *Store) Pid() int { return s.command.Process.Pid }

// Stop sends SIGTERM and waits; the store drains, flushes and exits 0. Anything else is an error.
func (s *Store) Stop() error {
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(stopTimeout):
		s.Kill()
		return fmt.Errorf("store did not end within %s of SIGTERM", stopTimeout)
	}
	if s.err != nil {
		return fmt.Errorf("store ended with an error: %w", s.err)
	}
	return nil
}

// Kill sends SIGKILL and waits.
func (s *Store) Kill() {
	_ = s.command.Process.Kill() // already gone is what we want
	<-s.ended
}
