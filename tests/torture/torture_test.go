package torture

// The short form: QUIVER_BIN names the store, QUIVER_SEED repeats a run.

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

var (
	seed = flag.Uint64("seed", 0, "repeats the moments of a run (0: another each time); QUIVER_SEED does too")
	keep = flag.Bool("keep", false, "leave what failed on disk")
)

func scenario(t *testing.T, run func(context.Context, *Run) (*Report, error)) {
	t.Helper()
	binary := os.Getenv("QUIVER_BIN")
	if binary == "" {
		t.Fatal("QUIVER_BIN has to name the store's binary; `make test-torture` does")
	}
	if *seed == 0 {
		*seed, _ = strconv.ParseUint(os.Getenv("QUIVER_SEED"), 10, 64)
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	shared := &Run{Binary: binary, Seed: *seed, Keep: *keep, Log: t.Logf}
	if err := shared.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shared.Close(); err != nil {
			t.Error(err)
		}
	}()
	report, err := run(t.Context(), shared)
	if err != nil {
		t.Fatalf("seed %d: %v", *seed, err)
	}
	fmt.Println(report)
	if len(report.Failures) > 0 {
		t.Errorf("%d failures, seed %d", len(report.Failures), *seed)
	}
}

func TestKills(t *testing.T) {
	scenario(t, func(ctx context.Context, run *Run) (*Report, error) { return Kill(ctx, run, 50) })
}

func TestPowerCuts(t *testing.T) {
	scenario(t, func(ctx context.Context, run *Run) (*Report, error) { return PowerCut(ctx, run, 15) })
}

func TestFsyncErrors(t *testing.T) {
	scenario(t, func(ctx context.Context, run *Run) (*Report, error) { return FsyncError(ctx, run, FsyncKinds, 2) })
}

func TestFullDisk(t *testing.T) {
	scenario(t, func(ctx context.Context, run *Run) (*Report, error) { return FullDisk(ctx, run, 1) })
}

func TestWALDamage(t *testing.T) {
	scenario(t, func(ctx context.Context, run *Run) (*Report, error) { return WALDamage(ctx, run, 100, 20) })
}

func TestDamage(t *testing.T) {
	scenario(t, func(ctx context.Context, run *Run) (*Report, error) { return Damage(ctx, run, 2) })
}
