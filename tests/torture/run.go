// Package torture puts the store's promise to the test with real processes: what was acknowledged is there, once and
// unchanged, whatever happens to the process, the power, the disk or the files.
//
// Each scenario has a file of its own; faults.c is the disk that fails; cmd/torture is the command line, and the short
// form is `go test`. It knows the store by its public protocols and by docs/format.md only.
package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Run is what all scenarios of one run share.
type Run struct {
	// Binary is the store.
	Binary string
	// Seed repeats the moments of a run.
	Seed uint64
	// Keep leaves the data directories of failures for a look.
	Keep bool
	// Log takes a line of progress.
	Log func(format string, arguments ...any)

	tempDir string
	library string // faults.c, built

	mutex  sync.Mutex
	stores []*Store
}

// Open prepares a run: a temporary directory (below TMPDIR), and the built fault layer in it.
func (r *Run) Open() error {
	dir, err := os.MkdirTemp("", "quiver-torture-")
	if err != nil {
		return err
	}
	// SQLite asks for the real path, and the layer compares paths as texts.
	if r.tempDir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	r.library, err = buildFaults(r.tempDir)
	return err
}

// Close ends what still runs and removes what was made.
func (r *Run) Close() error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, store := range r.stores {
		store.Kill()
	}
	if r.Keep {
		r.Log("kept: %s", r.tempDir)
		return nil
	}
	return os.RemoveAll(r.tempDir)
}

func (r *Run) track(store *Store) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	running := r.stores[:0]
	for _, known := range r.stores {
		select {
		case <-known.ended:
			_ = os.Remove(known.logPath)
		default:
			running = append(running, known)
		}
	}
	r.stores = append(running, store)
}

// dir makes a directory for the data of a scenario.
func (r *Run) dir(name string) (string, error) {
	return os.MkdirTemp(r.tempDir, name+"-")
}

func (r *Run) random(scenario uint64) *rand.Rand { return rand.New(rand.NewPCG(r.Seed, scenario)) }

// Report is what came out of a scenario.
type Report struct {
	Scenario string
	Seed     uint64
	// Rounds of what the scenario does: kills, cuts, faults, damages.
	Rounds int
	Counts
	// Notes are worth knowing; Failures break the promise.
	Notes    []string
	Failures []string
	Elapsed  time.Duration

	started time.Time
}

func (r *Run) report(scenario string) *Report {
	r.Log("%s: seed %d", scenario, r.Seed)
	return &Report{Scenario: scenario, Seed: r.Seed, started: time.Now()}
}

func (r *Report) fail(format string, arguments ...any) {
	r.Failures = append(r.Failures, withoutNames(fmt.Sprintf(format, arguments...)))
}

func (r *Report) note(format string, arguments ...any) {
	r.Notes = append(r.Notes, withoutNames(fmt.Sprintf(format, arguments...)))
}

func (r *Report) done() *Report {
	r.Elapsed = time.Since(r.started).Round(time.Millisecond)
	return r
}

// String is the report as text: counts first, then what broke.
func (r *Report) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %d rounds, %s, seed %d, %s", r.Scenario, r.Rounds, r.Counts, r.Seed, r.Elapsed)
	for _, line := range counted(r.Notes) {
		fmt.Fprintf(&text, "\n  note: %s", line)
	}
	for _, line := range counted(r.Failures) {
		fmt.Fprintf(&text, "\n  FAILED: %s", line)
	}
	return text.String()
}

// counted gives each text once, with how often it came.
func counted(lines []string) []string {
	times := map[string]int{}
	var different []string
	for _, line := range lines {
		if times[line]++; times[line] == 1 {
			different = append(different, line)
		}
	}
	for at, line := range different {
		if times[line] > 1 {
			different[at] = fmt.Sprintf("%s (%d times)", line, times[line])
		}
	}
	return different
}

// pause waits for the moment of a fault: a time, not a condition, since the moment is what is tested.
func pause(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}

// until asks again and again whether something is so, and says at last whether it was in time.
func until(ctx context.Context, atMost time.Duration, is func() bool) bool {
	for deadline := time.Now().Add(atMost); time.Now().Before(deadline) && ctx.Err() == nil; {
		if is() {
			return true
		}
		pause(ctx, 20*time.Millisecond)
	}
	return is()
}

// millis is a random time.
func millis(random *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+random.IntN(to-from)) * time.Millisecond
}
