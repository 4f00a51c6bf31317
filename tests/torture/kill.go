package torture

// Scenario kill: a store under load is killed again and again on one directory, also while it starts.

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
)

const (
	// killsPerDir bounds a directory: without compaction every round leaves segments that every query opens.
	killsPerDir = 50
	// startsKilled: one start in so many is killed before it is ready.
	startsKilled = 6
	// endsKilled: one in so many is killed while it ends in order, when it flushes and the catalog's log is checkpointed.
	endsKilled = 4
)

// closing is what a store on its way out says: its server first, then its storage.
var closing = []string{"the store is closing", "the store is shutting down"}

// smallFlushes makes flushes happen within a round.
var smallFlushes = []string{"storage.flush_age_max=100ms", "storage.flush_bytes_max=1MiB"}

// Kill kills a store so many times, and checks after each.
func Kill(ctx context.Context, run *Run, kills int) (*Report, error) {
	report, random := run.report("kill"), run.random(1)
	for report.Rounds < kills && ctx.Err() == nil {
		dir, err := run.dir("kill")
		if err != nil {
			return nil, err
		}
		if err := killDir(ctx, run, report, random, dir, min(killsPerDir, kills-report.Rounds)); err != nil {
			return nil, err
		}
	}
	return report.done(), nil
}

func killDir(ctx context.Context, run *Run, report *Report, random *rand.Rand, dir string, kills int) error {
	var ledger Ledger
	failed := len(report.Failures)
	for round := range kills {
		report.Rounds++
		if random.IntN(startsKilled) == 0 {
			store, err := run.Spawn(dir, smallFlushes, nil)
			if err != nil {
				return err
			}
			pause(ctx, millis(random, 0, 200))
			store.Kill()
			continue
		}
		store, err := run.Start(dir, smallFlushes, nil)
		if err != nil {
			report.fail("after kill %d: %v", report.Rounds-1, err)
			return nil
		}
		checkCount(ctx, report, store, &ledger)
		load := store.load(ctx, int64(round), 0, random)
		pause(ctx, millis(random, 20, 400))
		store.die(ctx, random)
		written := load.Wait()
		refusedNone(report, written)
		ledger.add(written)
		if ctx.Err() != nil {
			break
		}
	}
	final(ctx, run, report, &ledger, dir)
	return removeUnlessFailed(run, report, dir, failed)
}

// die kills a store: mostly at once, sometimes on its orderly way out.
func (s *Store) die(ctx context.Context, random *rand.Rand) {
	if random.IntN(endsKilled) == 0 {
		_ = s.command.Process.Signal(syscall.SIGTERM) // gone already is as good
		pause(ctx, millis(random, 0, 200))
	}
	s.Kill()
}

// checkCount is the cheap check after each restart; final is the exact one.
func checkCount(ctx context.Context, report *Report, store *Store, ledger *Ledger) {
	count, err := store.Count(ctx)
	if err != nil {
		report.fail("round %d: %v", report.Rounds, err)
	} else if count < ledger.acknowledged {
		report.fail("round %d: %d of %d acknowledged lines are there", report.Rounds, count, ledger.acknowledged)
	}
}

// final starts the store once more, checks every line, and ends it in order.
func final(ctx context.Context, run *Run, report *Report, ledger *Ledger, dir string) {
	store, err := run.Start(dir, nil, nil)
	if err != nil {
		report.fail("after round %d: %v", report.Rounds, err)
		return
	}
	checkLines(ctx, report, store, ledger, "after the last round")
	if err := store.Stop(); err != nil {
		report.fail("the store did not end well: %v: %s", err, store.logTail())
	}
}

func checkLines(ctx context.Context, report *Report, store *Store, ledger *Ledger, when string) {
	counts, shown, err := ledger.check(ctx, store)
	report.Counts.add(counts)
	if err != nil {
		report.fail("%s: %v", when, err)
	} else if counts.Broken() {
		report.fail("%s: %s%s", when, counts, shown)
	}
}

// checkLinesOnce is an exact check between rounds, which leaves the counts to the last one.
func checkLinesOnce(ctx context.Context, report *Report, store *Store, ledger *Ledger, when string) {
	counts, shown, err := ledger.check(ctx, store)
	if err != nil {
		report.fail("%s: %v", when, err)
	} else if counts.Broken() {
		report.fail("%s: %s%s; %s", when, counts, shown, store.logTail())
	} else {
		return
	}
	report.Counts.add(counts)
}

// refusedNone holds where nothing fails but the process: then every answer is an acknowledgement, or the store closes.
func refusedNone(report *Report, written []Written) {
	for _, one := range written {
		for _, refusal := range one.Refused {
			if refusal.Status == 503 && (strings.Contains(refusal.Body, closing[0]) || strings.Contains(refusal.Body, closing[1])) {
				continue
			}
			report.fail("a good batch was answered %d: %s", refusal.Status, strings.TrimSpace(refusal.Body))
		}
	}
}

func removeUnlessFailed(run *Run, report *Report, dir string, failedBefore int) error {
	if run.Keep && len(report.Failures) > failedBefore {
		return nil
	}
	return os.RemoveAll(dir)
}
