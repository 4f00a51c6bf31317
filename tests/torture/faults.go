package torture

// The fault layer's other end: it builds faults.c, and tells a store's environment what should fail.

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed faults.c
var faultsSource []byte

func buildFaults(dir string) (string, error) {
	source, library := filepath.Join(dir, "faults.c"), filepath.Join(dir, "faults.so")
	if err := os.WriteFile(source, faultsSource, 0o644); err != nil {
		return "", err
	}
	built := exec.Command("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source, "-lpthread")
	if said, err := built.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cc faults.c: %w: %s", err, said)
	}
	return library, nil
}

// Faults is what the layer does to one process.
type Faults struct {
	// Shadow is where the durable picture goes; empty: none, and fsync reaches the real disk.
	Shadow string
	// SyncTime is how long an fsync takes, when there is a picture.
	SyncTime time.Duration
	// EIO fails the Nth fsync of a kind, once: "wal:3", "segment:1", "dir:2", "catalog:1", "catalogdb:1".
	EIO string
	// Events gets a line when it happened.
	Events string
	// Full is a file; while it exists, the disk is full.
	Full string
}

func (r *Run) env(dataDir string, faults Faults) []string {
	return []string{
		"LD_PRELOAD=" + r.library, "TORTURE_DATA=" + dataDir, "TORTURE_EVENTS=" + faults.Events,
		"TORTURE_EIO=" + faults.EIO, "TORTURE_FULL=" + faults.Full, "TORTURE_SHADOW=" + faults.Shadow,
		"TORTURE_SYNC_US=" + strconv.FormatInt(faults.SyncTime.Microseconds(), 10),
	}
}

// happened says what the layer did, "" when nothing.
func (f Faults) happened() string {
	text, _ := os.ReadFile(f.Events)
	return strings.TrimSpace(string(text))
}
