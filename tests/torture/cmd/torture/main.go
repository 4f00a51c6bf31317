// Torture runs the durability scenarios in their long form.
//
//	torture --quiver BINARY [--seed N] [--only kill,cut,eio,full,wal,damage] [--kills 1000] [--cuts 200] …
//
// It prints a report per scenario and exits 1 when one has failures.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quiver/tests/torture"
)

type settings struct {
	run  torture.Run
	only string
	// fsyncKinds fail, of torture.FsyncKinds.
	fsyncKinds string

	kills, cuts, fsyncs, disks, step, flips, damages int
}

func main() {
	var set settings
	flag.StringVar(&set.run.Binary, "quiver", "", "the store's binary")
	flag.Uint64Var(&set.run.Seed, "seed", uint64(time.Now().UnixNano()), "repeats the moments of a run")
	flag.BoolVar(&set.run.Keep, "keep", false, "leave the data directories of failures")
	flag.StringVar(&set.only, "only", "kill,cut,eio,full,wal,damage", "scenarios")
	flag.IntVar(&set.kills, "kills", 1000, "kills under load")
	flag.IntVar(&set.cuts, "cuts", 200, "power cuts under load")
	flag.IntVar(&set.fsyncs, "fsyncs", 16, "failing fsyncs of each kind")
	flag.StringVar(&set.fsyncKinds, "fsync-kinds", torture.FsyncKinds, "which fsyncs fail")
	flag.IntVar(&set.disks, "disks", 3, "full disks")
	flag.IntVar(&set.step, "step", 1, "the log is cut at one of so many bytes")
	flag.IntVar(&set.flips, "flips", 300, "bits flipped in the log")
	flag.IntVar(&set.damages, "damages", 20, "times each damage of segments and catalog")
	flag.Parse()
	if set.run.Binary == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failures, err := set.torture(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
	}
	if err != nil || failures > 0 {
		os.Exit(1)
	}
}

func (s *settings) torture(ctx context.Context) (failures int, err error) {
	if s.run.Binary, err = filepath.Abs(s.run.Binary); err != nil {
		return 0, err
	}
	s.run.Log = func(format string, arguments ...any) { fmt.Printf(format+"\n", arguments...) }
	if err := s.run.Open(); err != nil {
		return 0, err
	}
	defer func() {
		if closed := s.run.Close(); err == nil {
			err = closed
		}
	}()
	scenarios := map[string]func() (*torture.Report, error){
		"kill":   func() (*torture.Report, error) { return torture.Kill(ctx, &s.run, s.kills) },
		"cut":    func() (*torture.Report, error) { return torture.PowerCut(ctx, &s.run, s.cuts) },
		"eio":    func() (*torture.Report, error) { return torture.FsyncError(ctx, &s.run, s.fsyncKinds, s.fsyncs) },
		"full":   func() (*torture.Report, error) { return torture.FullDisk(ctx, &s.run, s.disks) },
		"wal":    func() (*torture.Report, error) { return torture.WALDamage(ctx, &s.run, s.step, s.flips) },
		"damage": func() (*torture.Report, error) { return torture.Damage(ctx, &s.run, s.damages) },
	}
	for name := range strings.SplitSeq(s.only, ",") {
		scenario, known := scenarios[name]
		if !known {
			return failures, fmt.Errorf("there is no scenario %q", name)
		}
		report, err := scenario()
		if err != nil {
			return failures, fmt.Errorf("%s, seed %d: %w", name, s.run.Seed, err)
		}
		fmt.Println(report)
		failures += len(report.Failures)
	}
	return failures, ctx.Err()
}
