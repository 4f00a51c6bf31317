package torture

// Scenario eio: one fsync fails, of the write-ahead log, a segment, a directory or the catalog, and what it should have
// kept is dropped, as Linux does. Nothing that was acknowledged, before or after, may be gone: not when the process is
// started again, and not when the machine is (then only what was fsynced is there).

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"
)

const (
	// afterFault is how long the load goes on once the fsync has failed; flushes and their second tries lie in it.
	afterFault = 1500 * time.Millisecond
	// faultMax is how long the fault may take to come; some kinds of fsync are rare.
	faultMax = 4 * time.Second
	// dirFsyncs of a new store are tried one after the other: each is of another directory.
	dirFsyncs = 16
	// notReadyMax is how long a store that can't write may go on saying that it is ready.
	notReadyMax = 3 * time.Second
)

// FsyncKinds is what can be hit.
const FsyncKinds = "wal,segment,dir,catalog"

// FsyncError lets so many fsyncs of each kind fail, each in a store of its own.
func FsyncError(ctx context.Context, run *Run, kinds string, each int) (*Report, error) {
	report, random := run.report("eio"), run.random(3)
	firstOfDir := random.IntN(dirFsyncs)
	for at := range each {
		for kind := range strings.SplitSeq(kinds, ",") {
			if ctx.Err() != nil {
				return report.done(), nil
			}
			report.Rounds++
			dir, err := run.dir("eio")
			if err != nil {
				return nil, err
			}
			failed := len(report.Failures)
			if err := eioOnce(ctx, run, report, random, dir, kind, 1+(firstOfDir+at)%dirFsyncs); err != nil {
				return nil, err
			}
			if err := removeUnlessFailed(run, report, dir, failed); err != nil {
				return nil, err
			}
		}
	}
	return report.done(), nil
}

func eioOnce(ctx context.Context, run *Run, report *Report, random *rand.Rand, dir, kind string, nthOfDir int) error {
	dataDir := filepath.Join(dir, "data")
	if err := settle(dataDir); err != nil {
		return err
	}
	nth := map[string]int{"wal": 2 + random.IntN(60), "segment": 1 + random.IntN(6), "dir": nthOfDir, "catalog": 3 + random.IntN(4)}[kind]
	eio := fmt.Sprintf("%s:%d", kind, nth)
	faults := Faults{Shadow: dataDir + ".durable", SyncTime: syncTime, EIO: eio, Events: filepath.Join(dir, "events")}
	if err := beginShadow(dataDir, faults.Shadow); err != nil {
		return err
	}
	var ledger Ledger
	store, err := run.Start(dataDir, smallFlushes, run.env(dataDir, faults))
	if err == nil {
		if status, err := store.Health(ctx); err != nil || status != serving {
			report.fail("%s: gRPC's health before the fault is %d, %v", eio, status, err)
		}
		load := store.load(ctx, 0, 0, random)
		until(ctx, faultMax, func() bool { return faults.happened() != "" })
		pause(ctx, afterFault)
		notReady := kind == "wal" && faults.happened() != "" && saysNotReady(ctx, store)
		if _, err := store.Count(ctx); err != nil {
			report.fail("%s: a query fails: %v", eio, err)
		}
		written := load.Wait()
		ledger.add(written)
		if eioRefusals(report, written, kind) && kind == "wal" && !notReady {
			report.note("wal: /ready says 200 although the log can't be written")
		}
		if notReady && !saysNotServing(ctx, store) {
			report.fail("wal: gRPC's health does not follow /ready")
		}
		if random.IntN(2) == 0 {
			if err := store.Stop(); err != nil {
				report.note("%s: SIGTERM ends the store with %v", kind, err)
			}
		}
		store.Kill()
		if panicked := panicOf(store.Log()); panicked != "" {
			report.fail("%s: the store panicked: %s", kind, panicked)
		}
	} else {
		report.note("%s: refused to start, which is right: %s", kind, lastLine(err.Error()))
	}
	if faults.happened() == "" {
		report.note("%s: this fsync never came", kind)
	}
	process, machine := filepath.Join(dir, "process"), filepath.Join(dir, "machine")
	if err := copyDir(dataDir, process); err != nil {
		return err
	}
	root, err := objectName(dataDir)
	if err != nil {
		return err
	}
	if err := unfold(faults.Shadow, root, machine); err != nil {
		return err
	}
	eioRestart(ctx, run, report, &ledger, process, eio+", started again")
	eioRestart(ctx, run, report, &ledger, machine, eio+", after a reboot")
	return nil
}

func eioRestart(ctx context.Context, run *Run, report *Report, ledger *Ledger, dir, when string) {
	store, err := run.Start(dir, nil, nil)
	if err != nil {
		report.fail("%s: %v", when, err)
		return
	}
	defer store.Kill()
	checkLines(ctx, report, store, ledger, when)
}

func saysNotReady(ctx context.Context, store *Store) bool {
	return until(ctx, notReadyMax, func() bool {
		answer, err := store.Do(ctx, "GET", "/ready", "", nil)
		return err == nil && answer.Status == 503
	})
}

func saysNotServing(ctx context.Context, store *Store) bool {
	return until(ctx, notReadyMax, func() bool {
		status, err := store.Health(ctx)
		return err == nil && status == notServing
	})
}

// eioRefusals judges how writers were answered, and says whether any was refused: a log that failed says so with 503
// until the store is started again. Where the fsync of a new log file failed, the old one goes on and nobody is.
func eioRefusals(report *Report, written []Written, kind string) bool {
	refused := 0
	for _, one := range written {
		if one.Last != nil {
			report.fail("%s: a writer got no answer: %v", kind, one.Last)
		}
		for _, refusal := range one.Refused {
			refused++
			said := strings.TrimSpace(refusal.Body)
			switch {
			case refusal.Status != 503 && refusal.Status != 429:
				report.fail("%s: a writer was answered %d: %s", kind, refusal.Status, said)
			case kind == "wal" && !strings.Contains(said, "write-ahead log"):
				report.fail("%s: the refusal does not name the cause: %s", kind, said)
			}
		}
	}
	if kind != "wal" && refused > 0 {
		report.note("%s: writers were refused", kind)
	}
	return refused > 0
}
